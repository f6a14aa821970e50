//! Activation functions spelled out.
//!
//! ```text
//! %2 = source_unary (x: %1) {kind: sigmoid}
//! %3 = source_binary (a: %1, b: %2) {kind: mul}
//! ```
//! becomes `%3 = unary (x: %1) {activation: silu}`. With the sigmoid of `1.702 x` it is `quick_gelu`, and
//! `0.5 x (1 + erf(x / sqrt 2))`, its factors in any order, is `gelu`.

use super::matching::{binary, close, scalar, unscaled, with_constant};
use crate::graph::{Activation, BinaryKind, BuildError, Graph, Node, Op, UnaryKind, ValueId};

pub(super) fn fuse(graph: &mut Graph) -> Result<usize, BuildError> {
    let mut fired = 0;
    for id in graph.node_ids() {
        let node = graph.node(id);
        let Some((x, activation)) = match_node(graph, node) else {
            continue;
        };
        let (output, name) = (node.output, node.name.clone());
        let new = graph.add_full(Op::Unary { activation }, &[x], name)?;
        graph.replace(output, new);
        fired += 1;
    }
    Ok(fired)
}

fn match_node(graph: &Graph, node: &Node) -> Option<(ValueId, Activation)> {
    let (mut root, mut factor) = (node, 1.0);
    binary(root, BinaryKind::Mul)?;
    let (inner, outer) = unscaled(graph, node.output);
    if inner != node.output {
        (root, factor) = (graph.producer(inner)?.1, outer);
    }
    let (a, b) = binary(root, BinaryKind::Mul)?;
    [(a, b), (b, a)]
        .into_iter()
        .find_map(|(x, gate)| gated(graph, x, gate, factor))
}

/// `factor * x * gate` for the gates of the known functions.
fn gated(graph: &Graph, x: ValueId, gate: ValueId, factor: f32) -> Option<(ValueId, Activation)> {
    let unary_input = |value: ValueId, kind: UnaryKind| {
        let (_, node) = graph.producer(value)?;
        (node.op == Op::SourceUnary { kind }).then_some(node.inputs[0]?)
    };
    if let Some(u) = unary_input(gate, UnaryKind::Sigmoid) {
        if factor != 1.0 {
            return None;
        }
        return match unscaled(graph, u) {
            _ if u == x => Some((x, Activation::Silu)),
            (inner, c) if inner == x && close(c, 1.702) => Some((x, Activation::QuickGelu)),
            _ => None,
        };
    }
    let (sum, inside) = unscaled(graph, gate);
    let (erf, one) = with_constant(graph, graph.producer(sum)?.1, BinaryKind::Add)?;
    let (argument, root) = unscaled(graph, unary_input(erf, UnaryKind::Erf)?);
    if scalar(graph, one)? != 1.0 || !close(root, std::f32::consts::FRAC_1_SQRT_2) {
        return None;
    }
    let outside = if argument == x {
        1.0
    } else {
        let (inner, c) = unscaled(graph, x);
        if inner != argument {
            return None;
        }
        c
    };
    close(factor * inside * outside, 0.5).then_some((argument, Activation::Gelu))
}
