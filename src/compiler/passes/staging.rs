//! A UNet in three: what depends on the prompt alone, what on the timestep (and the embedded guidance scale) alone, and
//! the rest.
//!
//! ```text
//! %3 = linear "to_k" (x: %context, weight: %1)
//! %4 = attention "attn" (q: %2, k: %3, v: %3)
//! ```
//! becomes a prompt graph whose output is `to_k`, and a step graph whose input is. What crosses is of floats: codes stay
//! in the stage of their reader.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use crate::graph::{Graph, Op, ValueId};

/// A graph's stages. Those that nothing depends on alone are not there.
#[derive(Clone, Debug)]
pub struct Stages {
    /// From `encoder_hidden_states`, once for a prompt.
    pub prompt: Option<Graph>,
    /// From `timestep` and, if there is one, `timestep_cond`, once for a step.
    pub timestep: Option<Graph>,
    /// From the other inputs and the outputs of both.
    pub step: Graph,
}

/// What a value depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Needs {
    Nothing,
    Prompt,
    Timestep,
    More,
}

impl Needs {
    fn with(self, other: Needs) -> Needs {
        match (self, other) {
            (Needs::Nothing, needs) | (needs, Needs::Nothing) => needs,
            (a, b) if a == b => a,
            _ => Needs::More,
        }
    }
}

/// What each value depends on, by value index.
fn needs(graph: &Graph) -> Vec<Needs> {
    let mut needs = vec![Needs::Nothing; graph.value_count()];
    for input in &graph.inputs {
        needs[input.index()] = match graph.value(*input).name.as_str() {
            "encoder_hidden_states" => Needs::Prompt,
            "timestep" | "timestep_cond" => Needs::Timestep,
            _ => Needs::More,
        };
    }
    for (_, node) in graph.iter_nodes() {
        let all = node.operands().fold(Needs::Nothing, |all, operand| {
            all.with(needs[operand.index()])
        });
        needs[node.output.index()] = all;
    }
    needs
}

/// Splits a graph. Every value that crosses has a name of its own: an output of one stage and an input of the step have
/// the same.
pub fn split(graph: &Graph) -> Stages {
    let mut graph = graph.clone();
    let needs = needs(&graph);
    let early = |value: ValueId| {
        let computed = graph.producer(value).is_some() && graph.codes(value).is_none();
        matches!(needs[value.index()], Needs::Prompt | Needs::Timestep) && computed
    };
    let mut crossing: Vec<ValueId> = Vec::new();
    for (_, node) in graph.iter_nodes() {
        if needs[node.output.index()] == Needs::More {
            crossing.extend(node.operands().filter(|operand| early(*operand)));
        }
    }
    let mut seen = HashSet::new();
    crossing.retain(|value| seen.insert(*value));
    if crossing.is_empty() {
        return Stages {
            prompt: None,
            timestep: None,
            step: graph,
        };
    }
    name(&mut graph, &crossing);

    let part = |wanted: Needs| {
        let outputs: Vec<ValueId> = crossing
            .iter()
            .copied()
            .filter(|v| needs[v.index()] == wanted)
            .collect();
        let mut part = graph.clone();
        part.outputs = outputs;
        prune(&mut part);
        (!part.outputs.is_empty()).then_some(part)
    };
    let (prompt, timestep) = (part(Needs::Prompt), part(Needs::Timestep));
    let mut step = graph.clone();
    for value in crossing {
        let input = step.add_input(graph.value(value).name.clone(), graph.shape(value));
        step.replace(value, input);
    }
    prune(&mut step);
    Stages {
        prompt,
        timestep,
        step,
    }
}

/// Gives each value that crosses a name that no input, no output and no other of them has.
fn name(graph: &mut Graph, crossing: &[ValueId]) {
    let ports = graph.inputs.iter().chain(&graph.outputs);
    let mut taken: HashSet<String> = ports.map(|id| graph.value(*id).name.clone()).collect();
    for value in crossing {
        let own = match graph.value(*value).name.as_str() {
            "" => "value".to_owned(),
            name => name.to_owned(),
        };
        let mut name = own.clone();
        let mut number = 1;
        while !taken.insert(name.clone()) {
            number += 1;
            name = format!("{own}.{number}");
        }
        graph.value_mut(*value).name = name;
    }
}

/// Drops what the outputs do not need, inputs as well.
fn prune(graph: &mut Graph) {
    let mut needed = vec![false; graph.value_count()];
    graph
        .outputs
        .iter()
        .for_each(|output| needed[output.index()] = true);
    let nodes: Vec<_> = graph.node_ids().collect();
    for id in nodes.into_iter().rev() {
        let node = graph.node(id);
        if needed[node.output.index()] {
            node.operands()
                .for_each(|operand| needed[operand.index()] = true);
        }
    }
    graph.inputs.retain(|input| needed[input.index()]);
    graph.tidy();
}

impl Stages {
    /// Whether the context may have any number of rows, so that one program serves all: rows are treated one by one in the
    /// prompt stage, and only attended to in the step.
    pub fn follows_context(&self) -> bool {
        let Some(prompt) = &self.prompt else {
            return false;
        };
        let by_row = |op: &Op| matches!(op, Op::Linear { .. } | Op::Quantize { per_row: true });
        let names: HashSet<&str> = prompt
            .outputs
            .iter()
            .map(|id| prompt.value(*id).name.as_str())
            .collect();
        let step = &self.step;
        let from_prompt = |value: ValueId| {
            let name = step.value(value).name.as_str();
            step.inputs.contains(&value)
                && (names.contains(name) || name == "encoder_hidden_states")
        };
        let attended = step.iter_nodes().all(|(_, node)| {
            let reads = |slots: &[&str]| {
                slots
                    .iter()
                    .any(|slot| node.input(slot).is_some_and(from_prompt))
            };
            match node.op {
                Op::Attention {
                    causal: false,
                    integers: false,
                    ..
                } if !reads(&["q"]) => node.input("mask").is_none() || !reads(&["k", "v"]),
                _ => !node.operands().any(from_prompt),
            }
        });
        prompt.iter_nodes().all(|(_, node)| by_row(&node.op)) && attended
    }
}
