//! What part of the noise in a graph's result comes of each product, and which are worth sixteen bits for it.
//!
//! A product's own error says little of what becomes of it on its way to the result. So each is computed from codes alone,
//! in a run of its own beside the exact one, from the last product back as far as [`MOST_MACS`] reach: after the last
//! nothing comes that could outweigh their noise.

use std::collections::HashMap;

use crate::graph::{Graph, Node, NodeId, Tensor, ValueId};

use super::QuantizeError;
use super::apart::Lane;
use super::evaluate::{Error, Evaluator, Numbers};

/// A product stays in sixteen bits if its part of the noise is so many times as large as its part of the graph's cost, where
/// neither the model nor whoever compiles it says otherwise. (Sixteen bits take up to four times as long as eight.)
pub const LEAST_GAIN: f64 = 8.0;
/// The most multiplications that are spent on measuring.
pub(super) const MOST_MACS: u64 = 100_000_000_000;

/// Multiplications of runs of their own for the last products, of which as many as [`MOST_MACS`] allow are reached;
/// `macs` are those of each product in order.
pub(super) fn reached(macs: &[u64], inputs: usize) -> usize {
    let (mut after, mut spent) = (0, 0);
    let last = macs.iter().rev().take_while(|macs| {
        after += **macs;
        spent += after * inputs as u64;
        spent <= MOST_MACS
    });
    last.count()
}

/// The part of the noise in the result of a graph with codes, 0 to 1, that each of some products has, for each of the inputs;
/// `read` is told the elements of each matrix.
pub(super) fn shares(
    graph: &Graph,
    products: &[NodeId],
    inputs: &[Vec<Tensor>],
    evaluator: &Evaluator,
    read: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<f64>>, QuantizeError> {
    let lanes: Vec<Lane> = std::iter::once(Lane::All)
        .chain(products.iter().map(|id| Lane::One(*id)))
        .collect();
    let sets: Vec<Vec<Tensor>> = inputs
        .iter()
        .flat_map(|inputs| std::iter::repeat_n(inputs.clone(), 1 + lanes.len()))
        .collect();
    let outputs = evaluator.run_all(graph, &sets, Numbers::Apart(&lanes), read)?;
    let mut shares = vec![Vec::new(); products.len()];
    for outputs in outputs.chunks(1 + lanes.len()) {
        let noise = |set: usize| {
            let both = outputs[0].iter().zip(&outputs[set]);
            let errors = both.map(|(exact, found)| Error::between(&exact.data, &found.data));
            errors.fold(Error::default(), Error::with).noise
        };
        let all = noise(1).max(f64::MIN_POSITIVE);
        for (index, shares) in shares.iter_mut().enumerate() {
            let share = noise(2 + index) / all;
            shares.push(if share.is_finite() {
                share.min(1.0)
            } else {
                1.0
            });
        }
    }
    Ok(shares)
}

/// Products that read the same codes: they stay in sixteen bits together, or the codes would be made all the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    /// Indices of its products.
    pub products: Vec<usize>,
    /// Its part of the noise in the result, 0 to 1, for each of the inputs.
    pub noise: Vec<f64>,
    /// Its part of the graph's multiplications and of its weights, together 0 to 2.
    pub cost: f64,
}

impl Group {
    /// How many times as large its part of the noise is, in the mean over the inputs, as its part of the cost.
    fn gain(&self) -> f64 {
        self.noise.iter().sum::<f64>() / self.noise.len().max(1) as f64 / self.cost.max(1e-9)
    }
}

/// The products of the same codes.
pub(super) fn groups<'n>(products: impl Iterator<Item = (usize, &'n Node)>) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<(Option<ValueId>, Option<ValueId>, &str), usize> = HashMap::new();
    for (index, node) in products {
        let group = *known
            .entry((node.input("x"), node.input("x2"), node.op.name()))
            .or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(index);
    }
    groups
}

/// The products of the groups that are worth sixteen bits: whose noise is `least` times their cost.
pub(super) fn worth(groups: &[Group], least: f64) -> Vec<usize> {
    let worth = groups.iter().filter(|group| group.gain() >= least);
    worth.flat_map(|group| &group.products).copied().collect()
}
