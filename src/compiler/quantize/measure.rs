//! How well products do with codes, one by one and all together.

use std::collections::{HashMap, HashSet};

use crate::graph::{Graph, InterpretError, NodeId, Tensor};

use super::QuantizeError;
use super::choose::{self, Reason};
use super::evaluate::{Error, Evaluator, Numbers};
use super::insert::insert;

/// A product and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Product {
    pub node: NodeId,
    pub reason: Reason,
    /// Signal-to-noise at each calibration input, if it could be of integers.
    pub decibels: Vec<f64>,
}

/// Measures every product of a graph and chooses. Gives the graph's exact outputs for each of the inputs, too.
pub(crate) fn measure(
    graph: &Graph,
    inputs: &[Vec<Tensor>],
    evaluator: &Evaluator,
    read: &mut dyn FnMut(usize),
) -> Result<(Vec<Product>, Vec<Vec<Tensor>>), QuantizeError> {
    let ids = choose::products(graph);
    let excluded: HashMap<NodeId, Reason> = ids
        .iter()
        .filter_map(|id| Some((*id, choose::excluded(graph, *id)?)))
        .collect();
    let candidates: HashSet<NodeId> = ids
        .iter()
        .copied()
        .filter(|id| !excluded.contains_key(id))
        .collect();
    let quantized = insert(graph, &candidates)?;
    // Products keep their order, so the numbers of one graph lead to those of the other.
    let index: HashMap<NodeId, usize> = choose::products(&quantized)
        .into_iter()
        .enumerate()
        .map(|(i, id)| (id, i))
        .collect();
    let carriers = choose::carriers(graph);
    let mut decibels = vec![Vec::new(); ids.len()];
    let mut hear = |id: NodeId, error: Error| decibels[index[&id]].push(error.decibels());
    let outputs = evaluator.run_all(&quantized, inputs, Numbers::Compared(&mut hear), read)?;
    let product = |(node, decibels): (NodeId, Vec<f64>)| {
        let reason = excluded
            .get(&node)
            .copied()
            .unwrap_or_else(|| choose::by_error(&decibels, carriers.contains(&node)));
        Product {
            node,
            reason,
            decibels,
        }
    };
    Ok((
        ids.into_iter().zip(decibels).map(product).collect(),
        outputs,
    ))
}

/// Signal-to-noise of a whole graph, as stored, against exact outputs, for each of the inputs.
pub(crate) fn whole(
    graph: &Graph,
    inputs: &[Vec<Tensor>],
    exact: &[Vec<Tensor>],
    evaluator: &Evaluator,
    read: &mut dyn FnMut(usize),
) -> Result<Vec<f64>, InterpretError> {
    let found = evaluator.run_all(graph, inputs, Numbers::Stored, read)?;
    let one = |(exact, found): (&Vec<Tensor>, &Vec<Tensor>)| {
        let outputs = exact.iter().zip(found);
        let errors = outputs.map(|(exact, found)| Error::between(&exact.data, &found.data));
        errors.fold(Error::default(), Error::with).decibels()
    };
    Ok(exact.iter().zip(&found).map(one).collect())
}
