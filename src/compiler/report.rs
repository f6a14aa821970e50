//! What the compiler chose and why, for people and for programs.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::quantize::{LEAST_DECIBELS, Layer, Quantized};

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

/// A line for each layer, a table for each graph, and the graphs' own figures at the end.
pub fn to_text(graphs: &[Quantized]) -> String {
    let mut text = format!(
        "Signal-to-noise in dB against f32: of a layer given exact inputs, the worst of the inputs measured; int8 from \
         {LEAST_DECIBELS} dB.\n"
    );
    for graph in graphs {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "\n{}\n{:>5} {:>6}  {:<19} {:>6} {:>7} {:>10} {:>12}  layer",
            graph.graph, "type", "dB", "why", "inputs", "outputs", "bytes", "MACs"
        );
        for layer in &graph.layers {
            let worst = layer
                .decibels
                .iter()
                .copied()
                .reduce(f64::min)
                .map_or("-".to_owned(), |db| format!("{db:.1}"));
            let _ = writeln!(
                text,
                "{:>5} {worst:>6}  {:<19} {:>6} {:>7} {:>10} {:>12}  {} {}",
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
                "decibels": layer.decibels, "inputs": layer.inputs, "outputs": layer.outputs, "bytes": layer.bytes,
                "macs": layer.macs,
            })
        };
        let layers: Vec<Value> = graph.layers.iter().map(layer).collect();
        json!({"graph": graph.graph, "inputs": graph.inputs, "decibels": graph.decibels, "layers": layers})
    };
    json!({"least_decibels": LEAST_DECIBELS, "graphs": graphs.iter().map(graph).collect::<Vec<_>>()})
}
