//! A row computed at run time and added to a product: the projection of the timestep in a residual block.
//!
//! ```text
//! %3 = conv2d (x: %0, weight: %1, bias: %2) {activation: none} [8, 8, 16]
//! %5 = binary (a: %3, b: %4 [1, 16]) {kind: add}
//! ```
//! becomes `%5 = conv2d (x: %0, weight: %1, bias: %2, shift: %4)`.

use super::epilogue::product;
use crate::graph::{BinaryKind, BuildError, Graph, Op};

pub(super) fn fuse(graph: &mut Graph) -> Result<usize, BuildError> {
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
        let row = graph.shape(*b) == [1, graph.shape(*a).last().copied().unwrap_or(0)]
            && graph.shape(*a) != graph.shape(*b);
        if !row || graph.value(*b).weight().is_some() {
            continue;
        }
        let Some(mut new) = product(graph, *a) else {
            continue;
        };
        if new.input("shift").is_some() || !new.set_input("shift", Some(*b)) {
            continue;
        }
        let value = graph.add(new.op, &new.inputs, new.name)?;
        graph.replace(node.output, value);
        fired += 1;
    }
    Ok(fired)
}
