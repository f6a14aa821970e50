//! What an operator's attributes and operands must satisfy.
//!
//! [`Op::requirement`] is the table of sizes; the compiler fills operands by it and [`Op::check`] holds them against it.

use crate::op::{
    ACTIVATION_TYPES, Activation, Broadcast, MAX_INTEGER_K, NORM_BLOCK, Op, OpError, PANEL, Role,
    attention_codes_len, codes_parameter_bytes,
};
use crate::{DType, Operand, Space};

/// The type of a slot's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// The type of the step's activations: `f32` or `f16`.
    Activation,
    /// `f32`, whatever the activations are.
    F32,
    /// `i32`.
    I32,
    /// `i8`.
    I8,
    /// `u8`: codes.
    U8,
}

impl Holds {
    /// The type, where activations are of type `activation`.
    pub fn dtype(self, activation: DType) -> DType {
        match self {
            Holds::Activation => activation,
            Holds::F32 => DType::F32,
            Holds::I32 => DType::I32,
            Holds::I8 => DType::I8,
            Holds::U8 => DType::U8,
        }
    }
}

/// What must stand in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Number of elements.
    pub elements: u64,
    /// Whether there may be more of them.
    pub at_least: bool,
    /// Their type.
    pub holds: Holds,
    /// Whether the slot may be empty.
    pub optional: bool,
    /// The only space in which it may lie; either, if `None`.
    pub space: Option<Space>,
}

impl Requirement {
    const fn new(elements: u64, holds: Holds) -> Self {
        Requirement {
            elements,
            at_least: false,
            holds,
            optional: false,
            space: None,
        }
    }

    const fn optional(self) -> Self {
        Requirement {
            optional: true,
            ..self
        }
    }

    const fn integers(self) -> Self {
        Requirement {
            holds: Holds::I32,
            ..self
        }
    }

    const fn within(self, space: Space) -> Self {
        Requirement {
            space: Some(space),
            ..self
        }
    }

    /// Size in bytes, where activations are of type `activation`.
    pub fn bytes(&self, activation: DType) -> Option<u64> {
        self.elements
            .checked_mul(self.holds.dtype(activation).size() as u64)
    }
}

fn product<const N: usize>(factors: [u32; N]) -> Option<u64> {
    factors
        .iter()
        .try_fold(1u64, |product, f| product.checked_mul(u64::from(*f)))
}

/// An operand of the step's activation type.
fn activation<const N: usize>(shape: [u32; N]) -> Option<Requirement> {
    Some(Requirement::new(product(shape)?, Holds::Activation))
}

/// A parameter of type `f32`.
fn parameter(elements: u64) -> Option<Requirement> {
    Some(Requirement::new(elements, Holds::F32).within(Space::Weights))
}

/// A matrix in panels: `n` columns (twice as many with [`Activation::Geglu`]), `k` rows.
fn panels(n: u32, k: u64, activation: Activation, codes: bool) -> Option<Requirement> {
    let panels = u64::from(n).div_ceil(PANEL as u64)
        * if activation == Activation::Geglu {
            2
        } else {
            1
        };
    let (k, holds) = if codes {
        (k.checked_next_multiple_of(8)?, Holds::I8)
    } else {
        (k, Holds::Activation)
    };
    let elements = panels.checked_mul(PANEL as u64)?.checked_mul(k)?;
    Some(Requirement::new(elements, holds).within(Space::Weights))
}

/// The columns of a matrix.
fn columns(n: u32, activation: Activation) -> u64 {
    u64::from(n)
        * if activation == Activation::Geglu {
            2
        } else {
            1
        }
}

/// Codes of `[rows, c]`.
fn codes(rows: u64, c: u64, per_row: bool) -> Option<Requirement> {
    let bytes = codes_parameter_bytes(rows, per_row).checked_add(rows.checked_mul(c)?)?;
    Some(Requirement::new(bytes, Holds::U8))
}

/// Codes of `[rows, c]` with one scale.
fn codes_of(rows: u32, c: u32) -> Option<Requirement> {
    codes(rows.into(), c.into(), false)
}

/// The statistics of the blocks of `rows` rows.
fn records(rows: u32, c: u32, ranges: bool) -> Option<Requirement> {
    let numbers = if ranges { 4 } else { 2 };
    u64::from(rows)
        .div_ceil(NORM_BLOCK as u64)
        .checked_mul(c.into())?
        .checked_mul(numbers)
        .map(|n| Requirement::new(n, Holds::F32))
}

/// Codes or activations of `[rows, c]`.
fn matrix(rows: u64, c: u64, is_codes: bool, per_row: bool) -> Option<Requirement> {
    if is_codes {
        codes(rows, c, per_row)
    } else {
        Some(Requirement::new(rows.checked_mul(c)?, Holds::Activation))
    }
}

/// Rows of `columns` elements that begin every `stride` elements.
fn strided(rows: u32, stride: u32, columns: u64) -> Option<Requirement> {
    let elements = u64::from(rows)
        .checked_sub(1)?
        .checked_mul(u64::from(stride))?
        .checked_add(columns)?;
    Some(Requirement::new(elements, Holds::Activation))
}

impl Op {
    /// What must stand in the slot of that name, a GEMM's `x` being floats; `None` if it must be empty. An error if no
    /// buffer could be that large, or if the operator has no such slot.
    pub fn requirement(&self, slot: &'static str) -> Result<Option<Requirement>, OpError> {
        self.requirement_with(slot, false)
    }

    /// As [`Op::requirement`]; `codes` says that the operator is a GEMM whose `x` is codes.
    pub fn requirement_with(
        &self,
        slot: &'static str,
        codes: bool,
    ) -> Result<Option<Requirement>, OpError> {
        let optional = |requirement: Option<Requirement>| requirement.map(Requirement::optional);
        let arena = |requirement: Option<Requirement>| requirement.map(|r| r.within(Space::Arena));
        let required = match self {
            Op::Conv2d(op) => match slot {
                "x" => {
                    let pixels = u64::from(op.in_h) * u64::from(op.in_w);
                    matrix(pixels, op.in_c.into(), codes, false)
                }
                "weight" => product([op.kernel_h, op.kernel_w, op.in_c])
                    .and_then(|k| panels(op.out_c, k, op.activation, codes)),
                "scale" | "sums" if !codes => return Ok(None),
                "scale" => parameter(op.out_c.into()),
                "sums" => parameter(op.out_c.into()).map(Requirement::integers),
                "bias" => optional(parameter(op.out_c.into())),
                "shift" => optional(arena(activation([op.out_c]))),
                "residual" => optional(activation([op.out_h, op.out_w, op.out_c])),
                "out" => activation([op.out_h, op.out_w, op.out_c]),
                _ => None,
            },
            Op::Linear(op) => match slot {
                "x" => matrix(op.rows.into(), op.k.into(), codes, true),
                "x2" if op.k2 == 0 => return Ok(None),
                "x2" => activation([op.rows, op.k2]),
                "weight" => panels(
                    op.n,
                    u64::from(op.k) + u64::from(op.k2),
                    op.activation,
                    codes,
                ),
                "scale" | "sums" if !codes => return Ok(None),
                "scale" => parameter(columns(op.n, op.activation)),
                "sums" => parameter(columns(op.n, op.activation)).map(Requirement::integers),
                "bias" => optional(parameter(columns(op.n, op.activation))),
                "shift" if op.activation == Activation::Geglu => return Ok(None),
                "shift" => optional(arena(activation([op.n]))),
                "residual" => optional(activation([op.rows, op.n])),
                "out" => activation([op.rows, op.n]),
                _ => None,
            },
            Op::GroupNorm(op) => {
                let channels = u64::from(op.c) + u64::from(op.c2);
                let rows = u64::from(op.rows);
                match slot {
                    "x" => activation([op.rows, op.c]),
                    "x2" if op.c2 == 0 => return Ok(None),
                    "x2" => activation([op.rows, op.c2]),
                    "gamma" | "beta" => optional(parameter(channels)),
                    "stats" => (rows.div_ceil(NORM_BLOCK as u64) + 1)
                        .checked_mul(channels)
                        .and_then(|n| n.checked_mul(if op.quantized { 4 } else { 2 }))
                        .map(|n| Requirement::new(n, Holds::F32)),
                    "out" => matrix(rows, channels, op.quantized, false),
                    _ => None,
                }
            }
            Op::LayerNorm(op) => match slot {
                "x" => activation([op.rows, op.c]),
                "out" => matrix(op.rows.into(), op.c.into(), op.quantized, true),
                "gamma" | "beta" => optional(parameter(op.c.into())),
                _ => None,
            },
            Op::Attention(op) => {
                let columns = u64::from(op.heads) * u64::from(op.head_dim);
                match slot {
                    "q" => strided(op.q_rows, op.q_stride, columns),
                    "k" => strided(op.kv_rows, op.k_stride, columns),
                    "v" => strided(op.kv_rows, op.v_stride, columns),
                    "mask" | "codes" if op.integers != (slot == "codes") => return Ok(None),
                    "codes" => attention_codes_len(op.kv_rows, op.heads, op.head_dim)
                        .map(|len| Requirement::new(len, Holds::F32)),
                    "mask" => optional(
                        product([op.q_rows, op.kv_rows]).map(|n| Requirement::new(n, Holds::F32)),
                    ),
                    "out" => activation([op.q_rows, op.heads, op.head_dim]),
                    _ => None,
                }
            }
            Op::Unary(op) => match slot {
                "x" | "out" => activation([op.len]),
                _ => None,
            },
            Op::Affine(op) => match slot {
                "x" | "out" => activation([op.len]),
                _ => None,
            },
            Op::Binary(op) => match (slot, op.broadcast) {
                ("a" | "out", _) | ("b", Broadcast::Same) => activation([op.rows, op.cols]),
                ("b", Broadcast::Row) => activation([op.cols]),
                ("b", Broadcast::Scalar) => activation([1]),
                _ => None,
            },
            Op::Concat(op) => match slot {
                "x" => activation([op.rows, op.c]),
                "x2" => activation([op.rows, op.c2]),
                "out" => u64::from(op.rows)
                    .checked_mul(u64::from(op.c) + u64::from(op.c2))
                    .map(|n| Requirement::new(n, Holds::Activation)),
                _ => None,
            },
            Op::Upsample(op) => match slot {
                "x" => activation([op.in_h, op.in_w, op.c]),
                "out" => activation([op.out_h, op.out_w, op.c]),
                _ => None,
            },
            Op::Embed(op) => match slot {
                "ids" => Some(Requirement::new(op.rows.into(), Holds::I32)),
                "table" => {
                    let holds = if op.quantized {
                        Holds::I8
                    } else {
                        Holds::Activation
                    };
                    product([op.vocab, op.dim])
                        .map(|n| Requirement::new(n, holds).within(Space::Weights))
                }
                "scale" if !op.quantized => return Ok(None),
                "scale" => parameter(op.vocab.into()),
                "positions" => {
                    optional(activation([op.rows, op.dim]).map(|r| r.within(Space::Weights)))
                }
                "out" => activation([op.rows, op.dim]),
                _ => None,
            },
            Op::TimestepEmbedding(op) => match slot {
                "timestep" => Some(Requirement::new(1, Holds::F32)),
                "frequencies" => parameter(op.half.into()),
                "out" => activation([2, op.half]),
                _ => None,
            },
            Op::Softmax(op) => match slot {
                "x" | "out" => activation([op.rows, op.cols]),
                _ => None,
            },
            Op::Copy(op) => match slot {
                "x" => {
                    let axes = [
                        (op.d0, op.s0),
                        (op.d1, op.s1),
                        (op.d2, op.s2),
                        (op.d3, op.s3),
                    ];
                    axes.iter()
                        .try_fold(u64::from(op.offset) + 1, |end, (d, s)| {
                            u64::from(*d)
                                .checked_sub(1)?
                                .checked_mul(u64::from(*s))?
                                .checked_add(end)
                        })
                        .map(|end| Requirement {
                            at_least: true,
                            ..Requirement::new(end, Holds::Activation)
                        })
                }
                "out" => activation([op.d0, op.d1, op.d2, op.d3]),
                _ => None,
            },
            Op::Quantize(op) => match slot {
                "x" => activation([op.rows, op.c]),
                "x2" if op.c2 == 0 => return Ok(None),
                "x2" => activation([op.rows, op.c2]),
                "ranges" => {
                    let blocks = if op.per_row {
                        1
                    } else {
                        u64::from(op.rows).div_ceil(NORM_BLOCK as u64)
                    };
                    Some(Requirement::new(2 * blocks, Holds::F32))
                }
                "out" => matrix(
                    op.rows.into(),
                    u64::from(op.c) + u64::from(op.c2),
                    true,
                    op.per_row,
                ),
                _ => None,
            },
            Op::GroupNormBlocks(op) => match slot {
                "x" => activation([op.rows, op.c]),
                "out" => records(op.rows, op.c, op.ranges),
                _ => None,
            },
            Op::GroupNormMerge(op) => match slot {
                "x" => records(op.rows, op.c, op.quantized),
                "gamma" | "beta" => optional(parameter(op.c.into())),
                "out" => records(1, op.c, op.quantized),
                _ => None,
            },
            Op::GroupNormApply(op) => match slot {
                "x" => activation([op.rows, op.c]),
                "moments" => arena(records(1, op.c, op.quantized)),
                "beta" => optional(parameter(op.c.into())),
                "out" => matrix(op.rows.into(), op.c.into(), op.quantized, false),
                _ => None,
            },
            Op::CodesRows(op) => match slot {
                "x" => arena(codes_of(op.rows, op.c)),
                "out" => codes_of(op.count, op.c),
                _ => None,
            },
        };
        required.map(Some).ok_or(OpError::Size(slot))
    }

    /// The input slot whose buffer may be the output's own.
    pub fn in_place_slot(&self) -> Option<&'static str> {
        match self {
            Op::Conv2d(_) | Op::Linear(_) => Some("residual"),
            Op::Unary(_) | Op::Affine(_) | Op::Softmax(_) => Some("x"),
            Op::Binary(_) => Some("a"),
            Op::Attention(op) if Some(op.q_stride) == op.heads.checked_mul(op.head_dim) => {
                Some("q")
            }
            _ => None,
        }
    }

    /// Multiplications with an addition that the operator's matrix products take (saturated).
    pub fn macs(&self) -> u64 {
        let factors: [u32; 6] = match self {
            Op::Conv2d(op) => [
                op.out_h,
                op.out_w,
                op.out_c,
                op.kernel_h,
                op.kernel_w,
                op.in_c,
            ],
            Op::Linear(op) => {
                let columns = if op.activation == Activation::Geglu {
                    2
                } else {
                    1
                };
                [op.rows, op.n, op.k.saturating_add(op.k2), columns, 1, 1]
            }
            Op::Attention(op) => [op.q_rows, op.kv_rows, op.heads, op.head_dim, 2, 1],
            _ => return 0,
        };
        factors
            .iter()
            .fold(1u64, |product, f| product.saturating_mul(u64::from(*f)))
    }

    fn check_attributes(&self) -> Result<(), OpError> {
        let nonzero =
            |fields: &[(&'static str, u32)]| match fields.iter().find(|(_, value)| *value == 0) {
                Some((name, _)) => Err(OpError::Attribute(name)),
                None => Ok(()),
            };
        let holds = |name, condition: bool| {
            if condition {
                Ok(())
            } else {
                Err(OpError::Attribute(name))
            }
        };
        match self {
            Op::Conv2d(op) => {
                nonzero(&[("in_h", op.in_h), ("in_w", op.in_w), ("in_c", op.in_c)])?;
                nonzero(&[
                    ("out_h", op.out_h),
                    ("out_w", op.out_w),
                    ("out_c", op.out_c),
                ])?;
                nonzero(&[
                    ("kernel_h", op.kernel_h),
                    ("kernel_w", op.kernel_w),
                    ("stride", op.stride),
                ])?;
                holds("up_h", op.up_h >= op.in_h)?;
                holds("up_w", op.up_w >= op.in_w)?;
                holds("pad_top", op.pad_top < op.kernel_h)?;
                holds("pad_left", op.pad_left < op.kernel_w)?;
                // The last output begins before the enlarged input ends.
                let begins = |out: u32, pad: u32| {
                    (u64::from(out) - 1)
                        .checked_mul(op.stride.into())
                        .map(|at| (at, pad))
                };
                let inside = |at: Option<(u64, u32)>, size: u32| {
                    at.is_some_and(|(at, pad)| at < u64::from(size) + u64::from(pad))
                };
                holds("out_h", inside(begins(op.out_h, op.pad_top), op.up_h))?;
                holds("out_w", inside(begins(op.out_w, op.pad_left), op.up_w))?;
                holds("activation", op.activation != Activation::Geglu)
            }
            Op::Linear(op) => {
                nonzero(&[("rows", op.rows), ("k", op.k), ("n", op.n)])?;
                holds("k2", op.k.checked_add(op.k2).is_some())
            }
            Op::GroupNorm(op) => {
                nonzero(&[("rows", op.rows), ("c", op.c), ("groups", op.groups)])?;
                let channels = op.c.checked_add(op.c2);
                holds("c2", channels.is_some())?;
                holds(
                    "groups",
                    channels.is_some_and(|channels| channels % op.groups == 0),
                )?;
                holds("eps", op.eps >= 0.0)?;
                holds(
                    "activation",
                    matches!(op.activation, Activation::None | Activation::Silu),
                )
            }
            Op::LayerNorm(op) => {
                nonzero(&[("rows", op.rows), ("c", op.c)])?;
                holds("eps", op.eps >= 0.0)
            }
            Op::Attention(op) => {
                nonzero(&[("q_rows", op.q_rows), ("kv_rows", op.kv_rows)])?;
                nonzero(&[("heads", op.heads), ("head_dim", op.head_dim)])?;
                let columns = op.heads.checked_mul(op.head_dim);
                holds("head_dim", columns.is_some())?;
                let columns = columns.unwrap_or(u32::MAX);
                holds(
                    "integers",
                    !op.integers || (op.q_rows == op.kv_rows && !op.causal),
                )?;
                holds("q_stride", op.q_stride >= columns)?;
                holds("k_stride", op.k_stride >= columns)?;
                holds("v_stride", op.v_stride >= columns)
            }
            Op::Unary(op) => {
                nonzero(&[("len", op.len)])?;
                holds("activation", op.activation != Activation::Geglu)
            }
            Op::Affine(op) => nonzero(&[("len", op.len)]),
            Op::Binary(op) => nonzero(&[("rows", op.rows), ("cols", op.cols)]),
            Op::Concat(op) => nonzero(&[("rows", op.rows), ("c", op.c), ("c2", op.c2)]),
            Op::Upsample(op) => {
                nonzero(&[("in_h", op.in_h), ("in_w", op.in_w), ("c", op.c)])?;
                holds("out_h", op.out_h >= op.in_h)?;
                holds("out_w", op.out_w >= op.in_w)
            }
            Op::Embed(op) => {
                nonzero(&[("rows", op.rows), ("dim", op.dim), ("vocab", op.vocab)])?;
                holds("vocab", i32::try_from(op.vocab).is_ok())
            }
            Op::TimestepEmbedding(op) => nonzero(&[("half", op.half)]),
            Op::Softmax(op) => nonzero(&[("rows", op.rows), ("cols", op.cols)]),
            Op::Copy(op) => nonzero(&[("d0", op.d0), ("d1", op.d1), ("d2", op.d2), ("d3", op.d3)]),
            Op::Quantize(op) => {
                nonzero(&[("rows", op.rows), ("c", op.c)])?;
                holds("c2", op.c.checked_add(op.c2).is_some())
            }
            Op::GroupNormBlocks(op) => nonzero(&[("rows", op.rows), ("c", op.c)]),
            Op::GroupNormMerge(op) => {
                nonzero(&[("rows", op.rows), ("c", op.c), ("groups", op.groups)])?;
                holds("groups", op.c % op.groups == 0)?;
                holds("eps", op.eps >= 0.0)?;
                holds(
                    "activation",
                    matches!(op.activation, Activation::None | Activation::Silu),
                )
            }
            Op::GroupNormApply(op) => {
                nonzero(&[("rows", op.rows), ("c", op.c), ("groups", op.groups)])?;
                holds("groups", op.c % op.groups == 0)?;
                holds(
                    "activation",
                    matches!(op.activation, Activation::None | Activation::Silu),
                )
            }
            Op::CodesRows(op) => {
                nonzero(&[("c", op.c), ("count", op.count)])?;
                let end = op.first.checked_add(op.count);
                holds("first", end.is_some_and(|end| end <= op.rows))
            }
        }
    }

    /// What a GEMM's attributes must satisfy besides when its `x` is codes.
    fn check_codes(&self) -> Result<(), OpError> {
        let terms = |name, k: Option<u64>| match k {
            Some(k) if k <= MAX_INTEGER_K.into() => Ok(()),
            _ => Err(OpError::Attribute(name)),
        };
        match self {
            Op::Conv2d(op) => terms("in_c", product([op.kernel_h, op.kernel_w, op.in_c])),
            Op::Linear(op) if op.k2 != 0 => Err(OpError::Attribute("k2")),
            Op::Linear(op) => terms("k", Some(op.k.into())),
            _ => Ok(()),
        }
    }

    /// Whether the attributes are within their ranges, and each operand is in a space, of a type and of a size that the
    /// attributes allow; and whether what the step writes overlaps nothing else of the step's, but for the buffer of
    /// [`Op::in_place_slot`] being exactly the output's.
    pub fn check(&self, operands: &[Operand]) -> Result<(), OpError> {
        let slots = self.slots();
        if operands.len() != slots.len() {
            return Err(OpError::OperandCount);
        }
        self.check_attributes()?;
        let dtype = |name| {
            slots
                .iter()
                .zip(operands)
                .find(|(slot, _)| slot.name == name)
                .map(|(_, o)| o.dtype)
        };
        let activation_slot = self.activation_slot();
        let activation = if self.is_of_codes() {
            Some(DType::F16)
        } else {
            dtype(activation_slot).filter(|dtype| ACTIVATION_TYPES.contains(dtype))
        };
        let activation = activation.ok_or(OpError::Type(activation_slot))?;
        let codes = self.takes_codes() && dtype("x") == Some(DType::U8);
        if codes {
            self.check_codes()?;
            if activation != DType::F16 {
                return Err(OpError::Type("out"));
            }
        }
        for (slot, operand) in slots.iter().zip(operands) {
            let Some(required) = self.requirement_with(slot.name, codes)? else {
                if *operand == Operand::EMPTY {
                    continue;
                } else {
                    return Err(OpError::Slot(slot.name));
                }
            };
            if operand.is_empty() {
                if required.optional && *operand == Operand::EMPTY {
                    continue;
                } else {
                    return Err(OpError::Slot(slot.name));
                }
            }
            let space = match slot.role {
                Role::Output | Role::Scratch => Some(Space::Arena),
                Role::Input | Role::Optional => required.space,
            };
            if space.is_some_and(|space| space != operand.space) {
                return Err(OpError::Space(slot.name));
            }
            if operand.dtype != required.holds.dtype(activation) {
                return Err(OpError::Type(slot.name));
            }
            let bytes = required.bytes(activation).ok_or(OpError::Size(slot.name))?;
            let whole = operand.bytes.is_multiple_of(operand.dtype.size() as u64);
            if operand.bytes < bytes || !whole || (operand.bytes != bytes && !required.at_least) {
                return Err(OpError::Size(slot.name));
            }
        }
        self.check_overlap(operands)
    }

    fn check_overlap(&self, operands: &[Operand]) -> Result<(), OpError> {
        let slots = self.slots();
        for (i, (written, operand)) in slots.iter().zip(operands).enumerate() {
            if !matches!(written.role, Role::Output | Role::Scratch) {
                continue;
            }
            for (j, (slot, other)) in slots.iter().zip(operands).enumerate() {
                let in_place = written.role == Role::Output
                    && self.in_place_slot() == Some(slot.name)
                    && operand == other;
                if i != j && operand.overlaps(other) && !in_place {
                    return Err(OpError::Overlap(slot.name));
                }
            }
        }
        Ok(())
    }
}
