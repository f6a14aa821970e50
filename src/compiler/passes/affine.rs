//! Chains of scalar arithmetic.
//!
//! ```text
//! %1 = affine (x: %0) {scale: 2.0, offset: 1.0}
//! %2 = affine (x: %1) {scale: 3.0, offset: 0.0}
//! ```
//! becomes `%2 = affine (x: %0) {scale: 6.0, offset: 3.0}`; a scale of 1 with an offset of 0 vanishes.

use super::matching::private;
use crate::graph::{BuildError, Graph, Op};

pub(super) fn fold(graph: &mut Graph) -> Result<usize, BuildError> {
    let mut fired = 0;
    for id in graph.node_ids() {
        let node = graph.node(id).clone();
        let (Op::Affine { scale, offset }, Some(x)) = (&node.op, node.inputs[0]) else {
            continue;
        };
        if *scale == 1.0 && *offset == 0.0 {
            graph.replace(node.output, x);
            fired += 1;
        } else if let Some((_, before)) = private(graph, x)
            && let (
                Op::Affine {
                    scale: s,
                    offset: o,
                },
                Some(x),
            ) = (&before.op, before.inputs[0])
        {
            let op = Op::Affine {
                scale: s * scale,
                offset: o * scale + offset,
            };
            let new = graph.add_full(op, &[x], node.name)?;
            graph.replace(node.output, new);
            fired += 1;
        }
    }
    Ok(fired)
}
