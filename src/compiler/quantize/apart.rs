//! Runs of a graph beside an exact one, in each of which something else is computed from codes.
//!
//! A run is the exact one until the first product that is computed from codes there, so up to that it costs nothing: the
//! numbers are shared.

use std::rc::Rc;

use crate::graph::{InterpretError, NodeId, Tensor};

use super::evaluate::{Evaluator, Held, Layer, coded, exact};

/// What is computed from codes in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Every product that reads codes.
    All,
    /// That one alone.
    One(NodeId),
}

impl Lane {
    fn has(self, product: NodeId) -> bool {
        match self {
            Lane::All => true,
            Lane::One(one) => one == product,
        }
    }
}

impl Evaluator {
    /// The results of a layer: of each group of sets the exact one, then that of each lane.
    pub(super) fn apart(
        &self,
        layer: &Layer<'_>,
        lanes: &[Lane],
        read: &mut dyn FnMut(usize),
    ) -> Result<Vec<Held>, InterpretError> {
        let (graph, node) = (layer.graph, layer.graph.node(layer.id));
        let tensor = |data| {
            Rc::new(Tensor {
                shape: graph.shape(node.output).to_vec(),
                data,
            })
        };
        let matrix = layer.matrix.map(|weight| weight.read().into_owned());
        if let Some(matrix) = &matrix {
            read(matrix.len());
        }
        let panels = matrix
            .as_ref()
            .map(|matrix| self.panels(graph, node, matrix));
        let from_codes =
            |lane: Lane| lane.has(layer.id) && layer.matrix.is_some() && graph.has_integers(node);
        let integers = matrix
            .filter(|_| lanes.iter().any(|lane| from_codes(*lane)))
            .map(|matrix| self.integer_panels(layer, matrix));
        let computed = |operands: Vec<_>, panels: Option<&[f32]>| {
            let numbers = self.compute(graph, node, &operands, panels)?;
            Ok(Held {
                exact: tensor(numbers),
                coded: None,
            })
        };
        let plain = |operands: &[Option<Held>]| -> Result<Held, InterpretError> {
            if graph.codes(node.output).is_some() {
                let [numbers, coded] = self.codes(graph, node, &exact(operands))?;
                return Ok(Held {
                    exact: tensor(numbers),
                    coded: Some(tensor(coded)),
                });
            }
            computed(exact(operands), panels.as_deref())
        };
        let mut results = Vec::with_capacity(layer.operands.len());
        for group in layer.operands.chunks(1 + lanes.len()) {
            let first = plain(&group[0])?;
            results.push(first.clone());
            for (lane, operands) in lanes.iter().zip(&group[1..]) {
                results.push(if from_codes(*lane) {
                    computed(coded(operands), integers.as_deref())?
                } else if same(operands, &group[0]) {
                    first.clone()
                } else {
                    plain(operands)?
                });
            }
        }
        Ok(results)
    }
}

/// Whether operands are shared with the exact run's.
fn same(operands: &[Option<Held>], exact: &[Option<Held>]) -> bool {
    operands
        .iter()
        .zip(exact)
        .all(|(operand, exact)| match (operand, exact) {
            (Some(operand), Some(exact)) => Rc::ptr_eq(&operand.exact, &exact.exact),
            (None, None) => true,
            _ => false,
        })
}
