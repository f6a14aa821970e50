use super::{Problem, Random, Size, case};
use crate::*;

/// A residual or an input: the output's own buffer or another.
pub(super) enum Buffer<T> {
    None,
    InPlace,
    Other(Vec<T>),
}

impl<T: Element> Buffer<T> {
    /// Any of the three; another buffer in a problem of typical size.
    pub(super) fn random(random: &mut Random, size: Size, len: usize) -> Self {
        match random.below(3) {
            0 if size == Size::Awkward => Buffer::None,
            1 if size == Size::Awkward => Buffer::InPlace,
            _ => Buffer::Other(random.values(len)),
        }
    }

    pub(super) fn residual(&self) -> Residual<'_, T> {
        match self {
            Buffer::None => Residual::None,
            Buffer::InPlace => Residual::InPlace,
            Buffer::Other(values) => Residual::Other(values),
        }
    }

    fn source(&self) -> Source<'_, T> {
        match self {
            Buffer::None | Buffer::InPlace => Source::InPlace,
            Buffer::Other(values) => Source::Other(values),
        }
    }
}

pub(super) const ACTIVATIONS: &[Activation] = &[
    Activation::None,
    Activation::Silu,
    Activation::Gelu,
    Activation::QuickGelu,
    Activation::Relu,
    Activation::Tanh,
];

pub fn linear<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (rows, k, k2, n, activation) = match size {
        Size::Typical => (1024, 320, 0, 320, Activation::None),
        Size::Awkward => (
            random.pick(&[1, 2, 5, 6, 7, 13, 24, 25, 49, 96, 97, 110]),
            random.pick(&[1, 3, 16, 31, 200, 256, 257, 300, 530]),
            random.pick(&[0, 0, 1, 17, 250]),
            random.pick(&[1, 3, 15, 16, 17, 33, 64, 100, 290]),
            if random.one_in(4) {
                Activation::Geglu
            } else {
                random.pick(ACTIVATIONS)
            },
        ),
    };
    let halves = if activation == Activation::Geglu {
        2
    } else {
        1
    };
    let params = LinearParams {
        rows,
        k,
        k2,
        n,
        activation,
    };
    let (x, x2) = (random.values::<T>(rows * k), random.values::<T>(rows * k2));
    let weight: Vec<T> = random.values(halves * pack::panel_len(n, k + k2));
    let bias: Option<Vec<f32>> = random.maybe_values(halves * n);
    let shift: Option<Vec<T>> = random.maybe_values(n).filter(|_| halves == 1);
    let residual = Buffer::<T>::random(random, size, rows * n);
    case(
        rows * (k + k2) * n * halves,
        random.values(rows * n),
        move |kernels, out, scratches| {
            let operands = LinearOperands {
                x: &x,
                x2: Some(&x2[..]).filter(|_| k2 > 0),
                weight: &weight,
                bias: bias.as_deref(),
                shift: shift.as_deref(),
                residual: residual.residual(),
                out,
            };
            scratches.execute(Linear::new(kernels, params, operands));
        },
    )
}

/// The attributes of a convolution.
pub(super) fn conv2d_params(random: &mut Random, size: Size) -> Conv2dParams {
    match size {
        Size::Typical => Conv2dParams {
            in_h: 32,
            in_w: 32,
            in_c: 128,
            up_h: 32,
            up_w: 32,
            out_h: 32,
            out_w: 32,
            out_c: 128,
            kernel_h: 3,
            kernel_w: 3,
            stride: 1,
            pad_top: 1,
            pad_left: 1,
            activation: Activation::None,
        },
        Size::Awkward => {
            let (in_h, in_w) = (1 + random.below(9), 1 + random.below(9));
            let (up_h, up_w) = if random.one_in(2) {
                (in_h, in_w)
            } else {
                (in_h + random.below(in_h + 2), in_w + random.below(in_w + 2))
            };
            let (stride, pad) = (
                random.pick(&[1, 1, 2, 3]),
                random.pick(&[(0, 0), (1, 1), (0, 1), (2, 0)]),
            );
            Conv2dParams {
                in_h,
                in_w,
                in_c: random.pick(&[1, 3, 4, 8, 16, 30, 70]),
                up_h,
                up_w,
                out_h: 1 + (up_h + random.below(3)) / stride,
                out_w: 1 + (up_w + random.below(3)) / stride,
                out_c: random.pick(&[1, 4, 16, 31, 40]),
                kernel_h: random.pick(&[1, 2, 3, 3, 3]),
                kernel_w: random.pick(&[1, 2, 3, 3, 3]),
                stride,
                pad_top: pad.0,
                pad_left: pad.1,
                activation: random.pick(ACTIVATIONS),
            }
        }
    }
}

pub fn conv2d<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let params = conv2d_params(random, size);
    let p = params;
    let (rows, k, n) = (p.out_h * p.out_w, p.kernel_h * p.kernel_w * p.in_c, p.out_c);
    let x: Vec<T> = random.values(p.in_h * p.in_w * p.in_c);
    let weight: Vec<T> = random.values(pack::panel_len(n, k));
    let (bias, shift) = (random.maybe_values(n), random.maybe_values(n));
    let residual = Buffer::<T>::random(random, size, rows * n);
    case(
        rows * k * n,
        random.values(rows * n),
        move |kernels, out, scratches| {
            let operands = Conv2dOperands {
                x: &x,
                weight: &weight,
                bias: bias.as_deref(),
                shift: shift.as_deref(),
                residual: residual.residual(),
                out,
            };
            scratches.execute(Conv2d::new(kernels, params, operands));
        },
    )
}

pub fn attention<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (q_rows, kv_rows, heads, head_dim) = match size {
        Size::Typical => (1024, 1024, 4, 64),
        Size::Awkward => (
            random.pick(&[1, 5, 12, 77, 96, 97, 200]),
            random.pick(&[1, 5, 16, 77, 96, 97, 200]),
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
    let causal = size == Size::Awkward && random.one_in(2);
    let params = AttentionParams {
        q_rows,
        kv_rows,
        heads,
        head_dim,
        q_stride: stride,
        k_stride: stride,
        v_stride: stride + extra,
        scale: 1.0 / (head_dim as f32).sqrt(),
        causal,
    };
    let q: Vec<T> = random.values(q_rows * stride);
    let (k, v): (Vec<T>, Vec<T>) = (
        random.values(kv_rows * stride),
        random.values(kv_rows * (stride + extra)),
    );
    let mask: Option<Vec<f32>> = (size == Size::Awkward && random.one_in(3)).then(|| {
        (0..q_rows * kv_rows)
            .map(|_| {
                if random.one_in(4) {
                    f32::NEG_INFINITY
                } else {
                    random.plain()
                }
            })
            .collect()
    });
    let work = 2 * q_rows * kv_rows * heads * head_dim;
    case(
        work,
        random.values(q_rows * heads * head_dim),
        move |kernels, out, scratches| {
            let operands = AttentionOperands {
                q: &q,
                k: &k,
                v: &v,
                mask: mask.as_deref(),
                out,
            };
            scratches.execute(Attention::new(kernels, params, operands));
        },
    )
}

/// The attributes of a group normalization.
pub(super) fn group_norm_params(random: &mut Random, size: Size) -> GroupNormParams {
    let (rows, groups, each, second) = match size {
        Size::Typical => (4096, 32, 10, 0),
        Size::Awkward => (
            random.pick(&[1, 5, 63, 64, 65, 200]),
            random.pick(&[1, 2, 8, 32]),
            random.pick(&[1, 2, 3, 10]),
            random.below(3),
        ),
    };
    let channels = groups * each;
    let c2 = channels * second / 4;
    let activation = random.pick(&[Activation::None, Activation::Silu]);
    GroupNormParams {
        rows,
        c: channels - c2,
        c2,
        groups,
        eps: 1e-5,
        activation,
    }
}

pub fn group_norm<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let params = group_norm_params(random, size);
    let GroupNormParams { rows, c, c2, .. } = params;
    let channels = c + c2;
    let (x, x2): (Vec<T>, Vec<T>) = (
        random.values(rows * (channels - c2)),
        random.values(rows * c2),
    );
    let (gamma, beta) = (random.maybe_values(channels), random.maybe_values(channels));
    case(
        rows * channels,
        random.values(rows * channels),
        move |kernels, out, scratches| {
            let operands = GroupNormOperands {
                x: &x,
                x2: Some(&x2[..]).filter(|_| c2 > 0),
                gamma: gamma.as_deref(),
                beta: beta.as_deref(),
                stats: &mut vec![0.0; stats_len(rows, channels)],
                out,
            };
            scratches.execute(GroupNorm::new(kernels, params, operands));
        },
    )
}

/// Rows and columns of an operator on rows.
pub(super) fn rows_and_columns(random: &mut Random, size: Size) -> (usize, usize) {
    match size {
        Size::Typical => (1024, 320),
        Size::Awkward => (
            random.pick(&[1, 3, 40]),
            random.pick(&[1, 2, 15, 16, 17, 100, 320, 777]),
        ),
    }
}

pub fn layer_norm<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (rows, c) = rows_and_columns(random, size);
    let x: Vec<T> = random.values(rows * c);
    let (gamma, beta) = (random.maybe_values(c), random.maybe_values(c));
    case(
        rows * c,
        random.values(rows * c),
        move |kernels, out, scratches| {
            let params = LayerNormParams { rows, c, eps: 1e-5 };
            scratches.execute(LayerNorm::new(
                kernels,
                params,
                &x,
                gamma.as_deref(),
                beta.as_deref(),
                out,
            ));
        },
    )
}

pub fn softmax<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (rows, cols) = rows_and_columns(random, size);
    let x = Buffer::<T>::random(random, size, rows * cols);
    case(
        rows * cols,
        random.values(rows * cols),
        move |kernels, out, scratches| {
            scratches.execute(Softmax::new(
                kernels,
                SoftmaxParams { rows, cols },
                x.source(),
                out,
            ));
        },
    )
}

pub fn unary<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (rows, cols) = rows_and_columns(random, size);
    let len = rows * cols;
    let activation = if size == Size::Typical {
        Activation::Gelu
    } else {
        random.pick(ACTIVATIONS)
    };
    let x = Buffer::<T>::random(random, size, len);
    case(len, random.values(len), move |kernels, out, scratches| {
        scratches.execute(Unary::new(
            kernels,
            UnaryParams { len, activation },
            x.source(),
            out,
        ));
    })
}

pub fn affine<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (rows, cols) = rows_and_columns(random, size);
    let params = AffineParams {
        len: rows * cols,
        scale: random.plain(),
        offset: random.plain(),
    };
    let x = Buffer::<T>::random(random, size, params.len);
    case(
        params.len,
        random.values(params.len),
        move |kernels, out, scratches| {
            scratches.execute(Affine::new(kernels, params, x.source(), out));
        },
    )
}

pub fn binary<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (rows, cols) = rows_and_columns(random, size);
    let (kind, broadcast) = match size {
        Size::Typical => (BinaryKind::Add, Broadcast::Same),
        Size::Awkward => (
            random.pick(&[
                BinaryKind::Add,
                BinaryKind::Sub,
                BinaryKind::Mul,
                BinaryKind::Div,
            ]),
            random.pick(&[Broadcast::Same, Broadcast::Row, Broadcast::Scalar]),
        ),
    };
    let a = Buffer::<T>::random(random, size, rows * cols);
    let b: Vec<T> = random.values(match broadcast {
        Broadcast::Same => rows * cols,
        Broadcast::Row => cols,
        Broadcast::Scalar => 1,
    });
    case(
        rows * cols,
        random.values(rows * cols),
        move |kernels, out, scratches| {
            let params = BinaryParams {
                rows,
                cols,
                kind,
                broadcast,
            };
            scratches.execute(Binary::new(kernels, params, a.source(), &b, out));
        },
    )
}

pub fn concat<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (rows, c) = rows_and_columns(random, size);
    let c2 = if size == Size::Typical {
        c
    } else {
        1 + random.below(40)
    };
    let (x, x2): (Vec<T>, Vec<T>) = (random.values(rows * c), random.values(rows * c2));
    case(
        rows * (c + c2),
        random.values(rows * (c + c2)),
        move |kernels, out, scratches| {
            scratches.execute(Concat::new(
                kernels,
                ConcatParams { rows, c, c2 },
                &x,
                &x2,
                out,
            ));
        },
    )
}

pub fn upsample<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let [in_h, in_w, out_h, out_w, c] = match size {
        Size::Typical => [32, 32, 64, 64, 128],
        Size::Awkward => [8, 8, 20, 20, 40].map(|end| 1 + random.below(end)),
    };
    let x: Vec<T> = random.values(in_h * in_w * c);
    case(
        out_h * out_w * c,
        random.values(out_h * out_w * c),
        move |kernels, out, scratches| {
            scratches.execute(Upsample::new(
                kernels,
                UpsampleParams {
                    in_h,
                    in_w,
                    out_h,
                    out_w,
                    c,
                },
                &x,
                out,
            ));
        },
    )
}

pub fn copy<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (d, s, offset) = match size {
        Size::Typical => ([1, 1, 320, 1024], [0, 0, 1, 320], 0),
        Size::Awkward => (
            [4, 5, 6, 7].map(|end| 1 + random.below(end)),
            [30, 9, 4, 3].map(|end| random.below(end)),
            random.below(5),
        ),
    };
    let reach = offset + d.iter().zip(s).map(|(d, s)| (d - 1) * s).sum::<usize>() + 1;
    let x: Vec<T> = random.values(reach);
    let len = d.iter().product();
    case(len, random.values(len), move |kernels, out, scratches| {
        scratches.execute(Copy::new(kernels, CopyParams { d, s, offset }, &x, out));
    })
}

pub fn embed<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let (rows, dim) = rows_and_columns(random, size);
    let vocab = 100;
    let ids: Vec<i32> = (0..rows).map(|_| random.below(vocab) as i32).collect();
    let table: Vec<T> = random.values(vocab * dim);
    let positions = random.maybe_values::<T>(rows * dim);
    case(
        rows * dim,
        random.values::<T>(rows * dim),
        move |kernels, out, scratches| {
            let params = EmbedParams { rows, dim, vocab };
            scratches.execute(Embed::new(
                kernels,
                params,
                &ids,
                Table::Plain(&table),
                positions.as_deref(),
                out,
            ));
        },
    )
}

pub fn timestep_embedding<T: Element>(random: &mut Random, size: Size) -> Box<dyn Problem> {
    let half = if size == Size::Typical {
        160
    } else {
        1 + random.below(40)
    };
    let params = TimestepEmbeddingParams {
        half,
        cos_first: random.one_in(2),
    };
    let timestep = random.below(1000) as f32;
    let frequencies: Vec<f32> = (0..half).map(|_| (random.plain() + 2.0) / 4.0).collect();
    case(
        2 * half,
        random.values::<T>(2 * half),
        move |kernels, out, scratches| {
            scratches.execute(TimestepEmbedding::new(
                kernels,
                params,
                timestep,
                &frequencies,
                out,
            ));
        },
    )
}
