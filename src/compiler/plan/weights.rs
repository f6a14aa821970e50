//! The weights of a package: packed as the kernels read them, each once, in the order in which they are first used.

use std::collections::HashMap;
use std::io::{self, Write};

use kiln_kernels::{Element, F16, pack};
use kiln_package::format::ALIGNMENT;
use kiln_package::{DType, Operand};
use sha2::{Digest, Sha256};

use super::PlanError;
use crate::Cancel;
use crate::graph::Weight;

/// How a weight's elements are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// As they are.
    Plain,
    /// Panels of `[n, k]`.
    Panels {
        /// Output columns.
        n: usize,
        /// Rows of the product.
        k: usize,
    },
    /// Panels of `[2 n, k]`, alternately value and gate.
    GegluPanels {
        /// Output columns.
        n: usize,
        /// Rows of the product.
        k: usize,
    },
    /// Panels of `[out_c, in_c, kernel_h, kernel_w]`.
    ConvPanels {
        /// Output channels.
        out_c: usize,
        /// Input channels.
        in_c: usize,
        /// Rows and columns of the kernel.
        kernel: (usize, usize),
    },
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

/// All weights of a package.
#[derive(Debug, Default)]
pub struct Weights {
    placed: Vec<PlacedWeight>,
    /// Indices by the packed bytes' SHA-256 and type.
    by_contents: HashMap<([u8; 32], DType), usize>,
    /// Indices of weights that were packed before, to spare packing them again.
    seen: HashMap<(Form, DType), Vec<(Weight, usize)>>,
    bytes: u64,
    /// Asked before each weight is packed.
    cancel: Cancel,
}

impl Weights {
    /// None yet. Packing and writing end with an error when `cancel` asks to stop.
    pub fn new(cancel: Cancel) -> Self {
        Weights {
            cancel,
            ..Weights::default()
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

    /// Gives a weight its place, or finds it.
    pub fn place(
        &mut self,
        name: &str,
        weight: &Weight,
        form: Form,
        dtype: DType,
    ) -> Result<Operand, PlanError> {
        let seen = self.seen.entry((form, dtype)).or_default();
        if let Some((_, index)) = seen.iter().find(|(other, _)| other.same(weight)) {
            return Ok(self.placed[*index].operand);
        }
        if self.cancel.asked() {
            return Err(PlanError::Cancelled);
        }
        let packed = pack(name, weight, form, dtype)?;
        let key = (Sha256::digest(&packed).into(), dtype);
        let index = *self.by_contents.entry(key).or_insert_with(|| {
            let operand = Operand::weights(
                dtype,
                self.bytes.next_multiple_of(ALIGNMENT),
                packed.len() as u64,
            );
            self.bytes = operand.offset + operand.bytes;
            self.placed.push(PlacedWeight {
                name: name.to_owned(),
                operand,
                weight: weight.clone(),
                form,
            });
            self.placed.len() - 1
        });
        seen.push((weight.clone(), index));
        Ok(self.placed[index].operand)
    }

    /// Writes all weights, each packed anew; `progress` hears of the bytes written.
    pub fn write(&self, out: &mut impl Write, mut progress: impl FnMut(u64)) -> io::Result<()> {
        let mut at = 0;
        for placed in &self.placed {
            let PlacedWeight {
                name,
                operand,
                weight,
                form,
            } = placed;
            out.write_all(&vec![0; (operand.offset - at) as usize])?;
            let packed = pack(name, weight, *form, operand.dtype).map_err(io::Error::other)?;
            if packed.len() as u64 != operand.bytes {
                return Err(io::Error::other(format!(
                    "weight {name:?} has changed while the package was written"
                )));
            }
            out.write_all(&packed)?;
            at = operand.offset + operand.bytes;
            progress(at);
        }
        Ok(())
    }
}

/// The bytes of a weight.
fn pack(name: &str, weight: &Weight, form: Form, dtype: DType) -> Result<Vec<u8>, PlanError> {
    let values = weight.read();
    let refuse = |problem: String| {
        Err(PlanError::Weight {
            name: name.to_owned(),
            problem,
        })
    };
    if values.len() != weight.len() {
        return refuse(format!(
            "{:?} needs {} elements, {} were read",
            weight.shape(),
            weight.len(),
            values.len()
        ));
    }
    // The first number that rounds to infinity in the type.
    let limit = if dtype == DType::F16 {
        65520.0
    } else {
        f32::INFINITY
    };
    if let Some((i, value)) = values
        .iter()
        .enumerate()
        .find(|(_, v)| v.is_nan() || v.abs() >= limit)
    {
        return refuse(format!("element {i} is {value}, which {dtype} cannot hold"));
    }
    let bytes = |codes: Vec<i8>| codes.into_iter().map(|code| code as u8).collect();
    match (form, dtype) {
        (Form::Scales { n, k }, DType::F32) => Ok(pack::quantize_weights(n, k, &values)
            .scale
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect()),
        (Form::Sums { n, k }, DType::I32) => Ok(pack::quantize_weights(n, k, &values)
            .sums
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect()),
        (Form::Rows { n, k }, DType::I8) => Ok(bytes(pack::quantize_weights(n, k, &values).codes)),
        (Form::Panels { n, k }, DType::I8) => Ok(bytes(pack::pack_i8_panels(
            n,
            k,
            &pack::quantize_weights(n, k, &values).codes,
        ))),
        (Form::GegluPanels { n, k }, DType::I8) => Ok(bytes(pack::pack_i8_geglu_panels(
            n,
            k,
            &pack::quantize_weights(2 * n, k, &values).codes,
        ))),
        (
            Form::ConvPanels {
                out_c,
                in_c,
                kernel,
            },
            DType::I8,
        ) => {
            let codes = pack::quantize_weights(out_c, in_c * kernel.0 * kernel.1, &values).codes;
            Ok(bytes(pack::pack_i8_conv_panels(
                out_c, in_c, kernel, &codes,
            )))
        }
        (_, DType::F32) => Ok(arrange::<f32>(&values, form)
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect()),
        (_, DType::F16) => Ok(arrange::<F16>(&values, form)
            .iter()
            .flat_map(|v| v.to_bits().to_le_bytes())
            .collect()),
        (form, dtype) => refuse(format!("cannot be stored as {dtype} ({form:?})")),
    }
}

/// The elements in their order.
fn arrange<W: Element>(values: &[f32], form: Form) -> Vec<W> {
    match form {
        Form::Plain | Form::Rows { .. } | Form::Scales { .. } | Form::Sums { .. } => {
            values.iter().map(|v| W::store(*v)).collect()
        }
        Form::Panels { n, k } => pack::pack_panels(n, k, values),
        Form::GegluPanels { n, k } => pack::pack_geglu_panels(n, k, values),
        Form::ConvPanels {
            out_c,
            in_c,
            kernel,
        } => pack::pack_conv_panels(out_c, in_c, kernel, values),
    }
}
