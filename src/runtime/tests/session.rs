//! Sessions: inputs, outputs, damage, limits.

use std::num::NonZeroUsize;
use std::time::Duration;

use kiln_kernels::{Element, F16};
use kiln_package::{
    Activation, Affine, DType, Embed, GraphKind, Layout, Linear, Op, Operand, Unary,
};

use super::build::{Build, Random, model, package};
use crate::{
    Cancellation, Data, Model, Observer, ProgramId, RuntimeError, Session, SessionOptions, Shape,
    Silent, StepInfo,
};

fn options() -> SessionOptions {
    SessionOptions {
        threads: NonZeroUsize::new(2),
        ..SessionOptions::default()
    }
}

fn first(model: &Model) -> ProgramId {
    model.programs().next().expect("a program").0
}

fn session(model: &Model, lanes: usize) -> Session {
    Session::new(model, &[(first(model), lanes)], &options()).expect("little memory")
}

/// The error's text. There must be one.
fn text<T>(result: Result<T, RuntimeError>) -> String {
    result.err().expect("an error").to_string()
}

/// `out_sample = 2 * sample + 1` by way of three steps, `sample` being `[1, 3, 2, 2]`.
fn picture(dtype: DType, inside: Layout, outside: Layout, height: u32, width: u32) -> Build {
    let mut build = Build::new(GraphKind::Unet, height, width);
    let x = build.input("sample", &[1, 3, height / 32, width / 32], inside, dtype);
    let len = 3 * (height / 32) * (width / 32);
    let [a, b, c] = [(); 3].map(|()| build.buffer(dtype, len as usize));
    let affine = |scale, offset| Op::Affine(Affine { len, scale, offset });
    build.step("first", affine(2.0, 0.0), &[x, a]);
    build.step("second", affine(1.0, 1.0), &[a, b]);
    build.step(
        "third",
        Op::Unary(Unary {
            len,
            activation: Activation::None,
        }),
        &[b, c],
    );
    build.output("out_sample", &[1, 3, height / 32, width / 32], outside, c);
    build
}

#[test]
fn channels_move_and_types_change_on_the_way() {
    let numbers: Vec<f32> = (0..12).map(|n| n as f32).collect();
    let run = |dtype, inside, outside| {
        let model = picture(dtype, inside, outside, 64, 64).model();
        let mut session = session(&model, 1);
        let mut evaluation = session.prepare(first(&model), 1).expect("planned");
        evaluation
            .input(0, "sample", &[1, 3, 2, 2], Data::F32(&numbers))
            .expect("its shape");
        let mut out = [0.0; 12];
        let mut outputs = evaluation.run(&mut Silent).expect("a valid program");
        assert_eq!(
            outputs.shape("out_sample").expect("an output"),
            Shape(vec![1, 3, 2, 2])
        );
        outputs.read(0, "out_sample", &mut out).expect("its size");
        out.map(|v| (v - 1.0) / 2.0).to_vec()
    };
    let (rows, channels) = (Layout::RowMajor, Layout::ChannelsLast);
    for dtype in [DType::F32, DType::F16] {
        assert_eq!(run(dtype, rows, rows), numbers);
        assert_eq!(run(dtype, channels, channels), numbers);
        let last = [0.0, 4.0, 8.0, 1.0, 5.0, 9.0, 2.0, 6.0, 10.0, 3.0, 7.0, 11.0];
        assert_eq!(run(dtype, channels, rows), last);
        let first = [0.0, 3.0, 6.0, 9.0, 1.0, 4.0, 7.0, 10.0, 2.0, 5.0, 8.0, 11.0];
        assert_eq!(run(dtype, rows, channels), first);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let model = picture(
        DType::F16,
        Layout::ChannelsLast,
        Layout::ChannelsLast,
        64,
        64,
    )
    .model();
    let mut session = session(&model, 1);
    let unet = first(&model);
    let zeros = [0.0; 12];
    let mut evaluation = session.prepare(unet, 1).expect("planned");
    let mut input =
        |lane, name, shape: &[usize], data| text(evaluation.input(lane, name, shape, data));
    let data = Data::F32(&zeros);
    assert_eq!(
        input(0, "sample", &[1, 3, 4, 1], data),
        "`sample` must be [1, 3, 2, 2], found [1, 3, 4, 1]"
    );
    assert_eq!(
        input(0, "sample", &[3, 2, 2], data),
        "`sample` must be [1, 3, 2, 2], found [3, 2, 2]"
    );
    let short = Data::F32(&zeros[..11]);
    assert_eq!(
        input(0, "sample", &[1, 3, 2, 2], short),
        "`sample` has 12 elements, found 11"
    );
    let ids = Data::I64(&[0; 12]);
    assert_eq!(
        input(0, "sample", &[1, 3, 2, 2], ids),
        "`sample` must be f32, found i64"
    );
    assert_eq!(
        input(0, "latents", &[1, 3, 2, 2], data),
        "unet has no input `latents`; it has `sample`"
    );
    assert_eq!(
        input(1, "sample", &[1, 3, 2, 2], data),
        "lane: below 1 expected, found 1"
    );
    assert_eq!(
        text(evaluation.run(&mut Silent)),
        "unet: input `sample` is missing"
    );

    let mut evaluation = session.prepare(unet, 1).expect("planned");
    evaluation
        .input(0, "sample", &[1, 3, 2, 2], data)
        .expect("its shape");
    let mut outputs = evaluation.run(&mut Silent).expect("a valid program");
    assert_eq!(
        text(outputs.read(0, "sample", &mut [0.0; 12])),
        "unet has no output `sample`; it has `out_sample`"
    );
    assert_eq!(
        text(outputs.read(0, "out_sample", &mut [0.0; 13])),
        "`out_sample` has 12 elements, found 13"
    );
    assert_eq!(
        text(outputs.read(1, "out_sample", &mut [0.0; 12])),
        "lane: below 1 expected, found 1"
    );
    assert!(outputs.shape("sample").is_err());

    // A run uses its inputs up.
    assert!(matches!(
        session.prepare(unet, 1).expect("planned").run(&mut Silent),
        Err(RuntimeError::MissingTensor { .. })
    ));
    assert_eq!(
        text(session.prepare(unet, 0)),
        "lanes: 1 or 2 expected, found 0"
    );
    assert_eq!(
        text(session.prepare(unet, 3)),
        "lanes: 1 or 2 expected, found 3"
    );
    assert_eq!(
        text(Session::new(&model, &[(unet, 3)], &options())),
        "lanes: 1 or 2 expected, found 3"
    );
}

#[test]
fn every_lane_needs_its_inputs() {
    let model = picture(DType::F32, Layout::RowMajor, Layout::RowMajor, 64, 64).model();
    let mut session = session(&model, 2);
    let mut evaluation = session.prepare(first(&model), 2).expect("planned");
    evaluation
        .input(1, "sample", &[1, 3, 2, 2], Data::F32(&[0.0; 12]))
        .expect("its shape");
    assert!(matches!(
        evaluation.run(&mut Silent),
        Err(RuntimeError::MissingTensor { .. })
    ));
}

/// Tables of two MiB and a half, and a row of each: `low` reads the first two blocks, `high` the rest.
fn tables() -> Vec<u8> {
    let dim = 64;
    let mut random = Random::new(1);
    let mut weights = Build::new(GraphKind::TextEncoder, 0, 0);
    let block = (1 << 20) / 4;
    let (low, high) = (random.numbers(block), random.numbers(3 * block / 2));
    let (low, high) = (
        weights.weight(DType::F32, &low),
        weights.weight(DType::F32, &high),
    );
    let program = |graph, size, table: Operand| {
        let mut build = Build::new(graph, size, size);
        let ids = build.input("input_ids", &[1, 5], Layout::RowMajor, DType::I32);
        let out = build.buffer(DType::F32, 5 * dim as usize);
        let vocab = (table.bytes / 4) as u32 / dim;
        build.step(
            "embeddings",
            Op::Embed(Embed {
                rows: 5,
                dim,
                vocab,
                quantized: false,
            }),
            &[ids, table, Operand::EMPTY, Operand::EMPTY, out],
        );
        build.output("last_hidden_state", &[1, 5, dim], Layout::RowMajor, out);
        build.program
    };
    let programs = vec![
        program(GraphKind::TextEncoder, 0, low),
        program(GraphKind::Unet, 64, high),
    ];
    package(programs, &weights.weights)
}

fn embed(model: &Model, graph: GraphKind, ids: Data<'_>) -> Result<Vec<f32>, RuntimeError> {
    let id = model.find(graph, 64, 64)?;
    let mut session = Session::new(model, &[(id, 1)], &options())?;
    let mut evaluation = session.prepare(id, 1)?;
    evaluation.input(0, "input_ids", &[1, 5], ids)?;
    let mut out = vec![0.0; 5 * 64];
    evaluation
        .run(&mut Silent)?
        .read(0, "last_hidden_state", &mut out)?;
    Ok(out)
}

/// A table in 8 bits and positions in sixteen, of one row more than there are ids.
#[test]
fn tables_of_integers_are_scaled_by_row() {
    let codes: Vec<i8> = (0..6 * 64).map(|i| (i * 37 % 255 - 127) as i8).collect();
    let scale = [0.5f32, 0.01, 3.0, 0.25, 1e-3, 2.0];
    let mut random = Random::new(3);
    let positions: Vec<f32> = random.numbers(5 * 64);
    let mut build = Build::new(GraphKind::TextEncoder, 0, 0);
    let ids = build.input("input_ids", &[1, 5], Layout::RowMajor, DType::I32);
    let out = build.buffer(DType::F16, 5 * 64);
    let bytes: Vec<u8> = codes.iter().map(|code| *code as u8).collect();
    let operands = [
        ids,
        build.bytes(DType::I8, &bytes),
        build.weight(DType::F32, &scale),
        build.weight(DType::F16, &positions),
        out,
    ];
    let op = Op::Embed(Embed {
        rows: 5,
        dim: 64,
        vocab: 6,
        quantized: true,
    });
    build.step("embeddings", op, &operands);
    build.output("last_hidden_state", &[1, 5, 64], Layout::RowMajor, out);
    let given = [5, 0, 3, 3, 1];
    let model = build.model();
    let found = embed(&model, GraphKind::TextEncoder, Data::I32(&given)).expect("known ids");
    for (i, found) in found.into_iter().enumerate() {
        let (row, column) = (given[i / 64] as usize, i % 64);
        let position = F16::store(positions[i]).load();
        let sum = f32::from(codes[row * 64 + column]).mul_add(scale[row], position);
        assert_eq!(found, F16::store(sum).load(), "{i}");
    }
}

#[test]
fn ids_stay_inside_the_vocabulary() {
    let model = model(&tables());
    let graph = GraphKind::TextEncoder;
    let a = embed(&model, graph, Data::I32(&[0, 1, 2, 3, 4095])).expect("known ids");
    let b = embed(&model, graph, Data::I64(&[0, 1, 2, 3, 4095])).expect("known ids");
    assert_eq!(a, b);
    let expected = "`input_ids`: id 4096 at 4 is outside the vocabulary of 4096";
    assert_eq!(
        text(embed(&model, graph, Data::I32(&[0, 1, 2, 3, 4096]))),
        expected
    );
    assert_eq!(
        text(embed(&model, graph, Data::I64(&[0, 1, 2, 3, 4096]))),
        expected
    );
    let expected = "`input_ids`: id -1 at 1 is outside the vocabulary of 4096";
    assert_eq!(
        text(embed(&model, graph, Data::I32(&[0, -1, 2, 3, 4]))),
        expected
    );
    let expected = "`input_ids`: id 4294967296 at 0 is outside the vocabulary of 4096";
    assert_eq!(
        text(embed(&model, graph, Data::I64(&[1 << 32, 1, 2, 3, 4]))),
        expected
    );
    assert_eq!(
        text(embed(&model, graph, Data::F32(&[0.0; 5]))),
        "`input_ids` must be i32 or i64, found f32"
    );
}

#[test]
fn damaged_weights_are_found_when_first_read() {
    let bytes = tables();
    let sound = model(&bytes);
    let weights = sound.package().weights_offset() as usize;
    sound.verify().expect("nothing damaged yet");
    for (offset, block) in [(1 << 20, 1), ((5 << 20) / 2 - 1, 2)] {
        let mut bytes = bytes.clone();
        bytes[weights + offset] ^= 1;
        let damaged = model(&bytes);
        for _ in 0..2 {
            embed(&damaged, GraphKind::TextEncoder, Data::I32(&[0; 5]))
                .expect("reads sound weights only");
            let error = embed(&damaged, GraphKind::Unet, Data::I32(&[0; 5]))
                .expect_err("reads the damaged block");
            assert!(
                matches!(&error, RuntimeError::Weights { step, .. } if step == "embeddings"),
                "{error}"
            );
            let error = error.to_string();
            assert!(
                error.contains(&format!("offset {}", block << 20)) && error.contains("embeddings"),
                "{error}"
            );
            assert!(error.starts_with(damaged.origin()), "{error}");
        }
        assert!(text(damaged.verify()).contains(&format!("offset {}", block << 20)));
    }
}

#[test]
fn programs_are_found_by_size_and_by_shapes() {
    let rows = Layout::RowMajor;
    let programs = [(64, 64), (64, 96)].map(|(h, w)| picture(DType::F32, rows, rows, h, w).program);
    let model = model(&package(programs.to_vec(), &[]));
    let unet = GraphKind::Unet;
    assert_eq!(model.sizes(unet).collect::<Vec<_>>(), [(64, 64), (64, 96)]);
    let wide = model.find(unet, 64, 96).expect("there");
    assert_eq!(model.program(wide).width(), 96);
    assert_eq!(
        text(model.find(unet, 96, 64)),
        "no unet program of 64x96; the package has 64x64 and 96x64"
    );
    assert_eq!(
        text(model.find(GraphKind::VaeDecoder, 64, 64)),
        "the package has no vae_decoder"
    );

    let by = |inputs: &[(&str, &[usize])]| model.find_by_inputs(unet, inputs);
    assert_eq!(by(&[("sample", &[1, 3, 2, 3])]).expect("there"), wide);
    assert_eq!(
        text(by(&[("sample", &[1, 3, 3, 3])])),
        "unet: `sample` must be [1, 3, 2, 2] or [1, 3, 2, 3], found [1, 3, 3, 3]"
    );
    assert_eq!(
        text(by(&[("image", &[1, 3, 2, 3])])),
        "unet has no input `image`; it has `sample`"
    );
    assert_eq!(text(by(&[])), "unet: input `sample` is missing");
    assert_eq!(
        text(model.find_by_inputs(GraphKind::VaeEncoder, &[])),
        "the package has no vae_encoder"
    );
}

#[test]
fn memory_is_planned_and_limited() {
    let rows = Layout::RowMajor;
    let programs =
        [(64, 64), (640, 640)].map(|(h, w)| picture(DType::F32, rows, rows, h, w).program);
    let model = model(&package(programs.to_vec(), &[0; 100]));
    let [small, large] =
        [64, 640].map(|size| model.find(GraphKind::Unet, size, size).expect("there"));
    let threads = NonZeroUsize::new(2).expect("two");
    let plan = model.memory(&[(small, 2), (large, 1)], threads);
    // Four buffers of 3 * 20 * 20 numbers, each from a multiple of 64 on; pages of 4096.
    assert_eq!(plan.arena_bytes, (4 * 4800_u64).next_multiple_of(4096));
    assert_eq!(plan.scratch_bytes, 2 << 20);
    assert_eq!(plan.weight_bytes, 100);
    assert_eq!(plan.total_bytes(), plan.arena_bytes + (2 << 20) + 100);
    assert_eq!(
        model.memory(&[(large, 2)], threads).arena_bytes,
        (8 * 4800_u64).next_multiple_of(4096)
    );

    let limit = plan.allocated_bytes();
    let limited = |limit| SessionOptions {
        memory_limit: Some(limit),
        ..options()
    };
    let mut session =
        Session::new(&model, &[(small, 2), (large, 1)], &limited(limit)).expect("just enough");
    assert!(session.prepare(small, 2).is_ok());
    assert_eq!(
        text(session.prepare(large, 2)),
        "the session has no memory for unet with 2 lanes"
    );
    assert_eq!(
        text(Session::new(&model, &[(large, 1)], &limited(limit - 1))),
        format!(
            "the run needs {limit} bytes of memory, {} are allowed",
            limit - 1
        )
    );
}

#[test]
fn memory_that_cannot_be_had_is_an_error() {
    let mut build = picture(DType::F32, Layout::RowMajor, Layout::RowMajor, 64, 64);
    build.program.thread_scratch_bytes = 1 << 60;
    let model = build.model();
    let error = Session::new(&model, &[(first(&model), 1)], &options())
        .err()
        .expect("too much");
    assert!(
        matches!(error, RuntimeError::OutOfMemory { bytes } if bytes > 1 << 60),
        "{error}"
    );
}

struct CancelAfter {
    steps: Vec<(String, usize, usize)>,
    count: usize,
    cancellation: Cancellation,
}

impl Observer for CancelAfter {
    const TIMED: bool = false;

    fn step(&mut self, step: StepInfo<'_>) {
        assert_eq!(step.elapsed, Duration::ZERO);
        self.steps
            .push((format!("{} {}", step.op, step.name), step.index, step.count));
        if self.steps.len() == self.count {
            self.cancellation.cancel();
        }
    }
}

#[test]
fn an_observer_sees_every_step_and_can_cancel() {
    let model = picture(DType::F32, Layout::RowMajor, Layout::RowMajor, 64, 64).model();
    let all = [
        ("Affine first", 0),
        ("Affine second", 1),
        ("Unary third", 2),
    ];
    for count in [0, 1, 2, 3, 4] {
        let cancellation = Cancellation::new();
        let options = SessionOptions {
            cancellation: cancellation.clone(),
            ..options()
        };
        let mut session =
            Session::new(&model, &[(first(&model), 1)], &options).expect("little memory");
        let mut evaluation = session.prepare(first(&model), 1).expect("planned");
        evaluation
            .input(0, "sample", &[1, 3, 2, 2], Data::F32(&[0.0; 12]))
            .expect("its shape");
        let mut observer = CancelAfter {
            steps: vec![],
            count,
            cancellation,
        };
        if count == 0 {
            observer.cancellation.cancel();
        }
        let result = evaluation.run(&mut observer).map(|_| ());
        assert_eq!(matches!(result, Err(RuntimeError::Cancelled)), count < 3);
        let expected = all.map(|(name, index)| (name.to_owned(), index, 3));
        assert_eq!(observer.steps, expected[..count.min(3)]);
    }
}

#[derive(Default)]
struct Times {
    macs: u64,
    elapsed: Duration,
}

impl Observer for Times {
    fn step(&mut self, step: StepInfo<'_>) {
        self.macs += step.macs;
        self.elapsed += step.elapsed;
    }
}

/// One Linear of 40 by 30 by 50.
fn linear(scratch_bytes: u64) -> Model {
    let mut build = Build::new(GraphKind::Unet, 64, 64);
    let mut random = Random::new(2);
    let x = build.input("x", &[40, 30], Layout::RowMajor, DType::F32);
    let weight = build.weight(DType::F32, &random.numbers(30 * 64));
    let out = build.buffer(DType::F32, 40 * 50);
    let op = Op::Linear(Linear {
        rows: 40,
        k: 30,
        k2: 0,
        n: 50,
        activation: Activation::None,
    });
    let mut operands = vec![Operand::EMPTY; op.slots().len()];
    for (slot, operand) in op.slots().iter().zip(&mut operands) {
        match slot.name {
            "x" => *operand = x,
            "weight" => *operand = weight,
            "out" => *operand = out,
            _ => {}
        }
    }
    build.step("to_q", op, &operands);
    build.output("out", &[40, 50], Layout::RowMajor, out);
    build.program.thread_scratch_bytes = scratch_bytes;
    build.model()
}

#[test]
fn an_observer_is_told_times_and_multiplications_of_all_lanes() {
    let model = linear(1 << 20);
    let mut session = session(&model, 2);
    let mut evaluation = session.prepare(first(&model), 2).expect("planned");
    for lane in 0..2 {
        evaluation
            .input(lane, "x", &[40, 30], Data::F32(&[1.0; 1200]))
            .expect("its shape");
    }
    let mut times = Times::default();
    evaluation
        .run(&mut times)
        .map(|_| ())
        .expect("a valid program");
    assert_eq!(times.macs, 2 * 40 * 30 * 50);
    assert!(times.elapsed > Duration::ZERO);
}

#[test]
fn too_little_scratch_is_an_error() {
    let model = linear(64);
    let mut session = session(&model, 1);
    let mut evaluation = session.prepare(first(&model), 1).expect("planned");
    evaluation
        .input(0, "x", &[40, 30], Data::F32(&[1.0; 1200]))
        .expect("its shape");
    let error = text(evaluation.run(&mut Silent));
    assert!(
        error.starts_with("unet, step 0 (Linear `to_q`): ") && error.contains("scratch"),
        "{error}"
    );
}

#[test]
fn packages_come_from_files_and_from_the_program_itself() {
    let bytes = tables();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.kiln");
    let missing = text(Model::open(&path));
    assert!(
        missing.starts_with(&path.display().to_string()),
        "{missing}"
    );
    for length in [0, 1, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).expect("room");
        let error = Model::open(&path).err().expect("truncated");
        assert!(matches!(error, RuntimeError::Package { .. }), "{error}");
        assert!(
            error.to_string().starts_with(&path.display().to_string()),
            "{error}"
        );
    }

    let length = bytes.len();
    let mut padded = vec![0; length + 128];
    let skip = padded.as_ptr().align_offset(64);
    padded[skip..skip + length].copy_from_slice(&bytes);
    let leaked: &'static [u8] = padded.leak();
    let embedded = Model::from_static(&leaked[skip..skip + length]).expect("a valid package");
    let ids = Data::I32(&[7, 6, 5, 4, 3]);
    let graph = GraphKind::TextEncoder;
    assert_eq!(
        embed(&embedded, graph, ids).expect("known ids"),
        embed(&model(&bytes), graph, ids).expect("known ids")
    );
    assert!(matches!(
        Model::from_static(&leaked[skip + 1..]),
        Err(RuntimeError::Unaligned)
    ));
}

#[test]
fn a_session_can_move_between_threads_and_a_model_be_shared() {
    fn send<T: Send>() {}
    fn share<T: Send + Sync + Clone>() {}
    send::<Session>();
    share::<Model>();
    share::<Cancellation>();
}
