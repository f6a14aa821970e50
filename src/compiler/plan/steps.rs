//! From a node of the graph to an operator of a program.

use kiln_kernels::pack::Matrix;
use kiln_kernels::{
    AttentionParams, Conv2dParams, attention_int8_scratch_bytes, attention_scratch_bytes,
    conv2d_int8_scratch_bytes, gemm_int8_scratch_bytes, gemm_scratch_bytes,
    layer_norm_codes_scratch_bytes,
};
use kiln_package::{self as package, Activation, Broadcast};

use super::weights::Form;
use crate::graph::{Graph, Node, Op};

/// Rows and columns of `[.., c]`.
fn rows(shape: &[usize]) -> (usize, usize) {
    match shape.split_last() {
        Some((c, leading)) => (leading.iter().product(), *c),
        None => (1, 1),
    }
}

/// Converts sizes to the format's, or says that one does not fit.
struct Sizes {
    too_large: Option<usize>,
}

impl Sizes {
    fn u32(&mut self, size: usize) -> u32 {
        u32::try_from(size).unwrap_or_else(|_| {
            self.too_large = Some(size);
            u32::MAX
        })
    }
}

/// The program's operator for a node, or why there is none.
pub fn lower(graph: &Graph, node: &Node) -> Result<package::Op, String> {
    let slots = node.op.slots();
    let shape_of = |slot: &str| node.input(slot).map_or(&[][..], |value| graph.shape(value));
    let first = slots.first().map_or(&[][..], |slot| shape_of(slot));
    let (first_rows, c) = rows(first);
    let columns = |slot: &str| {
        node.input(slot)
            .map_or(0, |value| rows(graph.shape(value)).1)
    };
    let len = first.iter().product();
    let out = graph.shape(node.output);
    let mut sizes = Sizes { too_large: None };
    let mut u = |size: usize| sizes.u32(size);
    let picture = |shape: &[usize]| -> Result<[usize; 3], String> {
        shape
            .try_into()
            .map_err(|_| format!("{shape:?} is not [height, width, channels]"))
    };

    let op = match &node.op {
        Op::Conv2d {
            stride,
            pad,
            up,
            activation,
        } => {
            let [in_h, in_w, in_c] = picture(first)?;
            let [up_h, up_w] = up.unwrap_or([in_h, in_w]);
            let [out_h, out_w, out_c] = picture(out)?;
            let [_, _, kernel_h, kernel_w] = matrix(shape_of("weight"))?;
            package::Op::Conv2d(package::Conv2d {
                in_h: u(in_h),
                in_w: u(in_w),
                in_c: u(in_c),
                up_h: u(up_h),
                up_w: u(up_w),
                out_h: u(out_h),
                out_w: u(out_w),
                out_c: u(out_c),
                kernel_h: u(kernel_h),
                kernel_w: u(kernel_w),
                stride: u(*stride),
                pad_top: u(pad[0]),
                pad_left: u(pad[1]),
                activation: *activation,
            })
        }
        Op::Linear { activation } => package::Op::Linear(package::Linear {
            rows: u(first_rows),
            k: u(c),
            k2: u(columns("x2")),
            n: u(rows(out).1),
            activation: *activation,
        }),
        Op::GroupNorm {
            groups,
            eps,
            activation,
            quantized,
        } => package::Op::GroupNorm(package::GroupNorm {
            rows: u(first_rows),
            c: u(c),
            c2: u(columns("x2")),
            groups: u(*groups),
            eps: *eps,
            activation: *activation,
            quantized: *quantized,
        }),
        Op::LayerNorm { eps, quantized } => package::Op::LayerNorm(package::LayerNorm {
            rows: u(first_rows),
            c: u(c),
            eps: *eps,
            quantized: *quantized,
        }),
        Op::Quantize { per_row } => package::Op::Quantize(package::Quantize {
            rows: u(first_rows),
            c: u(c),
            c2: u(columns("x2")),
            per_row: *per_row,
        }),
        Op::Attention {
            heads,
            scale,
            causal,
            integers,
        } => package::Op::Attention(package::Attention {
            q_rows: u(first_rows),
            kv_rows: u(rows(shape_of("k")).0),
            heads: u(*heads),
            head_dim: u(c / (*heads).max(1)),
            q_stride: u(c),
            k_stride: u(columns("k")),
            v_stride: u(columns("v")),
            scale: *scale,
            causal: *causal,
            integers: *integers,
        }),
        Op::Unary { activation } => package::Op::Unary(package::Unary {
            len: u(len),
            activation: *activation,
        }),
        Op::Affine { scale, offset } => package::Op::Affine(package::Affine {
            len: u(len),
            scale: *scale,
            offset: *offset,
        }),
        Op::Binary { kind } => {
            let b: usize = shape_of("b").iter().product();
            let broadcast = match b {
                b if b == len => Broadcast::Same,
                1 => Broadcast::Scalar,
                _ => Broadcast::Row,
            };
            package::Op::Binary(package::Binary {
                rows: u(first_rows),
                cols: u(c),
                kind: *kind,
                broadcast,
            })
        }
        Op::Concat => package::Op::Concat(package::Concat {
            rows: u(first_rows),
            c: u(c),
            c2: u(columns("x2")),
        }),
        Op::Upsample { size } => {
            let [in_h, in_w, c] = picture(first)?;
            package::Op::Upsample(package::Upsample {
                in_h: u(in_h),
                in_w: u(in_w),
                out_h: u(size[0]),
                out_w: u(size[1]),
                c: u(c),
            })
        }
        Op::Embed { quantized } => {
            let (vocab, dim) = rows(shape_of("table"));
            package::Op::Embed(package::Embed {
                rows: u(len),
                dim: u(dim),
                vocab: u(vocab),
                quantized: *quantized,
            })
        }
        Op::TimestepEmbedding { cos_first } => {
            let half = shape_of("frequencies").iter().product();
            package::Op::TimestepEmbedding(package::TimestepEmbedding {
                half: u(half),
                cos_first: *cos_first,
            })
        }
        Op::Softmax => package::Op::Softmax(package::Softmax {
            rows: u(first_rows),
            cols: u(c),
        }),
        Op::Copy {
            shape,
            strides,
            offset,
        } => {
            let axes = shape.len();
            if axes > 4 || strides.len() != axes {
                return Err(format!(
                    "copies {shape:?} by strides {strides:?}; a program's copy has four axes"
                ));
            }
            let mut axis = |i: usize| match (i + axes).checked_sub(4) {
                Some(i) => (u(shape[i]), u(strides[i])),
                None => (1, 0),
            };
            let [(d0, s0), (d1, s1), (d2, s2), (d3, s3)] = std::array::from_fn(&mut axis);
            package::Op::Copy(package::Copy {
                d0,
                d1,
                d2,
                d3,
                s0,
                s1,
                s2,
                s3,
                offset: u(*offset),
            })
        }
        _ => return Err("no program has such an operator".to_owned()),
    };
    match sizes.too_large {
        Some(size) => Err(format!("size {size} is too large for a package")),
        None => Ok(op),
    }
}

fn matrix<const N: usize>(shape: &[usize]) -> Result<[usize; N], String> {
    shape
        .try_into()
        .map_err(|_| format!("weight is {shape:?}, should have {N} axes"))
}

/// How the weight in a slot of the operator is arranged.
pub fn form(op: &package::Op, slot: &str, shape: &[usize]) -> Result<Form, String> {
    match op {
        package::Op::Conv2d(_) if slot == "weight" => {
            let [out_c, in_c, kernel_h, kernel_w] = matrix(shape)?;
            Ok(Form::Panels(Matrix::Conv {
                out_c,
                in_c,
                taps: kernel_h * kernel_w,
            }))
        }
        package::Op::Linear(op) if slot == "weight" => {
            let [n, k] = matrix(shape)?;
            match op.activation {
                Activation::Geglu => Ok(Form::Panels(Matrix::Geglu { n: n / 2, k })),
                _ => Ok(Form::Panels(Matrix::Linear { n, k })),
            }
        }
        package::Op::Conv2d(_) | package::Op::Linear(_) if matches!(slot, "scale" | "sums") => {
            let (n, k) = match shape {
                [n, rest @ ..] => (*n, rest.iter().product()),
                [] => return Err("weight has no axis".to_owned()),
            };
            Ok(if slot == "scale" {
                Form::Scales { n, k }
            } else {
                Form::Sums { n, k }
            })
        }
        package::Op::Embed(op) if op.quantized && matches!(slot, "table" | "scale") => {
            let [n, k] = matrix(shape)?;
            Ok(if slot == "scale" {
                Form::Scales { n, k }
            } else {
                Form::Rows { n, k }
            })
        }
        _ => Ok(Form::Plain),
    }
}

/// Memory that a thread needs for the operator, besides the arena; `codes` says that it is a GEMM of codes.
pub fn scratch_bytes(op: &package::Op, codes: bool) -> usize {
    let size = |n: u32| n as usize;
    let gemm = if codes {
        gemm_int8_scratch_bytes
    } else {
        gemm_scratch_bytes
    };
    match op {
        package::Op::Conv2d(op) if codes => conv2d_int8_scratch_bytes(&Conv2dParams {
            in_h: size(op.in_h),
            in_w: size(op.in_w),
            in_c: size(op.in_c),
            up_h: size(op.up_h),
            up_w: size(op.up_w),
            out_h: size(op.out_h),
            out_w: size(op.out_w),
            out_c: size(op.out_c),
            kernel_h: size(op.kernel_h),
            kernel_w: size(op.kernel_w),
            stride: size(op.stride),
            pad_top: size(op.pad_top),
            pad_left: size(op.pad_left),
            activation: kiln_kernels::Activation::None,
        }),
        package::Op::Conv2d(op) => {
            let k = size(op.kernel_h) * size(op.kernel_w) * size(op.in_c);
            gemm(size(op.out_h) * size(op.out_w), k, size(op.out_c))
        }
        package::Op::Linear(op) => {
            let columns = match op.activation {
                Activation::Geglu => 2 * size(op.n).next_multiple_of(package::PANEL),
                _ => size(op.n),
            };
            gemm(size(op.rows), size(op.k) + size(op.k2), columns)
        }
        package::Op::Attention(op) => {
            let params = AttentionParams {
                q_rows: size(op.q_rows),
                kv_rows: size(op.kv_rows),
                heads: size(op.heads),
                head_dim: size(op.head_dim),
                q_stride: size(op.q_stride),
                k_stride: size(op.k_stride),
                v_stride: size(op.v_stride),
                scale: op.scale,
                causal: op.causal,
            };
            if op.integers {
                attention_int8_scratch_bytes(&params)
            } else {
                attention_scratch_bytes(&params)
            }
        }
        package::Op::LayerNorm(op) if op.quantized => layer_norm_codes_scratch_bytes(size(op.c)),
        _ => 0,
    }
}
