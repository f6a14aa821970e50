//! The operators that a program is made of: their attributes, their operands and what both must satisfy.
//!
//! An operator is a row of `u32` attributes and a row of operand slots. All activations of one lane are row-major
//! `[rows, channels]`; a picture-shaped one is `[height, width, channels]` (NHWC without the N, its rows being
//! pixels). Sizes below are elements unless they say bytes.
//!
//! The GEMM family ([`Conv2d`], [`Linear`]) computes, per output element and in this order,
//! `residual + activation(bias + shift + scale * sum over k)`. Its weights are *panels* of 16 output columns:
//! `[ceil(n / 16)][k][16]` for `f32` and `f16`, `[ceil(n / 16)][k / 4][16][4]` with k padded to a multiple of 8 for `i8`;
//! columns past `n` and k past its end are zero. k runs over (kernel row, kernel column, input channel) for convolutions
//! and over the first source's channels, then the second's, for a Linear.
//!
//! *Codes* are a `[rows, c]` of bytes that stand for `scale * (code - zero_point)`, in one `u8` buffer: first
//! `{scale: f32, zero_point: i32}`, the zero point from 0 to 255, for each row (or once for all rows), padded with zeros
//! to a multiple of 64 bytes; then the codes, dense. [`codes_bytes`] is its size.
//!
//! A GEMM whose `x` is codes computes in integers: its weights are `i8`, its output, `shift` and `residual` `f16`, and it
//! has two more operands, for each column of the weights (with [`Activation::Geglu`] all values before all gates) the
//! `scale` (`f32`) of its weights and `sums` (`i32`), the sum of its weights. A convolution takes codes with one scale for
//! all rows and pads with zero points, a Linear codes with a scale for each row and no `x2`. With floats, `scale` and
//! `sums` are empty.

use crate::{DType, Stage};

/// What stands wrong in an operator's attributes or operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpError {
    /// The operator's number is not one of this format version.
    Unknown(u16),
    /// The number of attribute words is not the operator's.
    AttributeCount,
    /// The number of operands is not the operator's.
    OperandCount,
    /// An attribute's word is outside its range; the name is the attribute's.
    Attribute(&'static str),
    /// A slot that must be filled is empty, or one that must be empty is filled.
    Slot(&'static str),
    /// A slot's element type is not one that the operator takes there.
    Type(&'static str),
    /// A slot's size in bytes is not what the attributes say.
    Size(&'static str),
    /// A slot's operand is not in a space that the operator takes there.
    Space(&'static str),
    /// A slot has bytes in common with what the step writes, and may not.
    Overlap(&'static str),
}

/// A `u32` of the attribute row and the Rust type it stands for.
pub trait Word: core::marker::Copy {
    /// The word that stands for the value.
    fn to_word(self) -> u32;
    /// The value, if the word stands for one.
    fn from_word(word: u32) -> Option<Self>;
}

impl Word for u32 {
    fn to_word(self) -> u32 {
        self
    }
    fn from_word(word: u32) -> Option<Self> {
        Some(word)
    }
}

impl Word for bool {
    fn to_word(self) -> u32 {
        self.into()
    }
    fn from_word(word: u32) -> Option<Self> {
        match word {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

/// An attribute that must be finite.
impl Word for f32 {
    fn to_word(self) -> u32 {
        self.to_bits()
    }
    fn from_word(word: u32) -> Option<Self> {
        Some(f32::from_bits(word)).filter(|v| v.is_finite())
    }
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant = $code,)* }
        impl Word for $name {
            fn to_word(self) -> u32 { self as u32 }
            fn from_word(word: u32) -> Option<Self> {
                match word { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// The function at the end of a GEMM or of a norm, or on its own.
    Activation {
        /// `x`
        None = 0,
        /// `x * sigmoid(x)`
        Silu = 1,
        /// `x * (1 + erf(x / sqrt 2)) / 2`
        Gelu = 2,
        /// `x * sigmoid(1.702 x)`, CLIP's
        QuickGelu = 3,
        /// `value * gelu(gate)`: the weights have `2 n` columns, their 16-column panels alternately value and gate;
        /// the bias has `2 n` elements, all values before all gates. Only for [`Linear`].
        Geglu = 4,
        /// `max(x, 0)`
        Relu = 5,
        /// The hyperbolic tangent.
        Tanh = 6,
    }
}

words! {
    /// An operator of two operands.
    BinaryKind {
        /// `a + b`
        Add = 0,
        /// `a - b`
        Sub = 1,
        /// `a * b`
        Mul = 2,
        /// `a / b`
        Div = 3,
    }
}

words! {
    /// How the second operand of a [`Binary`] meets the first, which is `[rows, cols]`.
    Broadcast {
        /// `b` is `[rows, cols]`.
        Same = 0,
        /// `b` is `[cols]`, the same for every row.
        Row = 1,
        /// `b` is `[1]`.
        Scalar = 2,
    }
}

words! {
    /// What may stand in a slot.
    Role {
        /// An arena buffer or weights that the operator reads; must be filled.
        Input = 0,
        /// As `Input`, but may be empty.
        Optional = 1,
        /// An arena buffer that the operator writes; must be filled.
        Output = 2,
        /// An arena buffer of `f32` for the operator's own use during its step.
        Scratch = 3,
    }
}

/// One operand slot of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name in error messages and in the text of a program.
    pub name: &'static str,
    /// What may stand there.
    pub role: Role,
}

macro_rules! ops {
    ($(
        $(#[$meta:meta])*
        $name:ident = $code:literal
        { $($(#[$fmeta:meta])* $field:ident : $ty:ty,)* }
        [ $($slot:ident $role:ident),* ]
    )*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, PartialEq)]
            pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }
            impl $name {
                /// The operand slots, in order.
                pub const SLOTS: &'static [Slot] =
                    &[$(Slot { name: stringify!($slot), role: Role::$role }),*];
            }
        )*

        /// An operator with its attributes.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Op { $($(#[$meta])* $name($name),)* }

        impl Op {
            /// Every operator's number and name.
            pub const ALL: &'static [(u16, &'static str)] = &[$(($code, stringify!($name))),*];

            /// The most attribute words any operator has.
            pub const MAX_WORDS: usize = 24;

            /// The most operand slots any operator has.
            pub const MAX_SLOTS: usize = {
                let counts = [$($name::SLOTS.len()),*];
                let (mut max, mut i) = (0, 0);
                while i < counts.len() {
                    if counts[i] > max {
                        max = counts[i];
                    }
                    i += 1;
                }
                max
            };

            /// The number that stands for the operator in a program.
            pub fn code(&self) -> u16 {
                match self { $(Op::$name(_) => $code,)* }
            }

            /// The operator's name.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$name(_) => stringify!($name),)* }
            }

            /// The operand slots, in order.
            pub fn slots(&self) -> &'static [Slot] {
                match self { $(Op::$name(_) => $name::SLOTS,)* }
            }

            /// Writes the attribute words and returns how many they are.
            pub fn write_words(&self, words: &mut [u32; Self::MAX_WORDS]) -> usize {
                match self { $(Op::$name(op) => {
                    let row = [$(Word::to_word(op.$field)),*];
                    words[..row.len()].copy_from_slice(&row);
                    row.len()
                })* }
            }

            /// Reads an operator from its number and its attribute words.
            pub fn from_words(code: u16, words: &[u32]) -> Result<Self, OpError> {
                match code {
                    $($code => {
                        const FIELDS: &[&str] = &[$(stringify!($field)),*];
                        if words.len() != FIELDS.len() {
                            return Err(OpError::AttributeCount);
                        }
                        let mut words = words.iter();
                        Ok(Op::$name($name {
                            $($field: words
                                .next()
                                .and_then(|w| Word::from_word(*w))
                                .ok_or(OpError::Attribute(stringify!($field)))?,)*
                        }))
                    })*
                    other => Err(OpError::Unknown(other)),
                }
            }

            /// Calls `f` with each attribute's name and value, in order.
            pub fn for_each_attribute(&self, mut f: impl FnMut(&'static str, &dyn core::fmt::Debug)) {
                match self { $(Op::$name(op) => { $(f(stringify!($field), &op.$field);)* })* }
            }
        }
    };
}

ops! {
    /// A two-dimensional convolution over `[in_h, in_w, in_c]`, giving `[out_h, out_w, out_c]`.
    ///
    /// The input is first enlarged to `[up_h, up_w]` by nearest neighbour (source index `floor(i * in / up)`; equal
    /// sizes leave it as it is), then padded with zeros: `pad_top` rows above, `pad_left` columns to the left, and as
    /// many below and to the right as the output needs. `shift` is a vector `[out_c]` computed at run time.
    /// `residual` is `[out_h, out_w, out_c]` and may be the output's own buffer.
    Conv2d = 1 {
        /// Input rows.
        in_h: u32,
        /// Input columns.
        in_w: u32,
        /// Input channels.
        in_c: u32,
        /// Rows after enlarging.
        up_h: u32,
        /// Columns after enlarging.
        up_w: u32,
        /// Output rows.
        out_h: u32,
        /// Output columns.
        out_w: u32,
        /// Output channels.
        out_c: u32,
        /// Kernel rows.
        kernel_h: u32,
        /// Kernel columns.
        kernel_w: u32,
        /// Stride in both directions.
        stride: u32,
        /// Rows of zeros above.
        pad_top: u32,
        /// Columns of zeros to the left.
        pad_left: u32,
        /// Not [`Activation::Geglu`].
        activation: Activation,
    } [x Input, weight Input, scale Optional, sums Optional, bias Optional, shift Optional, residual Optional, out Output]

    /// `[rows, k + k2]` times `[k + k2, n]`. With `k2 > 0` the columns come from two sources, `x` `[rows, k]` and `x2`
    /// `[rows, k2]` (a concatenation that was never made).
    /// `residual` is `[rows, n]` and may be the output's own buffer.
    Linear = 2 {
        /// Rows.
        rows: u32,
        /// Columns of `x`.
        k: u32,
        /// Columns of `x2`; 0 when there is none.
        k2: u32,
        /// Output columns.
        n: u32,
        /// Applied before the residual is added.
        activation: Activation,
    } [x Input, x2 Optional, weight Input, scale Optional, sums Optional, bias Optional, shift Optional, residual Optional, out Output]

    /// Group normalization over `[rows, c + c2]` (two sources as in [`Linear`]), written as one `[rows, c + c2]`.
    /// `gamma` and `beta` are `f32[c + c2]`. `stats` holds `[ceil(rows / 64) + 1][c + c2][2]` `f32`;
    /// `[ceil(rows / 64) + 1][c + c2][4]` when `quantized`.
    GroupNorm = 3 {
        /// Pixels.
        rows: u32,
        /// Channels of `x`.
        c: u32,
        /// Channels of `x2`; 0 when there is none.
        c2: u32,
        /// Groups; divides `c + c2`.
        groups: u32,
        /// Added to the variance.
        eps: f32,
        /// `None` or `Silu`.
        activation: Activation,
        /// `out` is codes with one scale.
        quantized: bool,
    } [x Input, x2 Optional, gamma Optional, beta Optional, stats Scratch, out Output]

    /// Layer normalization of each row of `[rows, c]`; `gamma` and `beta` are `f32[c]`.
    LayerNorm = 4 {
        /// Rows.
        rows: u32,
        /// Columns.
        c: u32,
        /// Added to the variance.
        eps: f32,
        /// `out` is codes with a scale for each row.
        quantized: bool,
    } [x Input, gamma Optional, beta Optional, out Output]

    /// `softmax(scale * q k^T + mask) v` for each head; head `h` reads columns `h * head_dim ..` of `q`, `k` and `v` and
    /// writes the same columns of `out`, `[q_rows, heads * head_dim]`. A row of `q`, `k` or `v` starts every
    /// `*_stride` elements. `mask` is `f32[q_rows, kv_rows]`. Where rows of `q` are as long as those of `out`, `out` may be
    /// `q`'s own buffer.
    ///
    /// With `integers`, both products are sums of products of 8-bit integers; `q_rows` is `kv_rows`, there is no mask, and
    /// `codes` holds [`attention_codes_len`] `f32`.
    Attention = 5 {
        /// Rows of `q` and `out`.
        q_rows: u32,
        /// Rows of `k` and `v`.
        kv_rows: u32,
        /// Heads.
        heads: u32,
        /// Columns of one head.
        head_dim: u32,
        /// Elements from one row of `q` to the next.
        q_stride: u32,
        /// Elements from one row of `k` to the next.
        k_stride: u32,
        /// Elements from one row of `v` to the next.
        v_stride: u32,
        /// Factor of the scores.
        scale: f32,
        /// Row `i` sees the rows `0..=i` only.
        causal: bool,
        /// The products are of 8-bit integers.
        integers: bool,
    } [q Input, k Input, v Input, mask Optional, codes Scratch, out Output]

    /// A function of each element; `out` may be `x`'s own buffer.
    Unary = 6 {
        /// Elements.
        len: u32,
        /// Not `Geglu`.
        activation: Activation,
    } [x Input, out Output]

    /// `x * scale + offset`; `out` may be `x`'s own buffer.
    Affine = 7 {
        /// Elements.
        len: u32,
        /// Factor.
        scale: f32,
        /// Summand.
        offset: f32,
    } [x Input, out Output]

    /// Two operands, element by element; `out` may be `a`'s own buffer.
    Binary = 8 {
        /// Rows of `a` and `out`.
        rows: u32,
        /// Columns of `a` and `out`.
        cols: u32,
        /// The operation.
        kind: BinaryKind,
        /// The shape of `b`.
        broadcast: Broadcast,
    } [a Input, b Input, out Output]

    /// `[rows, c]` and `[rows, c2]` side by side.
    Concat = 9 {
        /// Rows.
        rows: u32,
        /// Columns of `x`.
        c: u32,
        /// Columns of `x2`.
        c2: u32,
    } [x Input, x2 Input, out Output]

    /// Enlarging by nearest neighbour, source index `floor(i * in / out)`.
    Upsample = 10 {
        /// Input rows.
        in_h: u32,
        /// Input columns.
        in_w: u32,
        /// Output rows.
        out_h: u32,
        /// Output columns.
        out_w: u32,
        /// Channels.
        c: u32,
    } [x Input, out Output]

    /// Rows of a table: `out[i] = table[ids[i]] + positions[i]`. `ids` is `i32[rows]`, `table` `[vocab, dim]` row-major,
    /// `positions` `[rows, dim]` of the activations' type, and so is `table` if it is not `quantized`; `scale` is `f32[vocab]`.
    Embed = 11 {
        /// Rows.
        rows: u32,
        /// Columns.
        dim: u32,
        /// Rows of the table; an id outside it is an error of the run.
        vocab: u32,
        /// `table` is `i8`, and `scale` tells what a one of each of its rows stands for; else `scale` is empty.
        quantized: bool,
    } [ids Input, table Input, scale Optional, positions Optional, out Output]

    /// Sinusoidal embedding of `timestep` (`f32[1]`): with `a[i] = timestep * frequencies[i]` (`f32[half]`), `out` is
    /// `[sin a, cos a]`, or `[cos a, sin a]` when `cos_first`; `[1, 2 half]`.
    TimestepEmbedding = 12 {
        /// Half of the columns.
        half: u32,
        /// Cosines before sines (`flip_sin_to_cos`).
        cos_first: bool,
    } [timestep Input, frequencies Input, out Output]

    /// Softmax of each row of `[rows, cols]`; `out` may be `x`'s own buffer.
    Softmax = 13 {
        /// Rows.
        rows: u32,
        /// Columns.
        cols: u32,
    } [x Input, out Output]

    /// `out[i0, i1, i2, i3] = x[offset + i0 s0 + i1 s1 + i2 s2 + i3 s3]`, `out` dense of `[d0, d1, d2, d3]`: transposition, slicing and
    /// repetition alike.
    Copy = 14 {
        /// Output size, outermost.
        d0: u32,
        /// Output size.
        d1: u32,
        /// Output size.
        d2: u32,
        /// Output size, innermost.
        d3: u32,
        /// Elements of `x` per step of `d0`.
        s0: u32,
        /// Elements of `x` per step of `d1`.
        s1: u32,
        /// Elements of `x` per step of `d2`.
        s2: u32,
        /// Elements of `x` per step of `d3`.
        s3: u32,
        /// First element of `x`.
        offset: u32,
    } [x Input, out Output]

    /// The codes of `[rows, c + c2]` (two sources as in [`Linear`]). `ranges` holds `f32`: two for each 64 rows, or two
    /// when `per_row`.
    Quantize = 15 {
        /// Rows.
        rows: u32,
        /// Columns of `x`.
        c: u32,
        /// Columns of `x2`; 0 when there is none.
        c2: u32,
        /// A scale for each row; else one for all.
        per_row: bool,
    } [x Input, x2 Optional, ranges Scratch, out Output]

    /// The first part of a [`GroupNorm`] for a band of its rows: the statistics of each block of 64 rows of `[rows, c]`,
    /// `f32[ceil(rows / 64)][c][2]`, or `[..][c][4]` with `ranges`. The blocks of a picture are those of its bands one after
    /// the other, where each but the last has a multiple of 64 rows.
    GroupNormBlocks = 16 {
        /// Rows of the band.
        rows: u32,
        /// Channels.
        c: u32,
        /// With each channel's extremes, which codes need.
        ranges: bool,
    } [x Input, out Output]

    /// The second part: all blocks of a picture (`x`, as [`GroupNormBlocks`] writes them) merged into the `moments` of
    /// its groups, `f32[c][2]`, or `[c][4]` when `quantized`.
    GroupNormMerge = 17 {
        /// Rows of the whole picture.
        rows: u32,
        /// Channels.
        c: u32,
        /// Groups; divides `c`.
        groups: u32,
        /// Added to the variance.
        eps: f32,
        /// `None` or `Silu`.
        activation: Activation,
        /// With the range of the codes.
        quantized: bool,
    } [x Input, gamma Optional, beta Optional, out Output]

    /// The last part: a band of rows, normalized by the `moments` of the whole picture. All bands' codes have the same scale.
    GroupNormApply = 18 {
        /// Rows of the band.
        rows: u32,
        /// Channels.
        c: u32,
        /// Groups; divides `c`.
        groups: u32,
        /// `None` or `Silu`.
        activation: Activation,
        /// `out` is codes with one scale.
        quantized: bool,
    } [x Input, moments Input, beta Optional, out Output]

    /// The rows `first ..` of the codes of `[rows, c]` with one scale, `count` of them, as codes of their own.
    CodesRows = 19 {
        /// Rows of `x`.
        rows: u32,
        /// Columns.
        c: u32,
        /// The first row that is taken.
        first: u32,
        /// Rows that are taken.
        count: u32,
    } [x Input, out Output]
}

/// Bytes of the codes of `[rows, c]`, with a scale for each row or one for all (saturated).
pub const fn codes_bytes(rows: u64, c: u64, per_row: bool) -> u64 {
    codes_parameter_bytes(rows, per_row).saturating_add(rows.saturating_mul(c))
}

/// Bytes before the codes themselves (saturated).
pub const fn codes_parameter_bytes(rows: u64, per_row: bool) -> u64 {
    let pairs = if per_row { rows } else { 1 };
    let bytes = pairs.saturating_mul(8).saturating_add(63);
    bytes - bytes % 64
}

/// Elements of `codes` of an [`Attention`] with `integers`; `None` if they are more than `u64` counts. For each head
/// `keys (dim4 + dim16) / 4 + 2 keys + dim16`, where `keys` is `kv_rows` rounded up to a multiple of 128, `dim4` and
/// `dim16` `head_dim` to multiples of 4 and 16.
pub fn attention_codes_len(kv_rows: u32, heads: u32, head_dim: u32) -> Option<u64> {
    let (keys, dim) = (
        u64::from(kv_rows).next_multiple_of(128),
        u64::from(head_dim),
    );
    let (dim4, dim16) = (dim.next_multiple_of(4), dim.next_multiple_of(16));
    let codes = (keys / 4).checked_mul(dim4 + dim16)?;
    codes
        .checked_add(2 * keys + dim16)?
        .checked_mul(heads.into())
}

/// The most terms of a sum of products of a code, a weight of 8 bits and a difference of zero points that `i32` holds.
pub const MAX_INTEGER_K: u32 = i32::MAX as u32 / (255 * 127);

impl Op {
    /// The slot whose element type is the operator's activation type: `out`, unless that holds codes or statistics.
    pub fn activation_slot(&self) -> &'static str {
        if self.writes_codes() || matches!(self, Op::GroupNormBlocks(_)) {
            "x"
        } else {
            "out"
        }
    }

    /// Whether it has no operand of the activations' type.
    pub fn is_of_codes(&self) -> bool {
        matches!(self, Op::CodesRows(_))
    }

    /// Whether `out` holds codes.
    pub fn writes_codes(&self) -> bool {
        match self {
            Op::Quantize(_) => true,
            Op::GroupNorm(op) => op.quantized,
            Op::LayerNorm(op) => op.quantized,
            Op::GroupNormApply(op) => op.quantized,
            Op::CodesRows(_) => true,
            _ => false,
        }
    }

    /// Whether it is a GEMM, whose `x` may be codes.
    pub fn takes_codes(&self) -> bool {
        matches!(self, Op::Conv2d(_) | Op::Linear(_))
    }

    /// The operator of a step that is `per_chunk`, for `chunks` of the `max_chunks` that the program is planned for: of the
    /// rows that grow with the context it has that share. Operators that are never `per_chunk` stay as they are.
    pub fn at_chunks(&self, chunks: u32, max_chunks: u32) -> Op {
        let scaled =
            |rows: u32| match u64::from(rows) * u64::from(chunks) / u64::from(max_chunks.max(1)) {
                rows if rows <= u64::from(u32::MAX) => rows as u32,
                _ => u32::MAX,
            };
        match *self {
            Op::Linear(op) => Op::Linear(Linear {
                rows: scaled(op.rows),
                ..op
            }),
            Op::Quantize(op) if op.per_row => Op::Quantize(Quantize {
                rows: scaled(op.rows),
                ..op
            }),
            Op::Attention(op) => Op::Attention(Attention {
                kv_rows: scaled(op.kv_rows),
                ..op
            }),
            other => other,
        }
    }

    /// The rows that [`Op::at_chunks`] changes, if the operator may be `per_chunk` in a program of the stage.
    pub fn chunk_rows(&self, stage: Stage) -> Option<u32> {
        match (self, stage) {
            (Op::Linear(op), Stage::Prompt) => Some(op.rows),
            (Op::Quantize(op), Stage::Prompt) if op.per_row => Some(op.rows),
            (Op::Attention(op), Stage::Step) if !op.integers && !op.causal => Some(op.kv_rows),
            _ => None,
        }
    }
}

/// Columns of a weight panel.
pub const PANEL: usize = 16;

/// Pixels of a block of GroupNorm's statistics.
pub const NORM_BLOCK: usize = 64;

/// The types that may hold activations.
pub const ACTIVATION_TYPES: &[DType] = &[DType::F32, DType::F16];
