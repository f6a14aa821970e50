use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::format::{
    HEADER_BYTES, PORT_BYTES, PROGRAM_BYTES, PROGRAMS_HEADER_BYTES, SECTION_BYTES, STEP_BYTES,
    section,
};
use crate::*;

mod damage;
mod lies;
mod operators;
mod stages;
mod turns;

/// Fills every slot that may be filled, one after the other from offset 0 of its space.
fn fill(op: Op, dtype: DType) -> Vec<Operand> {
    fill_with(op, dtype, false)
}

/// As [`fill`], for a GEMM of codes if `codes`.
fn fill_with(op: Op, dtype: DType, codes: bool) -> Vec<Operand> {
    let (mut arena, mut weights) = (0, 0);
    op.slots()
        .iter()
        .map(|slot| {
            let Some(required) = op.requirement_with(slot.name, codes).unwrap() else {
                return Operand::EMPTY;
            };
            let space = required.space.unwrap_or(Space::Arena);
            let offset = if space == Space::Arena {
                &mut arena
            } else {
                &mut weights
            };
            let bytes = required.bytes(dtype).unwrap();
            let operand = Operand {
                space,
                dtype: required.holds.dtype(dtype),
                offset: *offset,
                bytes,
            };
            *offset = (*offset + bytes).next_multiple_of(64);
            operand
        })
        .collect()
}

const CONV: Conv2d = Conv2d {
    in_h: 3,
    in_w: 5,
    in_c: 4,
    up_h: 6,
    up_w: 9,
    out_h: 3,
    out_w: 5,
    out_c: 20,
    kernel_h: 3,
    kernel_w: 3,
    stride: 2,
    pad_top: 1,
    pad_left: 1,
    activation: Activation::None,
};
const GEGLU: Linear = Linear {
    rows: 15,
    k: 20,
    k2: 4,
    n: 17,
    activation: Activation::Geglu,
};
const NORM: GroupNorm = GroupNorm {
    rows: 65,
    c: 6,
    c2: 2,
    groups: 4,
    eps: 1e-5,
    activation: Activation::Silu,
    quantized: false,
};
const ATTENTION: Attention = Attention {
    q_rows: 5,
    kv_rows: 7,
    heads: 2,
    head_dim: 3,
    q_stride: 6,
    k_stride: 8,
    v_stride: 9,
    scale: 0.5,
    causal: false,
    integers: false,
};
const QUANTIZE: Quantize = Quantize {
    rows: 65,
    c: 5,
    c2: 2,
    per_row: false,
};
const COPY: Copy = Copy {
    d0: 1,
    d1: 2,
    d2: 3,
    d3: 4,
    s0: 0,
    s1: 1,
    s2: 8,
    s3: 2,
    offset: 3,
};

const APPLY: GroupNormApply = GroupNormApply {
    rows: 5,
    c: 8,
    groups: 4,
    activation: Activation::None,
    quantized: false,
};
const CODES_ROWS: CodesRows = CodesRows {
    rows: 9,
    c: 5,
    first: 2,
    count: 3,
};

/// One of each operator.
fn every_op() -> Vec<Op> {
    vec![
        Op::Conv2d(CONV),
        Op::Linear(GEGLU),
        Op::GroupNorm(NORM),
        Op::LayerNorm(LayerNorm {
            rows: 3,
            c: 7,
            eps: 1e-5,
            quantized: false,
        }),
        Op::Attention(ATTENTION),
        Op::Unary(Unary {
            len: 9,
            activation: Activation::QuickGelu,
        }),
        Op::Affine(Affine {
            len: 9,
            scale: 2.0,
            offset: -1.0,
        }),
        Op::Binary(Binary {
            rows: 4,
            cols: 5,
            kind: BinaryKind::Sub,
            broadcast: Broadcast::Row,
        }),
        Op::Concat(Concat {
            rows: 4,
            c: 5,
            c2: 6,
        }),
        Op::Upsample(Upsample {
            in_h: 2,
            in_w: 3,
            out_h: 4,
            out_w: 5,
            c: 6,
        }),
        Op::Embed(Embed {
            rows: 7,
            dim: 8,
            vocab: 9,
            quantized: false,
        }),
        Op::TimestepEmbedding(TimestepEmbedding {
            half: 5,
            cos_first: true,
        }),
        Op::Softmax(Softmax { rows: 2, cols: 3 }),
        Op::Copy(COPY),
        Op::Quantize(QUANTIZE),
        Op::GroupNormBlocks(GroupNormBlocks {
            rows: 65,
            c: 6,
            ranges: true,
        }),
        Op::GroupNormMerge(GroupNormMerge {
            rows: 65,
            c: 8,
            groups: 4,
            eps: 1e-5,
            activation: Activation::Silu,
            quantized: false,
        }),
        Op::GroupNormApply(APPLY),
        Op::CodesRows(CODES_ROWS),
    ]
}

/// Those that write codes or compute in integers by themselves.
fn integer_ops() -> Vec<Op> {
    vec![
        Op::GroupNorm(GroupNorm {
            quantized: true,
            ..NORM
        }),
        Op::LayerNorm(LayerNorm {
            rows: 13,
            c: 7,
            eps: 1e-5,
            quantized: true,
        }),
        Op::Attention(Attention {
            q_rows: 7,
            integers: true,
            ..ATTENTION
        }),
        Op::Quantize(QUANTIZE),
        Op::Quantize(Quantize {
            per_row: true,
            ..QUANTIZE
        }),
        Op::Quantize(Quantize { c2: 0, ..QUANTIZE }),
        Op::Embed(Embed {
            rows: 7,
            dim: 8,
            vocab: 9,
            quantized: true,
        }),
        Op::GroupNormApply(GroupNormApply {
            quantized: true,
            ..APPLY
        }),
    ]
}

/// Every operator with the type of its activations, and whether it is a GEMM of codes.
fn every_case() -> Vec<(Op, DType, bool)> {
    let ops = [every_op(), integer_ops()].concat();
    let floats = ops
        .iter()
        .flat_map(|op| [(*op, DType::F32, false), (*op, DType::F16, false)]);
    let linear = Op::Linear(Linear { k2: 0, ..GEGLU });
    floats
        .chain([
            (Op::Conv2d(CONV), DType::F16, true),
            (linear, DType::F16, true),
        ])
        .collect()
}

/// A program that runs `ops`, each on the same part of the arena, with `x` as input and the last output as `y`.
fn program(graph: GraphKind, size: u32, dtype: DType, ops: &[Op]) -> ProgramRecord {
    let steps: Vec<StepRecord> = ops
        .iter()
        .enumerate()
        .map(|(i, op)| StepRecord {
            op: *op,
            operands: fill(*op, dtype),
            name: format!("{}.{i}", op.name()),
            per_chunk: false,
            joined: false,
        })
        .collect();
    let port = |name: &str, operand: &Operand| PortRecord {
        name: name.to_owned(),
        dtype: operand.dtype,
        layout: Layout::RowMajor,
        shape: vec![1, (operand.bytes / operand.dtype.size() as u64) as u32],
        offset: operand.offset,
        bytes: operand.bytes,
        per_chunk: false,
    };
    let end = steps
        .iter()
        .flat_map(|s| &s.operands)
        .filter(|o| o.space == Space::Arena)
        .map(|o| o.offset + o.bytes);
    ProgramRecord {
        graph,
        stage: Stage::Whole,
        height: size,
        width: size,
        clip_skip: u32::from(graph == GraphKind::TextEncoder),
        arena_bytes: end.max().unwrap().next_multiple_of(64),
        thread_scratch_bytes: 640,
        pinned_bytes: 0,
        shared_bytes: 0,
        max_chunks: 1,
        inputs: vec![port("x", &steps[0].operands[0])],
        outputs: vec![port("y", steps.last().unwrap().operands.last().unwrap())],
        steps,
    }
}

/// Every operator, of which the last writes floats, so that it can be an output.
fn text_ops() -> Vec<Op> {
    let mut ops = every_op();
    let codes = ops.len() - 1;
    ops.swap(codes - 1, codes);
    ops
}

const WEIGHTS: usize = 8_000;

fn writer() -> PackageWriter {
    PackageWriter {
        card: r#"{"name":"tëst"}"#.to_owned(),
        tokenizer: b"{}".to_vec(),
        scheduler: "{\"beta_start\":0.00085}".to_owned(),
        programs: vec![
            program(
                GraphKind::Unet,
                64,
                DType::F32,
                &[
                    Op::Linear(GEGLU),
                    Op::Unary(Unary {
                        len: 3,
                        activation: Activation::Gelu,
                    }),
                ],
            ),
            program(GraphKind::TextEncoder, 0, DType::F16, &text_ops()),
        ],
        optional: vec![(77, b"not known to this version".to_vec())],
    }
}

fn weights() -> Vec<u8> {
    (0..WEIGHTS).map(|i| ((i * i) >> 3) as u8).collect()
}

fn package() -> Vec<u8> {
    writer().to_vec(&weights()).unwrap()
}

/// The place of a section's row in the table, and of the section in the file.
fn find_section(bytes: &[u8], id: u32) -> (usize, core::ops::Range<usize>) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let rows = (0..word(12) as usize).map(|i| HEADER_BYTES + i * SECTION_BYTES);
    let row = rows.into_iter().find(|row| word(*row) == id).unwrap();
    (row, long(row + 8)..long(row + 8) + long(row + 16))
}

/// Makes the checksums of the header, the table and the known sections right again, as far as the table still
/// leads to them.
fn reseal(bytes: &mut [u8]) {
    let count = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    for i in 0..count {
        let row = HEADER_BYTES + i * SECTION_BYTES;
        let Some(fields) = bytes.get(row..row + SECTION_BYTES) else {
            return;
        };
        let id = u32::from_le_bytes(fields[..4].try_into().unwrap());
        let offset = u64::from_le_bytes(fields[8..16].try_into().unwrap()) as usize;
        let size = u64::from_le_bytes(fields[16..24].try_into().unwrap()) as usize;
        if id != section::WEIGHTS
            && let Some(contents) = offset
                .checked_add(size)
                .and_then(|end| bytes.get(offset..end))
        {
            let crc = crc32c(contents);
            bytes[row + 24..row + 28].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let Some(end) = count
        .checked_mul(SECTION_BYTES)
        .and_then(|n| n.checked_add(HEADER_BYTES))
    else {
        return;
    };
    if let Some(table) = bytes.get(HEADER_BYTES..end) {
        let mut crc = Crc32c::new();
        crc.update(&bytes[..24]);
        crc.update(table);
        bytes[24..28].copy_from_slice(&crc.finish().to_le_bytes());
    }
}

/// Uses everything that an open package gives.
fn walk(package: &Package) -> u64 {
    let mut sum = package.card().len() as u64 + package.weights().len() as u64;
    for program in package.programs() {
        sum += program.macs() + program.buffers().len() as u64;
        for port in program.inputs().chain(program.outputs()) {
            assert!(port.offset + port.bytes <= program.arena_bytes());
            assert_eq!(
                port.shape().iter().map(|n| u64::from(*n)).product::<u64>(),
                port.elements()
            );
        }
        for (i, step) in program.steps().enumerate() {
            assert_eq!(step.name(), program.step(i).unwrap().name());
            step.op()
                .check(&step.operands().collect::<Vec<_>>())
                .unwrap();
            for operand in step.operands() {
                match operand.space {
                    Space::Empty => assert_eq!(operand, Operand::EMPTY),
                    Space::Arena => {
                        assert!(operand.offset + operand.bytes <= program.arena_bytes())
                    }
                    Space::Weights => {
                        assert!(operand.offset + operand.bytes <= package.weights().len() as u64)
                    }
                }
            }
        }
    }
    sum
}

/// Puts `value` at `at`, makes the checksums right, and returns what opening says.
fn open_patched(bytes: &[u8], at: usize, value: &[u8]) -> Option<PackageError> {
    let mut patched = bytes.to_vec();
    patched[at..at + value.len()].copy_from_slice(value);
    assert_ne!(patched, bytes, "the patch at {at} changes nothing");
    reseal(&mut patched);
    Package::open(&patched).err()
}

#[test]
fn crc32c_is_castagnolis() {
    assert_eq!(crc32c(b""), 0);
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
    let bytes = weights();
    for split in [0, 1, 15, 16, 17, 333] {
        let mut crc = Crc32c::new();
        crc.update(&bytes[..split]);
        crc.update(&bytes[split..]);
        assert_eq!(crc.finish(), crc32c(&bytes));
    }
}

#[test]
fn round_trip() {
    let bytes = package();
    let package = Package::open(&bytes).unwrap();
    let written = writer();
    assert_eq!(package.card(), written.card);
    assert_eq!(package.tokenizer(), written.tokenizer);
    assert_eq!(package.scheduler(), written.scheduler);
    assert_eq!(package.weights(), weights());
    assert_eq!(package.weights_offset() % 4096, 0);
    package.verify_all().unwrap();
    assert_eq!(package.programs().len(), 2);
    // Sorted by graph, whatever the order in which they were given.
    for (program, record) in package.programs().zip(written.programs.iter().rev()) {
        let found = package
            .find(record.graph, record.stage, record.height, record.width)
            .unwrap();
        assert_eq!(
            (found.graph(), found.len()),
            (program.graph(), record.steps.len())
        );
        assert_eq!(program.stage(), record.stage);
        assert_eq!(program.arena_bytes(), record.arena_bytes);
        assert_eq!(program.thread_scratch_bytes(), record.thread_scratch_bytes);
        assert_eq!((program.pinned_bytes(), program.max_chunks()), (0, 1));
        for (step, record) in program.steps().zip(&record.steps) {
            assert_eq!((step.op(), step.name()), (record.op, record.name.as_str()));
            assert!(!step.per_chunk());
            assert_eq!(step.operands().collect::<Vec<_>>(), record.operands);
            assert_eq!(
                step.operand(record.operands.len() - 1),
                *record.operands.last().unwrap()
            );
        }
        let ports = program.inputs().chain(program.outputs());
        for (port, record) in ports.zip(record.inputs.iter().chain(&record.outputs)) {
            assert_eq!(
                (port.name, port.dtype, port.layout),
                (record.name.as_str(), record.dtype, record.layout)
            );
            assert_eq!(
                (port.shape(), port.offset, port.bytes),
                (&record.shape[..], record.offset, record.bytes)
            );
        }
        assert_eq!(program.input("x"), program.inputs().next());
        assert_eq!(program.output("x"), None);
    }
    assert!(
        package
            .find(GraphKind::Unet, Stage::Whole, 64, 128)
            .is_none()
    );
    assert_eq!(bytes, self::package());
    walk(&package);
}

#[test]
fn weights_are_checked_by_blocks() {
    let weights: Vec<u8> = (0..(5 << 19) + 12)
        .map(|i: u32| (i.wrapping_mul(0x9E37_79B1) >> 24) as u8)
        .collect();
    let mut bytes = writer().to_vec(&weights).unwrap();
    let at = find_section(&bytes, section::WEIGHTS).1.start;
    bytes[at + (1 << 20)] ^= 4;
    let package = Package::open(&bytes).unwrap();
    assert_eq!(package.weight_blocks(), 3);
    package.verify_block(0).unwrap();
    package.verify_block(2).unwrap();
    package.verify_block(3).unwrap();
    let error = package.verify_block(1).unwrap_err();
    assert_eq!(package.verify_all(), Err(error));
    assert_eq!(package.verify_weights((1 << 20) - 1..1 << 20), Ok(()));
    assert_eq!(
        package.verify_weights((1 << 20) - 1..(1 << 20) + 1),
        Err(error)
    );
    assert_eq!(package.verify_weights(2 << 20..u64::MAX), Ok(()));
    assert!(
        error
            .to_string()
            .starts_with("section weights, offset 1048576: damaged"),
        "{error}"
    );
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = package();
    let mut damaged = bytes.clone();
    for at in 0..bytes.len() {
        let weights = find_section(&bytes, section::WEIGHTS).1.contains(&at);
        // Each byte in one bit; over the file, in all eight.
        damaged[at] ^= 1 << (at % 8);
        match Package::open(&damaged) {
            Ok(package) => assert!(weights && package.verify_all().is_err(), "byte {at}"),
            Err(_) => assert!(!weights, "byte {at}"),
        }
        damaged[at] = bytes[at];
    }
}

#[test]
fn every_truncation_is_found() {
    let bytes = package();
    assert!(bytes.len() > 500);
    for length in 0..bytes.len() {
        assert!(Package::open(&bytes[..length]).is_err(), "{length} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    let error = Package::open(&longer).err().unwrap();
    assert_eq!(
        error.what,
        What::Length {
            expected: bytes.len() as u64,
            found: bytes.len() as u64 + 1
        }
    );
}

#[test]
fn a_newer_version_says_so() {
    let error = open_patched(&package(), 8, &6u32.to_le_bytes()).unwrap();
    assert_eq!(
        error.what,
        What::Version {
            supported: 5,
            found: 6
        }
    );
    assert_eq!(
        error.to_string(),
        "the package has format version 6, newer than the version 5 this program reads"
    );
    let error = open_patched(&package(), 8, &4u32.to_le_bytes()).unwrap();
    assert_eq!(
        error.to_string(),
        "the package has format version 4; this program reads version 5: compile the model again"
    );
    assert_eq!(
        Package::open(b"\x89PNG").err().unwrap().what,
        What::NotAPackage
    );
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let refused = |change: &dyn Fn(&mut PackageWriter)| {
        let mut writer = writer();
        change(&mut writer);
        let error = writer.to_vec(&weights()).unwrap_err();
        assert!(matches!(error, WriteError::Invalid(_)), "{error}");
        error.to_string()
    };
    let error = refused(&|w| w.programs[1].steps[0].operands[7].offset = 0);
    assert!(
        error.ends_with("program 0, step 0: operand `x` overlaps what the step writes"),
        "{error}"
    );
    assert!(
        refused(&|w| w.programs.push(w.programs[0].clone())).ends_with("repeated or out of order")
    );
    assert!(refused(&|w| w.programs[0].outputs[0].shape = vec![1, 1, 1, 1, 3]).contains("rank"));
    assert!(refused(&|w| w.programs[0].steps[0].name = String::new()).contains("name is empty"));
    let twice = refused(&|w| {
        let port = w.programs[0].inputs[0].clone();
        w.programs[0].inputs.push(port);
    });
    assert!(
        twice.ends_with("program 1, port 1: shares bytes or its name with another port"),
        "{twice}"
    );
}

#[test]
fn weights_must_be_as_many_as_said() {
    use std::io::Write;
    for size in [WEIGHTS - 1, WEIGHTS + 1] {
        let mut out = std::io::Cursor::new(Vec::new());
        let result = writer().write(&mut out, WEIGHTS as u64, |weights| {
            weights.write_all(&vec![1; size])
        });
        assert!(matches!(result, Err(WriteError::Io(_))), "{size}");
        assert!(Package::open(out.get_ref()).is_err());
    }
}

#[test]
fn buffers_of_a_program() {
    let unary = |from, to, name: &str| StepRecord {
        op: Op::Unary(Unary {
            len: 16,
            activation: Activation::Silu,
        }),
        operands: vec![
            Operand::arena(DType::F32, from, 64),
            Operand::arena(DType::F32, to, 64),
        ],
        name: name.to_owned(),
        per_chunk: false,
        joined: false,
    };
    let port = |name: &str, offset| PortRecord {
        name: name.to_owned(),
        dtype: DType::F32,
        layout: Layout::RowMajor,
        shape: vec![16],
        offset,
        bytes: 64,
        per_chunk: false,
    };
    let record = ProgramRecord {
        inputs: vec![port("x", 0)],
        outputs: vec![port("y", 0)],
        arena_bytes: 128,
        steps: vec![
            unary(0, 64, "a"),
            unary(64, 64, "b"),
            unary(64, 0, "c"),
            unary(0, 64, "d"),
        ],
        ..program(GraphKind::Unet, 8, DType::F32, &every_op())
    };
    let bytes = PackageWriter {
        programs: vec![record],
        ..PackageWriter::default()
    }
    .to_vec(&[])
    .unwrap();
    let buffers = Package::open(&bytes).unwrap().program(0).unwrap().buffers();
    let buffer = |offset, first, last| Buffer {
        offset,
        bytes: 64,
        first,
        last,
    };
    // The second goes on through the step in place.
    assert_eq!(
        buffers,
        [
            buffer(0, 0, 0),
            buffer(64, 0, 2),
            buffer(0, 2, 3),
            buffer(64, 3, 3)
        ]
    );
}
