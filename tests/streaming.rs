//! Under a budget the whole process stays within it, weights many times as large included. A process of its own: what is
//! measured is the process.

#![cfg(target_os = "linux")]

use std::io::Write;
use std::num::NonZeroUsize;
use std::time::Instant;

use kiln::runtime::memory::{resident_bytes, status_bytes};
use kiln::runtime::{Data, Model, ProgramId, Session, SessionOptions, Silent, Streamed};
use kiln_package::{
    Activation, DType, GraphKind, Layout, Linear, Op, Operand, PackageWriter, PortRecord,
    ProgramRecord, Stage, StepRecord,
};

const WIDTH: u32 = 2048;
const LAYERS: u64 = 24;
/// Of one layer, in `f32`.
const LAYER_BYTES: u64 = 4 * (WIDTH * WIDTH) as u64;

/// Rows and columns of what the decoder makes of one product, 96 MiB in its arena.
const ROWS: u32 = 12288;
const DEPTH: u32 = 64;
const DECODED_BYTES: u64 = 4 * (ROWS * WIDTH) as u64;

fn port(name: &str, shape: [u32; 2], offset: u64) -> PortRecord {
    PortRecord {
        name: name.into(),
        dtype: DType::F32,
        layout: Layout::RowMajor,
        shape: shape.to_vec(),
        offset,
        bytes: 4 * u64::from(shape[0] * shape[1]),
        per_chunk: false,
    }
}

/// One product with a large result, of which the first row is given.
fn decoder() -> ProgramRecord {
    let op = Op::Linear(Linear {
        rows: ROWS,
        k: DEPTH,
        k2: 0,
        n: WIDTH,
        activation: Activation::None,
    });
    let slots = op.slots().iter().map(|slot| match slot.name {
        "x" => Operand::arena(DType::F32, DECODED_BYTES, 4 * u64::from(ROWS * DEPTH)),
        "weight" => Operand::weights(DType::F32, 0, 4 * u64::from(WIDTH * DEPTH)),
        "out" => Operand::arena(DType::F32, 0, DECODED_BYTES),
        _ => Operand::EMPTY,
    });
    ProgramRecord {
        graph: GraphKind::VaeDecoder,
        stage: Stage::Whole,
        height: 64,
        width: 64,
        arena_bytes: DECODED_BYTES + 4 * u64::from(ROWS * DEPTH),
        thread_scratch_bytes: 1 << 20,
        pinned_bytes: 0,
        shared_bytes: 0,
        max_chunks: 1,
        clip_skip: 0,
        inputs: vec![port("latents", [ROWS, DEPTH], DECODED_BYTES)],
        outputs: vec![port("sample", [1, WIDTH], 0)],
        steps: vec![StepRecord {
            op,
            operands: slots.collect(),
            name: "decode".into(),
            per_chunk: false,
            joined: false,
        }],
    }
}

/// A chain of products, written layer by layer: 400 MB of weights, which are never in memory together. And a decoder.
fn write_package(file: &mut std::fs::File) {
    let op = Op::Linear(Linear {
        rows: 1,
        k: WIDTH,
        k2: 0,
        n: WIDTH,
        activation: Activation::None,
    });
    let vector = |index: u64| {
        Operand::arena(
            DType::F32,
            index * 4 * u64::from(WIDTH),
            4 * u64::from(WIDTH),
        )
    };
    let step = |layer: u64| StepRecord {
        op,
        operands: op
            .slots()
            .iter()
            .map(|slot| match slot.name {
                "x" => vector(layer % 2),
                "weight" => Operand::weights(DType::F32, layer * LAYER_BYTES, LAYER_BYTES),
                "out" => vector((layer + 1) % 2),
                _ => Operand::EMPTY,
            })
            .collect(),
        name: format!("layer {layer}"),
        per_chunk: false,
        joined: false,
    };
    let program = ProgramRecord {
        graph: GraphKind::Unet,
        stage: Stage::Whole,
        height: 64,
        width: 64,
        arena_bytes: 2 * 4 * u64::from(WIDTH),
        thread_scratch_bytes: 1 << 20,
        pinned_bytes: 0,
        shared_bytes: 0,
        max_chunks: 1,
        clip_skip: 0,
        inputs: vec![port("sample", [1, WIDTH], vector(0).offset)],
        outputs: vec![port("out_sample", [1, WIDTH], vector(LAYERS % 2).offset)],
        steps: (0..LAYERS).map(step).collect(),
    };
    let writer = PackageWriter {
        card: "{}".into(),
        scheduler: "{}".into(),
        programs: vec![program, decoder()],
        ..PackageWriter::default()
    };
    let mut out = std::io::BufWriter::new(file);
    writer
        .write(&mut out, LAYERS * LAYER_BYTES, |out| {
            let mut layer = Vec::with_capacity(LAYER_BYTES as usize);
            for number in 0..LAYERS {
                layer.clear();
                for i in 0..u64::from(WIDTH) * u64::from(WIDTH) {
                    let hash = (i + number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                    let weight = (hash as f32 / (1 << 23) as f32 - 1.0) / 26.0;
                    layer.extend(weight.to_le_bytes());
                }
                out.write_all(&layer)?;
            }
            Ok(())
        })
        .expect("room for the package");
    out.flush().expect("room for the package");
}

/// Bytes that this process has had read from a disk.
fn disk_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or(0)
}

/// Has the system forget what it has of a file that nobody has mapped pages of.
fn forget(file: &std::fs::File) {
    use std::os::fd::AsRawFd;
    file.sync_all().expect("synced");
    // SAFETY: advice about an open file.
    let done = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(done, 0);
}

fn graph(model: &Model, graph: GraphKind) -> ProgramId {
    let mut programs = model.programs();
    let found = programs.find(|(_, program)| program.graph() == graph);
    found.expect("a program of the graph").0
}

/// Programs that run one after the other each have what the budget leaves beside their own activations.
fn by_turns(model: &Model) {
    let (unet, decoder) = (
        graph(model, GraphKind::Unet),
        graph(model, GraphKind::VaeDecoder),
    );
    let latents: Vec<f32> = (0..ROWS * DEPTH).map(|i| (i % 13) as f32 / 8.0).collect();
    let sample = vec![0.5; WIDTH as usize];
    let mut out = vec![0.0; WIDTH as usize];
    // The peak counts from here on, where the system can do that.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = resident_bytes().expect("Linux tells");
    let peak = status_bytes("VmHWM").expect("Linux tells");
    // For the larger arena there is room, not for both the larger arena and a layer of the other program.
    let ram = before.max(peak) + DECODED_BYTES + LAYER_BYTES - (2 << 20);
    let options = SessionOptions {
        threads: NonZeroUsize::new(2),
        ram: Some(ram),
        ..SessionOptions::default()
    };
    let programs = [(unet, 1), (decoder, 1)];
    let least = model.least_ram(&programs, NonZeroUsize::new(2).expect("not zero"));
    assert!(least <= ram, "{least} of {ram}");
    let mut session = Session::new(model, &programs, &options).expect("a budget that is kept");
    let mut first = Vec::new();
    for _ in 0..2 {
        let mut evaluation = session.prepare(decoder, 1).expect("planned");
        let shape = [ROWS as usize, DEPTH as usize];
        evaluation
            .input(0, "latents", &shape, Data::F32(&latents))
            .expect("its shape");
        let mut outputs = evaluation.run(&mut Silent).expect("a valid program");
        outputs.read(0, "sample", &mut out).expect("its size");
        let mut evaluation = session.prepare(unet, 1).expect("planned");
        evaluation
            .input(0, "sample", &[1, WIDTH as usize], Data::F32(&sample))
            .expect("its shape");
        evaluation.run(&mut Silent).expect("a valid program");
        let most = status_bytes("VmHWM").expect("Linux tells");
        assert!(most <= ram, "{most} bytes were resident, {ram} are allowed");
        if first.is_empty() {
            first.clone_from(&out);
        }
        assert_eq!(first, out);
    }
}

fn run(model: &Model, ram: Option<u64>) -> (Vec<f32>, Option<Streamed>) {
    let id = graph(model, GraphKind::Unet);
    let options = SessionOptions {
        threads: NonZeroUsize::new(2),
        ram,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model, &[(id, 1)], &options).expect("a budget that is kept");
    let input: Vec<f32> = (0..WIDTH).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let mut out = vec![0.0; WIDTH as usize];
    let mut evaluation = session.prepare(id, 1).expect("planned");
    evaluation
        .input(0, "sample", &[1, WIDTH as usize], Data::F32(&input))
        .expect("its shape");
    evaluation
        .run(&mut Silent)
        .expect("a valid program")
        .read(0, "out_sample", &mut out)
        .expect("its size");
    (out, session.streamed())
}

#[test]
fn the_process_stays_within_its_budget() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    write_package(file.as_file_mut());
    let model = Model::open(file.path()).expect("a valid package");

    let before = resident_bytes().expect("Linux tells");
    let peak = status_bytes("VmHWM").expect("Linux tells");
    let ram = before.max(peak) + 3 * LAYER_BYTES + (12 << 20);
    let all = LAYERS * LAYER_BYTES;
    let mut within = Vec::new();
    // The first time checksums are verified too.
    for round in 1..=2 {
        forget(file.as_file());
        let (disk, start) = (disk_bytes(), Instant::now());
        let (numbers, streamed) = run(&model, Some(ram));
        let (disk, took) = (disk_bytes() - disk, start.elapsed());
        let most = status_bytes("VmHWM").expect("Linux tells");
        assert!(most <= ram, "{most} bytes were resident, {ram} are allowed");
        let streamed = streamed.expect("a budget");
        assert!(
            (all..=all + all / 20).contains(&streamed.bytes),
            "{} bytes were asked for of {all}",
            streamed.bytes
        );
        // A file in memory is not read from a disk.
        assert!(
            disk <= all + all / 20,
            "{disk} bytes were read from the disk for {all}"
        );
        println!(
            "round {round}: weights of {:.1} MB, asked for {:.1} MB, from the disk {:.1} MB ({:.3} times); \
             reading took {:.2} s, of which {:.2} s were waited for, all of it {:.2} s",
            all as f64 / 1e6,
            streamed.bytes as f64 / 1e6,
            disk as f64 / 1e6,
            disk as f64 / all as f64,
            streamed.reading.as_secs_f64(),
            streamed.waited.as_secs_f64(),
            took.as_secs_f64()
        );
        within = numbers;
    }

    by_turns(&model);

    // Without one all of it stays, and the numbers are the same.
    let (without, streamed) = run(&model, None);
    assert_eq!((without, streamed), (within, None));
    assert!(status_bytes("VmHWM").expect("Linux tells") > ram + all / 2);
}
