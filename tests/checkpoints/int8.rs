//! The figures of the compiler's report, computed a second time from the weights and from the finished package.

use std::collections::BTreeMap;
use std::path::Path;

use kiln::pipeline::{Tensor, run_graph};
use kiln::runtime::{Model, SessionOptions};
use kiln_compiler::plan::Precision;
use kiln_package::GraphKind;
use ndarray::{ArrayD, IxDyn};
use serde_json::Value;

use super::compiled::{compile, from_folder, options};
use super::model::TinyModel;
use super::weights::values;

/// Signal to noise in dB.
fn decibels(exact: &[f64], found: &[f64]) -> f64 {
    let signal: f64 = exact.iter().map(|x| x * x).sum();
    let noise: f64 = exact.iter().zip(found).map(|(a, b)| (a - b).powi(2)).sum();
    10.0 * libm::log10(signal / noise)
}

/// Rows as integers of 8 bits, a scale for each row.
fn integer_rows(rows: &[f64], columns: usize) -> Vec<f64> {
    let row = |row: &[f64]| {
        let scale = row.iter().fold(0.0f64, |m, x| m.max(x.abs())) / 127.0;
        let stands_for = move |x: &f64| (x / scale).round_ties_even() * scale;
        row.iter().map(stands_for).collect::<Vec<_>>()
    };
    rows.chunks_exact(columns).flat_map(row).collect()
}

/// A vector as codes of 8 bits between its least and its largest number.
fn coded(x: &[f64]) -> Vec<f64> {
    let (lo, hi) = x
        .iter()
        .fold((0.0f64, 0.0f64), |(lo, hi), x| (lo.min(*x), hi.max(*x)));
    let scale = (hi - lo) / 255.0;
    let zero = (-lo / scale).round_ties_even();
    x.iter()
        .map(|x| (((x / scale).round_ties_even() + zero).clamp(0.0, 255.0) - zero) * scale)
        .collect()
}

fn parameter(name: &str, shape: &[usize]) -> Vec<f64> {
    values(name, shape).into_iter().map(f64::from).collect()
}

/// `silu(weight x + bias)`
fn layer(weight: &[f64], bias: &[f64], x: &[f64]) -> Vec<f64> {
    let row = |(row, bias): (&[f64], &f64)| {
        let y = bias + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        y / (1.0 + libm::exp(-y))
    };
    weight.chunks_exact(x.len()).zip(bias).map(row).collect()
}

/// Sinusoids of a timestep, the cosines first.
fn embedded(timestep: f64, half: usize) -> Vec<f64> {
    let angle = |i: usize| timestep * libm::exp(-libm::log(10000.0) * i as f64 / half as f64);
    let cosines = (0..half).map(|i| libm::cos(angle(i)));
    cosines
        .chain((0..half).map(|i| libm::sin(angle(i))))
        .collect()
}

#[test]
fn the_reports_figures_are_those_of_the_layers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = TinyModel::read("sd1");
    let exact = from_folder(&model, folder.path());
    let (output, report) = (
        folder.path().join("int8.kiln"),
        folder.path().join("report.json"),
    );
    let mut int8 = options(&folder.path().join(&model.name), &output);
    int8.precision = Precision::Int8;
    int8.sizes.truncate(1);
    int8.report = Some(report.clone());
    compile(&int8);
    let report: Value =
        serde_json::from_slice(&std::fs::read(report).expect("a report")).expect("JSON");

    // The table of tokens: each row against itself.
    let table = parameter(
        "text_encoder.text_model.embeddings.token_embedding.weight",
        &[600, 128],
    );
    let expected = decibels(&table, &integer_rows(&table, 128));
    let found = figures(&report, "text_encoder", "token_embedding");
    close(&found, &[expected], 0.01);

    // The first layer of the timestep's embedding, at the timesteps that the compiler measures at.
    let weight = parameter("unet.time_embedding.linear_1.weight", &[128, 32]);
    let bias = parameter("unet.time_embedding.linear_1.bias", &[128]);
    let integers = integer_rows(&weight, 32);
    let expected = [901.0, 501.0, 21.0].map(|timestep| {
        let x = embedded(timestep, 16);
        decibels(
            &layer(&weight, &bias, &x),
            &layer(&integers, &bias, &coded(&x)),
        )
    });
    let found = figures(&report, "unet", "time_embedding.linear_1");
    close(&found, &expected, 0.05);

    // The whole text encoder: both packages on the prompts that the compiler measures it on.
    let expected = [2, 9, 24].map(|words| {
        let [exact, int8] = [&exact, &output].map(|package| encode(package, &prompt(words)));
        decibels(&exact, &int8)
    });
    let graphs = report["graphs"].as_array().expect("graphs");
    let graph = graphs.iter().find(|g| g["graph"] == "text_encoder");
    let found = numbers(&graph.expect("the text encoder")["decibels"]);
    close(&found, &expected, 0.5);
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list");
    list.iter().map(|n| n.as_f64().expect("a number")).collect()
}

/// The figures of the layer whose name ends so.
fn figures(report: &Value, graph: &str, layer: &str) -> Vec<f64> {
    let graphs = report["graphs"].as_array().expect("graphs");
    let graph = graphs
        .iter()
        .find(|g| g["graph"] == graph)
        .expect("a graph");
    let layers = graph["layers"].as_array().expect("layers");
    let named = |l: &&Value| l["name"].as_str().is_some_and(|name| name.ends_with(layer));
    let found: Vec<_> = layers.iter().filter(named).collect();
    assert_eq!(found.len(), 1, "{layer}");
    numbers(&found[0]["decibels"])
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < tolerance, "{found:?} {expected:?}");
    }
}

/// The compiler's prompt of so many random words.
fn prompt(words: usize) -> Vec<i32> {
    let mut state = words as u64;
    let mut ids = vec![598];
    for _ in 0..words {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ids.push(((z ^ (z >> 31)) % 598) as i32);
    }
    ids.resize(77, 599);
    ids
}

fn encode(package: &Path, ids: &[i32]) -> Vec<f64> {
    let model = Model::open(package).expect("a package");
    let ids = ArrayD::from_shape_vec(IxDyn(&[1, 77]), ids.to_vec()).expect("77 ids");
    let inputs = BTreeMap::from([("input_ids".to_owned(), Tensor::I32(ids))]);
    let options = SessionOptions::default();
    let outputs = run_graph(&model, GraphKind::TextEncoder, &inputs, &options).expect("a context");
    outputs["last_hidden_state"]
        .iter()
        .map(|x| f64::from(*x))
        .collect()
}
