//! From a graph to a program: steps, operands, ports.

use kiln_package::{
    self as package, DType, Holds, Layout, Operand, PortRecord, ProgramRecord, Role, Space, Stage,
    StepRecord,
};

use super::bands::{self, Bands, View};
use super::buffers::Location;
use super::lanes::{self, Lanes, Shared};
use super::memory;
use super::pinned::Pinned;
use super::weights::{Form, Weights};
use super::{Part, PlanError, steps};
use crate::graph::{Graph, Node, Op, ValueId, ValueKind, Weight};

/// A node, or a band of one, with its operator in the program.
#[derive(Clone)]
pub struct Lowered<'a> {
    pub node: &'a Node,
    /// The node's number among all.
    pub origin: usize,
    pub op: package::Op,
    /// Whether it is a GEMM of codes.
    pub codes: bool,
    /// What stands in slots instead of the node's values.
    pub views: Vec<(&'static str, View)>,
}

impl Lowered<'_> {
    /// What of the arena stands in a slot; `None` for weights, scratch and what is empty.
    pub fn view(&self, graph: &Graph, slot: &str) -> Option<View> {
        if let Some((_, view)) = self.views.iter().find(|(name, _)| *name == slot) {
            return Some(*view);
        }
        let value = match slot {
            "out" => self.node.output,
            _ => self.node.input(slot)?,
        };
        (graph.value(value).weight().is_none()).then(|| View::whole(value))
    }

    /// What it reads of the arena, by slot.
    pub fn reads<'l>(
        &'l self,
        graph: &'l Graph,
    ) -> impl Iterator<Item = (&'static str, View)> + 'l {
        let slots = self.op.slots().iter();
        let inputs = slots.filter(|slot| matches!(slot.role, Role::Input | Role::Optional));
        inputs.filter_map(|slot| Some((slot.name, self.view(graph, slot.name)?)))
    }

    /// What must stand in a slot of the operator.
    pub fn requirement(
        &self,
        graph: &Graph,
        slot: &'static str,
    ) -> Result<Option<package::Requirement>, PlanError> {
        let required = self.op.requirement_with(slot, self.codes);
        required.map_err(|error| PlanError::node(graph, self.node, error.to_string()))
    }

    /// What must stand in a slot that must be filled.
    pub fn required(
        &self,
        graph: &Graph,
        slot: &'static str,
    ) -> Result<package::Requirement, PlanError> {
        let required = self.requirement(graph, slot)?;
        required.ok_or_else(|| PlanError::node(graph, self.node, format!("has no `{slot}`")))
    }
}

/// Makes a part's program and places its weights. `activation` is the type of activations.
pub fn plan(
    part: &Part,
    activation: DType,
    pinned: &Pinned,
    (bands, shared): (Bands, Lanes),
    weights: &mut Weights,
) -> Result<ProgramRecord, PlanError> {
    let graph = &part.graph;
    let (lowering, buffers) = bands::choose(part, lower(graph)?, pinned, activation, bands)?;
    let nodes = lowering.steps;
    let chunks = Chunks::of(part, pinned, &nodes)?;
    let Shared { arena, own, joined } = lanes::assign(part, &nodes, &buffers, activation, shared)?;
    if let Some((a, b)) = memory::conflict(&buffers.lifetimes, &arena) {
        return Err(PlanError::Overlap {
            graph: graph.name.clone(),
            a,
            b,
        });
    }

    let of_buffer = |index: usize, dtype| {
        Operand::arena(
            dtype,
            pinned.bytes + arena.offsets[index],
            buffers.lifetimes[index].bytes,
        )
    };
    let of_view = |view: View| -> Option<Operand> {
        let dtype = buffers.holds[view.tensor].dtype(activation);
        let whole = match buffers.of_tensor[view.tensor]? {
            Location::Buffer(index) => of_buffer(index, dtype),
            Location::Pinned(place) => Operand::arena(dtype, place.offset, place.bytes),
        };
        Some(match view.part {
            Some((offset, bytes)) => Operand::arena(dtype, whole.offset + offset, bytes),
            None => whole,
        })
    };
    let of_value = |value: ValueId| of_view(View::whole(value));
    let mut records = Vec::with_capacity(nodes.len());
    for (index, lowered) in nodes.iter().enumerate() {
        let Lowered {
            node, op, codes, ..
        } = lowered;
        let mut operands = Vec::with_capacity(op.slots().len());
        for slot in op.slots() {
            // What integers take besides their matrix is of the matrix.
            let source = match (op, slot.name) {
                (package::Op::Embed(op), "scale") if op.quantized => "table",
                (_, "scale" | "sums") if *codes => "weight",
                (_, name) => name,
            };
            let operand = match slot.role {
                Role::Output => lowered.view(graph, slot.name).and_then(&of_view),
                Role::Scratch => {
                    buffers.scratch[index].map(|scratch| of_buffer(scratch, DType::F32))
                }
                Role::Input | Role::Optional => match lowered.view(graph, slot.name) {
                    Some(view) => of_view(view),
                    None => match node.input(source) {
                        Some(value) => match &graph.value(value).kind {
                            ValueKind::Weight(weight) => {
                                let name = weight_name(graph, value, node, slot.name);
                                Some(place_weight(
                                    graph,
                                    lowered,
                                    slot.name,
                                    (&name, weight),
                                    activation,
                                    weights,
                                )?)
                            }
                            _ => None,
                        },
                        None => None,
                    },
                },
            };
            operands.push(operand.unwrap_or(Operand::EMPTY));
        }
        op.check(&operands)
            .map_err(|error| PlanError::node(graph, node, error.to_string()))?;
        records.push(StepRecord {
            op: *op,
            operands,
            name: step_name(node),
            per_chunk: chunks.steps[index],
            joined: joined[index],
        });
    }

    let port = |value: &ValueId| {
        port(
            graph,
            *value,
            of_value(*value),
            buffers.holds[value.index()],
            chunks.values[value.index()],
        )
    };
    // Fewer rows might be divided among tasks in another way.
    let scratch = nodes
        .iter()
        .zip(&chunks.steps)
        .flat_map(|(lowered, per_chunk)| {
            let fewest = if *per_chunk { 1 } else { pinned.max_chunks };
            let ops = (fewest..=pinned.max_chunks).map(|chunks| match per_chunk {
                true => lowered.op.at_chunks(chunks, pinned.max_chunks),
                false => lowered.op,
            });
            ops.map(|op| steps::scratch_bytes(&op, lowered.codes))
        });
    let has_chunks = matches!(part.stage, Stage::Prompt | Stage::Step);
    Ok(ProgramRecord {
        graph: part.kind,
        stage: part.stage,
        height: part.height,
        width: part.width,
        clip_skip: part.clip_skip,
        arena_bytes: pinned.bytes + arena.bytes,
        thread_scratch_bytes: scratch.max().unwrap_or(0) as u64,
        pinned_bytes: pinned.bytes,
        shared_bytes: arena.bytes - own,
        max_chunks: if has_chunks { pinned.max_chunks } else { 1 },
        inputs: graph.inputs.iter().map(port).collect::<Result<_, _>>()?,
        outputs: graph.outputs.iter().map(port).collect::<Result<_, _>>()?,
        steps: records,
    })
}

/// Bytes of the arena of a graph that is one program.
pub fn arena_bytes(part: &Part, activation: DType) -> Result<u64, PlanError> {
    let (nodes, pinned) = (lower(&part.graph)?, Pinned::default());
    let (_, buffers) = bands::choose(part, nodes, &pinned, activation, Bands::default())?;
    Ok(memory::assign(&buffers.lifetimes).bytes)
}

/// Every node's operator.
fn lower(graph: &Graph) -> Result<Vec<Lowered<'_>>, PlanError> {
    let lower = |node: &'_ Node| {
        steps::lower(graph, node).map_err(|problem| PlanError::node(graph, node, problem))
    };
    let codes = |node: &Node| node.input("x").is_some_and(|x| graph.codes(x).is_some());
    let nodes = graph.iter_nodes().enumerate().map(|(origin, (_, node))| {
        let op = lower(node)?;
        Ok(Lowered {
            node,
            origin,
            codes: op.takes_codes() && codes(node),
            op,
            views: Vec::new(),
        })
    });
    nodes.collect()
}

fn place_weight(
    graph: &Graph,
    lowered: &Lowered,
    slot: &'static str,
    (name, weight): (&str, &Weight),
    activation: DType,
    weights: &mut Weights,
) -> Result<Operand, PlanError> {
    let required = lowered.required(graph, slot)?;
    let dtype = required.holds.dtype(activation);
    let form = steps::form(&lowered.op, slot, weight.shape())
        .map_err(|problem| PlanError::node(graph, lowered.node, problem))?;
    let bytes = match form {
        Form::Plain => (weight.len() as u64).checked_mul(dtype.size() as u64),
        _ => required.bytes(activation),
    };
    let bytes = bytes
        .ok_or_else(|| PlanError::node(graph, lowered.node, format!("`{slot}` is too large")))?;
    weights.place(name, weight, form, (dtype, bytes))
}

/// What has fewer rows for fewer chunks of context.
struct Chunks {
    /// By value index.
    values: Vec<bool>,
    /// By node index.
    steps: Vec<bool>,
}

impl Chunks {
    /// All inputs of the prompt's stage, and what is computed of them row by row.
    fn of(part: &Part, pinned: &Pinned, nodes: &[Lowered]) -> Result<Self, PlanError> {
        let graph = &part.graph;
        let mut chunks = Chunks {
            values: vec![false; graph.value_count()],
            steps: vec![false; nodes.len()],
        };
        if pinned.max_chunks <= 1 {
            return Ok(chunks);
        }
        for input in &graph.inputs {
            let place = pinned.place(graph, part.stage, *input);
            let grows = part.stage == Stage::Prompt || place.is_some_and(|place| place.per_chunk);
            chunks.values[input.index()] = grows;
        }
        for (index, lowered) in nodes.iter().enumerate() {
            let Lowered { node, op, .. } = lowered;
            let grows = |slot: &str| {
                node.input(slot)
                    .is_some_and(|value| chunks.values[value.index()])
            };
            if !node.op.slots().iter().any(|slot| grows(slot)) {
                continue;
            }
            let by_row = match &node.op {
                Op::Attention { .. } => {
                    grows("k") && grows("v") && !grows("q") && node.input("mask").is_none()
                }
                _ => !grows("weight") && !grows("shift"),
            };
            let rows = op
                .chunk_rows(part.stage)
                .filter(|rows| by_row && rows.is_multiple_of(pinned.max_chunks));
            if rows.is_none() {
                let problem = format!(
                    "cannot have fewer rows for fewer than {} chunks of context",
                    pinned.max_chunks
                );
                return Err(PlanError::node(graph, node, problem));
            }
            chunks.steps[index] = true;
            chunks.values[node.output.index()] = part.stage == Stage::Prompt;
        }
        Ok(chunks)
    }
}

/// The record of an input or output. A picture is `[h, w, c]` inside and `[1, c, h, w]` outside; everything else has a
/// batch axis outside, but for the timestep.
fn port(
    graph: &Graph,
    value: ValueId,
    operand: Option<Operand>,
    holds: Holds,
    per_chunk: bool,
) -> Result<PortRecord, PlanError> {
    let name = graph.value(value).name.clone();
    let error = |problem: &str| PlanError::Port {
        graph: graph.name.clone(),
        port: name.clone(),
        problem: problem.into(),
    };
    let operand = operand
        .filter(|operand| operand.space == Space::Arena)
        .ok_or_else(|| error("is a constant"))?;
    let mut sizes = Vec::new();
    for size in graph.shape(value) {
        sizes.push(u32::try_from(*size).map_err(|_| error("is too large"))?);
    }
    let (layout, shape) = match sizes[..] {
        [h, w, c] => (Layout::ChannelsLast, vec![1, c, h, w]),
        [n] if holds == Holds::F32 => (Layout::RowMajor, vec![n]),
        _ => (Layout::RowMajor, [&[1], &sizes[..]].concat()),
    };
    let Operand {
        dtype,
        offset,
        bytes,
        ..
    } = operand;
    Ok(PortRecord {
        name,
        dtype,
        layout,
        shape,
        offset,
        bytes,
        per_chunk,
    })
}

fn step_name(node: &Node) -> String {
    if node.name.is_empty() {
        node.op.name().to_owned()
    } else {
        node.name.clone()
    }
}

fn weight_name(graph: &Graph, value: ValueId, node: &Node, slot: &str) -> String {
    match graph.value(value).name.as_str() {
        "" => format!("{} of {}", slot, step_name(node)),
        name => name.to_owned(),
    }
}
