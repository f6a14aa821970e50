//! Group normalization spelled out, and the SiLU after it.
//!
//! ```text
//! %1 = reshape (x: %0) {shape: [1, 4, 128]}        // from [1, 8, 8, 8]
//! ..                                               // normalized over axis 2, as in `layer_norm`
//! %5 = reshape (x: %4) {shape: [1, 8, 8, 8]}
//! %6 = source_binary (a: %5, b: [1, 8, 1, 1]) {kind: mul}
//! %7 = source_binary (a: %6, b: [1, 8, 1, 1]) {kind: add}
//! %8 = unary (x: %7) {activation: silu}
//! ```
//! becomes `%8 = source_group_norm (x: %0, gamma, beta) {groups: 4, eps, activation: silu}`.

use super::matching::{normalized, sole_reader, tail};
use crate::graph::{Activation, BuildError, Graph, NodeId, Op, ValueId};

/// What a group norm's last normalizing node tells.
struct Match {
    x: ValueId,
    groups: usize,
    eps: f32,
    output: ValueId,
}

fn match_node(graph: &Graph, id: NodeId) -> Option<Match> {
    let node = graph.node(id);
    let (grouped, axis, eps) = normalized(graph, node)?;
    let (_, before) = graph.producer(grouped)?;
    let after = graph.node(sole_reader(graph, node.output)?);
    let (Op::Reshape { .. }, Op::Reshape { .. }) = (&before.op, &after.op) else {
        return None;
    };
    let x = before.inputs[0]?;
    let (from, to) = (graph.shape(x), graph.shape(grouped));
    let fits = from.len() >= 3 && from[0] == 1 && graph.shape(after.output) == from;
    let grouped = to.len() == 3 && axis == 2 && to[0] == 1 && from[1] % to[1] == 0;
    (fits && grouped).then_some(Match {
        x,
        groups: to[1],
        eps,
        output: after.output,
    })
}

/// Whether the node is a group norm's last normalizing one.
pub(super) fn matches(graph: &Graph, id: NodeId) -> bool {
    match_node(graph, id).is_some()
}

pub(super) fn fuse(graph: &mut Graph) -> Result<usize, BuildError> {
    let mut fired = 0;
    for id in graph.node_ids() {
        if let Some(found) = match_node(graph, id) {
            let tail = tail(graph, found.output, 1);
            let name = tail.name.unwrap_or_else(|| graph.node(id).name.clone());
            let op = Op::SourceGroupNorm {
                groups: found.groups,
                eps: found.eps,
                activation: Activation::None,
            };
            let new = graph.add(op, &[Some(found.x), tail.gamma, tail.beta], name)?;
            graph.replace(tail.value, new);
            fired += 1;
        } else if let Op::SourceGroupNorm {
            groups,
            eps,
            activation: Activation::None,
        } = graph.node(id).op
        {
            let norm = graph.node(id).clone();
            let Some(reader) = sole_reader(graph, norm.output) else {
                continue;
            };
            let reader = graph.node(reader);
            if reader.op
                != (Op::Unary {
                    activation: Activation::Silu,
                })
            {
                continue;
            }
            let output = reader.output;
            let op = Op::SourceGroupNorm {
                groups,
                eps,
                activation: Activation::Silu,
            };
            let new = graph.add(op, &norm.inputs, norm.name)?;
            graph.replace(output, new);
            fired += 1;
        }
    }
    Ok(fired)
}
