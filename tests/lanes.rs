//! Lanes that share a part of the arena against lanes that share nothing: the same bits, in less memory.

#[allow(dead_code)]
mod common;
#[path = "common/graphs.rs"]
mod graphs;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use common::toy;
use graphs::{Build, numbers};
use kiln::runtime::{Data, Model, Session, SessionOptions, Silent};
use kiln::{Kiln, Progress, Request};
use kiln_compiler::graph::Graph;
use kiln_compiler::plan::{Bands, Lanes, PackageParts, Part, Precision, emit};
use kiln_kernels::{Isa, Kernels};
use kiln_package::{GraphKind, Stage};

/// Blocks of a UNet on three sizes, most of the weights being those of the smallest and most of the arena the largest's,
/// with a connection across them.
fn unet(int8: bool, [h, w]: [usize; 2]) -> Graph {
    let mut b = Build {
        graph: Graph::new("unet"),
        int8,
    };
    let x = b.graph.add_input("sample", &[h, w, 16]);
    let skip = b.conv(x, 32, false, None);
    let x = b.resnet(skip, 32);
    let x = b.feed(x, 160);
    let x = b.halve(x, 64);
    let x = b.halve(x, 128);
    let x = b.resnet(x, 128);
    let x = b.conv(x, 64, true, None);
    let x = b.conv(x, 32, true, Some(skip));
    let x = b.feed(x, 128);
    let x = b.resnet(x, 32);
    let x = b.norm(x);
    let out = b.conv(x, 8, false, None);
    b.finish(out, "out_sample")
}

fn compiled(graph: &Graph, precision: Precision, lanes: Lanes) -> Model {
    let shape = graph.shape(graph.outputs[0]).to_vec();
    let parts = PackageParts {
        card: "{}".to_owned(),
        tokenizer: b"{}".to_vec(),
        scheduler: "{}".to_owned(),
        graphs: vec![Part {
            kind: GraphKind::Unet,
            stage: Stage::Whole,
            max_chunks: 1,
            height: 8 * shape[0] as u32,
            width: 8 * shape[1] as u32,
            clip_skip: 0,
            graph: graph.clone(),
        }],
        // Bands too, of which each reads the same weights.
        bands: Bands {
            least_picture: 0,
            band: 0,
        },
        lanes,
        ..PackageParts::default()
    };
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    emit(parts, precision, &mut file, &mut |_| ()).expect("a package");
    Model::open(file.path()).expect("a valid package")
}

/// What so many lanes give, each of an input of its own, the second time that a session is asked.
fn run(model: &Model, graph: &Graph, lanes: usize, options: &SessionOptions) -> Vec<Vec<u32>> {
    let (id, _) = model.programs().next().expect("one program");
    let shape = |of: &[kiln_compiler::graph::ValueId]| {
        let shape = graph.shape(of[0]);
        [1, shape[2], shape[0], shape[1]]
    };
    let (given, taken) = (shape(&graph.inputs), shape(&graph.outputs));
    let inputs: Vec<Vec<f32>> = (0..lanes)
        .map(|lane| numbers(99 + lane as u64, given.iter().product(), 2.0))
        .collect();
    let mut session = Session::new(model, &[(id, lanes)], options).expect("room");
    let mut found = Vec::new();
    for _ in 0..2 {
        let mut evaluation = session.prepare(id, lanes).expect("planned");
        for (lane, input) in inputs.iter().enumerate() {
            evaluation
                .input(lane, "sample", &given, Data::F32(input))
                .expect("its input");
        }
        let mut outputs = evaluation.run(&mut Silent).expect("a valid program");
        let read = |lane| {
            let mut out = vec![0.0; taken.iter().product()];
            outputs
                .read(lane, "out_sample", &mut out)
                .expect("its output");
            out.into_iter().map(f32::to_bits).collect()
        };
        found = (0..lanes).map(read).collect();
    }
    found
}

fn threads(threads: usize) -> SessionOptions {
    SessionOptions {
        threads: NonZeroUsize::new(threads),
        ..SessionOptions::default()
    }
}

#[test]
fn lanes_that_share_give_the_bits_of_lanes_that_do_not() {
    for (precision, int8) in [
        (Precision::F32, false),
        (Precision::F16, false),
        (Precision::Int8, true),
    ] {
        let graph = unet(int8, [16, 24]);
        let apart = compiled(&graph, precision, Lanes::NONE);
        let expected = run(&apart, &graph, 2, &threads(1));
        assert!(expected[0] != expected[1]);
        let shared = compiled(&graph, precision, Lanes { least_arena: 0 });
        let bytes = |model: &Model, lanes| {
            let (id, _) = model.programs().next().expect("one program");
            let one = NonZeroUsize::MIN;
            model.memory(&[(id, lanes)], one).arena_bytes
        };
        let (_, program) = shared.programs().next().expect("one program");
        let two = program.lane_bytes() + program.arena_bytes();
        println!(
            "{precision}: one lane {} of {}, two {two} of {}, {} steps, {} turns; bounds {} and {}",
            program.arena_bytes(),
            bytes(&apart, 1),
            bytes(&apart, 2),
            program.len(),
            program.turns().count(),
            program.bound_bytes(1),
            program.bound_bytes(2),
        );
        assert!(program.turns().any(|turn| turn.steps.len() > 2));
        assert!(program.turns().any(|turn| !turn.apart));
        assert!(program.bound_bytes(1) <= program.arena_bytes());
        assert!(program.bound_bytes(2) <= two);
        assert!(16 * bytes(&shared, 2) < 15 * bytes(&apart, 2) + 16 * 4096);
        assert!(12 * bytes(&shared, 1) <= 13 * bytes(&apart, 1) + 12 * 4096);
        for isa in [Isa::Scalar, Isa::Avx2, Isa::Neon] {
            if Kernels::new(isa).is_err() {
                continue;
            }
            let model = shared.clone().with_isa(isa).expect("one of this machine's");
            for count in [1, 2, 3] {
                for lanes in [1, 2] {
                    let found = run(&model, &graph, lanes, &threads(count));
                    assert!(
                        found == expected[..lanes],
                        "{precision} {isa:?} {count} {lanes}"
                    );
                }
            }
        }
    }
}

/// What is small is planned as if there were no lanes.
#[test]
fn small_arenas_are_not_shared() {
    let graph = unet(true, [8, 8]);
    let model = compiled(&graph, Precision::Int8, Lanes::default());
    let (_, program) = model.programs().next().expect("one program");
    assert_eq!(program.shared_bytes(), 0);
}

#[test]
fn a_picture_does_not_tell_whether_lanes_took_turns() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plain = toy::write(folder.path());
    let in_turns = toy::write_in_turns(folder.path());
    let model = Model::open(&in_turns).expect("a package");
    let turns = model
        .programs()
        .filter(|(_, program)| program.graph() == GraphKind::Unet)
        .map(|(_, program)| (program.turns().count(), program.shared_bytes() > 0));
    assert!(turns.eq([(1, true), (1, true)]));
    let draw = |path: &std::path::Path, threads: usize, scale: f32, ram: Option<u64>| {
        let mut kiln = Kiln::open(path).expect("a package");
        kiln = kiln.threads(NonZeroUsize::new(threads).expect("some"));
        if let Some(ram) = ram {
            kiln = kiln.ram(ram);
        }
        let request = Request::new("a [red|blue] (apple:1.2)")
            .size(96, 64)
            .seed(1)
            .guidance_scale(scale);
        let mut on = |_: Progress<'_>| ControlFlow::Continue(());
        let picture = kiln.draw(&request, &mut on).expect("a picture");
        picture.pixels().to_vec()
    };
    for scale in [1.0, 3.0] {
        let expected = draw(&plain, 1, scale, None);
        for threads in [1, 2, 3] {
            for ram in [None, Some(1 << 30)] {
                let found = draw(&in_turns, threads, scale, ram);
                assert!(found == expected, "guidance {scale}, {threads}, {ram:?}");
            }
        }
    }
}
