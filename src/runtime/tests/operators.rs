//! Every operator, through a package and by itself.

use std::num::NonZeroUsize;

use kiln_kernels::{self as kernels, Element, F16, Job, Kernels, Residual, Source};
use kiln_package::{
    Activation, Affine, Attention, Binary, BinaryKind, Broadcast, Concat, Conv2d, Copy, DType,
    Embed, GraphKind, GroupNorm, LayerNorm, Layout, Linear, Op, Operand, Role, Softmax, Space,
    TimestepEmbedding, Unary, Upsample,
};

use super::build::{Build, Random};
use crate::{Data, Model, Session, SessionOptions, Silent};

/// An operator, and whether its optional slots are filled and its output is one of its inputs.
struct Case {
    op: Op,
    optional: bool,
    in_place: bool,
}

fn cases() -> Vec<Case> {
    let conv = Conv2d {
        in_h: 5,
        in_w: 4,
        in_c: 19,
        up_h: 10,
        up_w: 7,
        out_h: 5,
        out_w: 4,
        out_c: 37,
        kernel_h: 3,
        kernel_w: 3,
        stride: 2,
        pad_top: 1,
        pad_left: 0,
        activation: Activation::Silu,
    };
    let linear = Linear {
        rows: 50,
        k: 33,
        k2: 0,
        n: 40,
        activation: Activation::QuickGelu,
    };
    let attention = Attention {
        q_rows: 70,
        kv_rows: 20,
        heads: 2,
        head_dim: 12,
        q_stride: 24,
        k_stride: 48,
        v_stride: 30,
        scale: 0.3,
        causal: false,
        integers: false,
    };
    let norm = GroupNorm {
        rows: 130,
        c: 24,
        c2: 0,
        groups: 6,
        eps: 1e-5,
        activation: Activation::None,
        quantized: false,
    };
    let copy = Copy {
        d0: 2,
        d1: 3,
        d2: 4,
        d3: 5,
        s0: 1,
        s1: 40,
        s2: 2,
        s3: 8,
        offset: 3,
    };
    let binary = |kind, broadcast| {
        Op::Binary(Binary {
            rows: 9,
            cols: 31,
            kind,
            broadcast,
        })
    };
    let ops = [
        Op::Conv2d(conv),
        Op::Conv2d(Conv2d {
            kernel_h: 1,
            kernel_w: 1,
            pad_top: 0,
            activation: Activation::None,
            ..conv
        }),
        Op::Linear(linear),
        Op::Linear(Linear {
            k2: 7,
            activation: Activation::Gelu,
            ..linear
        }),
        Op::Linear(Linear {
            rows: 1,
            activation: Activation::Geglu,
            ..linear
        }),
        Op::GroupNorm(norm),
        Op::GroupNorm(GroupNorm {
            c2: 12,
            activation: Activation::Silu,
            ..norm
        }),
        Op::LayerNorm(LayerNorm {
            rows: 300,
            c: 40,
            eps: 1e-6,
            quantized: false,
        }),
        Op::Attention(attention),
        Op::Attention(Attention {
            kv_rows: 70,
            causal: true,
            ..attention
        }),
        Op::Unary(Unary {
            len: 999,
            activation: Activation::Gelu,
        }),
        Op::Affine(Affine {
            len: 77,
            scale: 0.5,
            offset: -2.0,
        }),
        binary(BinaryKind::Add, Broadcast::Same),
        binary(BinaryKind::Sub, Broadcast::Row),
        binary(BinaryKind::Mul, Broadcast::Scalar),
        binary(BinaryKind::Div, Broadcast::Same),
        Op::Concat(Concat {
            rows: 70,
            c: 3,
            c2: 5,
        }),
        Op::Upsample(Upsample {
            in_h: 3,
            in_w: 4,
            out_h: 6,
            out_w: 7,
            c: 5,
        }),
        Op::Embed(Embed {
            rows: 6,
            dim: 10,
            vocab: 13,
            quantized: false,
        }),
        Op::TimestepEmbedding(TimestepEmbedding {
            half: 9,
            cos_first: true,
        }),
        Op::Softmax(Softmax { rows: 4, cols: 21 }),
        Op::Copy(copy),
    ];
    let kinds = [(false, false), (true, false), (false, true), (true, true)];
    let all = ops.into_iter().flat_map(|op| {
        kinds.map(|(optional, in_place)| Case {
            op,
            optional,
            in_place,
        })
    });
    all.filter(|case| !case.in_place || case.op.in_place_slot().is_some())
        .collect()
}

/// The contents of a slot. Ids are whole numbers.
type Contents = Vec<(&'static str, Vec<f32>)>;

/// A program of one step: its weights are random, and every input in the arena is a port named as its slot.
struct Program {
    model: Model,
    weights: Contents,
    ports: Vec<(&'static str, DType, usize)>,
    out: usize,
}

impl Case {
    fn contents(&self, slot: &str, elements: usize, random: &mut Random) -> Vec<f32> {
        match self.op {
            Op::Embed(op) if slot == "ids" => (0..elements)
                .map(|_| (random.bits() % op.vocab) as f32)
                .collect(),
            _ => random.numbers(elements),
        }
    }

    fn program(&self, activation: DType, random: &mut Random) -> Program {
        let mut build = Build::new(GraphKind::Unet, 64, 64);
        let (mut operands, mut weights, mut ports): (Vec<Operand>, Contents, _) =
            (vec![], vec![], vec![]);
        let mut out_elements = 0;
        for slot in self.op.slots() {
            let required = self.op.requirement(slot.name).expect("a possible size");
            let in_place = self.in_place && self.op.in_place_slot() == Some(slot.name);
            let Some(required) = required.filter(|r| !r.optional || self.optional || in_place)
            else {
                operands.push(Operand::EMPTY);
                continue;
            };
            let (dtype, elements) = (required.holds.dtype(activation), required.elements as usize);
            let parameter = required.space == Some(Space::Weights) || slot.name == "mask";
            operands.push(match slot.role {
                Role::Output if self.in_place => {
                    let place = self
                        .op
                        .slots()
                        .iter()
                        .position(|s| self.op.in_place_slot() == Some(s.name));
                    operands[place.expect("an input")]
                }
                Role::Output | Role::Scratch => build.buffer(dtype, elements),
                Role::Input | Role::Optional if parameter => {
                    let values = self.contents(slot.name, elements, random);
                    let operand = build.weight(dtype, &values);
                    weights.push((slot.name, values));
                    operand
                }
                Role::Input | Role::Optional => {
                    ports.push((slot.name, dtype, elements));
                    build.input(slot.name, &[1, elements as u32], Layout::RowMajor, dtype)
                }
            });
            out_elements = elements;
        }
        let out = *operands.last().expect("the output");
        build.output("out", &[1, out_elements as u32], Layout::RowMajor, out);
        build.step("step", self.op, &operands);
        Program {
            model: build.model(),
            weights,
            ports,
            out: out_elements,
        }
    }
}

impl Program {
    fn inputs(&self, case: &Case, random: &mut Random) -> Contents {
        let contents = |(name, _, elements): &(&'static str, DType, usize)| {
            (*name, case.contents(name, *elements, random))
        };
        self.ports.iter().map(contents).collect()
    }

    /// The outputs of the lanes with these inputs.
    fn run(&self, lanes: &[Contents], threads: usize) -> Vec<Vec<f32>> {
        let (id, _) = self.model.programs().next().expect("a program");
        let options = SessionOptions {
            threads: NonZeroUsize::new(threads),
            ..SessionOptions::default()
        };
        let mut session =
            Session::new(&self.model, &[(id, lanes.len())], &options).expect("little memory");
        let mut evaluation = session.prepare(id, lanes.len()).expect("planned");
        let whole = |values: &Vec<f32>| values.iter().map(|v| *v as i32).collect();
        let ids: Vec<Vec<Vec<i32>>> = lanes
            .iter()
            .map(|inputs| inputs.iter().map(|(_, values)| whole(values)).collect())
            .collect();
        for (lane, inputs) in lanes.iter().enumerate() {
            for (((name, values), ids), (_, dtype, elements)) in
                inputs.iter().zip(&ids[lane]).zip(&self.ports)
            {
                let data = if *dtype == DType::I32 {
                    Data::I32(ids)
                } else {
                    Data::F32(values)
                };
                evaluation
                    .input(lane, name, &[1, *elements], data)
                    .expect("the port's shape");
            }
        }
        let mut outputs = evaluation.run(&mut Silent).expect("a valid step");
        let read = |lane| {
            let mut out = vec![f32::NAN; self.out];
            outputs
                .read(lane, "out", &mut out)
                .expect("the port's size");
            out
        };
        (0..lanes.len()).map(read).collect()
    }
}

/// Slots' contents as kernels take them.
struct Given<'a> {
    contents: Vec<&'a (&'static str, Vec<f32>)>,
}

impl Given<'_> {
    fn optional(&self, slot: &str) -> Option<&[f32]> {
        self.contents
            .iter()
            .find(|(name, _)| *name == slot)
            .map(|(_, values)| &values[..])
    }

    fn stored<T: Element>(&self, slot: &str) -> Option<Vec<T>> {
        self.optional(slot)
            .map(|values| values.iter().map(|v| T::store(*v)).collect())
    }
}

fn work<J: Job>(job: Result<J, kernels::ArgumentError>) {
    let mut job = job.expect("operands that fit");
    let mut scratch = vec![0xff; job.scratch_bytes()];
    kernels::run_alone(&mut job, &mut scratch);
}

fn activation(activation: Activation) -> kernels::Activation {
    match activation {
        Activation::None => kernels::Activation::None,
        Activation::Silu => kernels::Activation::Silu,
        Activation::Gelu => kernels::Activation::Gelu,
        Activation::QuickGelu => kernels::Activation::QuickGelu,
        Activation::Relu => kernels::Activation::Relu,
        Activation::Tanh => kernels::Activation::Tanh,
        Activation::Geglu => kernels::Activation::Geglu,
    }
}

/// The operator's output by the scalar reference, never in place.
fn direct<T: Element>(case: &Case, given: &Given<'_>, len: usize) -> Vec<f32> {
    let k = Kernels::new(kernels::Isa::Scalar).expect("on any CPU");
    let t = |slot| given.stored::<T>(slot);
    let some = |slot| t(slot).expect("a filled slot");
    let size = |n: u32| n as usize;
    let mut out = vec![T::default(); len];
    let to = &mut out[..];
    match case.op {
        Op::Conv2d(op) => {
            let params = kernels::Conv2dParams {
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
                activation: activation(op.activation),
            };
            let (shift, residual) = (t("shift"), t("residual"));
            let operands = kernels::Conv2dOperands {
                x: &some("x"),
                weight: &some("weight"),
                bias: given.optional("bias"),
                shift: shift.as_deref(),
                residual: residual.as_deref().map_or(Residual::None, Residual::Other),
                out: to,
            };
            work(kernels::Conv2d::new(k, params, operands));
        }
        Op::Linear(op) => {
            let params = kernels::LinearParams {
                rows: size(op.rows),
                k: size(op.k),
                k2: size(op.k2),
                n: size(op.n),
                activation: activation(op.activation),
            };
            let (x2, shift, residual) = (t("x2"), t("shift"), t("residual"));
            let operands = kernels::LinearOperands {
                x: &some("x"),
                x2: x2.as_deref(),
                weight: &some("weight"),
                bias: given.optional("bias"),
                shift: shift.as_deref(),
                residual: residual.as_deref().map_or(Residual::None, Residual::Other),
                out: to,
            };
            work(kernels::Linear::new(k, params, operands));
        }
        Op::GroupNorm(op) => {
            let params = kernels::GroupNormParams {
                rows: size(op.rows),
                c: size(op.c),
                c2: size(op.c2),
                groups: size(op.groups),
                eps: op.eps,
                activation: activation(op.activation),
            };
            let x2 = t("x2");
            let mut stats = vec![0.0; kernels::stats_len(params.rows, params.c + params.c2)];
            let operands = kernels::GroupNormOperands {
                x: &some("x"),
                x2: x2.as_deref(),
                gamma: given.optional("gamma"),
                beta: given.optional("beta"),
                stats: &mut stats,
                out: to,
            };
            work(kernels::GroupNorm::new(k, params, operands));
        }
        Op::LayerNorm(op) => {
            let params = kernels::LayerNormParams {
                rows: size(op.rows),
                c: size(op.c),
                eps: op.eps,
            };
            let (gamma, beta) = (given.optional("gamma"), given.optional("beta"));
            work(kernels::LayerNorm::new(
                k,
                params,
                &some("x"),
                gamma,
                beta,
                to,
            ));
        }
        Op::Attention(op) => {
            let params = kernels::AttentionParams {
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
            let (q, keys, v) = (some("q"), some("k"), some("v"));
            let operands = kernels::AttentionOperands {
                q: &q,
                k: &keys,
                v: &v,
                mask: given.optional("mask"),
                out: to,
            };
            work(kernels::Attention::new(k, params, operands));
        }
        Op::Unary(op) => {
            let params = kernels::UnaryParams {
                len: len.min(size(op.len)),
                activation: activation(op.activation),
            };
            work(kernels::Unary::new(
                k,
                params,
                Source::Other(&some("x")),
                to,
            ));
        }
        Op::Affine(op) => {
            let params = kernels::AffineParams {
                len: size(op.len),
                scale: op.scale,
                offset: op.offset,
            };
            work(kernels::Affine::new(
                k,
                params,
                Source::Other(&some("x")),
                to,
            ));
        }
        Op::Binary(op) => {
            let kind = match op.kind {
                BinaryKind::Add => kernels::BinaryKind::Add,
                BinaryKind::Sub => kernels::BinaryKind::Sub,
                BinaryKind::Mul => kernels::BinaryKind::Mul,
                BinaryKind::Div => kernels::BinaryKind::Div,
            };
            let broadcast = match op.broadcast {
                Broadcast::Same => kernels::Broadcast::Same,
                Broadcast::Row => kernels::Broadcast::Row,
                Broadcast::Scalar => kernels::Broadcast::Scalar,
            };
            let params = kernels::BinaryParams {
                rows: size(op.rows),
                cols: size(op.cols),
                kind,
                broadcast,
            };
            work(kernels::Binary::new(
                k,
                params,
                Source::Other(&some("a")),
                &some("b"),
                to,
            ));
        }
        Op::Concat(op) => {
            let params = kernels::ConcatParams {
                rows: size(op.rows),
                c: size(op.c),
                c2: size(op.c2),
            };
            work(kernels::Concat::new(k, params, &some("x"), &some("x2"), to));
        }
        Op::Upsample(op) => {
            let params = kernels::UpsampleParams {
                in_h: size(op.in_h),
                in_w: size(op.in_w),
                out_h: size(op.out_h),
                out_w: size(op.out_w),
                c: size(op.c),
            };
            work(kernels::Upsample::new(k, params, &some("x"), to));
        }
        Op::Embed(op) => {
            let params = kernels::EmbedParams {
                rows: size(op.rows),
                dim: size(op.dim),
                vocab: size(op.vocab),
            };
            let ids: Vec<i32> = given
                .optional("ids")
                .expect("filled")
                .iter()
                .map(|id| *id as i32)
                .collect();
            let positions = t("positions");
            work(kernels::Embed::new(
                k,
                params,
                &ids,
                kernels::Table::Plain(&some("table")),
                positions.as_deref(),
                to,
            ));
        }
        Op::TimestepEmbedding(op) => {
            let params = kernels::TimestepEmbeddingParams {
                half: size(op.half),
                cos_first: op.cos_first,
            };
            let timestep = given.optional("timestep").expect("filled")[0];
            let frequencies = given.optional("frequencies").expect("filled");
            work(kernels::TimestepEmbedding::new(
                k,
                params,
                timestep,
                frequencies,
                to,
            ));
        }
        Op::Softmax(op) => {
            let params = kernels::SoftmaxParams {
                rows: size(op.rows),
                cols: size(op.cols),
            };
            work(kernels::Softmax::new(
                k,
                params,
                Source::Other(&some("x")),
                to,
            ));
        }
        Op::Copy(op) => {
            let params = kernels::CopyParams {
                d: [op.d0, op.d1, op.d2, op.d3].map(size),
                s: [op.s0, op.s1, op.s2, op.s3].map(size),
                offset: size(op.offset),
            };
            work(kernels::Copy::new(k, params, &some("x"), to));
        }
        Op::Quantize(_) | Op::CodesRows(_) => unreachable!("codes are no output of a program"),
        Op::GroupNormBlocks(_) | Op::GroupNormMerge(_) | Op::GroupNormApply(_) => {
            unreachable!("`bands` tests these together")
        }
    }
    out.iter().map(|v| v.load()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn check(dtype: DType, direct: fn(&Case, &Given<'_>, usize) -> Vec<f32>) {
    let mut seen = Vec::new();
    for (number, case) in cases().iter().enumerate() {
        let mut random = Random::new(number as u64);
        let program = case.program(dtype, &mut random);
        let lanes = [
            program.inputs(case, &mut random),
            program.inputs(case, &mut random),
        ];
        let expected = lanes.each_ref().map(|inputs| {
            let given = Given {
                contents: program.weights.iter().chain(inputs).collect(),
            };
            bits(&direct(case, &given, program.out))
        });
        assert_ne!(
            expected[0], expected[1],
            "lanes that could not be told apart: {:?}",
            case.op
        );
        for threads in [1, 2, 3] {
            let context = format!(
                "{:?}, optional {}, in place {}, {threads} threads",
                case.op, case.optional, case.in_place
            );
            for (inputs, expected) in lanes.iter().zip(&expected) {
                assert_eq!(
                    bits(&program.run(std::slice::from_ref(inputs), threads)[0]),
                    *expected,
                    "{context}"
                );
            }
            let both = program.run(&lanes, threads);
            assert_eq!(
                [bits(&both[0]), bits(&both[1])],
                expected,
                "two lanes: {context}"
            );
        }
        seen.push(case.op.code());
    }
    // Codes are no output of a program: `codes` tests that operator, and `bands` those of bands.
    let elsewhere = [
        "Quantize",
        "CodesRows",
        "GroupNormBlocks",
        "GroupNormMerge",
        "GroupNormApply",
    ];
    let all = Op::ALL
        .iter()
        .all(|(code, name)| elsewhere.contains(name) || seen.contains(code));
    assert!(all, "an operator has no case");
}

#[test]
fn every_operator_is_its_kernel_in_f32() {
    check(DType::F32, direct::<f32>);
}

#[test]
fn every_operator_is_its_kernel_in_f16() {
    check(DType::F16, direct::<F16>);
}
