//! Layer normalization spelled out.
//!
//! ```text
//! %1 = reduce (x: %0) {kind: sum, axes: [2]}
//! %2 = source_binary (a: %1, b: 0.125) {kind: mul}
//! %3 = source_binary (a: %0, b: %2) {kind: sub}
//! %4 = rms_norm (x: %3) {axis: 2, eps: 1e-5}
//! %6 = source_binary (a: %4, b: %5) {kind: mul}
//! %8 = source_binary (a: %6, b: %7) {kind: add}
//! ```
//! over the last axis becomes `%8 = layer_norm (x: %0, gamma: %5, beta: %7) {eps: 1e-5}`.

use super::matching::{normalized, tail};
use crate::graph::{BuildError, Graph, Op};

pub(super) fn fuse(graph: &mut Graph) -> Result<usize, BuildError> {
    let mut fired = 0;
    for id in graph.node_ids() {
        let node = graph.node(id);
        let Some((x, axis, eps)) = normalized(graph, node) else {
            continue;
        };
        // A group norm's reshaped picture also ends in the axis that is normalized, and goes back to its shape after.
        if axis + 1 != graph.shape(x).len() || super::group_norm::matches(graph, id) {
            continue;
        }
        let (output, name) = (node.output, node.name.clone());
        let tail = tail(graph, output, axis);
        let name = tail.name.unwrap_or(name);
        let new = graph.add(
            Op::LayerNorm {
                eps,
                quantized: false,
            },
            &[Some(x), tail.gamma, tail.beta],
            name,
        )?;
        graph.replace(tail.value, new);
        fired += 1;
    }
    Ok(fired)
}
