//! What follows a product and needs nothing but its result: an activation, or a constant row that is added.
//!
//! ```text
//! %3 = linear (x: %0, weight: %1, bias: %2) {activation: none}
//! %4 = unary (x: %3) {activation: silu}
//! ```
//! becomes `%4 = linear (x: %0, weight: %1, bias: %2) {activation: silu}`; and
//! ```text
//! %3 = linear (x: %0, weight: %1) {activation: none}
//! %4 = binary (a: %3, b: weight [n]) {kind: add}
//! ```
//! becomes `%4 = linear (x: %0, weight: %1, bias)`.

use super::matching::private;
use crate::graph::{Activation, BinaryKind, BuildError, Graph, Node, Op, ValueId};

/// The product that a value is, if nobody else reads it and its epilogue is still open: no activation, no residual.
pub(super) fn product(graph: &Graph, value: ValueId) -> Option<Node> {
    let (_, node) = private(graph, value)?;
    let open = matches!(
        node.op,
        Op::Linear {
            activation: Activation::None
        } | Op::Conv2d {
            activation: Activation::None,
            ..
        }
    );
    (open && node.input("residual").is_none()).then(|| node.clone())
}

pub(super) fn fuse(graph: &mut Graph) -> Result<usize, BuildError> {
    let mut fired = 0;
    for id in graph.node_ids() {
        let node = graph.node(id).clone();
        let Some(mut new) = node
            .inputs
            .first()
            .copied()
            .flatten()
            .and_then(|x| product(graph, x))
        else {
            continue;
        };
        match (&node.op, &mut new.op) {
            (
                Op::Unary {
                    activation: function,
                },
                Op::Linear { activation } | Op::Conv2d { activation, .. },
            ) => {
                *activation = *function;
            }
            (
                Op::Binary {
                    kind: BinaryKind::Add,
                },
                _,
            ) => {
                let Some(row) = node.inputs[1] else { continue };
                let vector =
                    graph.shape(row) == [graph.shape(node.output).last().copied().unwrap_or(0)];
                let free = new.input("bias").is_none() && graph.value(row).weight().is_some();
                if !vector || !free || !new.set_input("bias", Some(row)) {
                    continue;
                }
            }
            _ => continue,
        }
        let value = graph.add(new.op, &new.inputs, new.name)?;
        graph.replace(node.output, value);
        fired += 1;
    }
    Ok(fired)
}
