//! The sinusoidal embedding of the timestep.
//!
//! ```text
//! %2 = source_binary (a: frequencies [1, half], b: %1) {kind: mul}    // %1 is the timestep, cast and reshaped
//! %3 = source_unary (x: %2) {kind: sin}
//! %4 = source_unary (x: %2) {kind: cos}
//! %5 = source_concat (x: %3, x: %4) {axis: 1}
//! %6 = slice (x: %5) {axis: 1, start: half, end: 2 half}
//! %7 = slice (x: %5) {axis: 1, start: 0, end: half}
//! %8 = source_concat (x: %6, x: %7) {axis: 1}
//! ```
//! becomes `%8 = timestep_embedding (timestep: %0, frequencies) {cos_first: true}`.

use super::matching::{vector, with_constant};
use super::matmul::reshape;
use crate::graph::{BinaryKind, BuildError, Graph, Node, Op, UnaryKind, ValueId};

pub(super) fn fuse(graph: &mut Graph) -> Result<usize, BuildError> {
    // The last one first: the concatenation that the halves are cut from matches too.
    for id in graph.node_ids().collect::<Vec<_>>().into_iter().rev() {
        let node = graph.node(id);
        let Some((angles, cos_first)) = match_node(graph, node) else {
            continue;
        };
        let Some((timestep, frequencies)) = factors(graph, angles) else {
            continue;
        };
        let half = graph.shape(angles)[1];
        let (output, name) = (node.output, node.name.clone());
        let Some(frequencies) = vector(graph, frequencies, 2, 1, half) else {
            continue;
        };
        let timestep = reshape(graph, timestep, &[1], &name)?;
        let new = graph.add_full(
            Op::TimestepEmbedding { cos_first },
            &[timestep, frequencies],
            name,
        )?;
        graph.replace(output, new);
        return Ok(1);
    }
    Ok(0)
}

/// The angles of a concatenation of their sines and cosines, and whether the cosines come first.
fn match_node(graph: &Graph, node: &Node) -> Option<(ValueId, bool)> {
    let (Op::SourceConcat { axis: 1 }, [Some(a), Some(b)]) = (&node.op, node.inputs.as_slice())
    else {
        return None;
    };
    let (first, second) = (wave(graph, *a)?, wave(graph, *b)?);
    let shape = graph.shape(first.0);
    let angles = first.0 == second.0 && shape.len() == 2 && shape[0] == 1;
    (angles && first.1 != second.1).then_some((first.0, first.1 == UnaryKind::Cos))
}

/// What a value is the sine or cosine of, if need be looked up in the concatenation that it is cut from.
fn wave(graph: &Graph, value: ValueId) -> Option<(ValueId, UnaryKind)> {
    let (_, node) = graph.producer(value)?;
    match node.op {
        Op::SourceUnary {
            kind: kind @ (UnaryKind::Sin | UnaryKind::Cos),
        } => Some((node.inputs[0]?, kind)),
        Op::Slice { axis, start, end } => {
            let (_, concat) = graph.producer(node.inputs[0]?)?;
            if concat.op != (Op::SourceConcat { axis }) {
                return None;
            }
            let mut from = 0;
            for part in concat.operands() {
                let to = from + graph.shape(part)[axis];
                if (from, to) == (start, end) {
                    return wave(graph, part);
                }
                from = to;
            }
            None
        }
        _ => None,
    }
}

/// The timestep and the frequencies that angles are the product of.
fn factors(graph: &Graph, angles: ValueId) -> Option<(ValueId, ValueId)> {
    let (_, node) = graph.producer(angles)?;
    let (mut timestep, frequencies) = with_constant(graph, node, BinaryKind::Mul)?;
    loop {
        if graph.value(timestep).len() != 1 {
            return None;
        }
        let Some((_, node)) = graph.producer(timestep) else {
            return Some((timestep, frequencies));
        };
        match node.op {
            Op::Reshape { .. } | Op::Expand { .. } | Op::Transpose { .. } => {
                timestep = node.inputs[0]?
            }
            Op::SourceUnary {
                kind: UnaryKind::Cast,
            } => timestep = node.inputs[0]?,
            _ => return None,
        }
    }
}
