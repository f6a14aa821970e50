//! An evaluation allocates nothing: not before its first operator, not between operators, not on any thread.

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use kiln::runtime::{Data, Model, Session, SessionOptions, Silent};
use kiln_package::{
    Activation, Attention, Conv2d, DType, GraphKind, GroupNorm, LayerNorm, Layout, Linear, Op,
    Operand, PackageWriter, PortRecord, ProgramRecord, Quantize, Role, Stage, StepRecord,
};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, memory: Memory) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, memory) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROWS: u32 = 16 * 16;
const CHANNELS: u32 = 48;

/// A chain of operators, each on the one before: a residual block and an attention over its pixels, in `f16`.
fn floats() -> Vec<Op> {
    vec![
        Op::GroupNorm(norm(false)),
        Op::Conv2d(conv()),
        Op::LayerNorm(LayerNorm {
            rows: ROWS,
            c: CHANNELS,
            eps: 1e-5,
            quantized: false,
        }),
        Op::Attention(attention(false)),
        Op::Linear(linear(Activation::Geglu)),
    ]
}

/// The same in codes, as far as there are any.
fn codes() -> Vec<Op> {
    vec![
        Op::GroupNorm(norm(true)),
        Op::Conv2d(conv()),
        Op::LayerNorm(LayerNorm {
            rows: ROWS,
            c: CHANNELS,
            eps: 1e-5,
            quantized: true,
        }),
        Op::Linear(linear(Activation::Geglu)),
        Op::Attention(attention(true)),
        Op::Quantize(Quantize {
            rows: ROWS,
            c: CHANNELS,
            c2: 0,
            per_row: true,
        }),
        Op::Linear(linear(Activation::None)),
        Op::Quantize(Quantize {
            rows: ROWS,
            c: CHANNELS,
            c2: 0,
            per_row: false,
        }),
        Op::Conv2d(conv()),
    ]
}

fn norm(quantized: bool) -> GroupNorm {
    GroupNorm {
        rows: ROWS,
        c: CHANNELS,
        c2: 0,
        groups: 8,
        eps: 1e-5,
        activation: Activation::Silu,
        quantized,
    }
}

fn conv() -> Conv2d {
    Conv2d {
        in_h: 16,
        in_w: 16,
        in_c: CHANNELS,
        up_h: 16,
        up_w: 16,
        out_h: 16,
        out_w: 16,
        out_c: CHANNELS,
        kernel_h: 3,
        kernel_w: 3,
        stride: 1,
        pad_top: 1,
        pad_left: 1,
        activation: Activation::None,
    }
}

fn attention(integers: bool) -> Attention {
    Attention {
        q_rows: ROWS,
        kv_rows: ROWS,
        heads: 3,
        head_dim: CHANNELS / 3,
        q_stride: CHANNELS,
        k_stride: CHANNELS,
        v_stride: CHANNELS,
        scale: 0.25,
        causal: false,
        integers,
    }
}

fn linear(activation: Activation) -> Linear {
    Linear {
        rows: ROWS,
        k: CHANNELS,
        k2: 0,
        n: CHANNELS,
        activation,
    }
}

/// Weights of a type: neither zeros nor large.
fn fill(dtype: DType, bytes: u64) -> Vec<u8> {
    let byte = |n: u64| (n * 7) as u8;
    match dtype {
        DType::F16 => (0..bytes)
            .map(|n| if n % 2 == 0 { byte(n) } else { 0x20 })
            .collect(),
        DType::I8 => (0..bytes).map(byte).collect(),
        _ => (0..bytes / 4)
            .flat_map(|_| {
                if dtype == DType::F32 {
                    0.001_f32.to_le_bytes()
                } else {
                    [1, 0, 0, 0]
                }
            })
            .collect(),
    }
}

/// The chain as a package. `in_turns` the lanes share all but the pictures at its ends.
fn package(ops: Vec<Op>, in_turns: bool) -> Vec<u8> {
    let picture = u64::from(ROWS * CHANNELS) * 2;
    let own = 2 * picture;
    let mut end = own;
    let mut weights: Vec<u8> = Vec::new();
    let mut x = Operand::arena(DType::F16, 0, picture);
    let mut steps = Vec::new();
    let last = ops.len() - 1;
    for (index, op) in ops.into_iter().enumerate() {
        let of_codes = op.takes_codes() && x.dtype == DType::U8;
        let operand = |slot: &kiln_package::Slot| {
            let required = op
                .requirement_with(slot.name, of_codes)
                .expect("a possible size");
            let Some(required) = required.filter(|required| !required.optional) else {
                return Operand::EMPTY;
            };
            let (dtype, bytes) = (
                required.holds.dtype(DType::F16),
                required.bytes(DType::F16).expect("small"),
            );
            match (slot.role, required.space) {
                (Role::Output, _) if index == last => Operand::arena(dtype, picture, bytes),
                (Role::Output | Role::Scratch, _) => {
                    let offset = end;
                    end = (offset + bytes).next_multiple_of(64);
                    Operand::arena(dtype, offset, bytes)
                }
                _ if ["weight", "scale", "sums"].contains(&slot.name) => {
                    weights.resize(weights.len().next_multiple_of(64), 0);
                    let offset = weights.len() as u64;
                    weights.extend(fill(dtype, bytes));
                    Operand::weights(dtype, offset, bytes)
                }
                _ => x,
            }
        };
        let operands: Vec<_> = op.slots().iter().map(operand).collect();
        x = *operands.last().expect("the output");
        steps.push(StepRecord {
            op,
            operands,
            name: op.name().to_lowercase(),
            per_chunk: false,
            joined: in_turns && index < last,
        });
    }
    let port = |name: &str, operand: Operand| PortRecord {
        name: name.into(),
        dtype: operand.dtype,
        layout: Layout::ChannelsLast,
        shape: vec![1, CHANNELS, 16, 16],
        offset: operand.offset,
        bytes: operand.bytes,
        per_chunk: false,
    };
    let program = ProgramRecord {
        graph: GraphKind::Unet,
        stage: Stage::Whole,
        height: 128,
        width: 128,
        clip_skip: 0,
        arena_bytes: end,
        thread_scratch_bytes: 1 << 20,
        pinned_bytes: 0,
        shared_bytes: if in_turns { end - own } else { 0 },
        max_chunks: 1,
        inputs: vec![port("sample", Operand::arena(DType::F16, 0, picture))],
        outputs: vec![port("out_sample", x)],
        steps,
    };
    let writer = PackageWriter {
        card: "{}".into(),
        scheduler: "{}".into(),
        programs: vec![program],
        ..PackageWriter::default()
    };
    writer.to_vec(&weights).expect("a valid package")
}

/// Waits until the test harness, whose thread is counted too, has come to rest.
fn settle() {
    let mut before = usize::MAX;
    while before != ALLOCATIONS.load(Ordering::SeqCst) {
        before = ALLOCATIONS.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(100));
    }
}

/// One test in this file: another one would allocate meanwhile.
#[test]
fn an_evaluation_allocates_nothing() {
    for ops in [floats(), codes()] {
        let together = evaluate(ops.clone(), false);
        assert!(together == evaluate(ops, true), "the lanes' turns are seen");
    }
}

fn evaluate(ops: Vec<Op>, in_turns: bool) -> Vec<f32> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&package(ops, in_turns)).expect("room");
    let model = Model::open(file.path()).expect("a valid package");
    let unet = model.find(GraphKind::Unet, 128, 128).expect("there");
    let sample: Vec<f32> = (0..ROWS * CHANNELS)
        .map(|n| (n % 97) as f32 / 97.0)
        .collect();
    let mut out = vec![0.0; sample.len()];
    settle();
    for threads in [1, 3] {
        let options = SessionOptions {
            threads: NonZeroUsize::new(threads),
            ..SessionOptions::default()
        };
        let mut session = Session::new(&model, &[(unet, 2)], &options).expect("little memory");
        // The first evaluation also verifies the weights.
        for round in 0..3 {
            let before = ALLOCATIONS.load(Ordering::SeqCst);
            let mut evaluation = session.prepare(unet, 2).expect("planned");
            for lane in 0..2 {
                evaluation
                    .input(lane, "sample", &[1, 48, 16, 16], Data::F32(&sample))
                    .expect("its shape");
            }
            let mut outputs = evaluation.run(&mut Silent).expect("a valid program");
            for lane in 0..2 {
                outputs
                    .read(lane, "out_sample", &mut out)
                    .expect("its size");
            }
            let after = ALLOCATIONS.load(Ordering::SeqCst);
            assert_eq!(after - before, 0, "{threads} threads, evaluation {round}");
            assert!(out.iter().all(|v| v.is_finite()) && out.iter().any(|v| *v != 0.0));
        }
    }
    out
}
