//! From a graph to a program: buffers, steps, ports.

use kiln_package::{
    self as package, DType, Holds, Layout, Operand, PortRecord, ProgramRecord, Role, Space, Stage, StepRecord,
};

use super::memory::{self, Lifetime};
use super::weights::Weights;
use super::{Part, PlanError, steps};
use crate::graph::{Graph, Node, ValueId, ValueKind};

/// A graph's values in the arena.
struct Buffers {
    lifetimes: Vec<Lifetime>,
    /// The buffer of each value, by value index; none for weights and for what nothing computes.
    of_value: Vec<Option<usize>>,
    /// The buffer of each step's scratch.
    scratch: Vec<Option<usize>>,
}

impl Buffers {
    fn add(&mut self, bytes: u64, first: usize, last: usize) -> usize {
        self.lifetimes.push(Lifetime { bytes, first, last });
        self.lifetimes.len() - 1
    }
}

/// A node with its operator in the program.
struct Lowered<'a> {
    node: &'a Node,
    op: package::Op,
}

/// Makes a part's program and places its weights. `activation` is the type of activations.
pub fn plan(part: &Part, activation: DType, weights: &mut Weights) -> Result<ProgramRecord, PlanError> {
    let graph = &part.graph;
    let nodes = lower(graph)?;
    let inputs = inputs(graph, &nodes)?;
    let buffers = buffers(graph, &nodes, &inputs, activation)?;
    let arena = memory::assign(&buffers.lifetimes);
    if let Some((a, b)) = memory::conflict(&buffers.lifetimes, &arena) {
        return Err(PlanError::Overlap { graph: graph.name.clone(), a, b });
    }

    let of_buffer = |index: usize, dtype| Operand::arena(dtype, arena.offsets[index], buffers.lifetimes[index].bytes);
    let of_value = |value: ValueId| -> Option<Operand> {
        let dtype = inputs[value.index()].dtype(activation);
        buffers.of_value[value.index()].map(|index| of_buffer(index, dtype))
    };
    let mut records = Vec::with_capacity(nodes.len());
    for (index, lowered) in nodes.iter().enumerate() {
        let Lowered { node, op } = lowered;
        let mut operands = Vec::with_capacity(op.slots().len());
        for slot in op.slots() {
            let operand = match slot.role {
                Role::Output => of_value(node.output),
                Role::Scratch => buffers.scratch[index].map(|scratch| of_buffer(scratch, DType::F32)),
                Role::Input | Role::Optional => match node.input(slot.name) {
                    Some(value) => match &graph.value(value).kind {
                        ValueKind::Weight(weight) => {
                            let holds = requirement(graph, lowered, slot.name)?.map_or(Holds::Activation, |r| r.holds);
                            let form = steps::form(op, slot.name, weight.shape())
                                .map_err(|problem| PlanError::node(graph, node, problem))?;
                            let name = weight_name(graph, value, node, slot.name);
                            Some(weights.place(&name, weight, form, holds.dtype(activation))?)
                        }
                        _ => of_value(value),
                    },
                    None => None,
                },
            };
            operands.push(operand.unwrap_or(Operand::EMPTY));
        }
        op.check(&operands).map_err(|error| PlanError::node(graph, node, error.to_string()))?;
        records.push(StepRecord { op: *op, operands, name: step_name(node), per_chunk: false });
    }

    let ports = |values: &[ValueId]| -> Result<Vec<PortRecord>, PlanError> {
        values.iter().map(|value| port(graph, *value, of_value(*value), inputs[value.index()])).collect()
    };
    Ok(ProgramRecord {
        graph: part.kind,
        stage: Stage::Whole,
        height: part.height,
        width: part.width,
        arena_bytes: arena.bytes,
        thread_scratch_bytes: nodes.iter().map(|n| steps::scratch_bytes(&n.op)).max().unwrap_or(0) as u64,
        pinned_bytes: 0,
        max_chunks: 1,
        inputs: ports(&graph.inputs)?,
        outputs: ports(&graph.outputs)?,
        steps: records,
    })
}

/// Every node's operator.
fn lower(graph: &Graph) -> Result<Vec<Lowered<'_>>, PlanError> {
    let lower = |node| match steps::lower(graph, node) {
        Ok(op) => Ok(Lowered { node, op }),
        Err(problem) => Err(PlanError::node(graph, node, problem)),
    };
    graph.iter_nodes().map(|(_, node)| lower(node)).collect()
}

/// What must stand in a slot of a node's operator.
fn requirement(
    graph: &Graph,
    lowered: &Lowered,
    slot: &'static str,
) -> Result<Option<package::Requirement>, PlanError> {
    lowered.op.requirement(slot).map_err(|error| PlanError::node(graph, lowered.node, error.to_string()))
}

/// What each value holds, by value index: an input what the slots take that it is read in, all else activations.
fn inputs(graph: &Graph, nodes: &[Lowered]) -> Result<Vec<Holds>, PlanError> {
    let mut read: Vec<Option<Holds>> = vec![None; graph.value_count()];
    for lowered in nodes {
        for slot in lowered.op.slots() {
            let Some(id) = lowered.node.input(slot.name) else { continue };
            let Some(required) = requirement(graph, lowered, slot.name)? else { continue };
            let value = graph.value(id);
            if matches!(value.kind, ValueKind::Input)
                && read[id.index()].replace(required.holds).is_some_and(|other| other != required.holds)
            {
                let problem = format!("reads input {:?} in another type than another node", value.name);
                return Err(PlanError::node(graph, lowered.node, problem));
            }
        }
    }
    Ok(read.into_iter().map(|holds| holds.unwrap_or(Holds::Activation)).collect())
}

/// Size of what stands in a slot that must be filled.
fn slot_bytes(graph: &Graph, lowered: &Lowered, slot: &'static str, activation: DType) -> Result<u64, PlanError> {
    let required = requirement(graph, lowered, slot)?;
    required
        .and_then(|required| required.bytes(activation))
        .ok_or_else(|| PlanError::node(graph, lowered.node, format!("`{slot}` is too large")))
}

/// The buffers and their lifetimes. A step's output takes over the buffer of the operand that it may be computed in,
/// if that operand has the output's size, is read here for the last time, and in no other slot.
fn buffers(graph: &Graph, nodes: &[Lowered], inputs: &[Holds], activation: DType) -> Result<Buffers, PlanError> {
    let end = nodes.len();
    let mut last_use: Vec<usize> = vec![0; graph.value_count()];
    for (step, lowered) in nodes.iter().enumerate() {
        lowered.node.operands().for_each(|value| last_use[value.index()] = step);
    }
    // Past every step: nothing overwrites an output.
    graph.outputs.iter().for_each(|output| last_use[output.index()] = end);
    let mut buffers =
        Buffers { lifetimes: Vec::new(), of_value: vec![None; graph.value_count()], scratch: vec![None; nodes.len()] };
    for input in &graph.inputs {
        let dtype = inputs[input.index()].dtype(activation);
        let bytes = (graph.value(*input).len() * dtype.size()) as u64;
        let index = buffers.add(bytes, 0, last_use[input.index()]);
        buffers.of_value[input.index()] = Some(index);
    }
    for (step, lowered) in nodes.iter().enumerate() {
        let Lowered { node, op } = lowered;
        let bytes = slot_bytes(graph, lowered, "out", activation)?;
        // What nothing reads is still written.
        let last = last_use[node.output.index()].max(step);
        let in_place = op.in_place_slot().and_then(|slot| node.input(slot)).and_then(|value| {
            let buffer = buffers.of_value[value.index()]?;
            let once = node.operands().filter(|operand| buffers.of_value[operand.index()] == Some(buffer)).count() == 1;
            let same_type = inputs[value.index()].dtype(activation) == activation;
            let free = last_use[value.index()] == step && buffers.lifetimes[buffer].bytes == bytes;
            (once && same_type && free).then_some(buffer)
        });
        let buffer = match in_place {
            Some(buffer) => {
                buffers.lifetimes[buffer].last = last;
                buffer
            }
            None => buffers.add(bytes, step, last),
        };
        buffers.of_value[node.output.index()] = Some(buffer);
        if let Some(slot) = op.slots().iter().find(|slot| slot.role == Role::Scratch) {
            let bytes = slot_bytes(graph, lowered, slot.name, activation)?;
            buffers.scratch[step] = Some(buffers.add(bytes, step, step));
        }
    }
    Ok(buffers)
}

/// The record of an input or output. A picture is `[h, w, c]` inside and `[1, c, h, w]` outside; everything else has a
/// batch axis outside, but for the timestep.
fn port(graph: &Graph, value: ValueId, operand: Option<Operand>, holds: Holds) -> Result<PortRecord, PlanError> {
    let name = graph.value(value).name.clone();
    let error =
        |problem: &str| PlanError::Port { graph: graph.name.clone(), port: name.clone(), problem: problem.into() };
    let operand = operand.filter(|operand| operand.space == Space::Arena).ok_or_else(|| error("is a constant"))?;
    let mut sizes = Vec::new();
    for size in graph.shape(value) {
        sizes.push(u32::try_from(*size).map_err(|_| error("is too large"))?);
    }
    let (layout, shape) = match sizes[..] {
        [h, w, c] => (Layout::ChannelsLast, vec![1, c, h, w]),
        [n] if holds == Holds::F32 => (Layout::RowMajor, vec![n]),
        _ => (Layout::RowMajor, [&[1], &sizes[..]].concat()),
    };
    Ok(PortRecord { name, dtype: operand.dtype, layout, shape, offset: operand.offset, bytes: operand.bytes, per_chunk: false })
}

fn step_name(node: &Node) -> String {
    if node.name.is_empty() { node.op.name().to_owned() } else { node.name.clone() }
}

fn weight_name(graph: &Graph, value: ValueId, node: &Node, slot: &str) -> String {
    match graph.value(value).name.as_str() {
        "" => format!("{} of {}", slot, step_name(node)),
        name => name.to_owned(),
    }
}
