//! Which products are of integers: the rule.
//!
//! A product, or a token table, stays in sixteen bits
//! - if its weights are not constants, or its `x` is one;
//! - if it has fewer than 8 inputs or outputs, or more inputs than an integer sum can hold;
//! - if its signal-to-noise, of a product at any of the calibration inputs, of a table over all its rows, is below
//!   [`LEAST_DECIBELS`], or below [`LEAST_OF_STREAM`] if the product carries the stream: it adds nothing to what it
//!   computes, and another product adds its own result to it. A shortcut does, through which everything goes that the
//!   layers before it have said; what one of those says wrong is small beside the rest;
//! - in a UNet, whose noise adds up from step to step, if a large part of that noise is its own and sixteen bits cost little
//!   beside (`share.rs`).
//!
//! All others are of 8-bit integers.

use std::collections::HashSet;
use std::fmt;

use crate::graph::{Graph, NodeId, Op, ValueId};

/// A layer whose own result is worse than this stays in sixteen bits.
pub const LEAST_DECIBELS: f64 = 25.0;
/// A layer that carries the stream and is worse than this stays in sixteen bits.
pub const LEAST_OF_STREAM: f64 = 32.0;
/// Fewer inputs or outputs than these are not worth integers.
const LEAST_CHANNELS: usize = 8;
/// The most products of a difference of codes and an integer weight whose sum `i32` holds.
const MAX_INPUTS: usize = i32::MAX as usize / (255 * 127);

/// Why a product has its precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its error is small enough for integers.
    Accurate,
    /// Its error is too large for integers.
    Inaccurate,
    /// Its error is small, but so much of the noise in the graph's result comes of it that sixteen bits are worth their cost.
    Noisy,
    /// Its weights are not constants, or its input is one.
    Form,
    /// It has too few inputs.
    FewInputs,
    /// It has too few outputs.
    FewOutputs,
    /// It has more inputs than an integer sum holds.
    ManyInputs,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Accurate => "accurate",
            Reason::Inaccurate => "inaccurate",
            Reason::Noisy => "part of the noise",
            Reason::Form => "no constant weights",
            Reason::FewInputs => "few inputs",
            Reason::FewOutputs => "few outputs",
            Reason::ManyInputs => "many inputs",
        })
    }
}

/// The products and tables of a graph, in order.
pub(crate) fn products(graph: &Graph) -> Vec<NodeId> {
    let product = |op: &Op| matches!(op, Op::Conv2d { .. } | Op::Linear { .. } | Op::Embed { .. });
    graph
        .iter_nodes()
        .filter(|(_, node)| product(&node.op))
        .map(|(id, _)| id)
        .collect()
}

/// Inputs and outputs of a product, as channels; rows and columns of a table.
fn channels(graph: &Graph, id: NodeId) -> [usize; 2] {
    if let Some(table) = graph.node(id).input("table") {
        return [0, 1].map(|i| graph.shape(table)[i]);
    }
    let shape = graph
        .node(id)
        .input("weight")
        .map_or(&[][..], |weight| graph.shape(weight));
    [
        shape.get(1).copied().unwrap_or(0),
        shape.first().copied().unwrap_or(0),
    ]
}

/// Why a product cannot be of integers whatever its error; `None` if it can.
pub(crate) fn excluded(graph: &Graph, id: NodeId) -> Option<Reason> {
    let node = graph.node(id);
    let constant = |slot: &str| {
        node.input(slot)
            .is_some_and(|value| graph.value(value).weight().is_some())
    };
    let table = matches!(node.op, Op::Embed { .. });
    if !constant(if table { "table" } else { "weight" }) || constant("x") || constant("x2") {
        return Some(Reason::Form);
    }
    let [inputs, outputs] = channels(graph, id);
    let weight = node
        .input("weight")
        .map_or(0, |weight| graph.value(weight).len());
    if inputs < LEAST_CHANNELS {
        Some(Reason::FewInputs)
    } else if outputs < LEAST_CHANNELS {
        Some(Reason::FewOutputs)
    } else if weight / outputs > MAX_INPUTS {
        Some(Reason::ManyInputs)
    } else {
        None
    }
}

/// The products that carry the stream.
pub(crate) fn carriers(graph: &Graph) -> HashSet<NodeId> {
    let added: HashSet<ValueId> = graph
        .iter_nodes()
        .filter_map(|(_, node)| node.input("residual"))
        .collect();
    products(graph)
        .into_iter()
        .filter(|id| {
            let node = graph.node(*id);
            node.input("residual").is_none() && added.contains(&node.output)
        })
        .collect()
}

/// The precision of a product that may be of integers, from its signal-to-noise at each calibration input.
pub(crate) fn by_error(decibels: &[f64], carries_stream: bool) -> Reason {
    let least = if carries_stream {
        LEAST_OF_STREAM
    } else {
        LEAST_DECIBELS
    };
    if decibels.iter().all(|db| *db >= least) {
        Reason::Accurate
    } else {
        Reason::Inaccurate
    }
}
