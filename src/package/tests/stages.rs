//! Programs of several stages: what they must agree on.

use super::*;

const ROWS: u32 = 6;
const CHUNKS: u32 = 3;
pub(super) const PINNED: u64 = 192 + 64;

pub(super) fn port(name: &str, offset: u64, shape: &[u32]) -> PortRecord {
    let bytes = 2 * shape.iter().product::<u32>();
    PortRecord {
        name: name.to_owned(),
        dtype: DType::F16,
        layout: Layout::RowMajor,
        shape: shape.to_vec(),
        offset,
        bytes: bytes.into(),
        per_chunk: name == "k" || name == "context",
    }
}

pub(super) fn step(op: Op, offsets: &[(usize, u64)], name: &str) -> StepRecord {
    let mut operands = vec![Operand::EMPTY; op.slots().len()];
    for (slot, offset) in offsets {
        let required = op.requirement(op.slots()[*slot].name).unwrap().unwrap();
        let space = required.space.unwrap_or(Space::Arena);
        let bytes = required.bytes(DType::F16).unwrap();
        operands[*slot] = Operand {
            space,
            dtype: required.holds.dtype(DType::F16),
            offset: *offset,
            bytes,
        };
    }
    StepRecord {
        op,
        operands,
        name: name.to_owned(),
        per_chunk: name.ends_with('*'),
        joined: false,
    }
}

/// `k` from the context in chunks, `shift` from the timestep; both read by the step.
pub(super) fn staged() -> PackageWriter {
    let record = |stage, arena_bytes, inputs, outputs, steps| ProgramRecord {
        graph: GraphKind::Unet,
        stage,
        height: 64,
        width: 64,
        clip_skip: 0,
        arena_bytes,
        thread_scratch_bytes: 0,
        pinned_bytes: PINNED,
        shared_bytes: 0,
        max_chunks: if stage == Stage::Timestep { 1 } else { CHUNKS },
        inputs,
        outputs,
        steps,
    };
    let linear = |rows| {
        Op::Linear(Linear {
            rows,
            k: 4,
            k2: 0,
            n: 16,
            activation: Activation::None,
        })
    };
    let attention = Op::Attention(Attention {
        q_rows: 2,
        kv_rows: ROWS,
        heads: 1,
        head_dim: 16,
        q_stride: 16,
        k_stride: 16,
        v_stride: 16,
        ..ATTENTION
    });
    let (k, shift) = (port("k", 0, &[1, ROWS, 16]), port("shift", 192, &[1, 16]));
    let prompt = record(
        Stage::Prompt,
        PINNED + 64,
        vec![port("context", PINNED, &[1, ROWS, 4])],
        vec![k.clone()],
        vec![step(linear(ROWS), &[(0, PINNED), (2, 0), (8, 0)], "k*")],
    );
    let timestep = record(
        Stage::Timestep,
        PINNED + 64,
        vec![port("timestep", PINNED, &[1, 4])],
        vec![shift.clone()],
        vec![step(linear(1), &[(0, PINNED), (2, 0), (8, 192)], "shift")],
    );
    let steps = vec![
        step(
            attention,
            &[(0, PINNED), (1, 0), (2, 0), (5, PINNED + 64)],
            "attend*",
        ),
        step(
            Op::Concat(Concat {
                rows: 1,
                c: 16,
                c2: 16,
            }),
            &[(0, 192), (1, 192), (2, PINNED + 128)],
            "shift",
        ),
    ];
    let last = record(
        Stage::Step,
        PINNED + 192,
        vec![port("sample", PINNED, &[1, 2, 16]), k, shift],
        vec![
            port("y", PINNED + 64, &[1, 2, 16]),
            port("z", PINNED + 128, &[1, 32]),
        ],
        steps,
    );
    PackageWriter {
        programs: vec![prompt, timestep, last],
        ..PackageWriter::default()
    }
}

#[test]
fn stages_that_agree() {
    let bytes = staged().to_vec(&weights()).unwrap();
    let package = Package::open(&bytes).unwrap();
    walk(&package);
    let [prompt, timestep, step] = [Stage::Prompt, Stage::Timestep, Stage::Step]
        .map(|stage| package.find(GraphKind::Unet, stage, 64, 64).unwrap());
    assert!(
        package
            .find(GraphKind::Unet, Stage::Whole, 64, 64)
            .is_none()
    );
    assert!(
        package
            .find(GraphKind::VaeDecoder, Stage::Step, 64, 64)
            .is_none()
    );
    for program in [prompt, timestep, step] {
        assert_eq!(program.pinned_bytes(), PINNED);
    }
    assert_eq!(
        [prompt, timestep, step].map(|p| p.max_chunks()),
        [CHUNKS, 1, CHUNKS]
    );
    assert_eq!(
        step.steps().map(|s| s.per_chunk()).collect::<Vec<_>>(),
        [true, false]
    );

    let k = step.input("k").unwrap();
    assert_eq!(k, prompt.output("k").unwrap());
    assert!(k.per_chunk && !step.input("shift").unwrap().per_chunk);
    let one = k.at_chunks(1, CHUNKS);
    assert_eq!(
        (one.shape(), one.bytes, one.elements()),
        (&[1, 2, 16][..], 64, 32)
    );
    assert_eq!(k.at_chunks(CHUNKS, CHUNKS), k);
    let shift = step.input("shift").unwrap();
    assert_eq!(shift.at_chunks(1, CHUNKS), shift);
    // At most what the arena has room for, and nothing divides by zero.
    assert_eq!(k.at_chunks(9, CHUNKS), k);
    assert_eq!(k.at_chunks(1, 0).bytes, 0);
}

#[test]
fn operators_at_fewer_chunks() {
    let rows = |op: Op| match op.at_chunks(2, 3) {
        Op::Linear(op) => op.rows,
        Op::Quantize(op) => op.rows,
        Op::Attention(op) => op.kv_rows,
        _ => 0,
    };
    assert_eq!(rows(Op::Linear(GEGLU)), 10);
    assert_eq!(
        rows(Op::Quantize(Quantize {
            rows: 9,
            per_row: true,
            ..QUANTIZE
        })),
        6
    );
    assert_eq!(
        rows(Op::Quantize(Quantize {
            rows: 9,
            ..QUANTIZE
        })),
        9
    );
    assert_eq!(
        rows(Op::Attention(Attention {
            kv_rows: 231,
            ..ATTENTION
        })),
        154
    );
    for op in every_op() {
        assert_eq!(op.at_chunks(3, 3), op);
        for stage in Stage::ALL {
            let may = matches!(
                (&op, stage),
                (Op::Linear(_), Stage::Prompt) | (Op::Attention(_), Stage::Step)
            );
            assert_eq!(op.chunk_rows(*stage).is_some(), may, "{op:?} in {stage}");
        }
    }
    let integers = Op::Attention(Attention {
        q_rows: 7,
        integers: true,
        ..ATTENTION
    });
    assert_eq!(integers.chunk_rows(Stage::Step), None);
    let per_row = Op::Quantize(Quantize {
        per_row: true,
        ..QUANTIZE
    });
    assert_eq!(per_row.chunk_rows(Stage::Prompt), Some(65));
    // No overflow, whatever the numbers.
    let most = Op::Linear(Linear {
        rows: u32::MAX,
        ..GEGLU
    });
    assert_eq!(
        most.at_chunks(u32::MAX, 1).chunk_rows(Stage::Prompt),
        Some(u32::MAX)
    );
    most.at_chunks(1, 0);
}

#[test]
fn stages_that_disagree() {
    type Change = fn(&mut [ProgramRecord]);
    let cases: &[(Change, &str)] = &[
        (
            |p| p[0].pinned_bytes -= 64,
            "program 0: pinned bytes: 256 expected, 192 found",
        ),
        (
            |p| p[2].pinned_bytes += 64,
            "program 0: pinned bytes: 320 expected, 256 found",
        ),
        (
            |p| p.iter_mut().for_each(|p| p.pinned_bytes += 64),
            "program 0, port 0: disagrees",
        ),
        (
            |p| p.iter_mut().for_each(|p| p.pinned_bytes -= 64),
            "program 1, port 1: disagrees",
        ),
        (
            |p| p.iter_mut().for_each(|p| p.pinned_bytes = 128),
            "program 0, port 1: pinned port ends at 192",
        ),
        (
            |p| p.iter_mut().for_each(|p| p.pinned_bytes += 1),
            "pinned bytes: a multiple of 64",
        ),
        (
            |p| p.iter_mut().for_each(|p| p.pinned_bytes += 1024),
            "pinned bytes: at most 320",
        ),
        (
            |p| p[0].max_chunks = 2,
            "program 0: chunks: 3 expected, 2 found",
        ),
        (
            |p| p[1].max_chunks = 3,
            "program 1: chunks: 1 expected, 3 found",
        ),
        (|p| p[2].max_chunks = 0, "chunks"),
        (
            |p| p[0].stage = Stage::Whole,
            "program 0: chunks: 1 expected, 3 found",
        ),
        (
            |p| p[1].stage = Stage::Whole,
            "program 0: pinned bytes: 0 expected, 256 found",
        ),
        (
            |p| (p[2].stage, p[2].max_chunks, p[2].pinned_bytes) = (Stage::Whole, 1, 0),
            "do not go together",
        ),
        (
            |p| p[2].height = 128,
            "the stages of the graph at this size do not go together",
        ),
        (
            |p| p[2].graph = GraphKind::VaeDecoder,
            "the stages of the graph at this size do not go together",
        ),
        (
            |p| p[0].outputs[0].name = "q".to_owned(),
            "program 0, port 1: disagrees",
        ),
        (
            |p| p[0].outputs[0].per_chunk = false,
            "program 0, port 1: disagrees",
        ),
        (
            |p| p[0].outputs[0].shape = vec![1, 3, 32],
            "program 0, port 1: disagrees",
        ),
        (
            |p| p[1].outputs[0].layout = Layout::ChannelsLast,
            "program 1, port 1: rank",
        ),
        (
            |p| p[1].outputs[0].per_chunk = true,
            "program 1, port 1: disagrees",
        ),
        (
            |p| drop(p[2].inputs.remove(1)),
            "program 0, port 1: disagrees",
        ),
        // Both stages give it.
        (
            |p| {
                p[0].outputs[0].per_chunk = false;
                p[2].inputs[1].per_chunk = false;
                let (port, mut step) = (p[0].outputs[0].clone(), p[0].steps[0].clone());
                p[1].outputs.push(port);
                step.per_chunk = false;
                step.operands[0].offset = 320;
                p[1].steps.push(step);
                p[1].arena_bytes += 64;
            },
            "program 2, port 1: disagrees",
        ),
        // An input of its own lies in the pinned bytes.
        (
            |p| p[1].inputs[0].offset = 0,
            "program 1, port 0: disagrees",
        ),
        (|p| p[2].inputs[0].name = "k2".to_owned(), ""),
        (
            |p| p[2].outputs[1].offset = 192,
            "program 2, port 4: disagrees",
        ),
        // The flag where the rows do not follow the context.
        (
            |p| p[2].inputs[0].per_chunk = true,
            "program 2, port 0: its rows do not grow",
        ),
        (
            |p| p[2].steps[1].per_chunk = true,
            "program 2, step 1: its rows do not grow",
        ),
        (
            |p| p[1].steps[0].per_chunk = true,
            "program 1, step 0: its rows do not grow",
        ),
        (
            |p| p[0].inputs[0].shape = vec![1, 1, ROWS, 4],
            "program 0, port 0: its rows do not grow",
        ),
        (
            |p| p[0].inputs[0].shape = vec![ROWS, 1, 4],
            "program 0, port 0: batch: 1 expected, 6 found",
        ),
        (
            |p| p[0].inputs[0].shape = vec![1, 4, ROWS],
            "program 0, port 0: its rows do not grow",
        ),
        (
            |p| {
                p.iter_mut()
                    .filter(|p| p.max_chunks > 1)
                    .for_each(|p| p.max_chunks = 4)
            },
            "its rows do not grow",
        ),
        // Something else in the pinned bytes: a step writes there, or reads a part or what is of another stage.
        (
            |p| p[2].steps[1].operands[2].offset = 0,
            "program 2, step 1, operand `out`: disagrees",
        ),
        (
            |p| p[2].steps[1].operands[1].offset = 128,
            "program 2, step 1, operand `x2`: disagrees",
        ),
        (
            |p| p[1].steps[0].operands[8].offset = 128,
            "program 1, step 0, operand `out`: disagrees",
        ),
        (
            |p| p[0].steps[0].operands[0].offset = 192,
            "program 0, step 0, operand `x`: disagrees",
        ),
        (
            |p| {
                p[2].steps[1].op = Op::Binary(Binary {
                    rows: 1,
                    cols: 16,
                    kind: BinaryKind::Add,
                    broadcast: Broadcast::Same,
                });
                let mut operands = p[2].steps[1].operands.clone();
                operands[1].offset = PINNED;
                operands[1].bytes = 32;
                operands[2] = operands[0];
                p[2].steps[1].operands = operands;
                p[2].outputs.pop();
                p[2].arena_bytes -= 64;
            },
            "program 2, step 1, operand `out`: disagrees",
        ),
    ];
    let mut wrong = Vec::new();
    for (i, (change, expected)) in cases.iter().enumerate() {
        let mut writer = staged();
        change(&mut writer.programs);
        let result = writer.to_vec(&weights());
        if expected.is_empty() {
            assert!(result.is_ok(), "case {i}");
            continue;
        }
        let error = result.err().map(|e| e.to_string()).unwrap_or_default();
        if !error.contains(expected) {
            wrong.push(format!("case {i}: {expected:?}: {error:?}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
    // A step alone; one without the other earlier stage.
    let mut alone = staged();
    alone.programs.drain(..2);
    assert!(
        alone
            .to_vec(&weights())
            .unwrap_err()
            .to_string()
            .contains("do not go together")
    );
    let mut one = staged();
    one.programs.remove(1);
    assert!(
        one.to_vec(&weights())
            .unwrap_err()
            .to_string()
            .contains("program 1, port 2: disagrees")
    );
}

/// Every 16-bit half of the tables, set to extremes, as for the programs of one stage.
#[test]
fn staged_programs_that_lie() {
    let bytes = staged().to_vec(&weights()).unwrap();
    let programs = find_section(&bytes, section::PROGRAMS).1;
    for at in (programs.start..programs.end - 1).step_by(2) {
        for value in [
            [0, 0],
            [0xFF, 0xFF],
            [1, 0],
            [64, 0],
            [bytes[at] ^ 64, bytes[at + 1]],
        ] {
            let mut patched = bytes.clone();
            let Some(half) = patched.get_mut(at..at + 2) else {
                continue;
            };
            half.copy_from_slice(&value);
            reseal(&mut patched);
            let Ok(package) = Package::open(&patched) else {
                continue;
            };
            walk(&package);
            check_pinned(&package);
        }
    }
}

/// What the runtime relies on: no step of `Step` writes a pinned byte, and each stage writes but its own outputs there.
fn check_pinned(package: &Package) {
    for program in package.programs() {
        for step in program.steps() {
            for (operand, slot) in step.operands().zip(step.op().slots()) {
                let pinned =
                    operand.space == Space::Arena && operand.offset < program.pinned_bytes();
                if !pinned || matches!(slot.role, Role::Input | Role::Optional) {
                    continue;
                }
                assert_ne!(program.stage(), Stage::Step);
                let port = program
                    .outputs()
                    .find(|port| port.operand() == operand)
                    .unwrap();
                let step = package
                    .find(
                        program.graph(),
                        Stage::Step,
                        program.height(),
                        program.width(),
                    )
                    .unwrap();
                assert_eq!(step.input(port.name), Some(port));
            }
        }
    }
}
