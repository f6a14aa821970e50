//! Weights within a budget: the same numbers, each byte read once for an evaluation, errors and ends as without.

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use kiln_package::{DType, GraphKind, Layout};

use super::build::{Build, Random, package};
use crate::os::pages::page_bytes;
use crate::stream::Reading;
use crate::{
    Cancellation, Data, Model, Observer, ProgramId, RuntimeError, Session, SessionOptions, Silent,
    StepInfo,
};

const WIDTH: usize = 256;
const LAYERS: usize = 40;

/// A chain of products, each with weights of its own: 10 MB in all.
fn chain() -> Build {
    let mut random = Random::new(5);
    let mut build = Build::new(GraphKind::Unet, 64, 64);
    let shape = [1, WIDTH as u32];
    let mut x = build.input("sample", &shape, Layout::RowMajor, DType::F32);
    for _ in 0..LAYERS {
        let out = build.buffer(DType::F32, WIDTH);
        build.square(&mut random, 16.0, [x, out]);
        x = out;
    }
    build.output("out_sample", &shape, Layout::RowMajor, x);
    build
}

fn options(ram: Option<u64>) -> SessionOptions {
    SessionOptions {
        threads: NonZeroUsize::new(2),
        ram,
        ..SessionOptions::default()
    }
}

fn first(model: &Model) -> ProgramId {
    model.programs().next().expect("a program").0
}

fn run(session: &mut Session, observer: &mut impl Observer) -> Result<Vec<f32>, RuntimeError> {
    let id = first(session.model());
    let numbers = Random::new(9).numbers(WIDTH);
    let mut evaluation = session.prepare(id, 1)?;
    evaluation.input(0, "sample", &[1, WIDTH], Data::F32(&numbers))?;
    let mut out = vec![0.0; WIDTH];
    evaluation.run(observer)?.read(0, "out_sample", &mut out)?;
    Ok(out)
}

/// A session whose window is of three layers, in whole pages.
fn within(model: &Model, options: &SessionOptions) -> Session {
    reading(model, options, Reading::default())
}

fn reading(model: &Model, options: &SessionOptions, reading: Reading) -> Session {
    let programs = [(first(model), 1)];
    let pages = 2 * reading.page.unwrap_or(0).max(page_bytes()) as u64;
    let window = 3 * (model.largest_layer(&programs) + pages);
    let session = Session::new(model, &programs, options).expect("room");
    session.with_window(window, reading)
}

#[test]
fn a_budget_changes_no_bit_and_reads_each_byte_once() {
    let model = chain().model();
    let free = &mut Session::new(&model, &[(first(&model), 1)], &options(None)).expect("room");
    let expected = run(free, &mut Silent).expect("a valid program");
    assert_eq!(free.streamed(), None);
    let mut session = within(&model, &options(None));
    for round in 1..=3 {
        assert_eq!(run(&mut session, &mut Silent).expect("valid"), expected);
        let streamed = session.streamed().expect("a budget").bytes;
        let all = round * model.package().weights().len() as u64;
        // Weights begin at multiples of 64; a gap between two of a step is read with them.
        assert!(
            (all - all / 20..=all + all / 20).contains(&streamed),
            "{streamed} of {all}"
        );
    }
}

/// Where the system cannot keep all of a file, it is told what not to keep.
#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_kept_of_the_file_is_forgotten() {
    use crate::os::pages;

    let build = chain();
    let bytes = package(vec![build.program], &build.weights);
    // On a disk: what is in memory only cannot be forgotten.
    let program = std::env::current_exe().expect("this program");
    let folder = program.parent().expect("a folder");
    let mut file = tempfile::NamedTempFile::new_in(folder).expect("a temporary file");
    file.write_all(&bytes).expect("room");
    file.as_file().sync_all().expect("synced");
    pages::forget(file.as_file(), 0, bytes.len() as u64);
    if pages::in_memory(file.as_file()) == bytes.len().next_multiple_of(pages::page_bytes()) {
        println!("{} is no disk", folder.display());
        return;
    }
    let model = Model::open(file.path()).expect("a valid package");
    let all = model.package().weights().len();
    let mut expected = None;
    for cached in [u64::MAX, all as u64 / 2, 0] {
        let which = Reading {
            cached,
            ..Reading::default()
        };
        let mut session = reading(&model, &options(None), which);
        let numbers = run(&mut session, &mut Silent).expect("valid");
        drop(session);
        assert_eq!(*expected.get_or_insert_with(|| numbers.clone()), numbers);
        let left = pages::in_memory(file.as_file());
        let kept = usize::try_from(cached).unwrap_or(all).min(all);
        // The system keeps pages in blocks, and those that hold other parts of the file stay.
        let around = (bytes.len() - all) + all / 5;
        assert!(
            (kept..=kept + around).contains(&left),
            "{left} bytes, {kept} are to be kept"
        );
    }
}

/// A system with larger pages lets go of them, and brings them, whole.
#[test]
fn pages_of_every_size_change_no_bit() {
    let build = chain();
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&package(vec![build.program], &build.weights))
        .expect("room");
    let model = Model::open(file.path()).expect("a valid package");
    let free = &mut Session::new(&model, &[(first(&model), 1)], &options(None)).expect("room");
    let expected = run(free, &mut Silent).expect("a valid program");
    for page in [4 << 10, 16 << 10, 64 << 10] {
        let pages = Reading {
            page: Some(page),
            ..Reading::default()
        };
        let mut session = reading(&model, &options(None), pages);
        for _ in 0..2 {
            assert_eq!(run(&mut session, &mut Silent).expect("valid"), expected);
        }
        let (streamed, all) = (
            session.streamed().expect("a budget").bytes,
            2 * model.package().weights().len() as u64,
        );
        assert!(streamed <= all + all / 20, "{streamed} of {all}");
    }
}

/// While the first layer's successor is held up, what comes after it is read.
#[test]
fn reading_goes_on_while_a_step_computes() {
    struct Waits(Receiver<()>);
    impl Observer for Waits {
        fn step(&mut self, info: StepInfo<'_>) {
            if info.index == 0 {
                // The first three layers, and the one that has taken the first one's room.
                for read in 0..4 {
                    let came = self.0.recv_timeout(Duration::from_secs(120));
                    assert!(came.is_ok(), "{read} layers were read ahead");
                }
            }
        }
    }
    let model = chain().model();
    let (sender, receiver) = mpsc::channel();
    let told = Reading {
        before: Some(Box::new(move |_| _ = sender.send(()))),
        ..Reading::default()
    };
    let mut session = reading(&model, &options(None), told);
    run(&mut session, &mut Waits(receiver)).expect("valid");
}

/// A card that gives 20 MB in a second. Nothing is asserted of times: they are printed.
#[test]
fn a_slow_disk_is_waited_for() {
    const RATE: f64 = 20e6;
    let model = chain().model();
    let free = &mut Session::new(&model, &[(first(&model), 1)], &options(None)).expect("room");
    let expected = run(free, &mut Silent).expect("a valid program");
    let slow = Reading {
        before: Some(Box::new(|bytes| {
            std::thread::sleep(Duration::from_secs_f64(bytes as f64 / RATE));
        })),
        ..Reading::default()
    };
    let mut session = reading(&model, &options(None), slow);
    for round in 1..=2 {
        let (before, start) = (session.streamed().expect("a budget"), Instant::now());
        assert_eq!(run(&mut session, &mut Silent).expect("valid"), expected);
        let (after, took) = (session.streamed().expect("a budget"), start.elapsed());
        let bytes = after.bytes - before.bytes;
        let reading = after.reading - before.reading;
        assert!(reading.as_secs_f64() >= bytes as f64 / RATE);
        println!(
            "evaluation {round}: {:.1} MB at 20 MB/s are {:.3} s; read in {:.3} s, waited for {:.3} s, took {:.3} s",
            bytes as f64 / 1e6,
            bytes as f64 / RATE,
            reading.as_secs_f64(),
            (after.waited - before.waited).as_secs_f64(),
            took.as_secs_f64()
        );
    }
}

#[test]
fn too_little_is_refused_before_anything_is_read() {
    let model = chain().model();
    let refused = Session::new(&model, &[(first(&model), 1)], &options(Some(1 << 20)));
    let text = refused.err().expect("too little").to_string();
    assert!(
        text.starts_with("1 MiB are too little: the run needs "),
        "{text}"
    );
}

#[test]
fn an_evaluation_that_is_cancelled_leaves_nothing_behind() {
    struct CancelAt(Cancellation, usize);
    impl Observer for CancelAt {
        fn step(&mut self, info: StepInfo<'_>) {
            if info.index == self.1 {
                self.0.cancel();
            }
        }
    }
    let model = chain().model();
    for at in [0, 1, 17, LAYERS - 2] {
        let cancellation = Cancellation::new();
        let options = SessionOptions {
            cancellation: cancellation.clone(),
            ..options(None)
        };
        let mut session = within(&model, &options);
        let result = run(&mut session, &mut CancelAt(cancellation, at));
        assert!(matches!(result, Err(RuntimeError::Cancelled)));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn weights_that_cannot_be_read_are_an_error() {
    let build = chain();
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&package(vec![build.program], &build.weights))
        .expect("room");
    let model = Model::open(file.path()).expect("a valid package");
    let mut session = within(&model, &options(None));
    // Once whole, since a checksum is of more than a step's own weights.
    let expected = run(&mut session, &mut Silent).expect("valid");
    let package = model.package();
    let whole = package.weights_offset() + package.weights().len() as u64;
    file.as_file().set_len(whole / 2).expect("cut");
    let error = run(&mut session, &mut Silent).expect_err("half of it is gone");
    assert!(matches!(error, RuntimeError::Open { .. }), "{error}");
    drop(session);
    assert_eq!(expected.len(), WIDTH);
}
