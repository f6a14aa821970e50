//! Lanes that take turns: the bits of lanes that run together, in less memory, and each weight read once.

use std::num::NonZeroUsize;

use kiln_package::{DType, GraphKind, Layout};

use super::build::{Build, Random};
use crate::stream::Reading;
use crate::{
    Cancellation, Data, Model, Observer, ProgramId, RuntimeError, Session, SessionOptions, Silent,
    StepInfo,
};

const WIDTH: usize = 192;
const LAYERS: usize = 24;

/// A chain of products, each with weights of its own. With `turns`, so many layers are one turn each time, and what is
/// between the layers of a turn lies in two buffers that the lanes share, the same for all turns.
fn chain(turns: Option<usize>) -> Model {
    let mut random = Random::new(5);
    let mut build = Build::new(GraphKind::Unet, 64, 64);
    let shape = [1, WIDTH as u32];
    let mut x = build.input("sample", &shape, Layout::RowMajor, DType::F32);
    let mut buffers = || [(); 2].map(|()| build.buffer(DType::F32, WIDTH));
    let (own, shared) = (buffers(), buffers());
    for layer in 0..LAYERS {
        let ends = turns.is_none_or(|turns| (layer + 1) % turns == 0 || layer + 1 == LAYERS);
        let out = match (turns, ends) {
            (None, _) => own[layer % 2],
            (Some(_), false) => shared[layer % 2],
            // What a turn begins with is not what it ends with.
            (Some(turns), true) => own[layer / turns % 2],
        };
        build.square(&mut random, 8.0, [x, out]);
        build.program.steps[layer].joined = !ends;
        x = out;
    }
    build.output("out_sample", &shape, Layout::RowMajor, x);
    build.program.shared_bytes = match turns {
        Some(_) => build.program.arena_bytes - shared[0].offset,
        None => {
            // Nothing uses them.
            build.program.arena_bytes = shared[0].offset;
            0
        }
    };
    build.model()
}

fn first(model: &Model) -> ProgramId {
    model.programs().next().expect("a program").0
}

fn session(model: &Model, lanes: usize, threads: usize) -> Session {
    let options = SessionOptions {
        threads: NonZeroUsize::new(threads),
        ..SessionOptions::default()
    };
    Session::new(model, &[(first(model), lanes)], &options).expect("room")
}

/// The outputs of so many lanes, each with an input of its own.
fn run(
    session: &mut Session,
    lanes: usize,
    observer: &mut impl Observer,
) -> Result<Vec<Vec<u32>>, RuntimeError> {
    let inputs: Vec<Vec<f32>> = (0..lanes)
        .map(|lane| Random::new(9 + lane as u64).numbers(WIDTH))
        .collect();
    let id = first(session.model());
    let mut evaluation = session.prepare(id, lanes)?;
    for (lane, numbers) in inputs.iter().enumerate() {
        evaluation.input(lane, "sample", &[1, WIDTH], Data::F32(numbers))?;
    }
    let mut outputs = evaluation.run(observer)?;
    let read = |lane| {
        let mut out = vec![f32::NAN; WIDTH];
        outputs.read(lane, "out_sample", &mut out)?;
        Ok(out.into_iter().map(f32::to_bits).collect())
    };
    (0..lanes).map(read).collect()
}

#[test]
fn turns_change_no_bit_and_take_less() {
    let plain = chain(None);
    let expected = run(&mut session(&plain, 2, 1), 2, &mut Silent).expect("valid");
    assert_ne!(expected[0], expected[1]);
    for turns in [3, 5, LAYERS] {
        let model = chain(Some(turns));
        let program = model.program(first(&model));
        let (own, shared) = (program.lane_bytes(), program.shared_bytes());
        assert_eq!(shared, 2 * 4 * WIDTH as u64);
        for lanes in [1, 2] {
            let (arena, _) = model.needs(&[(first(&model), lanes)]);
            assert_eq!(arena, lanes as u64 * own + shared);
            for threads in [1, 2, 3] {
                let mut session = session(&model, lanes, threads);
                for _ in 0..2 {
                    let found = run(&mut session, lanes, &mut Silent).expect("valid");
                    assert!(found == expected[..lanes], "{turns}, {lanes}, {threads}");
                }
            }
        }
        // One lane of a session that has room for two.
        let found = run(&mut session(&model, 2, 2), 1, &mut Silent).expect("valid");
        assert!(found == expected[..1]);
    }
}

/// Whatever the window, which may be too small for anything, nothing waits for ever and nothing is read twice.
#[test]
fn each_weight_is_read_once_for_both_lanes() {
    let expected = run(&mut session(&chain(None), 2, 1), 2, &mut Silent).expect("valid");
    for turns in [3, 5, LAYERS] {
        let model = chain(Some(turns));
        let layer = model.package().weights().len() as u64 / LAYERS as u64;
        let largest = model.largest_layer(&[(first(&model), 2)]);
        let whole = turns as u64 * layer;
        assert!(largest.abs_diff(whole) < layer / 2, "{largest} for {whole}");
        for window in [1, largest, 2 * largest, u64::MAX] {
            let reading = Reading::default();
            let mut session = session(&model, 2, 2).with_window(window, reading);
            for round in 1..=2 {
                assert!(run(&mut session, 2, &mut Silent).expect("valid") == expected);
                let streamed = session.streamed().expect("a budget").bytes;
                let all = round * model.package().weights().len() as u64;
                assert!(
                    (all - all / 20..=all + all / 20).contains(&streamed),
                    "{streamed} of {all}, {turns} layers a turn, window {window}"
                );
            }
        }
    }
}

/// Steps as they run, by lane.
#[derive(Default)]
struct Seen {
    steps: Vec<(usize, Option<usize>)>,
    macs: u64,
    cancel: Option<(usize, Cancellation)>,
}

impl Observer for Seen {
    fn step(&mut self, step: StepInfo<'_>) {
        self.steps.push((step.index, step.lane));
        self.macs += step.macs;
        if let Some((at, cancellation)) = &self.cancel
            && self.steps.len() == *at
        {
            cancellation.cancel();
        }
    }
}

#[test]
fn an_observer_is_told_of_every_turn() {
    let macs = |lanes: u64| lanes * (LAYERS * WIDTH * WIDTH) as u64;
    let model = chain(Some(3));
    let mut seen = Seen::default();
    run(&mut session(&model, 2, 1), 2, &mut seen).expect("valid");
    let expected: Vec<_> = (0..LAYERS)
        .step_by(3)
        .flat_map(|turn| [0, 1].map(|lane| (turn, lane)))
        .flat_map(|(turn, lane)| (turn..turn + 3).map(move |step| (step, Some(lane))))
        .collect();
    assert_eq!((seen.steps, seen.macs), (expected, macs(2)));

    // A lane alone has nobody to take turns with.
    let mut seen = Seen::default();
    run(&mut session(&model, 1, 1), 1, &mut seen).expect("valid");
    let expected: Vec<_> = (0..LAYERS).map(|step| (step, None)).collect();
    assert_eq!((seen.steps, seen.macs), (expected, macs(1)));
}

#[test]
fn a_turn_can_be_broken_off() {
    let model = chain(Some(5));
    for at in [1, 4, 5, 7, 10, 2 * LAYERS - 1] {
        let cancellation = Cancellation::new();
        let options = SessionOptions {
            threads: NonZeroUsize::new(2),
            cancellation: cancellation.clone(),
            ..SessionOptions::default()
        };
        let programs = [(first(&model), 2)];
        let session = Session::new(&model, &programs, &options).expect("room");
        let window = model.largest_layer(&programs);
        let mut session = session.with_window(window, Reading::default());
        let mut seen = Seen {
            cancel: Some((at, cancellation)),
            ..Seen::default()
        };
        let result = run(&mut session, 2, &mut seen);
        assert!(matches!(result, Err(RuntimeError::Cancelled)), "{at}");
        assert_eq!(seen.steps.len(), at);
    }
}
