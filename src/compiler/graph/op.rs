//! The operators of the graph.
//!
//! They come in two groups. *Source* operators are what a frontend that reads a general graph finds: any rank, the batch
//! axis included, NCHW pictures, row-major. The passes turn them into *kiln* operators, one for one those of a program
//! ([`kiln_package::Op`]): no batch axis, activations `[rows, channels]` or, where rows are pixels of a known picture,
//! `[height, width, channels]`. A graph that still holds a source operator after the last pass cannot be compiled, and
//! the error names that node.
//!
//! A value is of floats or of *codes*: bytes with a scale and a zero point for each row or for the whole tensor, as its
//! producer says ([`Op::codes`]). A GEMM whose `x` is codes computes in integers; nothing else reads codes.
//!
//! Weights stay in their checkpoint's layout (`[out, in, kernel_h, kernel_w]`, `[out, in]`) until they are packed.

pub use kiln_package::{Activation, BinaryKind};

/// An operator with its attributes. The operands stand in the order of [`Op::slots`].
// Each operator's own text says what its attributes are.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    // ---- kiln operators -------------------------------------------------------------------------------------------
    /// `x [h, w, c]`, `weight [o, c, kh, kw]`, `bias [o]`, `shift [1, o]`, `residual [oh, ow, o]` -> `[oh, ow, o]`.
    /// `up` enlarges `x` by nearest neighbour to that size first. `pad` is top, left, bottom, right.
    /// Value: `residual + activation(conv + bias + shift)`.
    Conv2d {
        stride: usize,
        pad: [usize; 4],
        up: Option<[usize; 2]>,
        activation: Activation,
    },
    /// `x [.., k]`, `x2 [.., k2]`, `weight [n, k + k2]`, `bias [n]`, `shift [1, n]`, `residual [.., n]` -> `[.., n]`.
    /// With `Activation::Geglu` the weight is `[2 n, k]`: rows `0..n` are the values, `n..2 n` the gates.
    Linear { activation: Activation },
    /// `x [.., c]`, `x2 [.., c2]`, `gamma [c + c2]`, `beta [c + c2]` -> `[.., c + c2]`, over all rows and the channels of a group.
    /// `quantized` gives codes of the whole tensor, and SiLU at most before.
    GroupNorm {
        groups: usize,
        eps: f32,
        activation: Activation,
        quantized: bool,
    },
    /// `x [.., c]`, `gamma [c]`, `beta [c]` -> `[.., c]`, over each row. `quantized` gives codes of each row.
    LayerNorm { eps: f32, quantized: bool },
    /// `q [.., heads * d]` of `q_rows` rows, `k` and `v` `[.., heads * d]` of `kv_rows`, `mask [q_rows, kv_rows]` -> `q`'s shape.
    /// `integers` computes the products in 8-bit integers: `q` and `k` have equally many rows, no mask, not causal.
    Attention {
        heads: usize,
        scale: f32,
        causal: bool,
        integers: bool,
    },
    /// `x [.., c]`, `x2 [.., c2]` -> codes of `[.., c + c2]`, with a scale and a zero point for each row or for all.
    Quantize { per_row: bool },
    /// A function of each element. Not `Geglu`.
    Unary { activation: Activation },
    /// `x * scale + offset`.
    Affine { scale: f32, offset: f32 },
    /// `a`, `b` of `a`'s shape, or one row of it, or one element -> `a`'s shape.
    Binary { kind: BinaryKind },
    /// `x [.., c]`, `x2 [.., c2]` -> `[.., c + c2]`.
    Concat,
    /// `x [h, w, c]` -> `[size[0], size[1], c]` by nearest neighbour.
    Upsample { size: [usize; 2] },
    /// `ids [..]` (integers), `table [vocab, dim]`, `positions [rows, dim]` -> `[.., dim]`. `quantized` holds the table in
    /// 8-bit integers with a scale for each row.
    Embed { quantized: bool },
    /// `timestep [1]`, `frequencies [half]` -> `[1, 2 half]`: sines, then cosines; the other way round if `cos_first`.
    TimestepEmbedding { cos_first: bool },
    /// Over the last axis.
    Softmax,
    /// A strided read of `x` into a dense tensor of `shape`: the output's element `[i..]` is `x`'s element
    /// `offset + sum of i * stride`; at most four axes.
    Copy {
        shape: Vec<usize>,
        strides: Vec<usize>,
        offset: usize,
    },

    // ---- source operators -----------------------------------------------------------------------------------------
    /// `x [1, c, h, w]`, `weight [o, c, kh, kw]`, `bias [o]`.
    SourceConv { stride: usize, pad: [usize; 4] },
    /// Einstein summation of `a` and `b`, such as `amk,kn->amn`.
    Einsum { equation: String },
    /// Element by element with NumPy's broadcasting.
    SourceBinary { kind: BinaryKind },
    /// A function of each element that no kiln operator has.
    SourceUnary { kind: UnaryKind },
    /// Sum (or mean) over `axes`, which stay with size 1.
    Reduce { kind: ReduceKind, axes: Vec<usize> },
    /// `x / sqrt(mean(x^2) + eps)` over one axis.
    RmsNorm { axis: usize, eps: f32 },
    /// Softmax over one axis of a tensor of any rank.
    SourceSoftmax { axis: usize },
    /// The same elements in the same order under another shape.
    Reshape { shape: Vec<usize> },
    /// Output axis `i` is input axis `perm[i]`.
    Transpose { perm: Vec<usize> },
    /// `x[.., start..end, ..]`.
    Slice {
        axis: usize,
        start: usize,
        end: usize,
    },
    /// Any number of operands along `axis`.
    SourceConcat { axis: usize },
    /// NumPy broadcasting to a shape.
    Expand { shape: Vec<usize> },
    /// `x [1, c, h, w]` -> `[1, c, h * scale[0], w * scale[1]]` by nearest neighbour.
    SourceUpsample { scale: [usize; 2] },
    /// `table[ids]` along the table's axis 0.
    Gather,
    /// `[1, c, h, w]` or `[1, c, n]` -> the same, channels on axis 1; made by the group-norm fusion, gone after `channels-last`.
    SourceGroupNorm {
        groups: usize,
        eps: f32,
        activation: Activation,
    },
}

/// What shares a scale and a zero point in a value of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codes {
    /// Each row; what a Linear reads.
    PerRow,
    /// The whole tensor; what a convolution reads.
    PerTensor,
}

impl Op {
    /// What kind of codes the operator gives; `None` if it gives floats.
    pub fn codes(&self) -> Option<Codes> {
        match self {
            Op::Quantize { per_row: true }
            | Op::LayerNorm {
                quantized: true, ..
            } => Some(Codes::PerRow),
            Op::Quantize { per_row: false }
            | Op::GroupNorm {
                quantized: true, ..
            } => Some(Codes::PerTensor),
            _ => None,
        }
    }
}

/// What a [`Op::SourceUnary`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryKind {
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// The error function.
    Erf,
    /// Sine of radians.
    Sin,
    /// Cosine of radians.
    Cos,
    /// `e^x`
    Exp,
    /// Square root.
    Sqrt,
    /// `1 / sqrt x`
    Rsqrt,
    /// `1 / x`
    Recip,
    /// `-x`
    Neg,
    /// `x * x`
    Square,
    /// Integer to float: the value stays.
    Cast,
}

/// What a [`Op::Reduce`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceKind {
    /// Sum.
    Sum,
    /// Arithmetic mean.
    Mean,
    /// Mean of the squares.
    MeanOfSquares,
}
