//! The weights of a package: packed as the kernels read them, each once, in the order in which they are first used.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};

use kiln_kernels::pack::{self, Matrix, QuantizedWeights};
use kiln_kernels::{Element, F16};
use kiln_package::format::ALIGNMENT;
use kiln_package::{DType, Operand};

use super::PlanError;
use crate::Cancel;
use crate::graph::Weight;

/// How a weight's elements are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// As they are.
    Plain,
    /// Panels.
    Panels(Matrix),
    /// Rows of a table in 8 bits.
    Rows {
        /// Rows.
        n: usize,
        /// Columns.
        k: usize,
    },
    /// What a code counts in each of the `n` columns of 8 bits.
    Scales {
        /// Columns.
        n: usize,
        /// Rows of the product.
        k: usize,
    },
    /// The sum of the codes of each of the `n` columns of 8 bits.
    Sums {
        /// Columns.
        n: usize,
        /// Rows of the product.
        k: usize,
    },
}

/// A weight in its place.
#[derive(Clone, Debug)]
pub struct PlacedWeight {
    /// Name in the checkpoint of its first use.
    pub name: String,
    /// Where it lies among the weights.
    pub operand: Operand,
    weight: Weight,
    form: Form,
}

/// What of a weight's elements is known without reading them again.
#[derive(Clone, Copy, Debug)]
struct Seen {
    digest: u64,
    /// The element farthest from zero and its index.
    largest: (f32, usize),
}

/// All weights of a package.
#[derive(Debug)]
pub struct Weights {
    placed: Vec<PlacedWeight>,
    /// Indices by form, type, and digest of the elements.
    by_digest: HashMap<(Form, DType, u64), Vec<usize>>,
    /// Each weight that was read, by the address that its clones share.
    seen: HashMap<usize, Seen>,
    digest: fn(&[f32]) -> u64,
    bytes: u64,
    /// Asked before each weight is read.
    cancel: Cancel,
}

impl Default for Weights {
    fn default() -> Self {
        Weights::with_digest(digest)
    }
}

impl Weights {
    /// None yet. Planning ends with an error when `cancel` asks to stop.
    pub fn new(cancel: Cancel) -> Self {
        Weights {
            cancel,
            ..Weights::default()
        }
    }

    /// No weights. `digest` gives the same for the same elements; what it gives for others decides only how often
    /// elements are compared.
    pub(super) fn with_digest(digest: fn(&[f32]) -> u64) -> Self {
        Weights {
            placed: Vec::new(),
            by_digest: HashMap::new(),
            seen: HashMap::new(),
            digest,
            bytes: 0,
            cancel: Cancel::default(),
        }
    }

    /// The weights in order.
    pub fn placed(&self) -> &[PlacedWeight] {
        &self.placed
    }

    /// Size of all.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives a weight of `bytes` bytes its place, or finds that of an equal one. Reads it unless it was read before.
    pub fn place(
        &mut self,
        name: &str,
        weight: &Weight,
        form: Form,
        (dtype, bytes): (DType, u64),
    ) -> Result<Operand, PlanError> {
        let floats = matches!(dtype, DType::F32 | DType::F16);
        let stores = match form {
            Form::Plain => floats,
            Form::Panels(_) => floats || dtype == DType::I8,
            Form::Rows { .. } => dtype == DType::I8,
            Form::Scales { .. } => dtype == DType::F32,
            Form::Sums { .. } => dtype == DType::I32,
        };
        if !stores {
            return refuse(name, format!("cannot be stored as {dtype} ({form:?})"));
        }
        let seen = self.see(name, weight)?;
        // The first number that rounds to infinity in the type.
        let (value, i) = seen.largest;
        if dtype == DType::F16 && value.abs() >= 65520.0 {
            return refuse(
                name,
                format!("element {i} is {value}, which {dtype} cannot hold"),
            );
        }
        let alike = self
            .by_digest
            .entry((form, dtype, seen.digest))
            .or_default();
        for index in alike.iter() {
            let other = &self.placed[*index];
            if other.weight.same(weight) || equal(&other.weight, weight) {
                return Ok(other.operand);
            }
        }
        alike.push(self.placed.len());
        let operand = Operand::weights(dtype, self.bytes.next_multiple_of(ALIGNMENT), bytes);
        self.bytes = operand.offset + operand.bytes;
        self.placed.push(PlacedWeight {
            name: name.to_owned(),
            operand,
            weight: weight.clone(),
            form,
        });
        Ok(operand)
    }

    fn see(&mut self, name: &str, weight: &Weight) -> Result<Seen, PlanError> {
        if let Some(seen) = self.seen.get(&weight.address()) {
            return Ok(*seen);
        }
        if self.cancel.asked() {
            return Err(PlanError::Cancelled);
        }
        let values = read(name, weight)?;
        let mut largest = (0.0f32, 0);
        for (i, value) in values.iter().enumerate() {
            if !value.is_finite() {
                return refuse(name, format!("element {i} is {value}"));
            }
            if largest.0.abs() < value.abs() {
                largest = (*value, i);
            }
        }
        let digest = (self.digest)(&values);
        let seen = Seen { digest, largest };
        self.seen.insert(weight.address(), seen);
        Ok(seen)
    }

    /// Writes all weights, each read and packed once, on `threads` threads; `progress` hears of the bytes written.
    pub fn write(
        &self,
        out: &mut impl Write,
        threads: usize,
        mut progress: impl FnMut(u64),
    ) -> io::Result<()> {
        let mut at = 0;
        // A matrix in 8 bits, its scales and its sums stand side by side.
        let mut integers: Option<(Weight, QuantizedWeights)> = None;
        for placed in &self.placed {
            let PlacedWeight {
                name,
                operand,
                weight,
                form,
            } = placed;
            out.write_all(&vec![0; (operand.offset - at) as usize])?;
            let dtype = operand.dtype;
            let packed = match form.integer_rows(dtype) {
                Some((n, k)) => {
                    let known = integers.take().filter(|(known, _)| known.same(weight));
                    let known = match known {
                        Some(known) => known,
                        None => {
                            let values = read(name, weight).map_err(io::Error::other)?;
                            let codes = pack::quantize_weights_on(threads, n, k, &values);
                            (weight.clone(), codes)
                        }
                    };
                    let bytes = integer_bytes(&known.1, *form, threads);
                    integers = Some(known);
                    bytes
                }
                None => {
                    let values = read(name, weight).map_err(io::Error::other)?;
                    float_bytes(&values, *form, dtype, threads)
                }
            };
            if packed.len() as u64 != operand.bytes {
                return Err(io::Error::other(format!(
                    "compiler bug: weight {name:?} takes {} bytes, not {}",
                    packed.len(),
                    operand.bytes
                )));
            }
            out.write_all(&packed)?;
            at = operand.offset + operand.bytes;
            progress(at);
        }
        Ok(())
    }
}

fn refuse<T>(name: &str, problem: String) -> Result<T, PlanError> {
    Err(PlanError::Weight {
        name: name.to_owned(),
        problem,
    })
}

/// A weight's elements, as many as its shape says.
fn read<'w>(name: &str, weight: &'w Weight) -> Result<Cow<'w, [f32]>, PlanError> {
    let values = weight.read();
    if values.len() == weight.len() {
        return Ok(values);
    }
    let (shape, expected, found) = (weight.shape(), weight.len(), values.len());
    refuse(
        name,
        format!("{shape:?} needs {expected} elements, {found} were read"),
    )
}

/// Whether both have the same elements, bit for bit.
fn equal(a: &Weight, b: &Weight) -> bool {
    let (a, b) = (a.read(), b.read());
    a.len() == b.len()
        && a.iter()
            .zip(b.iter())
            .all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Any change of an element changes it but for one in about 2^64.
fn digest(values: &[f32]) -> u64 {
    const LANES: usize = 4;
    let mut lanes = [0xcbf2_9ce4_8422_2325u64; LANES];
    let mix = |lane: u64, bits: u32| {
        (lane ^ u64::from(bits))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    };
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = mix(*lane, value.to_bits());
        }
    }
    let rest = rest.iter().map(|value| u64::from(value.to_bits()));
    lanes
        .into_iter()
        .chain(rest)
        .chain([values.len() as u64])
        .flat_map(|word| [word as u32, (word >> 32) as u32])
        .fold(0, mix)
}

impl Form {
    /// Rows and columns of the matrix that is in 8 bits; `None` if nothing is.
    fn integer_rows(self, dtype: DType) -> Option<(usize, usize)> {
        match (self, dtype) {
            (Form::Panels(matrix), DType::I8) => Some(matrix.rows()),
            (Form::Rows { n, k }, DType::I8) => Some((n, k)),
            (Form::Scales { n, k } | Form::Sums { n, k }, _) => Some((n, k)),
            _ => None,
        }
    }
}

/// The bytes of what belongs to a matrix in 8 bits.
fn integer_bytes(quantized: &QuantizedWeights, form: Form, threads: usize) -> Vec<u8> {
    let bytes = |codes: Vec<i8>| codes.into_iter().map(|code| code as u8).collect();
    match form {
        Form::Panels(matrix) => bytes(matrix.pack_i8(&quantized.codes, threads)),
        Form::Scales { .. } => quantized
            .scale
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        Form::Sums { .. } => quantized
            .sums
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        Form::Rows { .. } | Form::Plain => bytes(quantized.codes.clone()),
    }
}

/// The bytes of floats.
fn float_bytes(values: &[f32], form: Form, dtype: DType, threads: usize) -> Vec<u8> {
    match dtype {
        DType::F16 => arrange::<F16>(values, form, threads)
            .iter()
            .flat_map(|v| v.to_bits().to_le_bytes())
            .collect(),
        _ => arrange::<f32>(values, form, threads)
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
    }
}

/// The elements in their order.
fn arrange<W: Element>(values: &[f32], form: Form, threads: usize) -> Vec<W> {
    match form {
        Form::Panels(matrix) => matrix.pack(values, threads),
        _ => values.iter().map(|v| W::store(*v)).collect(),
    }
}
