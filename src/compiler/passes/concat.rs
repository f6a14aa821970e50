//! A skip connection's concatenation that is never made: its group norm and its 1x1 shortcut read both sources.
//!
//! ```text
//! %2 = concat (x: %0, x2: %1)
//! %3 = group_norm (x: %2) {..}
//! %5 = linear (x: %2, weight: %4) {..}
//! ```
//! becomes
//! ```text
//! %3 = group_norm (x: %0, x2: %1) {..}
//! %5 = linear (x: %0, x2: %1, weight: %4) {..}
//! ```
//! It stays if anything else reads it.

use crate::graph::{BuildError, Graph, NodeId, Op, ValueId};

pub(super) fn eliminate(graph: &mut Graph) -> Result<usize, BuildError> {
    let mut fired = 0;
    for id in graph.node_ids() {
        let node = graph.node(id).clone();
        let (Op::Concat, [Some(x), Some(x2)]) = (&node.op, node.inputs.as_slice()) else {
            continue;
        };
        let readers = graph.readers(node.output);
        if graph.outputs.contains(&node.output)
            || !readers.iter().all(|r| reads_once(graph, *r, node.output))
        {
            continue;
        }
        for reader in readers {
            let reader = graph.node_mut(reader);
            reader.set_input("x", Some(*x));
            reader.set_input("x2", Some(*x2));
            fired += 1;
        }
    }
    Ok(fired)
}

/// Whether a node reads the value as its one source and can read two.
fn reads_once(graph: &Graph, reader: NodeId, value: ValueId) -> bool {
    let node = graph.node(reader);
    let two =
        matches!(node.op, Op::GroupNorm { .. } | Op::Linear { .. }) && node.input("x2").is_none();
    two && node.input("x") == Some(value) && node.operands().filter(|o| *o == value).count() == 1
}
