//! Each file of `tests/` is a graph and what one pass makes of it: `PASS.CASE.txt`. `KILN_BLESS=1` writes the second half
//! anew. What a pass makes must compute the same as before.

use super::*;
use crate::graph::{Tensor, view::View};
use std::path::{Path, PathBuf};

const SEPARATOR: &str = "----\n";

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("passes/tests");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// Pseudo-random elements; small whole numbers for ids.
fn input(name: &str, shape: &[usize]) -> Tensor {
    let len = shape.iter().product();
    let seed = name.bytes().fold(7, |h, b| h * 31 + u64::from(b));
    let mut data = crate::graph::random(seed, len);
    if name == "ids" {
        data.iter_mut()
            .for_each(|v| *v = ((*v + 1.0) * 2.4).floor());
    }
    Tensor {
        shape: shape.to_vec(),
        data,
    }
}

/// What `channels-last` makes of a value that enters or leaves a graph.
fn inside(x: &Tensor) -> Tensor {
    match x.shape.as_slice() {
        [1, c, h, w] => {
            let view = View::dense(&[*c, *h, *w]).transpose(&[1, 2, 0]);
            Tensor {
                data: view.gather(&x.data),
                shape: view.shape,
            }
        }
        [1, rest @ ..] if !rest.is_empty() => Tensor {
            shape: rest.to_vec(),
            data: x.data.clone(),
        },
        [] => Tensor {
            shape: vec![1],
            data: x.data.clone(),
        },
        _ => x.clone(),
    }
}

fn assert_same(name: &str, before: &Graph, after: &Graph) {
    let inputs: Vec<Tensor> = before
        .inputs
        .iter()
        .map(|i| input(&before.value(*i).name, before.shape(*i)))
        .collect();
    let expected = before.interpret(&inputs).unwrap();
    let moved: Vec<Tensor> = inputs.iter().map(inside).collect();
    let converts = name.starts_with("channels-last");
    let found = after
        .interpret(if converts { &moved } else { &inputs })
        .unwrap();
    for (found, expected) in found.iter().zip(&expected) {
        let expected = if converts {
            inside(expected)
        } else {
            expected.clone()
        };
        assert_eq!(found.shape, expected.shape, "{name}");
        let largest = expected.data.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(largest > 0.0, "{name}: computes nothing");
        for (a, b) in found.data.iter().zip(&expected.data) {
            assert!((a - b).abs() <= 1e-5 * largest, "{name}: {a} is not {b}");
        }
    }
}

#[test]
fn passes_do_what_their_files_say() {
    let bless = std::env::var_os("KILN_BLESS").is_some();
    let mut tested: Vec<&str> = Vec::new();
    for path in files() {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let (given, expected) = text.split_once(SEPARATOR).unwrap_or((&text, ""));
        let before = Graph::parse(given).unwrap_or_else(|e| panic!("{file}: {e}"));
        before.verify().unwrap_or_else(|e| panic!("{file}: {e}"));
        let pass = file.split('.').next().unwrap();
        let (name, runs) = list()
            .into_iter()
            .find(|(name, _)| *name == pass)
            .unwrap_or_else(|| panic!("{file}: no pass"));
        tested.push(name);
        let mut after = before.clone();
        let (UntilStill(step) | Once(step)) = runs;
        while step(&mut after).unwrap() > 0 && matches!(runs, UntilStill(_)) {
            after.tidy();
        }
        after.tidy();
        after.verify().unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_same(&file, &before, &after);
        let printed = after.to_string();
        if bless {
            std::fs::write(&path, format!("{given}{SEPARATOR}{printed}")).unwrap();
        } else {
            assert_eq!(printed, expected, "{file}");
        }
    }
    for (name, _) in list() {
        assert!(tested.contains(&name), "{name} has no file");
    }
}

#[test]
fn what_is_left_is_named() {
    let text = "graph \"g\" {\n input %0 \"x\" [1, 2, 4, 4]\n %1 = source_unary \"act\" (x: %0) {kind: exp}\n output %1 \"y\"\n}";
    let mut graph = Graph::parse(text).unwrap();
    let error = run(&mut graph, None, &mut |_, _| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("source_unary \"act\""), "{error}");
}

#[test]
fn stopping_early_leaves_the_graph_between_passes() {
    let text = "graph \"g\" {\n input %0 \"x\" [1, 4]\n %1 = source_unary \"\" (x: %0) {kind: sigmoid}\n \
                %2 = source_binary \"\" (a: %0, b: %1) {kind: mul}\n output %2 \"y\"\n}";
    let mut seen = Vec::new();
    let mut graph = Graph::parse(text).unwrap();
    let reports = run(&mut graph, Some(1), &mut |report, graph| {
        seen.push((report.clone(), graph.summary()))
    })
    .unwrap();
    let report = PassReport {
        name: "fuse-activation",
        fired: 1,
        nodes: 1,
    };
    assert_eq!(seen, [(report.clone(), "unary 1".to_owned())]);
    assert_eq!(reports, [report]);
    let mut graph = Graph::parse(text).unwrap();
    assert!(run(&mut graph, Some(0), &mut |_, _| ()).unwrap().is_empty());
    assert_eq!(graph.summary(), "source_binary 1, source_unary 1");
}
