//! What the earlier stages of a graph give to its last: the beginning of all their arenas.

use std::collections::HashMap;

use kiln_package::{DType, Stage};

use super::memory::ALIGNMENT;
use super::{Part, PlanError};
use crate::graph::{Graph, ValueId};

/// A value's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the beginning of the arena.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// The stage that computes it.
    pub from: Stage,
    /// Whether it has fewer rows for fewer chunks of context.
    pub per_chunk: bool,
}

/// The pinned values of the stages of a graph at a size, by name.
#[derive(Debug, Default)]
pub struct Pinned {
    places: HashMap<String, Place>,
    /// Size of all.
    pub bytes: u64,
    /// The most chunks of context.
    pub max_chunks: u32,
}

impl Pinned {
    /// Gives each output of the earlier stages its place, in order. `activation` is the type of activations.
    pub fn of(family: &[Part], activation: DType) -> Result<Self, PlanError> {
        let find = |stage| family.iter().find(|part| part.stage == stage);
        let mut pinned = Pinned {
            max_chunks: 1,
            ..Pinned::default()
        };
        let Some(step) = find(Stage::Step) else {
            return Ok(pinned);
        };
        if let Some(prompt) = find(Stage::Prompt) {
            pinned.max_chunks = prompt.max_chunks;
        }
        for part in [Stage::Prompt, Stage::Timestep]
            .into_iter()
            .filter_map(find)
        {
            let computed = from_inputs(&part.graph);
            for output in &part.graph.outputs {
                let value = part.graph.value(*output);
                let error = |problem: String| {
                    Err(PlanError::Port {
                        graph: part.graph.name.clone(),
                        port: value.name.clone(),
                        problem,
                    })
                };
                let times = part
                    .graph
                    .outputs
                    .iter()
                    .filter(|other| *other == output)
                    .count();
                if value.node().is_none() || times > 1 {
                    return error("is no value of its own that the stage computes".to_owned());
                }
                let mut inputs = step
                    .graph
                    .inputs
                    .iter()
                    .map(|input| step.graph.value(*input));
                match inputs.find(|input| input.name == value.name) {
                    Some(input) if input.shape == value.shape => (),
                    Some(input) => {
                        return error(format!(
                            "is {:?}, the step takes {:?}",
                            value.shape, input.shape
                        ));
                    }
                    None => return error("is no input of the step".to_owned()),
                }
                let bytes = (value.len() * activation.size()) as u64;
                let per_chunk = part.stage == Stage::Prompt
                    && pinned.max_chunks > 1
                    && computed[output.index()];
                let place = Place {
                    offset: pinned.bytes,
                    bytes,
                    from: part.stage,
                    per_chunk,
                };
                if pinned.places.insert(value.name.clone(), place).is_some() {
                    return error("is given twice".to_owned());
                }
                pinned.bytes += bytes.next_multiple_of(ALIGNMENT);
            }
        }
        Ok(pinned)
    }

    /// The place of a value of a stage's graph, if it is one that crosses.
    pub fn place(&self, graph: &Graph, stage: Stage, value: ValueId) -> Option<Place> {
        let ports = match stage {
            Stage::Whole => return None,
            Stage::Prompt | Stage::Timestep => &graph.outputs,
            Stage::Step => &graph.inputs,
        };
        if !ports.contains(&value) {
            return None;
        }
        let place = self.places.get(&graph.value(value).name)?;
        (stage == Stage::Step || place.from == stage).then_some(*place)
    }
}

/// Which values depend on an input, by value index.
fn from_inputs(graph: &Graph) -> Vec<bool> {
    let mut depends = vec![false; graph.value_count()];
    graph
        .inputs
        .iter()
        .for_each(|input| depends[input.index()] = true);
    for (_, node) in graph.iter_nodes() {
        depends[node.output.index()] = node.operands().any(|operand| depends[operand.index()]);
    }
    depends
}
