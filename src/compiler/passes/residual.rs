//! A sum with a product becomes the product's last step.
//!
//! ```text
//! %3 = conv2d (x: %1, weight: %2) {..}
//! %4 = binary (a: %0, b: %3) {kind: add}
//! ```
//! becomes `%4 = conv2d (x: %1, weight: %2, residual: %0)`, whichever operand the product is. If both are products it is
//! the one that is computed last, the longer way from the inputs.

use super::matching::private;
use crate::graph::{Activation, BinaryKind, BuildError, Graph, Node, Op, ValueId};

pub(super) fn fuse(graph: &mut Graph) -> Result<usize, BuildError> {
    let depths = depths(graph);
    let depth = |value: ValueId| depths.get(value.index()).copied().unwrap_or(usize::MAX);
    let mut fired = 0;
    for id in graph.node_ids() {
        let node = graph.node(id).clone();
        let (
            Op::Binary {
                kind: BinaryKind::Add,
            },
            [Some(a), Some(b)],
        ) = (&node.op, node.inputs.as_slice())
        else {
            continue;
        };
        let same = graph.shape(*a) == graph.shape(*b) && a != b;
        if !same || graph.value(*a).weight().is_some() || graph.value(*b).weight().is_some() {
            continue;
        }
        let order = if depth(*b) > depth(*a) {
            [(*b, *a), (*a, *b)]
        } else {
            [(*a, *b), (*b, *a)]
        };
        let Some((mut new, other)) = order
            .into_iter()
            .find_map(|(p, other)| Some((product(graph, p)?, other)))
        else {
            continue;
        };
        new.set_input("residual", Some(other));
        let value = graph.add(new.op, &new.inputs, new.name)?;
        graph.replace(node.output, value);
        fired += 1;
    }
    Ok(fired)
}

/// The product that a value is, if nobody else reads it; the residual is added after the activation.
fn product(graph: &Graph, value: ValueId) -> Option<Node> {
    let (_, node) = private(graph, value)?;
    let geglu = node.op
        == Op::Linear {
            activation: Activation::Geglu,
        };
    let fits = matches!(node.op, Op::Linear { .. } | Op::Conv2d { .. }) && !geglu;
    (fits && node.input("residual").is_none()).then(|| node.clone())
}

/// The longest way from an input to each value, in nodes.
fn depths(graph: &Graph) -> Vec<usize> {
    let mut depths = vec![0; graph.value_count()];
    for (_, node) in graph.iter_nodes() {
        let deepest = node
            .operands()
            .map(|o| depths[o.index()])
            .max()
            .unwrap_or(0);
        depths[node.output.index()] = deepest + 1;
    }
    depths
}
