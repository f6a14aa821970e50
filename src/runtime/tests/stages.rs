//! Graphs in stages: what is pinned, what runs when, and contexts of several chunks.

use std::num::NonZeroUsize;

use kiln_kernels::{Isa, Kernels};
use kiln_package::{
    Activation, Attention, DType, GraphKind, Layout, Linear, Op, Operand, ProgramRecord, Stage,
    TimestepEmbedding,
};

use super::build::{Build, Random, model, package};
use crate::{Data, Model, Observer, RuntimeError, Session, SessionOptions, Silent, StepInfo};

const TOKENS: usize = 77;
const MOST: u32 = 3;
const DIM: usize = 8;
const C: usize = 16;
const PIXELS: usize = 20;

/// A UNet of one cross-attention, its weights shared by all programs.
struct Unet {
    dtype: DType,
    weights: Build,
    to_k: Operand,
    to_v: Operand,
    frequencies: Operand,
    projection: Operand,
    to_out: Operand,
}

fn filled(op: Op, slots: &[(&str, Operand)]) -> Vec<Operand> {
    let at = |name| {
        slots
            .iter()
            .find(|(slot, _)| *slot == name)
            .map_or(Operand::EMPTY, |(_, operand)| *operand)
    };
    op.slots().iter().map(|slot| at(slot.name)).collect()
}

fn linear(rows: usize, k: usize) -> Op {
    Op::Linear(Linear {
        rows: rows as u32,
        k: k as u32,
        k2: 0,
        n: C as u32,
        activation: Activation::None,
    })
}

impl Unet {
    fn new(dtype: DType) -> Self {
        let mut weights = Build::new(GraphKind::Unet, 64, 64);
        let mut random = Random::new(5);
        let mut weight = |k: usize| weights.weight(dtype, &random.numbers(k * C));
        let [to_k, to_v, projection, to_out] = [DIM, DIM, DIM, C].map(&mut weight);
        let frequencies = weights.weight(DType::F32, &[1.0, 0.3, 0.1, 0.03]);
        Unet {
            dtype,
            weights,
            to_k,
            to_v,
            frequencies,
            projection,
            to_out,
        }
    }

    /// A program whose arena begins with the pinned values `k`, `v` and `shift`.
    fn stage(&self, stage: Stage) -> (Build, [Operand; 3]) {
        let mut build = Build::new(GraphKind::Unet, 64, 64);
        let rows = MOST as usize * TOKENS;
        let pinned = [rows * C, rows * C, C].map(|elements| build.buffer(self.dtype, elements));
        build.program.stage = stage;
        build.program.pinned_bytes = build.program.arena_bytes;
        build.program.max_chunks = if stage == Stage::Timestep { 1 } else { MOST };
        (build, pinned)
    }

    fn prompt(&self, build: &mut Build, context: Operand, [k, v, _]: [Operand; 3], rows: usize) {
        for (name, weight, out) in [("to_k", self.to_k, k), ("to_v", self.to_v, v)] {
            let op = linear(rows, DIM);
            build.step(
                name,
                op,
                &filled(op, &[("x", context), ("weight", weight), ("out", out)]),
            );
        }
    }

    fn timestep(&self, build: &mut Build, [_, _, shift]: [Operand; 3]) {
        let timestep = build.input("timestep", &[1], Layout::RowMajor, DType::F32);
        let embedded = build.buffer(self.dtype, DIM);
        let op = Op::TimestepEmbedding(TimestepEmbedding {
            half: DIM as u32 / 2,
            cos_first: true,
        });
        build.step("time", op, &[timestep, self.frequencies, embedded]);
        let op = linear(1, DIM);
        build.step(
            "shift",
            op,
            &filled(
                op,
                &[("x", embedded), ("weight", self.projection), ("out", shift)],
            ),
        );
    }

    fn step(&self, build: &mut Build, [k, v, shift]: [Operand; 3], rows: usize) {
        let sample = build.input(
            "sample",
            &[1, C as u32, 5, 4],
            Layout::ChannelsLast,
            self.dtype,
        );
        let [attended, out] = [(); 2].map(|()| build.buffer(self.dtype, PIXELS * C));
        let op = Op::Attention(Attention {
            q_rows: PIXELS as u32,
            kv_rows: rows as u32,
            heads: 2,
            head_dim: C as u32 / 2,
            q_stride: C as u32,
            k_stride: C as u32,
            v_stride: C as u32,
            scale: 0.4,
            causal: false,
            integers: false,
        });
        build.step(
            "attention",
            op,
            &filled(op, &[("q", sample), ("k", k), ("v", v), ("out", attended)]),
        );
        let op = linear(PIXELS, C);
        let slots = [
            ("x", attended),
            ("weight", self.to_out),
            ("shift", shift),
            ("residual", sample),
            ("out", out),
        ];
        build.step("to_out", op, &filled(op, &slots));
        build.output(
            "out_sample",
            &[1, C as u32, 5, 4],
            Layout::ChannelsLast,
            out,
        );
    }

    fn staged(&self) -> Vec<ProgramRecord> {
        let rows = MOST as usize * TOKENS;
        let shape = [1, rows as u32, C as u32];
        let crossing = |pinned: [Operand; 3]| [("k", pinned[0]), ("v", pinned[1])];

        let (mut prompt, pinned) = self.stage(Stage::Prompt);
        let context = prompt.input(
            "encoder_hidden_states",
            &[1, rows as u32, DIM as u32],
            Layout::RowMajor,
            self.dtype,
        );
        self.prompt(&mut prompt, context, pinned, rows);
        for (name, operand) in crossing(pinned) {
            prompt.output(name, &shape, Layout::RowMajor, operand);
        }
        let ports = prompt
            .program
            .inputs
            .iter_mut()
            .chain(&mut prompt.program.outputs);
        ports.for_each(|port| port.per_chunk = true);
        prompt
            .program
            .steps
            .iter_mut()
            .for_each(|step| step.per_chunk = true);

        let (mut timestep, pinned) = self.stage(Stage::Timestep);
        self.timestep(&mut timestep, pinned);
        timestep.output("shift", &[1, C as u32], Layout::RowMajor, pinned[2]);

        let (mut step, pinned) = self.stage(Stage::Step);
        for (name, operand) in crossing(pinned) {
            step.pinned(name, &shape, operand, true);
        }
        step.pinned("shift", &[1, C as u32], pinned[2], false);
        self.step(&mut step, pinned, rows);
        step.program.steps[0].per_chunk = true;
        vec![prompt.program, timestep.program, step.program]
    }

    fn whole(&self, chunks: usize) -> ProgramRecord {
        let mut build = Build::new(GraphKind::Unet, 64, 64);
        let rows = chunks * TOKENS;
        let context = build.input(
            "encoder_hidden_states",
            &[1, rows as u32, DIM as u32],
            Layout::RowMajor,
            self.dtype,
        );
        let values = [rows * C, rows * C, C].map(|elements| build.buffer(self.dtype, elements));
        self.prompt(&mut build, context, values, rows);
        self.timestep(&mut build, values);
        self.step(&mut build, values, rows);
        build.program
    }

    fn model(&self, programs: Vec<ProgramRecord>) -> Model {
        model(&package(programs, &self.weights.weights))
    }
}

/// What a lane is given.
struct Inputs {
    sample: Vec<f32>,
    timestep: [f32; 1],
    context: Vec<f32>,
}

impl Inputs {
    fn new(seed: u64, timestep: f32, chunks: usize) -> Self {
        let mut random = Random::new(seed);
        let (sample, context) = (
            random.numbers(PIXELS * C),
            random.numbers(chunks * TOKENS * DIM),
        );
        Inputs {
            sample,
            timestep: [timestep],
            context,
        }
    }
}

fn session(model: &Model, lanes: usize, threads: usize) -> Session {
    let options = SessionOptions {
        threads: NonZeroUsize::new(threads),
        ..SessionOptions::default()
    };
    let id = model.find(GraphKind::Unet, 64, 64).expect("there");
    Session::new(model, &[(id, lanes)], &options).expect("little memory")
}

/// Evaluates with what is needed of the inputs and gives the bits of each lane's output.
fn evaluate<O: Observer>(
    session: &mut Session,
    lanes: &[Inputs],
    observer: &mut O,
) -> Vec<Vec<u32>> {
    let id = session
        .model()
        .find(GraphKind::Unet, 64, 64)
        .expect("there");
    let mut evaluation = session.prepare(id, lanes.len()).expect("planned");
    for (lane, inputs) in lanes.iter().enumerate() {
        let rows = inputs.context.len() / DIM;
        evaluation
            .input(lane, "sample", &[1, C, 5, 4], Data::F32(&inputs.sample))
            .expect("its shape");
        evaluation
            .input(lane, "timestep", &[1], Data::F32(&inputs.timestep))
            .expect("its shape");
        if evaluation.needs("encoder_hidden_states") {
            let shape = [1, rows, DIM];
            evaluation
                .input(
                    lane,
                    "encoder_hidden_states",
                    &shape,
                    Data::F32(&inputs.context),
                )
                .expect("its shape");
        }
    }
    let mut outputs = evaluation.run(observer).expect("a valid graph");
    let read = |lane| {
        let mut out = vec![f32::NAN; PIXELS * C];
        outputs
            .read(lane, "out_sample", &mut out)
            .expect("its size");
        out.iter().map(|v| v.to_bits()).collect()
    };
    (0..lanes.len()).map(read).collect()
}

/// The stages and steps that run, and their multiplications.
#[derive(Default)]
struct Seen(Vec<(Stage, String, u64)>);

impl Observer for Seen {
    fn step(&mut self, step: StepInfo<'_>) {
        self.0.push((step.stage, step.name.to_owned(), step.macs));
    }
}

#[test]
fn stages_change_no_bit_whatever_the_chunks_the_lanes_the_threads_and_the_cpu() {
    for dtype in [DType::F32, DType::F16] {
        let unet = Unet::new(dtype);
        let staged = unet.model(unet.staged());
        for chunks in 1..=MOST as usize {
            let whole = unet.model(vec![unet.whole(chunks)]);
            let lanes = [Inputs::new(1, 981.0, chunks), Inputs::new(2, 981.0, chunks)];
            let alone: Vec<_> = lanes
                .iter()
                .flat_map(|lane| {
                    evaluate(
                        &mut session(&whole, 1, 1),
                        std::slice::from_ref(lane),
                        &mut Silent,
                    )
                })
                .collect();
            assert_ne!(alone[0], alone[1]);
            for isa in Isa::ALL.iter().filter(|isa| Kernels::new(**isa).is_ok()) {
                for threads in [1, 2, 3] {
                    let model = staged.clone().with_isa(*isa).expect("this CPU has it");
                    let both = evaluate(&mut session(&model, 2, threads), &lanes, &mut Silent);
                    assert_eq!(
                        both, alone,
                        "{dtype}, {chunks} chunks, {isa:?}, {threads} threads"
                    );
                    let one = evaluate(&mut session(&model, 2, threads), &lanes[1..], &mut Silent);
                    assert_eq!(
                        one[0], alone[1],
                        "{dtype}, {chunks} chunks, {isa:?}, {threads} threads"
                    );
                }
            }
        }
    }
}

#[test]
fn the_prompt_runs_once_and_a_common_timestep_for_one_lane() {
    let unet = Unet::new(DType::F16);
    let staged = unet.model(unet.staged());
    let mut session = session(&staged, 2, 2);
    let linear = (DIM * C) as u64;
    for (number, timesteps) in [[981.0, 981.0], [901.0, 901.0], [21.0, 1.0]]
        .into_iter()
        .enumerate()
    {
        let lanes = [0, 1].map(|lane| Inputs {
            timestep: [timesteps[lane]],
            ..Inputs::new(lane as u64, 0.0, 2)
        });
        let mut seen = Seen::default();
        let both = evaluate(&mut session, &lanes, &mut seen);
        let names: Vec<_> = seen
            .0
            .iter()
            .map(|(stage, name, _)| format!("{stage} {name}"))
            .collect();
        let prompt = ["prompt to_k", "prompt to_v"];
        let steps = [
            "timestep time",
            "timestep shift",
            "step attention",
            "step to_out",
        ];
        let expected: Vec<_> = prompt
            .iter()
            .filter(|_| number == 0)
            .chain(&steps)
            .copied()
            .collect();
        assert_eq!(names, expected);
        let macs = |name: &str| {
            seen.0
                .iter()
                .find(|(_, step, _)| step == name)
                .map(|(_, _, macs)| *macs)
        };
        assert_eq!(
            macs("to_k"),
            (number == 0).then_some(2 * 2 * TOKENS as u64 * linear)
        );
        assert_eq!(
            macs("shift"),
            Some(if timesteps[0] == timesteps[1] {
                linear
            } else {
                2 * linear
            })
        );
        assert_eq!(
            macs("attention"),
            Some((2 * PIXELS * 2 * TOKENS * C * 2) as u64)
        );

        let whole = unet.model(vec![unet.whole(2)]);
        assert_eq!(
            both,
            evaluate(&mut self::session(&whole, 2, 1), &lanes, &mut Silent)
        );
    }
}

#[test]
fn what_is_left_of_an_evaluation_serves_the_same_graph_and_lanes_only() {
    let unet = Unet::new(DType::F32);
    let staged = unet.model(unet.staged());
    let id = staged.find(GraphKind::Unet, 64, 64).expect("there");
    let mut session = session(&staged, 2, 1);
    let context = "encoder_hidden_states";
    let needs = |session: &mut Session, lanes| {
        let evaluation = session.prepare(id, lanes).expect("planned");
        ["sample", "timestep", context].map(|name| evaluation.needs(name))
    };
    assert_eq!(needs(&mut session, 1), [true; 3]);
    evaluate(&mut session, &[Inputs::new(1, 5.0, 3)], &mut Silent);
    assert_eq!(needs(&mut session, 1), [true, false, false]);
    assert_eq!(needs(&mut session, 2), [true; 3]);

    let inputs = Inputs::new(1, 5.0, 3);
    let mut evaluation = session.prepare(id, 1).expect("planned");
    evaluation
        .input(0, "timestep", &[1], Data::F32(&inputs.timestep))
        .expect("its shape");
    let error = evaluation
        .run(&mut Silent)
        .err()
        .expect("no sample")
        .to_string();
    assert_eq!(error, "unet: input `sample` is missing");
    // A run that broke off leaves nothing.
    assert_eq!(needs(&mut session, 1), [true; 3]);
    let mut evaluation = session.prepare(id, 1).expect("planned");
    evaluation
        .input(0, "sample", &[1, C, 5, 4], Data::F32(&inputs.sample))
        .expect("its shape");
    assert!(
        matches!(evaluation.run(&mut Silent), Err(RuntimeError::MissingTensor { name, .. }) if name == context)
    );
}

#[test]
fn a_context_said_twice_means_the_same() {
    let unet = Unet::new(DType::F32);
    let staged = unet.model(unet.staged());
    let once = Inputs::new(3, 401.0, 1);
    let run = |chunks: usize| {
        let inputs = Inputs {
            context: once.context.repeat(chunks),
            ..Inputs::new(3, 401.0, 1)
        };
        let bits = evaluate(&mut session(&staged, 1, 2), &[inputs], &mut Silent).remove(0);
        bits.into_iter().map(f32::from_bits).collect::<Vec<_>>()
    };
    let expected = run(1);
    for chunks in 2..=MOST as usize {
        let largest = run(chunks)
            .iter()
            .zip(&expected)
            .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(largest < 1e-5, "{chunks} chunks: {largest:e}");
    }
}

#[test]
fn chunks_are_told_by_the_shape() {
    let unet = Unet::new(DType::F32);
    let staged = unet.model(unet.staged());
    let id = staged.find(GraphKind::Unet, 64, 64).expect("there");
    assert_eq!(staged.max_chunks(id), MOST);
    let names: Vec<_> = staged.inputs(id).map(|port| port.name.to_owned()).collect();
    assert_eq!(names, ["encoder_hidden_states", "timestep", "sample"]);
    assert_eq!(staged.programs().count(), 1);

    let mut session = session(&staged, 2, 1);
    let mut evaluation = session.prepare(id, 2).expect("planned");
    let zeros = vec![0.0; 4 * TOKENS * DIM];
    let mut context = |lane, rows: usize| {
        let data = Data::F32(&zeros[..rows * DIM]);
        evaluation
            .input(lane, "encoder_hidden_states", &[1, rows, DIM], data)
            .err()
            .map(|error| error.to_string())
    };
    let all = "[1, 77, 8], [1, 154, 8] or [1, 231, 8]";
    for rows in [0, 76, 78, 4 * TOKENS] {
        let expected = format!("`encoder_hidden_states` must be {all}, found [1, {rows}, 8]");
        assert_eq!(context(0, rows), Some(expected));
    }
    assert_eq!(context(0, 2 * TOKENS), None);
    let expected = "`encoder_hidden_states` must be [1, 154, 8], found [1, 77, 8]";
    assert_eq!(context(1, TOKENS).as_deref(), Some(expected));
    assert_eq!(context(1, 2 * TOKENS), None);

    let by = |rows| {
        let shapes: [(&str, &[usize]); 3] = [
            ("sample", &[1, C, 5, 4]),
            ("timestep", &[1]),
            ("encoder_hidden_states", &[1, rows, DIM]),
        ];
        staged.find_by_inputs(GraphKind::Unet, &shapes)
    };
    assert!((1..=3).all(|chunks| by(chunks * TOKENS).is_ok_and(|found| found == id)));
    let error = by(100).expect_err("no chunk").to_string();
    assert_eq!(
        error,
        format!("unet: `encoder_hidden_states` must be {all}, found [1, 100, 8]")
    );
}
