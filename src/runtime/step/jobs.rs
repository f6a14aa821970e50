//! Each operator's job, from its attributes and its operands.

use kiln_kernels::{self as kernels, Element, Kernels};
use kiln_package as package;

use super::super::arena::Plain;
use super::{Operands, StepError};

fn activation(activation: package::Activation) -> kernels::Activation {
    match activation {
        package::Activation::None => kernels::Activation::None,
        package::Activation::Silu => kernels::Activation::Silu,
        package::Activation::Gelu => kernels::Activation::Gelu,
        package::Activation::QuickGelu => kernels::Activation::QuickGelu,
        package::Activation::Relu => kernels::Activation::Relu,
        package::Activation::Tanh => kernels::Activation::Tanh,
        package::Activation::Geglu => kernels::Activation::Geglu,
    }
}

fn conv2d_params(op: package::Conv2d) -> kernels::Conv2dParams {
    kernels::Conv2dParams {
        in_h: op.in_h as usize,
        in_w: op.in_w as usize,
        in_c: op.in_c as usize,
        up_h: op.up_h as usize,
        up_w: op.up_w as usize,
        out_h: op.out_h as usize,
        out_w: op.out_w as usize,
        out_c: op.out_c as usize,
        kernel_h: op.kernel_h as usize,
        kernel_w: op.kernel_w as usize,
        stride: op.stride as usize,
        pad_top: op.pad_top as usize,
        pad_left: op.pad_left as usize,
        activation: activation(op.activation),
    }
}

pub(super) fn conv2d<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Conv2d,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Conv2d<'a, T, T>, StepError> {
    let operands = kernels::Conv2dOperands {
        x: o.read("x")?,
        weight: o.read("weight")?,
        bias: o.optional("bias")?,
        shift: o.optional("shift")?,
        residual: o.residual()?,
        out: o.write("out")?,
    };
    Ok(kernels::Conv2d::new(kernels, conv2d_params(op), operands)?)
}

pub(super) fn conv2d_int8<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Conv2d,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Conv2dInt8<'a, T>, StepError> {
    let operands = kernels::Conv2dInt8Operands {
        x: o.read("x")?,
        weight: o.read("weight")?,
        scale: o.read("scale")?,
        sums: o.read("sums")?,
        bias: o.optional("bias")?,
        shift: o.optional("shift")?,
        residual: o.residual()?,
        out: o.write("out")?,
    };
    Ok(kernels::Conv2dInt8::new(
        kernels,
        conv2d_params(op),
        operands,
    )?)
}

fn linear_params(op: package::Linear) -> kernels::LinearParams {
    kernels::LinearParams {
        rows: op.rows as usize,
        k: op.k as usize,
        k2: op.k2 as usize,
        n: op.n as usize,
        activation: activation(op.activation),
    }
}

pub(super) fn linear<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Linear,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Linear<'a, T, T>, StepError> {
    let operands = kernels::LinearOperands {
        x: o.read("x")?,
        x2: o.optional("x2")?,
        weight: o.read("weight")?,
        bias: o.optional("bias")?,
        shift: o.optional("shift")?,
        residual: o.residual()?,
        out: o.write("out")?,
    };
    Ok(kernels::Linear::new(kernels, linear_params(op), operands)?)
}

pub(super) fn linear_int8<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Linear,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::LinearInt8<'a, T>, StepError> {
    let operands = kernels::LinearInt8Operands {
        x: o.read("x")?,
        weight: o.read("weight")?,
        scale: o.read("scale")?,
        sums: o.read("sums")?,
        bias: o.optional("bias")?,
        shift: o.optional("shift")?,
        residual: o.residual()?,
        out: o.write("out")?,
    };
    Ok(kernels::LinearInt8::new(
        kernels,
        linear_params(op),
        operands,
    )?)
}

pub(super) fn quantize<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Quantize,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Quantize<'a, T>, StepError> {
    let params = kernels::QuantizeParams {
        rows: op.rows as usize,
        c: op.c as usize,
        c2: op.c2 as usize,
        per_row: op.per_row,
    };
    let (x, x2) = (o.read("x")?, o.optional("x2")?);
    Ok(kernels::Quantize::new(
        kernels,
        params,
        x,
        x2,
        o.write("ranges")?,
        o.write("out")?,
    )?)
}

fn group_norm_params(op: package::GroupNorm) -> kernels::GroupNormParams {
    kernels::GroupNormParams {
        rows: op.rows as usize,
        c: op.c as usize,
        c2: op.c2 as usize,
        groups: op.groups as usize,
        eps: op.eps,
        activation: activation(op.activation),
    }
}

pub(super) fn group_norm<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::GroupNorm,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::GroupNorm<'a, T>, StepError> {
    let operands = kernels::GroupNormOperands {
        x: o.read("x")?,
        x2: o.optional("x2")?,
        gamma: o.optional("gamma")?,
        beta: o.optional("beta")?,
        stats: o.write("stats")?,
        out: o.write("out")?,
    };
    let norm = kernels::GroupNorm::new(kernels, group_norm_params(op), operands)?;
    Ok(norm.with_moments(o.moments)?)
}

pub(super) fn group_norm_codes<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::GroupNorm,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::GroupNormCodes<'a, T>, StepError> {
    let operands = kernels::GroupNormCodesOperands {
        x: o.read("x")?,
        x2: o.optional("x2")?,
        gamma: o.optional("gamma")?,
        beta: o.optional("beta")?,
        stats: o.write("stats")?,
        out: o.write("out")?,
    };
    let norm = kernels::GroupNormCodes::new(kernels, group_norm_params(op), operands)?;
    Ok(norm.with_moments(o.moments)?)
}

pub(super) fn group_norm_blocks<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::GroupNormBlocks,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::GroupNormBlocks<'a, T>, StepError> {
    let size = (op.rows as usize, op.c as usize, op.ranges);
    Ok(kernels::GroupNormBlocks::new(
        kernels,
        size,
        o.read("x")?,
        o.write("out")?,
    )?)
}

pub(super) fn group_norm_merge<'a>(
    kernels: Kernels,
    op: package::GroupNormMerge,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::GroupNormMerge<'a>, StepError> {
    let params = kernels::GroupNormParams {
        rows: op.rows as usize,
        c: op.c as usize,
        c2: 0,
        groups: op.groups as usize,
        eps: op.eps,
        activation: activation(op.activation),
    };
    let parameters = (o.optional("gamma")?, o.optional("beta")?);
    let norm = kernels::GroupNormMerge::new(
        kernels,
        params,
        op.quantized,
        o.read("x")?,
        parameters,
        o.write("out")?,
    )?;
    Ok(norm.with_moments(o.moments)?)
}

/// Merging has dealt with epsilon.
fn apply_params(op: package::GroupNormApply) -> kernels::GroupNormParams {
    kernels::GroupNormParams {
        rows: op.rows as usize,
        c: op.c as usize,
        c2: 0,
        groups: op.groups as usize,
        eps: 0.0,
        activation: activation(op.activation),
    }
}

pub(super) fn group_norm_apply<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::GroupNormApply,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::GroupNormApply<'a, T>, StepError> {
    let (x, moments, beta) = (o.read("x")?, o.read("moments")?, o.optional("beta")?);
    Ok(kernels::GroupNormApply::new(
        kernels,
        apply_params(op),
        x,
        moments,
        beta,
        o.write("out")?,
    )?)
}

pub(super) fn group_norm_apply_codes<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::GroupNormApply,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::GroupNormApplyCodes<'a, T>, StepError> {
    let (x, moments, beta) = (o.read("x")?, o.read("moments")?, o.optional("beta")?);
    Ok(kernels::GroupNormApplyCodes::new(
        kernels,
        apply_params(op),
        x,
        moments,
        beta,
        o.write("out")?,
    )?)
}

pub(super) fn codes_rows<'a>(
    kernels: Kernels,
    op: package::CodesRows,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::CodesRows<'a>, StepError> {
    let params = kernels::CodesRowsParams {
        rows: op.rows as usize,
        c: op.c as usize,
        first: op.first as usize,
        count: op.count as usize,
    };
    Ok(kernels::CodesRows::new(
        kernels,
        params,
        o.read("x")?,
        o.write("out")?,
    )?)
}

pub(super) fn layer_norm<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::LayerNorm,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::LayerNorm<'a, T>, StepError> {
    let params = kernels::LayerNormParams {
        rows: op.rows as usize,
        c: op.c as usize,
        eps: op.eps,
    };
    let (gamma, beta) = (o.optional("gamma")?, o.optional("beta")?);
    Ok(kernels::LayerNorm::new(
        kernels,
        params,
        o.read("x")?,
        gamma,
        beta,
        o.write("out")?,
    )?)
}

pub(super) fn layer_norm_codes<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::LayerNorm,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::LayerNormCodes<'a, T>, StepError> {
    let params = kernels::LayerNormParams {
        rows: op.rows as usize,
        c: op.c as usize,
        eps: op.eps,
    };
    let (gamma, beta) = (o.optional("gamma")?, o.optional("beta")?);
    Ok(kernels::LayerNormCodes::new(
        kernels,
        params,
        o.read("x")?,
        gamma,
        beta,
        o.write("out")?,
    )?)
}

fn attention_params(op: package::Attention) -> kernels::AttentionParams {
    kernels::AttentionParams {
        q_rows: op.q_rows as usize,
        kv_rows: op.kv_rows as usize,
        heads: op.heads as usize,
        head_dim: op.head_dim as usize,
        q_stride: op.q_stride as usize,
        k_stride: op.k_stride as usize,
        v_stride: op.v_stride as usize,
        scale: op.scale,
        causal: op.causal,
    }
}

pub(super) fn attention<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Attention,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Attention<'a, T>, StepError> {
    let operands = kernels::AttentionOperands {
        q: o.queries()?,
        k: o.read("k")?,
        v: o.read("v")?,
        mask: o.optional("mask")?,
        out: o.write("out")?,
    };
    Ok(kernels::Attention::new(
        kernels,
        attention_params(op),
        operands,
    )?)
}

pub(super) fn attention_int8<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Attention,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::AttentionInt8<'a, T>, StepError> {
    let operands = kernels::AttentionInt8Operands {
        q: o.queries()?,
        k: o.read("k")?,
        v: o.read("v")?,
        codes: o.write("codes")?,
        out: o.write("out")?,
    };
    Ok(kernels::AttentionInt8::new(
        kernels,
        attention_params(op),
        operands,
    )?)
}

pub(super) fn unary<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Unary,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Unary<'a, T>, StepError> {
    let params = kernels::UnaryParams {
        len: op.len as usize,
        activation: activation(op.activation),
    };
    Ok(kernels::Unary::new(
        kernels,
        params,
        o.source("x")?,
        o.write("out")?,
    )?)
}

pub(super) fn affine<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Affine,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Affine<'a, T>, StepError> {
    let params = kernels::AffineParams {
        len: op.len as usize,
        scale: op.scale,
        offset: op.offset,
    };
    Ok(kernels::Affine::new(
        kernels,
        params,
        o.source("x")?,
        o.write("out")?,
    )?)
}

pub(super) fn binary<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Binary,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Binary<'a, T>, StepError> {
    let kind = match op.kind {
        package::BinaryKind::Add => kernels::BinaryKind::Add,
        package::BinaryKind::Sub => kernels::BinaryKind::Sub,
        package::BinaryKind::Mul => kernels::BinaryKind::Mul,
        package::BinaryKind::Div => kernels::BinaryKind::Div,
    };
    let broadcast = match op.broadcast {
        package::Broadcast::Same => kernels::Broadcast::Same,
        package::Broadcast::Row => kernels::Broadcast::Row,
        package::Broadcast::Scalar => kernels::Broadcast::Scalar,
    };
    let params = kernels::BinaryParams {
        rows: op.rows as usize,
        cols: op.cols as usize,
        kind,
        broadcast,
    };
    Ok(kernels::Binary::new(
        kernels,
        params,
        o.source("a")?,
        o.read("b")?,
        o.write("out")?,
    )?)
}

pub(super) fn concat<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Concat,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Concat<'a, T>, StepError> {
    let params = kernels::ConcatParams {
        rows: op.rows as usize,
        c: op.c as usize,
        c2: op.c2 as usize,
    };
    Ok(kernels::Concat::new(
        kernels,
        params,
        o.read("x")?,
        o.read("x2")?,
        o.write("out")?,
    )?)
}

pub(super) fn upsample<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Upsample,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Upsample<'a, T>, StepError> {
    let params = kernels::UpsampleParams {
        in_h: op.in_h as usize,
        in_w: op.in_w as usize,
        out_h: op.out_h as usize,
        out_w: op.out_w as usize,
        c: op.c as usize,
    };
    Ok(kernels::Upsample::new(
        kernels,
        params,
        o.read("x")?,
        o.write("out")?,
    )?)
}

pub(super) fn embed<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Embed,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Embed<'a, T, T>, StepError> {
    let params = kernels::EmbedParams {
        rows: op.rows as usize,
        dim: op.dim as usize,
        vocab: op.vocab as usize,
    };
    let table = match op.quantized {
        true => kernels::Table::Codes {
            codes: o.read("table")?,
            scale: o.read("scale")?,
        },
        false => kernels::Table::Plain(o.read("table")?),
    };
    let (ids, positions) = (o.read("ids")?, o.optional("positions")?);
    Ok(kernels::Embed::new(
        kernels,
        params,
        ids,
        table,
        positions,
        o.write("out")?,
    )?)
}

pub(super) fn timestep_embedding<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::TimestepEmbedding,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::TimestepEmbedding<'a, T>, StepError> {
    let params = kernels::TimestepEmbeddingParams {
        half: op.half as usize,
        cos_first: op.cos_first,
    };
    let timestep = *o
        .read("timestep")?
        .first()
        .ok_or(StepError::Empty("timestep"))?;
    Ok(kernels::TimestepEmbedding::new(
        kernels,
        params,
        timestep,
        o.read("frequencies")?,
        o.write("out")?,
    )?)
}

pub(super) fn softmax<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Softmax,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Softmax<'a, T>, StepError> {
    let params = kernels::SoftmaxParams {
        rows: op.rows as usize,
        cols: op.cols as usize,
    };
    Ok(kernels::Softmax::new(
        kernels,
        params,
        o.source("x")?,
        o.write("out")?,
    )?)
}

pub(super) fn copy<'a, T: Element + Plain>(
    kernels: Kernels,
    op: package::Copy,
    o: &mut Operands<'_, 'a>,
) -> Result<kernels::Copy<'a, T>, StepError> {
    let params = kernels::CopyParams {
        d: [op.d0, op.d1, op.d2, op.d3].map(|d| d as usize),
        s: [op.s0, op.s1, op.s2, op.s3].map(|s| s as usize),
        offset: op.offset as usize,
    };
    Ok(kernels::Copy::new(
        kernels,
        params,
        o.read("x")?,
        o.write("out")?,
    )?)
}
