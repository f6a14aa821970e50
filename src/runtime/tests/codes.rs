//! Programs of codes and 8-bit weights, against the scalar kernels one by one.

use std::num::NonZeroUsize;

use kiln_kernels::{self as kernels, Element, F16, Isa, Job, Kernels, Residual, pack};
use kiln_package::{
    self as package, Activation, DType, GraphKind, Layout, Op, Operand, codes_bytes,
};

use super::build::{Build, Random, model};
use crate::{Data, Model, RuntimeError, Session, SessionOptions, Silent};

const H: usize = 6;
const W: usize = 5;
const ROWS: usize = H * W;
const C: usize = 24;
const WIDE: usize = 40;
const OUT: usize = 16;
const HEADS: usize = 2;

/// A matrix in 8 bits, as panels.
struct Matrix {
    panels: Vec<i8>,
    scale: Vec<f32>,
    sums: Vec<i32>,
}

impl Matrix {
    fn new(random: &mut Random, n: usize, k: usize, panels: impl Fn(&[i8]) -> Vec<i8>) -> Self {
        let quantized = pack::quantize_weights(n, k, &random.numbers(n * k));
        Matrix {
            panels: panels(&quantized.codes),
            scale: quantized.scale,
            sums: quantized.sums,
        }
    }

    fn write(&self, build: &mut Build) -> [(&'static str, Operand); 3] {
        let bytes = |values: &[i32]| {
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>()
        };
        let panels: Vec<u8> = self.panels.iter().map(|v| *v as u8).collect();
        [
            ("weight", build.bytes(DType::I8, &panels)),
            ("scale", build.weight(DType::F32, &self.scale)),
            ("sums", build.bytes(DType::I32, &bytes(&self.sums))),
        ]
    }
}

struct Weights {
    conv: Matrix,
    conv_bias: Vec<f32>,
    geglu: Matrix,
    linear: Matrix,
    last: Matrix,
    gamma: Vec<f32>,
}

impl Weights {
    fn new() -> Self {
        let random = &mut Random::new(11);
        Weights {
            conv: Matrix::new(random, WIDE, 9 * C, |codes| {
                pack::pack_i8_conv_panels(WIDE, C, (3, 3), codes)
            }),
            conv_bias: random.numbers(WIDE),
            geglu: Matrix::new(random, 2 * C, WIDE, |codes| {
                pack::pack_i8_geglu_panels(C, WIDE, codes)
            }),
            linear: Matrix::new(random, C, 2 * C, |codes| {
                pack::pack_i8_panels(C, 2 * C, codes)
            }),
            last: Matrix::new(random, OUT, C + WIDE, |codes| {
                pack::pack_i8_conv_panels(OUT, C + WIDE, (1, 1), codes)
            }),
            gamma: random.numbers(C),
        }
    }
}

const NORM: package::GroupNorm = package::GroupNorm {
    rows: ROWS as u32,
    c: C as u32,
    c2: 0,
    groups: 6,
    eps: 1e-5,
    activation: Activation::Silu,
    quantized: true,
};

fn conv(in_c: usize, out_c: usize, kernel: u32) -> package::Conv2d {
    package::Conv2d {
        in_h: H as u32,
        in_w: W as u32,
        in_c: in_c as u32,
        up_h: H as u32,
        up_w: W as u32,
        out_h: H as u32,
        out_w: W as u32,
        out_c: out_c as u32,
        kernel_h: kernel,
        kernel_w: kernel,
        stride: 1,
        pad_top: kernel / 2,
        pad_left: kernel / 2,
        activation: Activation::None,
    }
}

fn linear(k: usize, activation: Activation) -> package::Linear {
    package::Linear {
        rows: ROWS as u32,
        k: k as u32,
        k2: 0,
        n: C as u32,
        activation,
    }
}

fn operands(op: Op, slots: &[(&str, Operand)]) -> Vec<Operand> {
    let at = |name| {
        slots
            .iter()
            .find(|(slot, _)| *slot == name)
            .map_or(Operand::EMPTY, |(_, operand)| *operand)
    };
    op.slots().iter().map(|slot| at(slot.name)).collect()
}

/// A program of every operator that makes or takes codes: norms, convolutions, Linears, an attention, one residual in
/// place.
fn build(weights: &Weights) -> Build {
    let mut b = Build::new(GraphKind::Unet, 64, 64);
    let sample = b.input(
        "sample",
        &[1, C as u32, H as u32, W as u32],
        Layout::ChannelsLast,
        DType::F16,
    );
    let shift = b.input("shift", &[1, WIDE as u32], Layout::RowMajor, DType::F16);
    let codes = |b: &mut Build, c: usize, per_row| {
        b.buffer(
            DType::U8,
            codes_bytes(ROWS as u64, c as u64, per_row) as usize,
        )
    };
    let normed = codes(&mut b, C, false);
    let stats = b.buffer(DType::F32, kernels::codes_stats_len(ROWS, C));
    let gamma = b.weight(DType::F32, &weights.gamma);
    let op = Op::GroupNorm(NORM);
    b.step(
        "norm1",
        op,
        &operands(
            op,
            &[
                ("x", sample),
                ("gamma", gamma),
                ("stats", stats),
                ("out", normed),
            ],
        ),
    );

    let wide = b.buffer(DType::F16, ROWS * WIDE);
    let [weight, scale, sums] = weights.conv.write(&mut b);
    let bias = b.weight(DType::F32, &weights.conv_bias);
    let op = Op::Conv2d(conv(C, WIDE, 3));
    let slots = [
        ("x", normed),
        weight,
        scale,
        sums,
        ("bias", bias),
        ("shift", shift),
        ("out", wide),
    ];
    b.step("conv1", op, &operands(op, &slots));

    let rows = codes(&mut b, WIDE, true);
    let op = Op::LayerNorm(package::LayerNorm {
        rows: ROWS as u32,
        c: WIDE as u32,
        eps: 1e-5,
        quantized: true,
    });
    b.step("norm2", op, &operands(op, &[("x", wide), ("out", rows)]));

    let values = b.buffer(DType::F16, ROWS * C);
    let [weight, scale, sums] = weights.geglu.write(&mut b);
    let op = Op::Linear(linear(WIDE, Activation::Geglu));
    b.step(
        "geglu",
        op,
        &operands(op, &[("x", rows), weight, scale, sums, ("out", values)]),
    );

    let both = codes(&mut b, 2 * C, true);
    let ranges = b.buffer(DType::F32, kernels::ranges_len(ROWS, true));
    let op = Op::Quantize(package::Quantize {
        rows: ROWS as u32,
        c: C as u32,
        c2: C as u32,
        per_row: true,
    });
    b.step(
        "rows",
        op,
        &operands(
            op,
            &[
                ("x", values),
                ("x2", sample),
                ("ranges", ranges),
                ("out", both),
            ],
        ),
    );

    let [weight, scale, sums] = weights.linear.write(&mut b);
    let op = Op::Linear(linear(2 * C, Activation::Silu));
    b.step(
        "linear",
        op,
        &operands(
            op,
            &[
                ("x", both),
                weight,
                scale,
                sums,
                ("residual", values),
                ("out", values),
            ],
        ),
    );

    let attended = b.buffer(DType::F16, ROWS * C);
    let attention = package::Attention {
        q_rows: ROWS as u32,
        kv_rows: ROWS as u32,
        heads: HEADS as u32,
        head_dim: (C / HEADS) as u32,
        q_stride: C as u32,
        k_stride: C as u32,
        v_stride: C as u32,
        scale: 0.3,
        causal: false,
        integers: true,
    };
    let op = Op::Attention(attention);
    let required = op.requirement("codes").expect("small").expect("a slot");
    let scratch = b.buffer(required.holds.dtype(DType::F16), required.elements as usize);
    let slots = [
        ("q", values),
        ("k", sample),
        ("v", values),
        ("codes", scratch),
        ("out", attended),
    ];
    b.step("attention", op, &operands(op, &slots));

    let tensor = codes(&mut b, C + WIDE, false);
    let ranges = b.buffer(DType::F32, kernels::ranges_len(ROWS, false));
    let op = Op::Quantize(package::Quantize {
        rows: ROWS as u32,
        c: C as u32,
        c2: WIDE as u32,
        per_row: false,
    });
    b.step(
        "tensor",
        op,
        &operands(
            op,
            &[
                ("x", attended),
                ("x2", wide),
                ("ranges", ranges),
                ("out", tensor),
            ],
        ),
    );

    let out = b.buffer(DType::F16, ROWS * OUT);
    let [weight, scale, sums] = weights.last.write(&mut b);
    let op = Op::Conv2d(conv(C + WIDE, OUT, 1));
    b.step(
        "conv2",
        op,
        &operands(op, &[("x", tensor), weight, scale, sums, ("out", out)]),
    );
    b.output(
        "out_sample",
        &[1, OUT as u32, H as u32, W as u32],
        Layout::ChannelsLast,
        out,
    );
    b
}

fn work<J: Job>(job: Result<J, kernels::ArgumentError>) {
    let mut job = job.expect("operands that fit");
    let mut scratch = vec![0xff; job.scratch_bytes()];
    kernels::run_alone(&mut job, &mut scratch);
}

fn conv_params(op: package::Conv2d) -> kernels::Conv2dParams {
    kernels::Conv2dParams {
        in_h: H,
        in_w: W,
        in_c: op.in_c as usize,
        up_h: H,
        up_w: W,
        out_h: H,
        out_w: W,
        out_c: op.out_c as usize,
        kernel_h: op.kernel_h as usize,
        kernel_w: op.kernel_w as usize,
        stride: 1,
        pad_top: op.pad_top as usize,
        pad_left: op.pad_left as usize,
        activation: kernels::Activation::None,
    }
}

/// The program's output, `[rows, channels]`, kernel by kernel.
fn direct(weights: &Weights, sample: &[F16], shift: &[F16]) -> Vec<F16> {
    let k = Kernels::new(Isa::Scalar).expect("on any CPU");
    let codes = |c, per_row| vec![0_u8; kernels::codes_bytes(ROWS, c, per_row)];
    let floats = |c| vec![F16::default(); ROWS * c];

    let (mut normed, mut stats) = (
        codes(C, false),
        vec![0.0; kernels::codes_stats_len(ROWS, C)],
    );
    let params = kernels::GroupNormParams {
        rows: ROWS,
        c: C,
        c2: 0,
        groups: 6,
        eps: 1e-5,
        activation: kernels::Activation::Silu,
    };
    let (gamma, stats) = (Some(&weights.gamma[..]), &mut stats[..]);
    let norm = kernels::GroupNormCodesOperands {
        x: sample,
        x2: None,
        gamma,
        beta: None,
        stats,
        out: &mut normed,
    };
    work(kernels::GroupNormCodes::new(k, params, norm));

    let mut wide = floats(WIDE);
    let operands = kernels::Conv2dInt8Operands {
        x: &normed,
        weight: &weights.conv.panels,
        scale: &weights.conv.scale,
        sums: &weights.conv.sums,
        bias: Some(&weights.conv_bias),
        shift: Some(shift),
        residual: Residual::None,
        out: &mut wide,
    };
    work(kernels::Conv2dInt8::new(
        k,
        conv_params(conv(C, WIDE, 3)),
        operands,
    ));

    let mut rows = codes(WIDE, true);
    let params = kernels::LayerNormParams {
        rows: ROWS,
        c: WIDE,
        eps: 1e-5,
    };
    work(kernels::LayerNormCodes::new(
        k, params, &wide, None, None, &mut rows,
    ));

    let product = |x: &[u8], matrix: &Matrix, residual: Residual<'_, F16>, k_len, activation| {
        let mut out = floats(C);
        let operands = kernels::LinearInt8Operands {
            x,
            weight: &matrix.panels,
            scale: &matrix.scale,
            sums: &matrix.sums,
            bias: None,
            shift: None,
            residual,
            out: &mut out,
        };
        let params = kernels::LinearParams {
            rows: ROWS,
            k: k_len,
            k2: 0,
            n: C,
            activation,
        };
        work(kernels::LinearInt8::new(k, params, operands));
        out
    };
    let values = product(
        &rows,
        &weights.geglu,
        Residual::None,
        WIDE,
        kernels::Activation::Geglu,
    );

    let quantize = |x: &[F16], x2: &[F16], c2, per_row| {
        let (mut out, mut ranges) = (
            codes(C + c2, per_row),
            vec![0.0; kernels::ranges_len(ROWS, per_row)],
        );
        let params = kernels::QuantizeParams {
            rows: ROWS,
            c: C,
            c2,
            per_row,
        };
        work(kernels::Quantize::new(
            k,
            params,
            x,
            Some(x2),
            &mut ranges,
            &mut out,
        ));
        out
    };
    let both = quantize(&values, sample, C, true);
    let values = product(
        &both,
        &weights.linear,
        Residual::Other(&values),
        2 * C,
        kernels::Activation::Silu,
    );

    let mut attended = floats(C);
    let params = kernels::AttentionParams {
        q_rows: ROWS,
        kv_rows: ROWS,
        heads: HEADS,
        head_dim: C / HEADS,
        q_stride: C,
        k_stride: C,
        v_stride: C,
        scale: 0.3,
        causal: false,
    };
    let mut scratch = vec![f32::NAN; kernels::attention_codes_len(&params)];
    let (q, keys, v) = (&values[..], sample, &values[..]);
    let operands = kernels::AttentionInt8Operands {
        q,
        k: keys,
        v,
        codes: &mut scratch,
        out: &mut attended,
    };
    work(kernels::AttentionInt8::new(k, params, operands));

    let tensor = quantize(&attended, &wide, WIDE, false);
    let mut out = floats(OUT);
    let operands = kernels::Conv2dInt8Operands {
        x: &tensor,
        weight: &weights.last.panels,
        scale: &weights.last.scale,
        sums: &weights.last.sums,
        bias: None,
        shift: None,
        residual: Residual::None,
        out: &mut out,
    };
    work(kernels::Conv2dInt8::new(
        k,
        conv_params(conv(C + WIDE, OUT, 1)),
        operands,
    ));
    out
}

/// A lane's inputs as the program takes them: channels first.
struct Lane {
    sample: Vec<f32>,
    shift: Vec<f32>,
}

impl Lane {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Lane {
            sample: random.numbers(C * ROWS),
            shift: random.numbers(WIDE),
        }
    }

    /// The bits of the output, channels first.
    fn expected(&self, weights: &Weights) -> Vec<u32> {
        let sample: Vec<F16> = (0..ROWS * C)
            .map(|i| F16::store(self.sample[i % C * ROWS + i / C]))
            .collect();
        let shift: Vec<F16> = self.shift.iter().map(|v| F16::store(*v)).collect();
        let out = direct(weights, &sample, &shift);
        (0..OUT * ROWS)
            .map(|i| out[i % ROWS * OUT + i / ROWS].load().to_bits())
            .collect()
    }
}

fn run(model: &Model, lanes: &[Lane], threads: usize) -> Result<Vec<Vec<u32>>, RuntimeError> {
    let id = model.find(GraphKind::Unet, 64, 64)?;
    let options = SessionOptions {
        threads: NonZeroUsize::new(threads),
        ..SessionOptions::default()
    };
    let mut session = Session::new(model, &[(id, lanes.len())], &options)?;
    let mut evaluation = session.prepare(id, lanes.len())?;
    for (number, lane) in lanes.iter().enumerate() {
        evaluation.input(number, "sample", &[1, C, H, W], Data::F32(&lane.sample))?;
        evaluation.input(number, "shift", &[1, WIDE], Data::F32(&lane.shift))?;
    }
    let mut outputs = evaluation.run(&mut Silent)?;
    (0..lanes.len())
        .map(|lane| {
            let mut out = vec![f32::NAN; OUT * ROWS];
            outputs.read(lane, "out_sample", &mut out)?;
            Ok(out.iter().map(|v| v.to_bits()).collect())
        })
        .collect()
}

#[test]
fn programs_of_codes_are_their_kernels_whatever_the_lanes_the_threads_and_the_cpu() {
    let weights = Weights::new();
    let model = build(&weights).model();
    let lanes = [Lane::new(1), Lane::new(2)];
    let expected = lanes.each_ref().map(|lane| lane.expected(&weights));
    assert_ne!(expected[0], expected[1]);
    for isa in Isa::ALL.iter().filter(|isa| Kernels::new(**isa).is_ok()) {
        let model = model.clone().with_isa(*isa).expect("this CPU has it");
        for threads in [1, 2, 3] {
            assert_eq!(
                run(&model, &lanes, threads).expect("a valid program"),
                expected,
                "{isa:?}, {threads} threads"
            );
            let second = run(&model, &lanes[1..], threads).expect("a valid program");
            assert_eq!(second[0], expected[1], "{isa:?}, {threads} threads");
        }
    }
}

#[test]
fn damaged_bytes_of_any_operand_are_found() {
    let build = build(&Weights::new());
    let names: Vec<_> = build
        .program
        .steps
        .iter()
        .map(|step| (step.name.clone(), step.operands.clone()))
        .collect();
    let bytes = super::build::package(vec![build.program], &build.weights);
    let at = model(&bytes).package().weights_offset() as usize;
    let weights = names
        .iter()
        .flat_map(|(_, operands)| operands)
        .filter(|o| o.space == package::Space::Weights);
    let dtypes: Vec<_> = weights.clone().map(|operand| operand.dtype).collect();
    assert!(
        [DType::I8, DType::I32, DType::F32]
            .iter()
            .all(|dtype| dtypes.contains(dtype))
    );
    for operand in weights {
        let mut bytes = bytes.clone();
        bytes[at + (operand.offset + operand.bytes) as usize - 1] ^= 0x40;
        let error = run(&model(&bytes), &[Lane::new(1)], 2).expect_err("a damaged block");
        // One block holds all weights: the first step that reads any finds it.
        assert!(
            matches!(&error, RuntimeError::Weights { step, .. } if step == "norm1"),
            "{error}"
        );
    }
}
