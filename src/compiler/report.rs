//! What the compiler chose and why, for people and for programs.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::quantize::{LEAST_DECIBELS, LEAST_OF_STREAM, Layer, Quantized};

/// The report as a file of that name wants it: JSON if it ends in `.json`, else text.
pub fn report(path: &Path, graphs: &[Quantized]) -> String {
    let json = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    if json {
        format!("{:#}\n", to_json(graphs))
    } else {
        to_text(graphs)
    }
}

/// The worst layers that a report lists.
const WORST: usize = 10;

/// The least signal-to-noise that was measured of a layer.
fn least(layer: &Layer) -> Option<f64> {
    layer.decibels.iter().copied().reduce(f64::min)
}

/// The part of the noise in the graph's result that was measured to be a layer's, in percent, in the mean.
fn noise(layer: &Layer) -> Option<f64> {
    let count = layer.noise.len();
    (count > 0).then(|| 100.0 * layer.noise.iter().sum::<f64>() / count as f64)
}

/// The layers that 8 bits cost most, of all graphs, the worst first: decibels, graph, layer.
fn worst(graphs: &[Quantized]) -> Vec<(f64, &str, &Layer)> {
    let all = graphs.iter().flat_map(|graph| {
        graph
            .layers
            .iter()
            .map(|layer| (graph.graph.as_str(), layer))
    });
    let mut measured: Vec<_> = all
        .filter_map(|(graph, layer)| Some((least(layer)?, graph, layer)))
        .collect();
    measured.sort_by(|a, b| a.0.total_cmp(&b.0));
    measured.truncate(WORST);
    measured
}

/// A line for each layer, a table for each graph, the worst of all, and the graphs' own figures at the end.
pub fn to_text(graphs: &[Quantized]) -> String {
    let mut text = format!(
        "Signal-to-noise in dB against f32: of a layer given exact inputs, the worst of the inputs measured; int8 from \
         {LEAST_DECIBELS} dB, a shortcut from {LEAST_OF_STREAM} dB. Noise: a layer's part of the noise in the graph's result if \
         all of these were int8, in percent; f16 if it is large beside the layer's part of the multiplications and bytes.\n"
    );
    for graph in graphs {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "\n{}\n{:>5} {:>6} {:>6}  {:<19} {:>6} {:>7} {:>10} {:>12}  layer",
            graph.graph, "type", "dB", "noise", "why", "inputs", "outputs", "bytes", "MACs"
        );
        for layer in &graph.layers {
            let worst = least(layer).map_or("-".to_owned(), |db| format!("{db:.1}"));
            let noise = noise(layer).map_or("-".to_owned(), |noise| format!("{noise:.1}"));
            let _ = writeln!(
                text,
                "{:>5} {worst:>6} {noise:>6}  {:<19} {:>6} {:>7} {:>10} {:>12}  {} {}",
                layer.precision(),
                layer.reason.to_string(),
                layer.inputs,
                layer.outputs,
                layer.bytes,
                layer.macs,
                layer.op,
                layer.name,
            );
        }
        let int8 = graph
            .layers
            .iter()
            .filter(|layer| layer.precision() == "int8");
        let (count, macs) = int8.fold((0, 0), |(count, macs), layer| {
            (count + 1, macs + layer.macs)
        });
        let bytes: u64 = graph.layers.iter().map(|layer| layer.bytes).sum();
        let all: u64 = graph.layers.iter().map(|layer| layer.macs).sum();
        let share = 100.0 * macs as f64 / (all.max(1)) as f64;
        let _ = writeln!(
            text,
            "{count} of {} layers int8, {share:.1} % of {all} MACs; {bytes} bytes of weights",
            graph.layers.len()
        );
    }
    let _ = writeln!(text, "\nThe worst layers");
    for (decibels, graph, layer) in worst(graphs) {
        let _ = writeln!(
            text,
            "{:>5} {decibels:>6.1}  {graph:<13} {} {}",
            layer.precision(),
            layer.op,
            layer.name
        );
    }
    let _ = writeln!(text, "\nWhole graphs, as stored, against f32");
    for graph in graphs {
        for (input, db) in graph.inputs.iter().zip(&graph.decibels) {
            let _ = writeln!(text, "{:<13} {input:<14} {db:.1} dB", graph.graph);
        }
    }
    text
}

/// The same as one JSON object.
pub fn to_json(graphs: &[Quantized]) -> Value {
    let graph = |graph: &Quantized| {
        let layer = |layer: &Layer| {
            json!({
                "name": layer.name, "op": layer.op, "precision": layer.precision(), "reason": layer.reason.to_string(),
                "decibels": layer.decibels, "noise": layer.noise, "inputs": layer.inputs, "outputs": layer.outputs, "bytes": layer.bytes,
                "macs": layer.macs,
            })
        };
        let layers: Vec<Value> = graph.layers.iter().map(layer).collect();
        json!({"graph": graph.graph, "inputs": graph.inputs, "decibels": graph.decibels, "layers": layers})
    };
    let worst: Vec<Value> = worst(graphs)
        .into_iter()
        .map(|(decibels, graph, layer)| json!({"graph": graph, "name": layer.name, "decibels": decibels}))
        .collect();
    json!({"least_decibels": LEAST_DECIBELS, "least_decibels_of_stream": LEAST_OF_STREAM, "worst": worst, "graphs": graphs.iter().map(graph).collect::<Vec<_>>()})
}
