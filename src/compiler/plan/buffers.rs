//! Which buffers a program needs, and when.

use kiln_package::{DType, Holds, Role};

use super::bands::{Lowering, View};
use super::memory::Lifetime;
use super::pinned::{Pinned, Place};
use super::program::Lowered;
use super::{Part, PlanError};
use crate::graph::{Graph, ValueKind};

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a buffer, by its number.
    Buffer(usize),
    /// Among what the stages give to each other.
    Pinned(Place),
}

/// A graph's values and the temporary tensors in the arena.
#[derive(Clone)]
pub struct Buffers {
    /// The buffers.
    pub lifetimes: Vec<Lifetime>,
    /// What each tensor holds, by its index.
    pub holds: Vec<Holds>,
    /// The place of each tensor, by its index; none for weights and for what nothing computes.
    pub of_tensor: Vec<Option<Location>>,
    /// The buffer of each step's scratch.
    pub scratch: Vec<Option<usize>>,
}

impl Buffers {
    fn add(&mut self, bytes: u64, first: usize, last: usize) -> usize {
        self.lifetimes.push(Lifetime { bytes, first, last });
        self.lifetimes.len() - 1
    }
}

/// What each tensor holds, by its index: an input what the slots take that it is read in, all else what its operator
/// gives; what is written in parts are activations.
fn holds(graph: &Graph, lowering: &Lowering) -> Result<Vec<Holds>, PlanError> {
    let values = graph.value_count();
    let mut holds: Vec<Option<Holds>> = vec![None; values];
    for lowered in &lowering.steps {
        for (slot, view) in lowered.reads(graph) {
            if view.tensor >= values {
                continue;
            }
            let Some(required) = lowered.requirement(graph, slot)? else {
                continue;
            };
            let input = graph.inputs.iter().find(|id| id.index() == view.tensor);
            if let Some(input) = input
                && matches!(graph.value(*input).kind, ValueKind::Input)
                && holds[view.tensor]
                    .replace(required.holds)
                    .is_some_and(|other| other != required.holds)
            {
                let problem = format!(
                    "reads input {:?} in another type than another node",
                    graph.value(*input).name
                );
                return Err(PlanError::node(graph, lowered.node, problem));
            }
        }
        if let Some(view) = lowered.view(graph, "out")
            && view.tensor < values
        {
            let required = lowered.required(graph, "out")?;
            holds[view.tensor] = Some(required.holds);
        }
    }
    let holds = holds
        .into_iter()
        .map(|holds| holds.unwrap_or(Holds::Activation));
    let temporaries = lowering.temporaries.iter().map(|tensor| tensor.holds);
    Ok(holds.chain(temporaries).collect())
}

/// The size of what a step writes: of the whole tensor, if it writes a part of it.
fn out_bytes(
    graph: &Graph,
    lowering: &Lowering,
    lowered: &Lowered,
    view: View,
    activation: DType,
) -> Result<u64, PlanError> {
    if let Some(temporary) = view.tensor.checked_sub(graph.value_count()) {
        return Ok(lowering.temporaries[temporary].bytes);
    }
    let bytes = match view.part {
        None => lowered.required(graph, "out")?.bytes(activation),
        Some(_) => {
            (graph.value(lowered.node.output).len() as u64).checked_mul(activation.size() as u64)
        }
    };
    bytes.ok_or_else(|| PlanError::node(graph, lowered.node, "`out` is too large".to_owned()))
}

/// The buffers and their lifetimes. A step's output takes over the buffer of the operand that it may be computed in,
/// if that operand has the output's size and nothing of it is read once it is written over; a step may read in that slot
/// just what it writes. What is pinned has no buffer, and nothing takes its place.
pub fn of(
    part: &Part,
    lowering: &Lowering,
    pinned: &Pinned,
    activation: DType,
) -> Result<Buffers, PlanError> {
    let graph = &part.graph;
    let nodes = &lowering.steps;
    let end = nodes.len();
    let tensors = graph.value_count() + lowering.temporaries.len();
    let mut last_use: Vec<usize> = vec![0; tensors];
    for (step, lowered) in nodes.iter().enumerate() {
        for (_, view) in lowered.reads(graph) {
            last_use[view.tensor] = step;
        }
        if let Some(view) = lowered.view(graph, "out") {
            last_use[view.tensor] = step;
        }
    }
    // Past every step: nothing overwrites an output.
    graph
        .outputs
        .iter()
        .for_each(|output| last_use[output.index()] = end);
    let mut buffers = Buffers {
        lifetimes: Vec::new(),
        holds: holds(graph, lowering)?,
        of_tensor: vec![None; tensors],
        scratch: vec![None; nodes.len()],
    };
    let place_of = |value| pinned.place(graph, part.stage, value).map(Location::Pinned);
    for input in &graph.inputs {
        let location = place_of(*input).unwrap_or_else(|| {
            let dtype = buffers.holds[input.index()].dtype(activation);
            let bytes = (graph.value(*input).len() * dtype.size()) as u64;
            Location::Buffer(buffers.add(bytes, 0, last_use[input.index()]))
        });
        buffers.of_tensor[input.index()] = Some(location);
    }
    for (step, lowered) in nodes.iter().enumerate() {
        let Lowered { node, op, .. } = lowered;
        let out = lowered
            .view(graph, "out")
            .ok_or_else(|| PlanError::node(graph, node, "has no `out`"))?;
        if buffers.of_tensor[out.tensor].is_none() {
            let bytes = out_bytes(graph, lowering, lowered, out, activation)?;
            let in_place = in_place(graph, &buffers, &nodes[step..], bytes, activation)
                .filter(|(_, tensor)| last_use[*tensor] < end);
            let of_graph = out.tensor < graph.value_count();
            let last = last_use[out.tensor];
            let location = match (of_graph.then(|| place_of(node.output)).flatten(), in_place) {
                (Some(pinned), _) => pinned,
                (None, Some((buffer, _))) => {
                    let lifetime = &mut buffers.lifetimes[buffer];
                    lifetime.last = lifetime.last.max(last);
                    Location::Buffer(buffer)
                }
                (None, None) => Location::Buffer(buffers.add(bytes, step, last)),
            };
            buffers.of_tensor[out.tensor] = Some(location);
        }
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

/// The buffer that the output of the first of `steps`, of so many bytes, may take over, and the tensor that is in it.
fn in_place(
    graph: &Graph,
    buffers: &Buffers,
    steps: &[Lowered],
    bytes: u64,
    activation: DType,
) -> Option<(usize, usize)> {
    let (first, _) = steps.split_first()?;
    let own = first.view(graph, "out")?;
    let from = first.view(graph, first.op.in_place_slot()?)?;
    let Some(Location::Buffer(buffer)) = buffers.of_tensor[from.tensor] else {
        return None;
    };
    let dtype = |view: View| buffers.holds[view.tensor].dtype(activation);
    if dtype(from) != dtype(own) || buffers.lifetimes[buffer].bytes != bytes {
        return None;
    }
    let here = |view: &View| buffers.of_tensor[view.tensor] == Some(Location::Buffer(buffer));
    // What has been written by then of the buffer.
    let mut written: Vec<Option<(u64, u64)>> = Vec::new();
    for step in steps {
        let out = step
            .view(graph, "out")
            .filter(|out| out.tensor == own.tensor);
        for (slot, view) in step.reads(graph).filter(|(_, view)| here(view)) {
            let same = Some(slot) == step.op.in_place_slot()
                && out.is_some_and(|out| out.part == view.part);
            let now = out.filter(|_| !same).map(|out| out.part);
            let mut before = written.iter().copied().chain(now);
            if view.tensor != from.tensor || before.any(|part| overlap(part, view.part)) {
                return None;
            }
        }
        written.extend(out.map(|out| out.part));
    }
    Some((buffer, from.tensor))
}

/// Whether two parts of a tensor have bytes in common; none is all of it.
fn overlap(a: Option<(u64, u64)>, b: Option<(u64, u64)>) -> bool {
    match (a, b) {
        (Some((a, a_bytes)), Some((b, b_bytes))) => a < b + b_bytes && b < a + a_bytes,
        _ => true,
    }
}
