//! The rows of a table, and the positions added to them.
//!
//! ```text
//! %2 = gather (table: %1, ids: %0)                   // [1, 77, dim]
//! %4 = source_binary (a: %2, b: [1, 77, dim]) {kind: add}
//! ```
//! becomes `%4 = embed (ids: %0, table: %1, positions [77, dim])`.

use super::matching::{sole_reader, with_constant};
use super::matmul::Moved;
use crate::graph::{BinaryKind, BuildError, Graph, Node, Op, UnaryKind, ValueId, view::View};

pub(super) fn fuse(graph: &mut Graph) -> Result<usize, BuildError> {
    let mut fired = 0;
    for id in graph.node_ids() {
        let node = graph.node(id).clone();
        let (Op::Gather, [Some(table), Some(ids)]) = (&node.op, node.inputs.as_slice()) else {
            continue;
        };
        if graph.value(*table).weight().is_none() || graph.shape(*table).len() != 2 {
            continue;
        }
        let ids = match graph.producer(*ids) {
            Some((_, cast))
                if cast.op
                    == (Op::SourceUnary {
                        kind: UnaryKind::Cast,
                    }) =>
            {
                cast.inputs[0].unwrap_or(*ids)
            }
            _ => *ids,
        };
        let (positions, replaced) = match positions(graph, &node) {
            Some((positions, sum)) => (Some(positions), sum),
            None => (None, node.output),
        };
        let new = graph.add(
            Op::Embed { quantized: false },
            &[Some(ids), Some(*table), positions],
            node.name,
        )?;
        graph.replace(replaced, new);
        fired += 1;
    }
    Ok(fired)
}

fn positions(graph: &mut Graph, node: &Node) -> Option<(ValueId, ValueId)> {
    let shape = graph.shape(node.output).to_vec();
    let sum = graph.node(sole_reader(graph, node.output)?);
    let (_, constant) = with_constant(graph, sum, BinaryKind::Add)?;
    let output = sum.output;
    if graph.shape(output) != shape {
        return None;
    }
    let (dim, leading) = shape.split_last()?;
    let view = View::dense(graph.shape(constant)).expand(&shape);
    let weight = graph.value(constant).weight()?.clone();
    let name = graph.value(constant).name.clone();
    let weight = Moved::weight(weight, view, vec![leading.iter().product(), *dim]);
    Some((graph.add_weight(name, weight), output))
}
