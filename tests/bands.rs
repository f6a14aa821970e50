//! Large pictures in bands of rows against the same graphs whole: the same bits, in less memory.

#[allow(dead_code)]
#[path = "common/graphs.rs"]
mod graphs;

use std::num::NonZeroUsize;

use graphs::{Build, numbers};
use kiln::runtime::{Data, Model, Session, SessionOptions, Silent};
use kiln_compiler::graph::{Graph, ValueId};
use kiln_compiler::plan::{Bands, PackageParts, Part, Precision, emit};
use kiln_kernels::Isa;
use kiln_package::{GraphKind, Stage};

/// The end of a decoder: an enlargement, a block with a shortcut, a block without, the picture.
fn decoder(int8: bool, [h, w]: [usize; 2]) -> Graph {
    let mut b = Build {
        graph: Graph::new("vae_decoder"),
        int8,
    };
    let x = b.graph.add_input("latents", &[h, w, 16]);
    let x = b.conv(x, 64, true, None);
    let x = b.resnet(x, 32);
    let x = b.resnet(x, 32);
    let x = b.norm(x);
    let out = b.conv(x, 8, false, None);
    b.finish(out, "sample")
}

/// A transformer's widest layers, and one more that reads what they give.
fn feed(int8: bool, [h, w]: [usize; 2]) -> Graph {
    let mut b = Build {
        graph: Graph::new("vae_decoder"),
        int8,
    };
    let x = b.graph.add_input("latents", &[h, w, 16]);
    let x = b.conv(x, 32, false, None);
    let x = b.feed(x, 128);
    let out = b.conv(x, 3, false, None);
    b.finish(out, "sample")
}

/// What a graph gives, its arena and the names of its steps' operators.
fn run(
    graph: &Graph,
    precision: Precision,
    bands: Bands,
    isa: Isa,
    threads: usize,
) -> (Vec<u32>, u64, Vec<&'static str>) {
    let shape = |id: ValueId| {
        let shape = graph.shape(id);
        [1, shape[2], shape[0], shape[1]]
    };
    let (given, taken) = (shape(graph.inputs[0]), shape(graph.outputs[0]));
    let parts = PackageParts {
        card: "{}".to_owned(),
        tokenizer: b"{}".to_vec(),
        scheduler: "{}".to_owned(),
        graphs: vec![Part {
            kind: GraphKind::VaeDecoder,
            stage: Stage::Whole,
            max_chunks: 1,
            height: taken[2] as u32,
            width: taken[3] as u32,
            clip_skip: 0,
            graph: graph.clone(),
        }],
        bands,
        ..PackageParts::default()
    };
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    emit(parts, precision, &mut file, &mut |_| ()).expect("a package");
    let model = Model::open(file.path()).expect("a valid package");
    let model = model.with_isa(isa).expect("one of this machine's");
    let (id, program) = model.programs().next().expect("one program");
    let (arena, bound) = (program.arena_bytes(), program.bound_bytes(1));
    assert!(bound <= arena, "{bound} of {arena}");
    let ops = program.steps().map(|step| step.op().name()).collect();
    let options = SessionOptions {
        threads: NonZeroUsize::new(threads),
        ..SessionOptions::default()
    };
    let mut session = Session::new(&model, &[(id, 1)], &options).expect("little memory");
    let input = numbers(99, given.iter().product(), 2.0);
    let mut evaluation = session.prepare(id, 1).expect("planned");
    evaluation
        .input(0, "latents", &given, Data::F32(&input))
        .expect("its input");
    let mut outputs = evaluation.run(&mut Silent).expect("a valid program");
    let mut out = vec![0.0; taken.iter().product()];
    outputs.read(0, "sample", &mut out).expect("its output");
    (out.into_iter().map(f32::to_bits).collect(), arena, ops)
}

/// Bands wherever they make the arena smaller, as small as they may be.
const SMALL: Bands = Bands {
    least_picture: 0,
    band: 0,
};

#[test]
fn bands_give_the_bits_of_the_whole_picture() {
    let cases = [
        (Precision::F32, false),
        (Precision::F16, false),
        (Precision::Int8, true),
    ];
    for (precision, int8) in cases {
        // Bands of unequal heights, and blocks of statistics that begin within a row.
        for size in [[16, 32], [21, 20], [29, 12]] {
            let graph = decoder(int8, size);
            let (whole, most, ops) = run(&graph, precision, Bands::NONE, Isa::Scalar, 1);
            assert!(!ops.contains(&"GroupNormApply"));
            assert!(whole.iter().any(|bits| f32::from_bits(*bits).abs() > 0.01));
            for isa in [Isa::Scalar, Isa::Avx2, Isa::Neon] {
                if kiln_kernels::Kernels::new(isa).is_err() {
                    continue;
                }
                for bands in [
                    SMALL,
                    Bands {
                        band: 90_000,
                        ..SMALL
                    },
                ] {
                    let (banded, arena, ops) = run(&graph, precision, bands, isa, 2);
                    let context = format!("{precision} {size:?} {isa:?} {bands:?}");
                    assert!(banded == whole, "{context}");
                    assert!(10 * arena < 9 * most, "{context}: {arena} of {most} bytes");
                    let convs = |ops: &[&str]| ops.iter().filter(|op| **op == "Conv2d").count();
                    assert!(convs(&ops) > 12, "{context}: {ops:?}");
                    assert!(ops.contains(&"Copy"), "{context}: computed twice");
                    assert_eq!(ops.contains(&"CodesRows"), int8, "{context}");
                }
            }
        }
    }
}

#[test]
fn rows_of_a_transformer_in_bands() {
    for (precision, int8) in [
        (Precision::F32, false),
        (Precision::F16, false),
        (Precision::Int8, true),
    ] {
        let graph = feed(int8, [16, 20]);
        let (whole, most, _) = run(&graph, precision, Bands::NONE, Isa::Scalar, 1);
        let (banded, arena, ops) = run(&graph, precision, SMALL, Isa::Scalar, 2);
        assert!(banded == whole, "{precision}");
        assert!(3 * arena < 2 * most, "{precision}: {arena} of {most} bytes");
        let norms = ops.iter().filter(|op| **op == "LayerNorm").count();
        assert_eq!(norms, 5, "{precision}: {ops:?}");
    }
}

/// What small pictures are planned as is what it was.
#[test]
fn small_pictures_stay_whole() {
    let graph = decoder(true, [16, 32]);
    let (_, most, whole) = run(&graph, Precision::Int8, Bands::NONE, Isa::Scalar, 1);
    let (_, arena, ops) = run(&graph, Precision::Int8, Bands::default(), Isa::Scalar, 1);
    assert_eq!((most, whole), (arena, ops));
}
