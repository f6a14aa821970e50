//! A text encoder without its last layers: "CLIP skip".
//!
//! A transformer's layers add to one *residual stream*, which its last norm reads:
//!
//! ```text
//! %4 = attention "attn" (q: .., k: .., v: ..)                    // of a norm of %1
//! %5 = linear "out_proj" (x: %4, weight: .., residual: %1)
//! %9 = linear "fc2" (x: .., weight: .., residual: %5)            // of a norm of %5
//! %10 = layer_norm "final_layer_norm" (x: %9)
//! output %10
//! ```
//! Without that layer the norm reads `%1`. A layer begins where what an attention gives is added.

#[cfg(test)]
mod tests;

use crate::graph::{BinaryKind, Graph, Node, Op, ValueId};

/// The most forms of a text encoder, the whole one among them.
pub const MAX_CLIP_SKIP: usize = 12;

/// The text encoder with its last 0, 1, 2, .. layers left out, the last norm kept: as many as it has layers, so that one is
/// always left, at most [`MAX_CLIP_SKIP`]. Its first output alone is left in those after the first. A graph whose layers are
/// not found has one form, itself. They share their weights.
pub fn forms(graph: &Graph) -> Vec<Graph> {
    let mut forms = vec![graph.clone()];
    let norm = graph.outputs.first().and_then(|id| graph.producer(*id));
    let Some((norm, node)) = norm else {
        return forms;
    };
    let (Op::LayerNorm { .. }, Some(stream)) = (&node.op, node.input("x")) else {
        return forms;
    };
    for before in layers(graph, stream).into_iter().skip(1) {
        if forms.len() == MAX_CLIP_SKIP {
            break;
        }
        let mut form = graph.clone();
        form.node_mut(norm).set_input("x", Some(before));
        form.outputs.truncate(1);
        form.tidy();
        forms.push(form);
    }
    forms
}

/// The stream after each layer, the last first.
fn layers(graph: &Graph, end: ValueId) -> Vec<ValueId> {
    let mut layers = Vec::new();
    let (mut after, mut stream) = (end, end);
    while let Some((before, attends)) = branch(graph, stream) {
        stream = before;
        if attends {
            layers.push(after);
            after = stream;
        }
    }
    layers
}

/// The stream before a value was added to it, and whether an attention has given that value.
fn branch(graph: &Graph, stream: ValueId) -> Option<(ValueId, bool)> {
    let (_, node) = graph.producer(stream)?;
    let ways: Vec<(ValueId, Vec<ValueId>)> = match node.op {
        Op::Linear { .. } => {
            let residual = node.input("residual")?;
            vec![(
                residual,
                node.operands().filter(|o| *o != residual).collect(),
            )]
        }
        Op::Binary {
            kind: BinaryKind::Add,
        } => {
            let (a, b) = (node.input("a")?, node.input("b")?);
            vec![(a, vec![b]), (b, vec![a])]
        }
        _ => return None,
    };
    ways.into_iter().find_map(|(before, added)| {
        let found = search(graph, added, before);
        found.reaches.then_some((before, found.attends))
    })
}

/// What lies between some values and the stream that they come from.
struct Found {
    reaches: bool,
    attends: bool,
}

fn search(graph: &Graph, from: Vec<ValueId>, stream: ValueId) -> Found {
    let mut found = Found {
        reaches: false,
        attends: false,
    };
    let mut seen = vec![false; graph.value_count()];
    let mut open = from;
    while let Some(value) = open.pop() {
        if value == stream {
            found.reaches = true;
            continue;
        }
        let producer = graph.producer(value).map(|(_, node): (_, &Node)| node);
        let Some(node) = producer.filter(|_| !std::mem::replace(&mut seen[value.index()], true))
        else {
            continue;
        };
        found.attends |= matches!(node.op, Op::Attention { .. });
        open.extend(node.operands());
    }
    found
}
