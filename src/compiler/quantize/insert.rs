//! Chosen products read codes: `quantize` nodes before them, and norms that give codes themselves.

use std::collections::{HashMap, HashSet};

use crate::graph::{BuildError, Graph, NodeId, Op};

/// Least rows of a self-attention whose products are of integers.
const INTEGER_ATTENTION_ROWS: usize = 1024;

/// The graph with each chosen product reading codes, and each chosen table in 8 bits. Products of the same value share its codes. They keep their order.
pub(crate) fn insert(graph: &Graph, chosen: &HashSet<NodeId>) -> Result<Graph, BuildError> {
    let mut new = graph.clone();
    let mut made = HashMap::new();
    for (id, node) in graph.iter_nodes().filter(|(id, _)| chosen.contains(id)) {
        if let Op::Embed { quantized } = &mut new.node_mut(id).op {
            *quantized = true;
            continue;
        }
        let per_row = matches!(node.op, Op::Linear { .. });
        let Some(x) = node.input("x") else { continue };
        let x2 = node.input("x2");
        let codes = match made.get(&(x, x2, per_row)) {
            Some(codes) => *codes,
            None => {
                let name = graph.value(x).name.clone();
                let codes = new.add(Op::Quantize { per_row }, &[Some(x), x2], name)?;
                made.insert((x, x2, per_row), codes);
                codes
            }
        };
        let node = new.node_mut(id);
        node.set_input("x", Some(codes));
        node.set_input("x2", None);
    }
    fuse(&mut new);
    new.tidy();
    Ok(new)
}

/// A norm that is read only for its codes gives them itself. Returns how many do.
///
/// ```text
/// %1 = layer_norm (x: %0) {eps}
/// %2 = quantize (x: %1) {per_row: true}
/// ```
/// becomes `%2 = layer_norm (x: %0) {eps, quantized: true}`; a group norm likewise where the codes are per tensor.
pub(super) fn fuse(graph: &mut Graph) -> usize {
    let mut fired = 0;
    for id in graph.node_ids() {
        let node = graph.node(id);
        let output = node.output;
        let wanted = match node.op {
            Op::LayerNorm {
                quantized: false, ..
            } => true,
            Op::GroupNorm {
                quantized: false, ..
            } => false,
            _ => continue,
        };
        let readers = graph.readers(output);
        let alone = readers.iter().all(|reader| {
            let reader = graph.node(*reader);
            reader.op == Op::Quantize { per_row: wanted } && reader.input("x2").is_none()
        });
        if readers.is_empty() || !alone || graph.outputs.contains(&output) {
            continue;
        }
        if let Op::LayerNorm { quantized, .. } | Op::GroupNorm { quantized, .. } =
            &mut graph.node_mut(id).op
        {
            *quantized = true;
        }
        for reader in readers {
            let codes = graph.node(reader).output;
            graph.replace(codes, output);
        }
        fired += 1;
    }
    fired
}

/// Large self-attentions compute their products in integers. Returns how many do.
pub(crate) fn integer_attention(graph: &mut Graph) -> usize {
    let mut fired = 0;
    for id in graph.node_ids() {
        let node = graph.node(id);
        let Op::Attention { causal: false, .. } = node.op else {
            continue;
        };
        let rows = |slot: &str| {
            let shape = node.input(slot).map_or(&[][..], |value| graph.shape(value));
            shape.iter().rev().skip(1).product::<usize>()
        };
        if node.input("mask").is_some()
            || rows("q") != rows("k")
            || rows("q") < INTEGER_ATTENTION_ROWS
        {
            continue;
        }
        if let Op::Attention { integers, .. } = &mut graph.node_mut(id).op {
            *integers = true;
            fired += 1;
        }
    }
    fired
}
