//! Under a budget the whole process stays within it, weights many times as large included. A process of its own: what is
//! measured is the process.

#![cfg(target_os = "linux")]

use std::io::Write;
use std::num::NonZeroUsize;
use std::time::Instant;

use kiln::runtime::memory::{resident_bytes, status_bytes};
use kiln::runtime::{Data, Model, Session, SessionOptions, Silent, Streamed};
use kiln_package::{
    Activation, DType, GraphKind, Layout, Linear, Op, Operand, PackageWriter, PortRecord,
    ProgramRecord, Stage, StepRecord,
};

const WIDTH: u32 = 2048;
const LAYERS: u64 = 24;
/// Of one layer, in `f32`.
const LAYER_BYTES: u64 = 4 * (WIDTH * WIDTH) as u64;

/// A chain of products, written layer by layer: 400 MB of weights, which are never in memory together.
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
    let port = |name: &str, operand: Operand| PortRecord {
        name: name.into(),
        dtype: DType::F32,
        layout: Layout::RowMajor,
        shape: vec![1, WIDTH],
        offset: operand.offset,
        bytes: operand.bytes,
        per_chunk: false,
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
        inputs: vec![port("sample", vector(0))],
        outputs: vec![port("out_sample", vector(LAYERS % 2))],
        steps: (0..LAYERS).map(step).collect(),
    };
    let writer = PackageWriter {
        card: "{}".into(),
        scheduler: "{}".into(),
        programs: vec![program],
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

fn run(model: &Model, ram: Option<u64>) -> (Vec<f32>, Option<Streamed>) {
    let id = model.programs().next().expect("a program").0;
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

    // Without one all of it stays, and the numbers are the same.
    let (without, streamed) = run(&model, None);
    assert_eq!((without, streamed), (within, None));
    assert!(status_bytes("VmHWM").expect("Linux tells") > ram);
}
