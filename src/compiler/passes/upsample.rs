//! A picture enlarged for one convolution is enlarged while the convolution reads it.
//!
//! ```text
//! %1 = upsample (x: %0) {size: [16, 16]}
//! %3 = conv2d (x: %1, weight: %2) {up: none, ..}
//! ```
//! becomes `%3 = conv2d (x: %0, weight: %2) {up: [16, 16], ..}`.

use super::matching::private;
use crate::graph::{BuildError, Graph, Op};

pub(super) fn fuse(graph: &mut Graph) -> Result<usize, BuildError> {
    let mut fired = 0;
    for id in graph.node_ids() {
        let node = graph.node(id).clone();
        let (
            Op::Conv2d {
                up: None,
                stride,
                pad,
                activation,
            },
            Some(x),
        ) = (&node.op, node.inputs[0])
        else {
            continue;
        };
        let Some((_, enlarged)) = private(graph, x) else {
            continue;
        };
        let (Op::Upsample { size }, small) = (&enlarged.op, enlarged.inputs[0]) else {
            continue;
        };
        let op = Op::Conv2d {
            up: Some(*size),
            stride: *stride,
            pad: *pad,
            activation: *activation,
        };
        let mut inputs = node.inputs.clone();
        inputs[0] = small;
        let value = graph.add(op, &inputs, node.name)?;
        graph.replace(node.output, value);
        fired += 1;
    }
    Ok(fired)
}
