mod codes;
mod lanes;
mod stages;
mod unet;

use std::io::Cursor;

use kiln_kernels::{Element, F16, pack};
use kiln_package::{
    self as package, DType, GraphKind, Layout, Operand, Package, Role, Space, Stage,
};
use proptest::prelude::*;

use super::memory::{self, Lifetime};
use super::{Form, PackageParts, Part, Plan, PlanError, Precision, Progress, Weights, emit};
use crate::graph::{Graph, ValueKind};

fn lifetime(bytes: u64, first: usize, last: usize) -> Lifetime {
    Lifetime { bytes, first, last }
}

#[test]
fn a_chain_needs_two_buffers() {
    let chain: Vec<Lifetime> = (0..6).map(|i| lifetime(640, i, i + 1)).collect();
    let arena = memory::assign(&chain);
    assert_eq!((arena.bytes, arena.bound), (1280, 1280));
    assert_eq!(memory::conflict(&chain, &arena), None);
    assert_eq!(memory::assign(&[]).bytes, 0);
}

#[test]
fn offsets_are_aligned() {
    let arena = memory::assign(&[lifetime(1, 0, 3), lifetime(65, 0, 3), lifetime(64, 1, 3)]);
    assert_eq!(arena.bytes, 64 + 128 + 64);
    assert!(arena.offsets.iter().all(|offset| offset % 64 == 0));
}

#[test]
fn conflicts_are_seen() {
    let buffers = [lifetime(64, 0, 1), lifetime(64, 1, 2), lifetime(64, 2, 3)];
    let at = |offsets: [u64; 3]| {
        memory::conflict(
            &buffers,
            &memory::Arena {
                offsets: offsets.to_vec(),
                bytes: 128,
                bound: 128,
            },
        )
    };
    assert_eq!(at([0, 64, 0]), None);
    assert_eq!(at([0, 0, 64]), Some((0, 1)));
    assert_eq!(at([0, 64, 64]), Some((1, 2)));
}

/// Placed by size alone, these take 9 units.
#[test]
fn the_order_that_fits_is_found() {
    let units = [
        (3, 1, 2),
        (3, 0, 0),
        (2, 3, 5),
        (2, 4, 5),
        (5, 2, 3),
        (4, 4, 4),
    ];
    let buffers = units.map(|(bytes, first, last)| lifetime(64 * bytes, first, last));
    let arena = memory::assign(&buffers);
    assert_eq!((arena.bytes, arena.bound), (8 * 64, 8 * 64));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_two_live_buffers_overlap(
        buffers in prop::collection::vec((1u64..5000, 0usize..40, 0usize..12), 1..80),
    ) {
        let buffers: Vec<Lifetime> = buffers.iter().map(|(bytes, first, len)| lifetime(*bytes, *first, first + len)).collect();
        let arena = memory::assign(&buffers);
        prop_assert_eq!(memory::conflict(&buffers, &arena), None);
        prop_assert!(arena.bytes >= arena.bound);
        let top = buffers.iter().zip(&arena.offsets).map(|(b, offset)| offset + b.bytes).max().unwrap();
        prop_assert_eq!(top.next_multiple_of(64), arena.bytes);
        // Worst of all: everything at its own place. Random lifetimes come far closer.
        prop_assert!(arena.bytes * 4 <= arena.bound * 5, "{} for a bound of {}", arena.bytes, arena.bound);
    }
}

fn part(text: &str) -> Part {
    let graph = Graph::parse(text).unwrap();
    graph.verify().unwrap();
    Part {
        kind: GraphKind::Unet,
        stage: Stage::Whole,
        max_chunks: 1,
        height: 32,
        width: 48,
        clip_skip: 0,
        graph,
    }
}

fn parts(graphs: Vec<Part>) -> PackageParts {
    PackageParts {
        card: "{}".into(),
        tokenizer: b"{}".to_vec(),
        scheduler: "{}".into(),
        graphs,
        ..PackageParts::default()
    }
}

fn plan(text: &str, precision: Precision) -> Result<Plan, PlanError> {
    Plan::new(parts(vec![part(text)]), precision, &mut |_| ())
}

/// What each 64 bytes of an arena hold: a value, by its name if it crosses stages, else by stage and number.
type Held = Vec<Option<(String, usize)>>;

/// Walks through the program of a graph and checks that each step finds in the arena what the graph says it reads.
fn check_dataflow(graph: &Graph, program: &package::ProgramRecord) {
    run(&mut Held::new(), graph, program);
}

/// As [`check_dataflow`], in an arena that other stages have left.
fn run(arena: &mut Held, graph: &Graph, program: &package::ProgramRecord) {
    let blocks = arena.len().max((program.arena_bytes / 64) as usize);
    arena.resize(blocks, None);
    let blocks = |operand: &Operand| {
        (operand.offset / 64) as usize..(operand.offset + operand.bytes).div_ceil(64) as usize
    };
    let at = |port: &package::PortRecord| Operand::arena(port.dtype, port.offset, port.bytes);
    let pinned =
        |operand: &Operand| operand.space == Space::Arena && operand.offset < program.pinned_bytes;
    let tag = |value: crate::graph::ValueId, operand: &Operand| match pinned(operand) {
        true => Some((graph.value(value).name.clone(), 0)),
        false => Some((program.stage.to_string(), value.index())),
    };
    for (value, port) in graph.inputs.iter().zip(&program.inputs) {
        let operand = at(port);
        match pinned(&operand) {
            true => assert!(
                arena[blocks(&operand)]
                    .iter()
                    .all(|held| *held == tag(*value, &operand)),
                "{}",
                port.name
            ),
            false => arena[blocks(&operand)].fill(tag(*value, &operand)),
        }
    }
    for ((_, node), step) in graph.iter_nodes().zip(&program.steps) {
        let filled = || step.op.slots().iter().zip(&step.operands);
        for (slot, operand) in
            filled().filter(|(slot, _)| matches!(slot.role, Role::Input | Role::Optional))
        {
            let codes = node.input("x").is_some_and(|x| graph.codes(x).is_some());
            let source = match slot.name {
                "scale" | "sums" if codes => "weight",
                "scale" if matches!(step.op, package::Op::Embed(op) if op.quantized) => "table",
                name => name,
            };
            let value = node.input(source);
            assert_eq!(
                value.is_some(),
                !operand.is_empty(),
                "{} {}",
                step.name,
                slot.name
            );
            let Some(value) = value else { continue };
            let constant = matches!(graph.value(value).kind, ValueKind::Weight(_));
            assert_eq!(
                constant,
                operand.space == Space::Weights,
                "{} {}",
                step.name,
                slot.name
            );
            let wrong = || {
                arena[blocks(operand)]
                    .iter()
                    .any(|held| *held != tag(value, operand))
            };
            assert!(constant || !wrong(), "{} {}", step.name, slot.name);
        }
        for (slot, operand) in filled().filter(|(slot, _)| slot.role == Role::Scratch) {
            let needed = step.op.requirement(slot.name).unwrap().is_some();
            assert_eq!(operand.is_empty(), !needed, "{} {}", step.name, slot.name);
            if needed {
                assert!(!pinned(operand), "{} {}", step.name, slot.name);
                arena[blocks(operand)].fill(None);
            }
        }
        let out = step.operands.last().unwrap();
        arena[blocks(out)].fill(tag(node.output, out));
    }
    for (value, port) in graph.outputs.iter().zip(&program.outputs) {
        let operand = at(port);
        assert!(
            arena[blocks(&operand)]
                .iter()
                .all(|held| *held == tag(*value, &operand)),
            "{}",
            port.name
        );
    }
}

/// Every kiln operator, with and without the operands that may be missing.
const EVERY_OP: &str = r#"graph "unet" {
  input %0 "sample" [4, 6, 4]
  input %1 "timestep" [1]
  input %2 "encoder_hidden_states" [7, 12]
  input %3 "input_ids" [7]
  %4 = weight "frequencies" [8]
  %5 = timestep_embedding "time_proj" (timestep: %1, frequencies: %4) {cos_first: true}
  %6 = weight "time.weight" [20, 16]
  %7 = weight "time.bias" [20]
  %8 = linear "time" (x: %5, weight: %6, bias: %7) {activation: silu}
  %9 = weight "conv_in.weight" [20, 4, 3, 3]
  %10 = weight "conv_in.bias" [20]
  %11 = conv2d "conv_in" (x: %0, weight: %9, bias: %10, shift: %8) {stride: 2, pad: [1, 1, 1, 1], up: none, activation: none}
  %12 = weight "norm.gamma" [20]
  %13 = weight "norm.beta" [20]
  %14 = group_norm "norm" (x: %11, gamma: %12, beta: %13) {groups: 4, eps: 1e-5, activation: silu}
  %15 = weight "conv.weight" [20, 20, 3, 3]
  %16 = conv2d "conv" (x: %14, weight: %15, residual: %11) {stride: 1, pad: [1, 1, 1, 1], up: none, activation: none}
  %17 = layer_norm "ln" (x: %16, gamma: %12, beta: %13) {eps: 1e-5}
  %18 = weight "q.weight" [20, 20]
  %19 = linear "q" (x: %17, weight: %18) {activation: none}
  %20 = weight "k.weight" [20, 12]
  %21 = linear "k" (x: %2, weight: %20) {activation: none}
  %22 = linear "v" (x: %2, weight: %20) {activation: none}
  %23 = weight "mask" [6, 7]
  %24 = attention "attn" (q: %19, k: %21, v: %22, mask: %23) {heads: 5, scale: 0.5, causal: false}
  %25 = weight "ff.weight" [36, 20]
  %26 = weight "ff.bias" [36]
  %27 = linear "ff" (x: %24, weight: %25, bias: %26) {activation: geglu}
  %28 = weight "ff2.weight" [20, 38]
  %29 = linear "ff2" (x: %27, x2: %16, weight: %28, residual: %16) {activation: none}
  %30 = unary "act" (x: %29) {activation: gelu}
  %31 = affine "scaled" (x: %30) {scale: 2.0, offset: 1.0}
  %32 = weight "row" [20]
  %33 = binary "row" (a: %31, b: %32) {kind: mul}
  %34 = binary "twice" (a: %33, b: %33) {kind: add}
  %35 = softmax "softmax" (x: %34) {}
  %36 = concat "concat" (x: %35, x2: %33) {}
  %37 = upsample "up" (x: %36) {size: [4, 6]}
  %38 = copy "turned" (x: %37) {shape: [40, 24], strides: [1, 40], offset: 0}
  %39 = weight "table" [50, 24]
  %40 = weight "positions" [7, 24]
  %41 = embed "embed" (ids: %3, table: %39, positions: %40) {}
  %42 = group_norm "norm2" (x: %37, x2: %37) {groups: 1, eps: 1e-5, activation: none}
  %43 = weight "conv_out.weight" [4, 80, 3, 3]
  %44 = conv2d "conv_out" (x: %42, weight: %43) {stride: 1, pad: [1, 1, 1, 1], up: [5, 9], activation: none}
  %45 = binary "scaled_by" (a: %38, b: 3.0) {kind: div}
  %46 = quantize "codes" (x: %42) {per_row: true}
  output %44
  output %41
  output %45
}"#;

#[test]
fn every_operator_becomes_a_step() {
    for precision in [Precision::F32, Precision::F16] {
        let part = part(EVERY_OP);
        let plan = plan(EVERY_OP, precision).unwrap();
        let program = &plan.programs[0];
        check_dataflow(&part.graph, program);
        let codes: std::collections::BTreeSet<u16> =
            program.steps.iter().map(|step| step.op.code()).collect();
        // Four are of bands.
        assert_eq!(codes.len(), package::Op::ALL.len() - 4);
        let wide = |op: &package::Op| matches!(op, package::Op::Conv2d(conv) if (conv.up_h, conv.up_w) == (5, 9));
        assert!(program.steps.iter().any(|step| wide(&step.op)));
        assert!(program.thread_scratch_bytes > 0);

        let ports: Vec<_> = program
            .inputs
            .iter()
            .chain(&program.outputs)
            .map(|p| (p.name.as_str(), p.dtype, p.layout, p.shape.clone()))
            .collect();
        let float = precision.dtype();
        assert_eq!(
            ports,
            [
                ("sample", float, Layout::ChannelsLast, vec![1, 4, 4, 6]),
                ("timestep", DType::F32, Layout::RowMajor, vec![1]),
                (
                    "encoder_hidden_states",
                    float,
                    Layout::RowMajor,
                    vec![1, 7, 12]
                ),
                ("input_ids", DType::I32, Layout::RowMajor, vec![1, 7]),
                ("conv_out", float, Layout::ChannelsLast, vec![1, 4, 5, 9]),
                ("embed", float, Layout::RowMajor, vec![1, 7, 24]),
                ("scaled_by", float, Layout::RowMajor, vec![1, 40, 24]),
            ]
        );

        let mut file = Cursor::new(Vec::new());
        plan.write(&mut file, &mut |_| ()).unwrap();
        let package = Package::open(file.get_ref()).unwrap();
        package.verify_all().unwrap();
        check_weights(&part.graph, &package, precision);
    }
}

/// Unpacks every weight of the package and compares it with the graph's.
fn check_weights(graph: &Graph, package: &Package, precision: Precision) {
    let program = package.program(0).unwrap();
    let elements = |operand: Operand| -> Vec<f32> {
        let bytes = &package.weights()[operand.offset as usize..][..operand.bytes as usize];
        match operand.dtype {
            DType::F32 => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
            DType::F16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| half::f16::from_le_bytes(*b).to_f32())
                .collect(),
            other => panic!("{other}"),
        }
    };
    let mut compared = 0;
    for ((_, node), step) in graph.iter_nodes().zip(program.steps()) {
        let op = step.op();
        for (slot, operand) in op.slots().iter().zip(step.operands()) {
            let Some(ValueKind::Weight(weight)) =
                node.input(slot.name).map(|value| &graph.value(value).kind)
            else {
                continue;
            };
            let exact = matches!(
                slot.name,
                "bias" | "gamma" | "beta" | "frequencies" | "mask"
            );
            assert_eq!(
                operand.dtype,
                if exact { DType::F32 } else { precision.dtype() },
                "{}",
                slot.name
            );
            let expected: Vec<f32> = weight
                .read()
                .iter()
                .map(|v| match operand.dtype {
                    DType::F16 => half::f16::from_f32(*v).to_f32(),
                    _ => *v,
                })
                .collect();
            let stored = elements(operand);
            // What the format says of panels, spelled out.
            let panel = |column: usize, k: usize, depth: usize| {
                stored[(column / 16 * depth + k) * 16 + column % 16]
            };
            let found: Vec<f32> = match (op, slot.name) {
                (package::Op::Conv2d(op), "weight") => {
                    let [o, i, h, w] =
                        [op.out_c, op.in_c, op.kernel_h, op.kernel_w].map(|n| n as usize);
                    let index = |n: usize| (n / (i * h * w), n / (h * w) % i, n / w % h, n % w);
                    let element = |(o, c, y, x)| panel(o, (y * w + x) * i + c, h * w * i);
                    (0..o * i * h * w).map(|n| element(index(n))).collect()
                }
                (package::Op::Linear(op), "weight") => {
                    let (n, k) = (op.n as usize, (op.k + op.k2) as usize);
                    let geglu = op.activation == package::Activation::Geglu;
                    let column = |row: usize| match geglu {
                        true => (row % n) / 16 * 32 + row / n * 16 + row % n % 16,
                        false => row,
                    };
                    (0..weight.len())
                        .map(|i| panel(column(i / k), i % k, k))
                        .collect()
                }
                _ => stored,
            };
            assert_eq!(found, expected, "{} {}", step.name(), slot.name);
            compared += 1;
        }
    }
    assert!(compared > 15);
}

/// The kernels round as `half` does.
#[test]
fn halves_are_rounded_to_nearest_even() {
    for bits in (0..u32::MAX).step_by(65_521) {
        let value = f32::from_bits(bits);
        if !value.is_nan() {
            assert_eq!(
                F16::store(value).to_bits(),
                half::f16::from_f32(value).to_bits(),
                "{value}"
            );
        }
    }
}

#[test]
fn equal_weights_are_stored_once_whatever_their_digests() {
    let weight = |values: [f32; 4]| {
        crate::graph::Weight::new(crate::graph::Literal {
            shape: vec![2, 2],
            values: values.to_vec(),
        })
    };
    let (a, again) = (weight([1.0, 2.0, 3.0, 4.0]), weight([1.0, 2.0, 3.0, 4.0]));
    let b = weight([1.0, 2.0, 3.0, -4.0]);
    let plain = (Form::Plain, (DType::F32, 16));
    for mut weights in [Weights::default(), Weights::with_digest(|_| 7)] {
        let mut place =
            |weight, (form, size)| weights.place("w", weight, form, size).unwrap().offset;
        assert_eq!(place(&a, plain), 0);
        assert_eq!(place(&b, plain), 64);
        assert_eq!(place(&again, plain), 0);
        assert_eq!(place(&a, plain), 0);
        // Another form of it is other bytes.
        let half = (Form::Plain, (DType::F16, 8));
        assert_eq!(place(&a, half), 128);
        let mut bytes = Vec::new();
        weights.write(&mut bytes, 2, |_| ()).unwrap();
        assert_eq!(bytes.len(), 136);
        assert_eq!(bytes[76..80], (-4.0f32).to_le_bytes());
        assert_eq!(bytes[128..130], [0, 0x3c]);
    }
}

#[test]
fn sizes_are_the_kernels() {
    let norm = package::GroupNorm {
        rows: 129,
        c: 5,
        c2: 3,
        groups: 2,
        eps: 0.0,
        activation: package::Activation::None,
        quantized: false,
    };
    let linear = package::Linear {
        rows: 3,
        k: 5,
        k2: 2,
        n: 17,
        activation: package::Activation::Geglu,
    };
    let elements = |op: package::Op, slot| op.requirement(slot).unwrap().unwrap().elements as usize;
    assert_eq!(
        elements(package::Op::GroupNorm(norm), "stats"),
        kiln_kernels::stats_len(129, 8)
    );
    assert_eq!(
        elements(package::Op::Linear(linear), "weight"),
        pack::geglu_panel_len(17, 7)
    );
    let plain = package::Linear {
        activation: package::Activation::Silu,
        ..linear
    };
    assert_eq!(
        elements(package::Op::Linear(plain), "weight"),
        pack::panel_len(17, 7)
    );
    let codes = package::GroupNorm {
        quantized: true,
        ..norm
    };
    assert_eq!(
        elements(package::Op::GroupNorm(codes), "stats"),
        kiln_kernels::codes_stats_len(129, 8)
    );
    assert_eq!(
        elements(package::Op::GroupNorm(codes), "out"),
        kiln_kernels::codes_bytes(129, 8, false)
    );
    let norm = package::LayerNorm {
        rows: 129,
        c: 5,
        eps: 0.0,
        quantized: true,
    };
    assert_eq!(
        elements(package::Op::LayerNorm(norm), "out"),
        kiln_kernels::codes_bytes(129, 5, true)
    );
    for per_row in [false, true] {
        let op = package::Op::Quantize(package::Quantize {
            rows: 129,
            c: 5,
            c2: 3,
            per_row,
        });
        assert_eq!(
            elements(op, "ranges"),
            kiln_kernels::ranges_len(129, per_row)
        );
        assert_eq!(
            elements(op, "out"),
            kiln_kernels::codes_bytes(129, 8, per_row)
        );
        assert_eq!(
            package::codes_parameter_bytes(129, per_row),
            kiln_kernels::codes_start(129, per_row) as u64
        );
    }
    let single = package::Linear { k2: 0, ..linear };
    let integer = |op: package::Linear, slot| {
        package::Op::Linear(op)
            .requirement_with(slot, true)
            .unwrap()
            .unwrap()
            .elements as usize
    };
    assert_eq!(integer(single, "weight"), pack::i8_geglu_panel_len(17, 5));
    let plain = package::Linear {
        activation: package::Activation::None,
        ..single
    };
    assert_eq!(integer(plain, "weight"), pack::i8_panel_len(17, 5));
    for (rows, heads, head_dim) in [(1024u32, 3u32, 13u32), (130, 2, 32)] {
        let params = kiln_kernels::AttentionParams {
            q_rows: rows as usize,
            kv_rows: rows as usize,
            heads: heads as usize,
            head_dim: head_dim as usize,
            q_stride: 64,
            k_stride: 64,
            v_stride: 64,
            scale: 1.0,
            causal: false,
        };
        let expected = kiln_kernels::attention_codes_len(&params) as u64;
        assert_eq!(
            package::attention_codes_len(rows, heads, head_dim),
            Some(expected)
        );
    }
    assert_eq!(package::PANEL, kiln_kernels::PANEL);
    assert_eq!(package::NORM_BLOCK, kiln_kernels::NORM_BLOCK);
}

fn step<'a>(plan: &'a Plan, name: &str) -> &'a package::StepRecord {
    plan.programs[0]
        .steps
        .iter()
        .find(|step| step.name == name)
        .unwrap()
}

fn operand(plan: &Plan, name: &str, slot: &str) -> Operand {
    let step = step(plan, name);
    step.operands[step.op.slots().iter().position(|s| s.name == slot).unwrap()]
}

#[test]
fn outputs_are_computed_in_place_where_the_operand_ends() {
    let plan = plan(EVERY_OP, Precision::F32).unwrap();
    let in_place = |name, slot| operand(&plan, name, slot) == operand(&plan, name, "out");
    assert!(in_place("conv", "residual"));
    assert!(in_place("act", "x"));
    assert!(in_place("scaled", "x"));
    assert!(in_place("softmax", "x"));
    // Read in two slots; read again later; the second source of the same step.
    assert!(!in_place("twice", "a"));
    assert!(!in_place("ff2", "residual"));

    let kept = r#"graph "unet" {
  input %0 "x" [2, 2, 16]
  %1 = unary "a" (x: %0) {activation: silu}
  %2 = unary "b" (x: %1) {activation: silu}
  %3 = unary "c" (x: %1) {activation: gelu}
  output %1
  output %2
  output %3
}"#;
    let plan = self::plan(kept, Precision::F32).unwrap();
    check_dataflow(&part(kept).graph, &plan.programs[0]);
    assert_eq!(plan.programs[0].arena_bytes, 3 * 256);
    // The input's own buffer.
    assert_eq!(operand(&plan, "a", "x"), operand(&plan, "a", "out"));
}

#[test]
fn equal_weights_are_stored_once() {
    let text = |size: usize, seed: &str| {
        format!(
            r#"graph "unet" {{
  input %0 "x" [{size}, 2, 16]
  %1 = weight "{seed}.weight" [16, 16]
  %2 = linear "a" (x: %0, weight: %1) {{activation: none}}
  %3 = weight "b.bias" [2] = [1.0, 2.0]
  %4 = weight "b.weight" [2, 16]
  %5 = linear "b" (x: %2, weight: %4, bias: %3) {{activation: none}}
  output %5
}}"#
        )
    };
    let parts_of = |graphs: &[(u32, &str)]| {
        let part = |(size, seed): &(u32, &str)| Part {
            height: 8 * size,
            width: 16,
            ..part(&text(*size as usize, seed))
        };
        parts(graphs.iter().map(part).collect())
    };
    let bytes = |graphs| {
        let plan = Plan::new(parts_of(graphs), Precision::F32, &mut |_| ()).unwrap();
        let order: Vec<_> = plan
            .weights
            .placed()
            .iter()
            .map(|w| (w.name.clone(), w.operand.offset))
            .collect();
        assert!(order.is_sorted_by_key(|(_, offset)| *offset));
        (
            plan.weights.bytes(),
            order.into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
        )
    };
    // Two columns take a whole panel; the bias has 8 bytes and is padded but at the end.
    let (one, order) = bytes(&[(2, "a")]);
    assert_eq!(order, ["a.weight", "b.weight", "b.bias"]);
    assert_eq!(one, 1024 + 1024 + 8);
    assert_eq!(bytes(&[(2, "a"), (3, "a")]).0, one);
    let (two, order) = bytes(&[(3, "a"), (2, "c")]);
    assert_eq!((two, order.len()), (1024 + 1024 + 64 + 1024, 4));
    // The smaller size comes first, whatever the order of the parts.
    assert_eq!(order[0], "c.weight");
}

#[test]
fn equal_parts_give_equal_bytes() {
    let bytes = || {
        let mut file = Cursor::new(Vec::new());
        let mut events = Vec::new();
        let parts = parts(vec![part(EVERY_OP)]);
        emit(parts, Precision::F16, &mut file, &mut |event| {
            events.push(event)
        })
        .unwrap();
        assert_eq!(
            events[0],
            Progress::Program {
                graph: GraphKind::Unet,
                height: 32,
                width: 48
            }
        );
        let Some(Progress::Weights { done, total }) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!(done, total);
        file.into_inner()
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn what_cannot_be_packaged_is_named() {
    let error = |body: &str, precision| {
        let text = format!("graph \"unet\" {{\n  input %0 \"x\" [2, 2]\n{body}\n}}");
        plan(&text, precision).unwrap_err().to_string()
    };
    assert_eq!(
        error(
            "  %1 = source_unary \"n\" (x: %0) {kind: exp}\n  output %1",
            Precision::F32
        ),
        "graph \"unet\", node \"n\" (source_unary): no program has such an operator"
    );
    let weight = |value: &str| {
        format!(
            "  %1 = weight \"w\" [1, 2] = [1.0, {value}]\n  %2 = linear \"n\" (x: %0, weight: %1) {{activation: none}}\n  output %2"
        )
    };
    assert_eq!(
        error(&weight("65520.0"), Precision::F16),
        "weight \"w\": element 1 is 65520, which f16 cannot hold"
    );
    assert!(
        plan(
            &format!(
                "graph \"g\" {{\n  input %0 \"x\" [2, 2]\n{}\n}}",
                weight("65519.9")
            ),
            Precision::F16
        )
        .is_ok()
    );
    assert!(
        plan(
            &format!(
                "graph \"g\" {{\n  input %0 \"x\" [2, 2]\n{}\n}}",
                weight("65520.0")
            ),
            Precision::F32
        )
        .is_ok()
    );
    let constant = "  %1 = weight \"w\" [1] = [1.0]\n  %2 = unary \"n\" (x: %0) {activation: silu}\n  output %2\n  output %1";
    assert_eq!(
        error(constant, Precision::F32),
        "graph \"unet\", port \"w\": is a constant"
    );
    let shift = "  %1 = weight \"w\" [1, 2] = [1.0, 1.0]\n  %2 = weight \"s\" [1, 1] = [1.0]\n  \
                 %3 = linear \"n\" (x: %0, weight: %1, shift: %2) {activation: none}\n  output %3";
    assert_eq!(
        error(shift, Precision::F32),
        "graph \"unet\", node \"n\" (linear): operand `shift` lies in the wrong space"
    );
}

#[test]
fn numbers_that_are_none_are_refused() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut graph = Graph::new("unet");
        let x = graph.add_input("x", &[2, 2]);
        let values = vec![0.5, value];
        let weight = crate::graph::Weight::new(crate::graph::Literal {
            shape: vec![1, 2],
            values,
        });
        let w = graph.add_weight("w", weight);
        let op = crate::graph::Op::Linear {
            activation: package::Activation::None,
        };
        let y = graph.add(op, &[Some(x), None, Some(w)], "n").unwrap();
        graph.outputs.push(y);
        let part = Part {
            kind: GraphKind::Unet,
            stage: Stage::Whole,
            max_chunks: 1,
            height: 8,
            width: 8,
            clip_skip: 0,
            graph,
        };
        let error = Plan::new(parts(vec![part]), Precision::F32, &mut |_| ()).unwrap_err();
        assert!(
            matches!(&error, PlanError::Weight { name, .. } if name == "w"),
            "{error}"
        );
    }
}
