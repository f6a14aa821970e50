//! The compiler's own intermediate representation: a graph of named operators, each with one output value.
//!
//! Values print as `%7` and nodes as `n7`. Nodes stand in topological order, and [`Graph::tidy`] makes that order (and the
//! numbers) a function of the graph's structure alone, so two sources of one model give the same text.

pub(crate) mod codes;
pub(crate) mod interpret;
mod op;
mod resize;
mod table;
mod text;
pub mod verify;
pub(crate) mod view;
mod weight;

pub use interpret::{InterpretError, Tensor};
pub use op::{Activation, BinaryKind, Codes, Op, ReduceKind, UnaryKind};
pub use resize::ResizeError;
pub use table::Attribute;
pub use text::ParseError;
pub use verify::VerifyError;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use text::random;
pub use weight::{Literal, Weight, WeightData};

use std::collections::HashMap;
use std::fmt;

/// A value of a graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

/// A node of a graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

macro_rules! id {
    ($id:ident, $prefix:literal) => {
        impl $id {
            /// The number, which indexes tables of `Graph::value_count` or `Graph::node_count` elements.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}
id!(ValueId, "%");
id!(NodeId, "n");

/// Where a value comes from.
#[derive(Clone, Debug)]
pub enum ValueKind {
    /// An input of the graph.
    Input,
    /// A constant.
    Weight(Weight),
    /// The output of a node.
    Node(NodeId),
}

/// A tensor: its name, its shape and where it comes from.
#[derive(Clone, Debug)]
pub struct Value {
    /// Name in the checkpoint (weights), of the port (inputs) or of the layer.
    pub name: String,
    /// Sizes, outermost first. Activations have no batch axis once the passes have run.
    pub shape: Vec<usize>,
    /// Where it comes from.
    pub kind: ValueKind,
}

impl Value {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weight, if the value is one.
    pub fn weight(&self) -> Option<&Weight> {
        match &self.kind {
            ValueKind::Weight(weight) => Some(weight),
            _ => None,
        }
    }

    /// The node that computes the value, if one does.
    pub fn node(&self) -> Option<NodeId> {
        match self.kind {
            ValueKind::Node(node) => Some(node),
            _ => None,
        }
    }
}

/// An operator with its operands.
#[derive(Clone, Debug)]
pub struct Node {
    /// The operator and its attributes.
    pub op: Op,
    /// Operands in the order of [`Op::slots`]; as long as the slots, or longer for a variadic operator.
    pub inputs: Vec<Option<ValueId>>,
    /// What the node computes.
    pub output: ValueId,
    /// Name of the layer, such as `down_blocks.0.resnets.0.conv1`.
    pub name: String,
}

impl Node {
    /// The operand in the slot of that name; `None` when the slot is empty or the operator has no such slot.
    pub fn input(&self, slot: &str) -> Option<ValueId> {
        let index = self.op.slots().iter().position(|s| *s == slot)?;
        self.inputs.get(index).copied().flatten()
    }

    /// Fills (or empties) the slot of that name. Returns false when the operator has no such slot.
    pub fn set_input(&mut self, slot: &str, value: Option<ValueId>) -> bool {
        let Some(index) = self.op.slots().iter().position(|s| *s == slot) else {
            return false;
        };
        self.inputs[index] = value;
        true
    }

    /// The filled slots' values, in order.
    pub fn operands(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.inputs.iter().flatten().copied()
    }
}

/// A graph of one model part (`text_encoder`, `unet`, `vae_decoder`, `vae_encoder`).
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Name of the part.
    pub name: String,
    values: Vec<Value>,
    nodes: Vec<Node>,
    /// Inputs, in order.
    pub inputs: Vec<ValueId>,
    /// Outputs, in order. Their names are those of their values.
    pub outputs: Vec<ValueId>,
}

/// A node that cannot be built: its operator, and which rule of the operator its operands break.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{op} {name:?}: {rule}")]
pub struct BuildError {
    /// The operator's name.
    pub op: &'static str,
    /// The node's name.
    pub name: String,
    /// The broken rule, with what was found.
    pub rule: String,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Graph {
            name: name.into(),
            ..Graph::default()
        }
    }

    /// Number of values.
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// A value. Panics on an id of another graph.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// A value, to rename it.
    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.index()]
    }

    /// A node. Panics on an id of another graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// A node, to change it. Who changes what its output's shape depends on calls [`Graph::infer_node`].
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// Values with their ids.
    pub fn iter_values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values
            .iter()
            .enumerate()
            .map(|(i, v)| (ValueId(i as u32), v))
    }

    /// Nodes with their ids, in topological order (after [`Graph::tidy`]).
    pub fn iter_nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes
            .iter()
            .enumerate()
            .map(|(i, n)| (NodeId(i as u32), n))
    }

    /// Ids of all nodes there are now, in order.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// The node that computes a value.
    pub fn producer(&self, value: ValueId) -> Option<(NodeId, &Node)> {
        let id = self.value(value).node()?;
        Some((id, self.node(id)))
    }

    /// What kind of codes a value holds; `None` if it holds floats.
    pub fn codes(&self, value: ValueId) -> Option<Codes> {
        self.producer(value).and_then(|(_, node)| node.op.codes())
    }

    /// A value's shape.
    pub fn shape(&self, value: ValueId) -> &[usize] {
        &self.value(value).shape
    }

    fn push(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(self.values.len() as u32 - 1)
    }

    /// Adds an input.
    pub fn add_input(&mut self, name: impl Into<String>, shape: &[usize]) -> ValueId {
        let id = self.push(Value {
            name: name.into(),
            shape: shape.to_vec(),
            kind: ValueKind::Input,
        });
        self.inputs.push(id);
        id
    }

    /// Adds a constant.
    pub fn add_weight(&mut self, name: impl Into<String>, weight: Weight) -> ValueId {
        let shape = weight.shape().to_vec();
        self.push(Value {
            name: name.into(),
            shape,
            kind: ValueKind::Weight(weight),
        })
    }

    /// Adds a constant of one element, of rank 0.
    pub fn add_scalar(&mut self, value: f32) -> ValueId {
        self.add_weight(
            "",
            Weight::new(Literal {
                shape: vec![],
                values: vec![value],
            }),
        )
    }

    /// Adds a node after all others and infers its output's shape. Missing trailing operands are empty slots.
    pub fn add(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
        name: impl Into<String>,
    ) -> Result<ValueId, BuildError> {
        let name = name.into();
        let mut inputs = inputs.to_vec();
        inputs.resize(inputs.len().max(op.slots().len()), None);
        let shape = self.infer(&op, &inputs).map_err(|rule| BuildError {
            op: op.name(),
            name: name.clone(),
            rule,
        })?;
        let node = NodeId(self.nodes.len() as u32);
        let output = self.push(Value {
            name: name.clone(),
            shape,
            kind: ValueKind::Node(node),
        });
        self.nodes.push(Node {
            op,
            inputs,
            output,
            name,
        });
        Ok(output)
    }

    /// As [`Graph::add`], with every operand filled.
    pub fn add_full(
        &mut self,
        op: Op,
        inputs: &[ValueId],
        name: impl Into<String>,
    ) -> Result<ValueId, BuildError> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        self.add(op, &inputs, name)
    }

    fn infer(&self, op: &Op, inputs: &[Option<ValueId>]) -> Result<Vec<usize>, String> {
        let shapes: Vec<Option<&[usize]>> =
            inputs.iter().map(|i| i.map(|i| self.shape(i))).collect();
        verify::infer(op, &shapes)
    }

    /// Infers a node's output shape anew.
    pub fn infer_node(&mut self, id: NodeId) -> Result<(), BuildError> {
        let node = self.node(id);
        let shape = self
            .infer(&node.op, &node.inputs)
            .map_err(|rule| BuildError {
                op: node.op.name(),
                name: node.name.clone(),
                rule,
            })?;
        let output = node.output;
        self.values[output.index()].shape = shape;
        Ok(())
    }

    /// Makes every reader of `old`, and the outputs, read `new`; an output keeps its name. The nodes that computed `old`
    /// alone stay until [`Graph::tidy`].
    pub fn replace(&mut self, old: ValueId, new: ValueId) {
        for node in &mut self.nodes {
            for input in node.inputs.iter_mut().flatten() {
                if *input == old {
                    *input = new;
                }
            }
        }
        if self.outputs.contains(&old) {
            self.outputs
                .iter_mut()
                .filter(|o| **o == old)
                .for_each(|o| *o = new);
            self.values[new.index()].name = self.values[old.index()].name.clone();
        }
    }

    /// How often each value is read, outputs counted, by value index.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        for value in self
            .nodes
            .iter()
            .flat_map(Node::operands)
            .chain(self.outputs.iter().copied())
        {
            counts[value.index()] += 1;
        }
        counts
    }

    /// The nodes that read a value, in order.
    pub fn readers(&self, value: ValueId) -> Vec<NodeId> {
        self.iter_nodes()
            .filter(|(_, n)| n.operands().any(|o| o == value))
            .map(|(id, _)| id)
            .collect()
    }

    /// Drops what no output needs (inputs stay), orders the nodes depth first from the outputs, operands in slot order,
    /// and renumbers. Returns how many nodes were dropped.
    pub fn tidy(&mut self) -> usize {
        let before = self.nodes.len();
        let mut old = std::mem::take(self);
        let mut fresh = Graph::new(std::mem::take(&mut old.name));
        let mut map: HashMap<ValueId, ValueId> = HashMap::new();
        for input in &old.inputs {
            let value = old.value(*input);
            map.insert(*input, fresh.add_input(value.name.clone(), &value.shape));
        }
        // An explicit stack: a value is visited once to push its operands and once to be numbered.
        let mut stack: Vec<(ValueId, bool)> =
            old.outputs.iter().rev().map(|o| (*o, false)).collect();
        while let Some((id, ready)) = stack.pop() {
            if map.contains_key(&id) {
                continue;
            }
            let value = old.value(id);
            let new = match &value.kind {
                ValueKind::Input => fresh.add_input(value.name.clone(), &value.shape),
                ValueKind::Weight(_) => fresh.push(value.clone()),
                ValueKind::Node(node) if ready => {
                    let number = NodeId(fresh.nodes.len() as u32);
                    let output = fresh.push(Value {
                        kind: ValueKind::Node(number),
                        ..value.clone()
                    });
                    let mut node = old.node(*node).clone();
                    node.inputs.iter_mut().flatten().for_each(|i| *i = map[i]);
                    node.output = output;
                    fresh.nodes.push(node);
                    output
                }
                ValueKind::Node(node) => {
                    stack.push((id, true));
                    let operands: Vec<_> = old.node(*node).operands().collect();
                    stack.extend(operands.into_iter().rev().map(|o| (o, false)));
                    continue;
                }
            };
            map.insert(id, new);
        }
        fresh.outputs = old.outputs.iter().map(|o| map[o]).collect();
        *self = fresh;
        before - self.nodes.len()
    }
}
