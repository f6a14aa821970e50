//! The layers of Stable Diffusion 1.5 at 512x512 that take most of its time, as problems.

use super::{
    Problem, Random, case,
    codes_problems::{Weights, codes},
};
use crate::*;

/// A shape of the model's.
pub struct Layer {
    /// What it is and where it stands.
    pub name: &'static str,
    shape: Shape,
}

enum Shape {
    /// A 3x3 convolution of a square picture.
    Conv {
        size: usize,
        up: usize,
        stride: usize,
        in_c: usize,
        out_c: usize,
    },
    Linear {
        rows: usize,
        k: usize,
        n: usize,
        activation: Activation,
    },
    Attention {
        rows: usize,
        heads: usize,
        head_dim: usize,
    },
}

/// The UNet's from the top down, then the VAE decoder's.
pub static LAYERS: &[Layer] = &[
    Layer::conv("conv 64x64 320>320", 64, 320, 320),
    Layer::conv("conv 64x64 960>320", 64, 960, 320),
    Layer::conv("conv 32x32 640>640", 32, 640, 640),
    Layer::conv("conv 32x32 1920>640", 32, 1920, 640),
    Layer::conv("conv 16x16 1280>1280", 16, 1280, 1280),
    Layer::conv("conv 16x16 2560>1280", 16, 2560, 1280),
    Layer::conv("conv 8x8 1280>1280", 8, 1280, 1280),
    Layer {
        name: "conv 64x64 320>320 stride 2",
        shape: Shape::Conv {
            size: 64,
            up: 1,
            stride: 2,
            in_c: 320,
            out_c: 320,
        },
    },
    Layer {
        name: "conv 32x32 640>640 enlarged",
        shape: Shape::Conv {
            size: 32,
            up: 2,
            stride: 1,
            in_c: 640,
            out_c: 640,
        },
    },
    Layer::linear("linear 4096 320>320", 4096, 320, 320),
    Layer::geglu("linear 4096 320>1280 GEGLU", 4096, 320, 1280),
    Layer::linear("linear 4096 1280>320", 4096, 1280, 320),
    Layer::geglu("linear 1024 640>2560 GEGLU", 1024, 640, 2560),
    Layer::geglu("linear 256 1280>5120 GEGLU", 256, 1280, 5120),
    Layer::linear("linear 256 5120>1280", 256, 5120, 1280),
    Layer {
        name: "attention 4096, 8 heads of 40",
        shape: Shape::Attention {
            rows: 4096,
            heads: 8,
            head_dim: 40,
        },
    },
    Layer {
        name: "attention 1024, 8 heads of 80",
        shape: Shape::Attention {
            rows: 1024,
            heads: 8,
            head_dim: 80,
        },
    },
    Layer::conv("conv 128x128 512>512", 128, 512, 512),
    Layer::conv("conv 256x256 256>256", 256, 256, 256),
    Layer::conv("conv 512x512 128>128", 512, 128, 128),
];

impl Layer {
    /// A 3x3 convolution of a square picture.
    pub const fn conv(name: &'static str, size: usize, in_c: usize, out_c: usize) -> Self {
        let shape = Shape::Conv {
            size,
            up: 1,
            stride: 1,
            in_c,
            out_c,
        };
        Self { name, shape }
    }

    /// A product of `[rows, k]` with `n` columns.
    pub const fn linear(name: &'static str, rows: usize, k: usize, n: usize) -> Self {
        Self::product(name, [rows, k, n], Activation::None)
    }

    const fn geglu(name: &'static str, rows: usize, k: usize, n: usize) -> Self {
        Self::product(name, [rows, k, n], Activation::Geglu)
    }

    const fn product(name: &'static str, [rows, k, n]: [usize; 3], activation: Activation) -> Self {
        let shape = Shape::Linear {
            rows,
            k,
            n,
            activation,
        };
        Self { name, shape }
    }

    /// The layer with random operands, its activations in `f16`, its products in integers.
    pub fn problem(&self, random: &mut Random) -> Box<dyn Problem> {
        match self.shape {
            Shape::Conv {
                size,
                up,
                stride,
                in_c,
                out_c,
            } => {
                let out = size * up / stride;
                let params = Conv2dParams {
                    in_h: size,
                    in_w: size,
                    in_c,
                    up_h: size * up,
                    up_w: size * up,
                    out_h: out,
                    out_w: out,
                    out_c,
                    kernel_h: 3,
                    kernel_w: 3,
                    stride,
                    pad_top: 1,
                    pad_left: 1,
                    activation: Activation::None,
                };
                convolution(random, params)
            }
            Shape::Linear {
                rows,
                k,
                n,
                activation,
            } => {
                let params = LinearParams {
                    rows,
                    k,
                    k2: 0,
                    n,
                    activation,
                };
                product(random, params)
            }
            Shape::Attention {
                rows,
                heads,
                head_dim,
            } => attention(random, rows, heads, head_dim),
        }
    }
}

fn convolution(random: &mut Random, params: Conv2dParams) -> Box<dyn Problem> {
    let p = params;
    let (rows, k, n) = (p.out_h * p.out_w, 9 * p.in_c, p.out_c);
    let x = codes(random, p.in_h * p.in_w, p.in_c, false);
    let weights = Weights::random(random, n, k, false);
    let bias: Vec<f32> = random.values(n);
    let out = vec![F16::default(); rows * n];
    case(rows * k * n, out, move |kernels, out, scratches| {
        let operands = Conv2dInt8Operands {
            x: &x,
            weight: &weights.panels,
            scale: &weights.scale,
            sums: &weights.sums,
            bias: Some(&bias),
            shift: None,
            residual: Residual::None,
            out,
        };
        scratches.execute(Conv2dInt8::new(kernels, params, operands));
    })
}

fn product(random: &mut Random, params: LinearParams) -> Box<dyn Problem> {
    let LinearParams {
        rows,
        k,
        n,
        activation,
        ..
    } = params;
    let geglu = activation == Activation::Geglu;
    let columns = if geglu { 2 * n } else { n };
    let x = codes(random, rows, k, true);
    let weights = Weights::random(random, n, k, geglu);
    let bias: Vec<f32> = random.values(columns);
    let out = vec![F16::default(); rows * n];
    case(rows * k * columns, out, move |kernels, out, scratches| {
        let operands = LinearInt8Operands {
            x: &x,
            weight: &weights.panels,
            scale: &weights.scale,
            sums: &weights.sums,
            bias: Some(&bias),
            shift: None,
            residual: Residual::None,
            out,
        };
        scratches.execute(LinearInt8::new(kernels, params, operands));
    })
}

fn attention(random: &mut Random, rows: usize, heads: usize, dim: usize) -> Box<dyn Problem> {
    let stride = heads * dim;
    let params = AttentionParams {
        q_rows: rows,
        kv_rows: rows,
        heads,
        head_dim: dim,
        q_stride: stride,
        k_stride: stride,
        v_stride: stride,
        scale: 1.0 / (dim as f32).sqrt(),
        causal: false,
    };
    let mut plain = || -> Vec<F16> {
        (0..rows * stride)
            .map(|_| F16::from_f32(random.plain()))
            .collect()
    };
    let (q, k, v) = (plain(), plain(), plain());
    let out = vec![F16::default(); rows * stride];
    case(
        2 * rows * rows * stride,
        out,
        move |kernels, out, scratches| {
            let operands = AttentionInt8Operands {
                q: &q,
                k: &k,
                v: &v,
                codes: &mut vec![0.0; attention_codes_len(&params)],
                out,
            };
            scratches.execute(AttentionInt8::new(kernels, params, operands));
        },
    )
}
