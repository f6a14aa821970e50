//! A gated GELU after a projection to twice the width.
//!
//! ```text
//! %3 = linear (x: %0, weight: %1, bias: %2) {activation: none} [1, rows, 2 n]
//! %4 = slice (x: %3) {axis: 2, start: 0, end: n}
//! %5 = slice (x: %3) {axis: 2, start: n, end: 2 n}
//! %6 = unary (x: %5) {activation: gelu}
//! %7 = source_binary (a: %4, b: %6) {kind: mul}
//! ```
//! becomes `%7 = linear (x: %0, weight: %1, bias: %2) {activation: geglu}`.

use super::matching::binary;
use crate::graph::{Activation, BinaryKind, BuildError, Graph, Node, NodeId, Op, ValueId};

pub(super) fn fuse(graph: &mut Graph) -> Result<usize, BuildError> {
    let mut fired = 0;
    for id in graph.node_ids() {
        let node = graph.node(id);
        let Some(linear) = match_node(graph, node) else {
            continue;
        };
        let output = node.output;
        let linear = graph.node(linear).clone();
        let new = graph.add(
            Op::Linear {
                activation: Activation::Geglu,
            },
            &linear.inputs,
            linear.name,
        )?;
        graph.replace(output, new);
        fired += 1;
    }
    Ok(fired)
}

fn match_node(graph: &Graph, node: &Node) -> Option<NodeId> {
    let (a, b) = binary(node, BinaryKind::Mul)?;
    let halves = |value: ValueId, gate: ValueId| {
        let (_, gelu) = graph.producer(gate)?;
        if gelu.op
            != (Op::Unary {
                activation: Activation::Gelu,
            })
        {
            return None;
        }
        let (x, first) = slice(graph, value)?;
        let (y, second) = slice(graph, gelu.inputs[0]?)?;
        let n = graph.shape(x).last()? / 2;
        (x == y && first == (0, n) && second == (n, 2 * n)).then_some(x)
    };
    let x = halves(a, b).or_else(|| halves(b, a))?;
    let (id, linear) = graph.producer(x)?;
    let only_half = graph.readers(x).len() == 2 && !graph.outputs.contains(&x);
    let plain = linear.op
        == Op::Linear {
            activation: Activation::None,
        };
    (plain && only_half && linear.input("shift").is_none() && linear.input("residual").is_none())
        .then_some(id)
}

/// A slice of the last axis: of what, and which part.
fn slice(graph: &Graph, value: ValueId) -> Option<(ValueId, (usize, usize))> {
    let (_, node) = graph.producer(value)?;
    let x = node.inputs[0]?;
    match node.op {
        Op::Slice { axis, start, end } if axis + 1 == graph.shape(x).len() => {
            Some((x, (start, end)))
        }
        _ => None,
    }
}
