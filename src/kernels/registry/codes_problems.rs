use super::{
    Problem, Random, Size, case,
    problems::{ACTIVATIONS, Buffer, conv2d_params, group_norm_params, rows_and_columns},
};
use crate::*;

/// A buffer of codes: any bytes, with scales of usual size and any zero points.
pub(super) fn codes(random: &mut Random, rows: usize, c: usize, per_row: bool) -> Vec<u8> {
    let mut codes = bytes(random, codes_bytes(rows, c, per_row));
    let pairs = if per_row { rows } else { 1 };
    for pair in codes.as_chunks_mut::<8>().0.iter_mut().take(pairs) {
        let scale = (random.plain() + 2.0) / 255.0;
        pair[..4].copy_from_slice(&scale.to_le_bytes());
        pair[4..].copy_from_slice(&(random.below(256) as i32).to_le_bytes());
    }
    codes
}

fn bytes(random: &mut Random, len: usize) -> Vec<u8> {
    // Now and then the ends alone, where narrow sums overflow.
    if random.one_in(6) {
        (0..len)
            .map(|_| if random.one_in(8) { 0 } else { 255 })
            .collect()
    } else {
        (0..len).map(|_| random.below(256) as u8).collect()
    }
}

/// Weights of `n` columns, scales and sums.
pub(super) struct Weights {
    pub panels: Vec<i8>,
    pub scale: Vec<f32>,
    pub sums: Vec<i32>,
}

impl Weights {
    pub fn random(random: &mut Random, n: usize, k: usize, geglu: bool) -> Self {
        let extreme = random.one_in(6);
        let rows = if geglu { 2 * n } else { n };
        let code = |random: &mut Random| {
            if extreme {
                127
            } else {
                (random.below(255) as i32 - 127) as i8
            }
        };
        let codes: Vec<i8> = (0..rows * k).map(|_| code(random)).collect();
        let panels = if geglu {
            pack::pack_i8_geglu_panels(n, k, &codes)
        } else {
            pack::pack_i8_panels(n, k, &codes)
        };
        let scale = (0..rows).map(|_| (random.plain() + 2.0) / 127.0).collect();
        let sums = codes
            .chunks(k)
            .map(|row| row.iter().map(|code| i32::from(*code)).sum())
            .collect();
        Self {
            panels,
            scale,
            sums,
        }
    }
}

pub fn linear_int8<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (rows, k, n, activation) = match size {
        Size::Typical => (1024, 320, 320, Activation::None),
        Size::Awkward => (
            random.pick(&[1, 2, 5, 6, 7, 13, 24, 25, 49, 96, 97, 110]),
            random.pick(&[1, 3, 4, 8, 16, 31, 200, 511, 512, 513, 516, 700]),
            random.pick(&[1, 3, 15, 16, 17, 33, 64, 100, 290]),
            if random.one_in(4) {
                Activation::Geglu
            } else {
                random.pick(ACTIVATIONS)
            },
        ),
    };
    let geglu = activation == Activation::Geglu;
    let halves = if geglu { 2 } else { 1 };
    let params = LinearParams {
        rows,
        k,
        k2: 0,
        n,
        activation,
    };
    let x = codes(random, rows, k, true);
    let Weights {
        panels,
        scale,
        sums,
    } = Weights::random(random, n, k, geglu);
    let bias: Option<Vec<f32>> = random.maybe_values(halves * n);
    let shift: Option<Vec<T>> = random.maybe_values(n).filter(|_| !geglu);
    let residual = Buffer::<T>::random(random, size, rows * n);
    case(
        rows * k * n * halves,
        random.values::<T>(rows * n),
        move |kernels, out, scratches| {
            let operands = LinearInt8Operands {
                x: &x,
                weight: &panels,
                scale: &scale,
                sums: &sums,
                bias: bias.as_deref(),
                shift: shift.as_deref(),
                residual: residual.residual(),
                out,
            };
            scratches.execute(LinearInt8::new(kernels, params, operands));
        },
    )
}

pub fn conv2d_int8<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let params = match size {
        Size::Awkward if random.one_in(2) => in_tiles(random),
        _ => conv2d_params(random, size),
    };
    let p = params;
    let (rows, k, n) = (p.out_h * p.out_w, p.kernel_h * p.kernel_w * p.in_c, p.out_c);
    let x = codes(random, p.in_h * p.in_w, p.in_c, false);
    let Weights {
        panels,
        scale,
        sums,
    } = Weights::random(random, n, k, false);
    let (bias, shift) = (random.maybe_values(n), random.maybe_values(n));
    let residual = Buffer::<T>::random(random, size, rows * n);
    case(
        rows * k * n,
        random.values::<T>(rows * n),
        move |kernels, out, scratches| {
            let operands = Conv2dInt8Operands {
                x: &x,
                weight: &panels,
                scale: &scale,
                sums: &sums,
                bias: bias.as_deref(),
                shift: shift.as_deref(),
                residual: residual.residual(),
                out,
            };
            scratches.execute(Conv2dInt8::new(kernels, params, operands));
        },
    )
}

/// A convolution that is computed in tiles where the instruction set does that: edges that cut tiles, one block of channels
/// and several, few tiles and more than a task has.
fn in_tiles(random: &mut Random) -> Conv2dParams {
    let (in_h, in_w) = (4 + random.below(10), 4 + random.below(10));
    let up = random.pick(&[1, 1, 2]);
    let pad = random.pick(&[0, 1]);
    Conv2dParams {
        in_h,
        in_w,
        in_c: random.pick(&[16, 32, 48, 144, 160]),
        up_h: in_h * up,
        up_w: in_w * up,
        out_h: in_h * up + 2 * pad - 2,
        out_w: in_w * up + 2 * pad - 2,
        out_c: random.pick(&[4, 16, 31, 40]),
        kernel_h: 3,
        kernel_w: 3,
        stride: 1,
        pad_top: pad,
        pad_left: pad,
        activation: random.pick(ACTIVATIONS),
    }
}

pub fn attention_int8<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (q_rows, kv_rows, heads, head_dim) = match size {
        Size::Typical => (1024, 1024, 4, 64),
        Size::Awkward => (
            random.pick(&[1, 5, 12, 77, 96, 97, 200]),
            random.pick(&[1, 5, 16, 77, 127, 128, 129, 300]),
            random.pick(&[1, 2, 3]),
            random.pick(&[1, 8, 16, 30, 40, 64, 70, 130]),
        ),
    };
    let extra = if size == Size::Awkward {
        random.pick(&[0, 0, 3])
    } else {
        0
    };
    let stride = heads * head_dim + extra;
    let params = AttentionParams {
        q_rows,
        kv_rows,
        heads,
        head_dim,
        q_stride: stride,
        k_stride: stride,
        v_stride: stride + extra,
        scale: 1.0 / (head_dim as f32).sqrt(),
        causal: false,
    };
    let q: Vec<T> = random.values(q_rows * stride);
    let (k, v): (Vec<T>, Vec<T>) = (
        random.values(kv_rows * stride),
        random.values(kv_rows * (stride + extra)),
    );
    let work = 2 * q_rows * kv_rows * heads * head_dim;
    case(
        work,
        random.values::<T>(q_rows * heads * head_dim),
        move |kernels, out, scratches| {
            let codes = &mut vec![f32::NAN; attention_codes_len(&params)][..];
            scratches.execute(AttentionInt8::new(
                kernels,
                params,
                AttentionInt8Operands {
                    q: &q,
                    k: &k,
                    v: &v,
                    codes,
                    out,
                },
            ));
        },
    )
}

pub fn quantize<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (rows, c) = rows_and_columns(random, size);
    let rows = if size == Size::Awkward {
        random.pick(&[rows, 64, 65, 130])
    } else {
        rows
    };
    let c2 = if size == Size::Awkward {
        random.pick(&[0, 0, 1, 40])
    } else {
        0
    };
    let per_row = size == Size::Typical || random.one_in(2);
    let (x, x2): (Vec<T>, Vec<T>) = (random.values(rows * c), random.values(rows * c2));
    let out = bytes(random, codes_bytes(rows, c + c2, per_row));
    case(rows * (c + c2), out, move |kernels, out, scratches| {
        let params = QuantizeParams {
            rows,
            c,
            c2,
            per_row,
        };
        let ranges = &mut vec![f32::NAN; ranges_len(rows, per_row)][..];
        let x2 = Some(&x2[..]).filter(|_| c2 > 0);
        scratches.execute(Quantize::new(kernels, params, &x, x2, ranges, out));
    })
}

pub fn group_norm_codes<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let params = group_norm_params(random, size);
    let GroupNormParams { rows, c, c2, .. } = params;
    let channels = c + c2;
    let (x, x2): (Vec<T>, Vec<T>) = (random.values(rows * c), random.values(rows * c2));
    let (gamma, beta) = (random.maybe_values(channels), random.maybe_values(channels));
    let out = bytes(random, codes_bytes(rows, channels, false));
    case(rows * channels, out, move |kernels, out, scratches| {
        let operands = GroupNormCodesOperands {
            x: &x,
            x2: Some(&x2[..]).filter(|_| c2 > 0),
            gamma: gamma.as_deref(),
            beta: beta.as_deref(),
            stats: &mut vec![f32::NAN; codes_stats_len(rows, channels)],
            out,
        };
        scratches.execute(GroupNormCodes::new(kernels, params, operands));
    })
}

pub fn layer_norm_codes<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (rows, c) = rows_and_columns(random, size);
    let x: Vec<T> = random.values(rows * c);
    let (gamma, beta) = (random.maybe_values(c), random.maybe_values(c));
    let out = bytes(random, codes_bytes(rows, c, true));
    case(rows * c, out, move |kernels, out, scratches| {
        let params = LayerNormParams { rows, c, eps: 1e-5 };
        scratches.execute(LayerNormCodes::new(
            kernels,
            params,
            &x,
            gamma.as_deref(),
            beta.as_deref(),
            out,
        ));
    })
}

pub fn embed_int8<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (rows, dim) = rows_and_columns(random, size);
    let vocab = 100;
    let ids: Vec<i32> = (0..rows).map(|_| random.below(vocab) as i32).collect();
    let codes: Vec<i8> = (0..vocab * dim)
        .map(|_| (random.below(255) as i32 - 127) as i8)
        .collect();
    let scale: Vec<f32> = (0..vocab).map(|_| (random.plain() + 2.0) / 127.0).collect();
    let positions = random.maybe_values::<T>(rows * dim);
    case(
        rows * dim,
        random.values::<T>(rows * dim),
        move |kernels, out, scratches| {
            let table = Table::Codes {
                codes: &codes,
                scale: &scale,
            };
            scratches.execute(Embed::new(
                kernels,
                EmbedParams { rows, dim, vocab },
                &ids,
                table,
                positions.as_deref(),
                out,
            ));
        },
    )
}
