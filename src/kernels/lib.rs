//! The arithmetic of Kiln: a folder per operator, a scalar reference in each, and the same bits from every instruction
//! set.
//!
//! An operator is a struct that borrows its operands ([`Linear`], [`Attention`], ...). Its constructor checks every
//! length; the result is a [`Job`], split into phases and tasks by its shape alone. [`run_alone`] runs a job on the
//! calling thread and [`Launch`] shares one among threads. Neither allocates.
//!
//! | file | holds |
//! |---|---|
//! | `element.rs` | `f32` and [`F16`], the types in memory |
//! | `codes.rs` | activations in 8 bits: the buffer and the map to codes |
//! | `isa.rs` | [`Isa`] and [`Kernels`], the proof that this CPU has one |
//! | `job.rs` | [`Job`], [`Launch`] |
//! | `math.rs` | `exp`, `sigmoid`, GELU, `tanh`, `sin` and `cos`, the same everywhere |
//! | `elementwise.rs` | what operators share that treat each element by itself |
//! | `lanes.rs` | sums and maxima of a row in 16 lanes |
//! | `pack.rs` | weight panels |
//! | `arch/` | what is written for one instruction set: portable bodies compiled again under its features |
//! | `output.rs`, `scratch.rs` | an output that tasks share, a thread's scratch |
//! | `registry/` | every kernel by name, with problems to test and to time it |
//!
//! In an operator's folder, `mod.rs` has the struct, `scalar.rs` the reference with the definition of the result, bit
//! for bit, and `portable.rs` the fast body that the compiler vectorizes. What computes in integers is in `int8/` beside
//! the float operator, what only gives codes in `codes.rs`. An operator that only moves data, or treats
//! each element by itself, has one body.

mod affine;
mod arch;
mod attention;
mod binary;
mod codes;
mod codes_rows;
mod concat;
mod copy;
mod element;
mod elementwise;
mod embed;
mod error;
mod gemm;
mod group_norm;
mod isa;
mod job;
mod lanes;
mod layer_norm;
pub mod math;
mod output;
pub mod pack;
mod quantize;
pub mod registry;
mod scratch;
mod softmax;
mod timestep_embedding;
mod unary;
mod upsample;

pub use affine::{Affine, AffineParams};
pub use attention::{
    Attention, AttentionInt8, AttentionInt8Operands, AttentionOperands, AttentionParams,
    codes_len as attention_codes_len, int8_scratch_bytes as attention_int8_scratch_bytes,
    scratch_bytes as attention_scratch_bytes,
};
pub use binary::{Binary, BinaryKind, BinaryParams, Broadcast};
pub use codes::{Quantizer, codes_bytes, codes_start, dequantize};
pub use codes_rows::{CodesRows, CodesRowsParams};
pub use concat::{Concat, ConcatParams};
pub use copy::{Copy, CopyParams};
pub use element::{Element, F16};
pub use embed::{Embed, EmbedParams, Table};
pub use error::ArgumentError;
pub use gemm::{
    Conv2d, Conv2dInt8, Conv2dInt8Operands, Conv2dOperands, Conv2dParams, Linear, LinearInt8,
    LinearInt8Operands, LinearOperands, LinearParams, conv2d_int8_scratch_bytes,
    int8_scratch_bytes as gemm_int8_scratch_bytes, scratch_bytes as gemm_scratch_bytes,
};
pub use group_norm::{
    GroupNorm, GroupNormApply, GroupNormApplyCodes, GroupNormBlocks, GroupNormCodes,
    GroupNormCodesOperands, GroupNormMerge, GroupNormOperands, GroupNormParams, Moment, Moments,
    NORM_BLOCK, codes_stats_len, stats_len,
};
pub use isa::{Isa, IsaError, Kernels};
pub use job::{Job, Launch, run_alone};
pub use layer_norm::{
    LayerNorm, LayerNormCodes, LayerNormParams,
    codes_scratch_bytes as layer_norm_codes_scratch_bytes,
};
pub use quantize::{Quantize, QuantizeParams, ranges_len};
pub use softmax::{Softmax, SoftmaxParams};
pub use timestep_embedding::{TimestepEmbedding, TimestepEmbeddingParams};
pub use unary::{Unary, UnaryParams};
pub use upsample::{Upsample, UpsampleParams};

/// Columns of a weight panel and lanes of a row's sums.
pub const PANEL: usize = 16;

/// The function at the end of a GEMM or of a norm, or on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x`
    None,
    /// `x * sigmoid(x)`
    Silu,
    /// `x * (1 + erf(x / sqrt 2)) / 2`
    Gelu,
    /// `x * sigmoid(1.702 x)`
    QuickGelu,
    /// `max(x, 0)`
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// `value * gelu(gate)` of two columns; only for [`Linear`].
    Geglu,
}

/// What a GEMM adds to its result.
#[derive(Clone, Copy, Debug)]
pub enum Residual<'a, T> {
    /// Nothing.
    None,
    /// What the output's buffer holds.
    InPlace,
    /// These elements, as many as the output's.
    Other(&'a [T]),
}

/// Where an operator that may work in place finds its input.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a, T> {
    /// In the output's buffer.
    InPlace,
    /// Here.
    Other(&'a [T]),
}
