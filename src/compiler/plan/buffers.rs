//! Which buffers a program needs, and when.

use kiln_package::{DType, Holds, Role};

use super::memory::Lifetime;
use super::pinned::{Pinned, Place};
use super::program::Lowered;
use super::{Part, PlanError};
use crate::graph::{Graph, ValueId, ValueKind};

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a buffer, by its number.
    Buffer(usize),
    /// Among what the stages give to each other.
    Pinned(Place),
}

/// A graph's values in the arena.
pub struct Buffers {
    /// The buffers.
    pub lifetimes: Vec<Lifetime>,
    /// What each value holds, by value index.
    pub holds: Vec<Holds>,
    /// The place of each value, by value index; none for weights and for what nothing computes.
    pub of_value: Vec<Option<Location>>,
    /// The buffer of each step's scratch.
    pub scratch: Vec<Option<usize>>,
}

impl Buffers {
    fn add(&mut self, bytes: u64, first: usize, last: usize) -> usize {
        self.lifetimes.push(Lifetime { bytes, first, last });
        self.lifetimes.len() - 1
    }
}

/// What each value holds, by value index: an input what the slots take that it is read in, all else what its operator
/// gives.
fn holds(graph: &Graph, nodes: &[Lowered]) -> Result<Vec<Holds>, PlanError> {
    let mut holds: Vec<Option<Holds>> = vec![None; graph.value_count()];
    for lowered in nodes {
        for slot in lowered.op.slots() {
            let Some(id) = lowered.node.input(slot.name) else {
                continue;
            };
            let Some(required) = lowered.requirement(graph, slot.name)? else {
                continue;
            };
            let value = graph.value(id);
            if matches!(value.kind, ValueKind::Input)
                && holds[id.index()]
                    .replace(required.holds)
                    .is_some_and(|other| other != required.holds)
            {
                let problem = format!(
                    "reads input {:?} in another type than another node",
                    value.name
                );
                return Err(PlanError::node(graph, lowered.node, problem));
            }
        }
        holds[lowered.node.output.index()] = Some(lowered.required(graph, "out")?.holds);
    }
    Ok(holds
        .into_iter()
        .map(|holds| holds.unwrap_or(Holds::Activation))
        .collect())
}

/// Size of what stands in a slot that must be filled.
fn slot_bytes(
    graph: &Graph,
    lowered: &Lowered,
    slot: &'static str,
    activation: DType,
) -> Result<u64, PlanError> {
    let bytes = lowered.required(graph, slot)?.bytes(activation);
    bytes.ok_or_else(|| PlanError::node(graph, lowered.node, format!("`{slot}` is too large")))
}

/// The buffers and their lifetimes. A step's output takes over the buffer of the operand that it may be computed in,
/// if that operand has the output's size, is read here for the last time, and in no other slot. What is pinned has no
/// buffer, and nothing takes its place.
pub fn of(
    part: &Part,
    nodes: &[Lowered],
    pinned: &Pinned,
    activation: DType,
) -> Result<Buffers, PlanError> {
    let graph = &part.graph;
    let end = nodes.len();
    let mut last_use: Vec<usize> = vec![0; graph.value_count()];
    for (step, lowered) in nodes.iter().enumerate() {
        lowered
            .node
            .operands()
            .for_each(|value| last_use[value.index()] = step);
    }
    // Past every step: nothing overwrites an output.
    graph
        .outputs
        .iter()
        .for_each(|output| last_use[output.index()] = end);
    let mut buffers = Buffers {
        lifetimes: Vec::new(),
        holds: holds(graph, nodes)?,
        of_value: vec![None; graph.value_count()],
        scratch: vec![None; nodes.len()],
    };
    let place_of = |value| pinned.place(graph, part.stage, value).map(Location::Pinned);
    for input in &graph.inputs {
        let location = place_of(*input).unwrap_or_else(|| {
            let dtype = buffers.holds[input.index()].dtype(activation);
            let bytes = (graph.value(*input).len() * dtype.size()) as u64;
            Location::Buffer(buffers.add(bytes, 0, last_use[input.index()]))
        });
        buffers.of_value[input.index()] = Some(location);
    }
    for (step, lowered) in nodes.iter().enumerate() {
        let Lowered { node, op, .. } = lowered;
        let bytes = slot_bytes(graph, lowered, "out", activation)?;
        // What nothing reads is still written.
        let last = last_use[node.output.index()].max(step);
        let in_place = op
            .in_place_slot()
            .and_then(|slot| node.input(slot))
            .and_then(|value| {
                let Some(Location::Buffer(buffer)) = buffers.of_value[value.index()] else {
                    return None;
                };
                let here = |operand: &ValueId| {
                    buffers.of_value[operand.index()] == Some(Location::Buffer(buffer))
                };
                let once = node.operands().filter(here).count() == 1;
                let dtype = |value: ValueId| buffers.holds[value.index()].dtype(activation);
                let same_type = dtype(value) == dtype(node.output);
                let free =
                    last_use[value.index()] == step && buffers.lifetimes[buffer].bytes == bytes;
                (once && same_type && free).then_some(buffer)
            });
        let location = match (place_of(node.output), in_place) {
            (Some(pinned), _) => pinned,
            (None, Some(buffer)) => {
                buffers.lifetimes[buffer].last = last;
                Location::Buffer(buffer)
            }
            (None, None) => Location::Buffer(buffers.add(bytes, step, last)),
        };
        buffers.of_value[node.output.index()] = Some(location);
        if let Some(slot) = op.slots().iter().find(|slot| slot.role == Role::Scratch)
            && let Some(required) = lowered.requirement(graph, slot.name)?
        {
            let bytes = required.bytes(activation);
            let bytes = bytes.ok_or_else(|| {
                PlanError::node(graph, node, format!("`{}` is too large", slot.name))
            })?;
            buffers.scratch[step] = Some(buffers.add(bytes, step, step));
        }
    }
    Ok(buffers)
}
