//! A fused graph at another picture size: the inputs' heights and widths change, everything follows.
//!
//! What cannot follow is an error that names the node: a copy's strides, a constant as large as a picture. An enlargement
//! doubles, unless what it leads to stands beside a skip connection of another size: halving 33 rows gives 17, and
//! doubling those must give 33 again (diffusers' `forward_upsample_size`).

use super::op::Op;
use super::{BuildError, Graph, NodeId};
use std::collections::HashMap;

/// Why a graph has no form at a size.
#[derive(Clone, Debug, thiserror::Error)]
#[error("graph {graph:?} cannot have the size {height}x{width}: {reason}", height = size[0], width = size[1])]
pub struct ResizeError {
    /// The graph's name.
    pub graph: String,
    /// Height and width of the graph's picture input.
    pub size: [usize; 2],
    /// The node, and what about it does not fit.
    pub reason: String,
}

impl Graph {
    /// The graph for a picture input of `size` (height, width): the input of three axes.
    pub fn resized(&self, size: [usize; 2]) -> Result<Graph, ResizeError> {
        let error = |reason: String| ResizeError {
            graph: self.name.clone(),
            size,
            reason,
        };
        let mut pictures = self
            .inputs
            .iter()
            .map(|id| self.shape(*id))
            .filter(|shape| follows(shape));
        if pictures.all(|shape| shape[..2] == size) {
            return Ok(self.clone());
        }
        let mut sizes: HashMap<NodeId, [usize; 2]> = HashMap::new();
        // Each round fixes the size of one enlargement more, so there are not more rounds than nodes.
        for _ in 0..=self.node_count() {
            let mut graph = self.clone();
            for id in &self.inputs {
                if let [h, w, _] = graph.values[id.index()].shape.as_mut_slice() {
                    (*h, *w) = (size[0], size[1]);
                }
            }
            match graph.infer_all(&sizes) {
                Ok(()) => return Ok(graph),
                Err((id, e)) => {
                    let (up, wanted) = graph
                        .mismatch(id, &sizes)
                        .ok_or_else(|| error(e.to_string()))?;
                    sizes.insert(up, wanted);
                }
            }
        }
        Err(error("its enlargements do not settle".into()))
    }

    /// The graph for `rows` rows of the input of that name, which has two axes. Enlargements keep their sizes.
    pub fn with_rows(&self, input: &str, rows: usize) -> Result<Graph, BuildError> {
        let mut graph = self.clone();
        for id in &self.inputs {
            let value = &mut graph.values[id.index()];
            if let ([own, _], true) = (value.shape.as_mut_slice(), value.name == input) {
                *own = rows;
            }
        }
        for id in self.node_ids() {
            graph.infer_node(id)?;
            let node = graph.node(id);
            let moved = node
                .operands()
                .any(|operand| graph.shape(operand) != self.shape(operand));
            if moved && matches!(node.op, Op::Copy { .. }) {
                let rule = format!("its strides are those of {:?}", self.shape(node.output));
                return Err(BuildError {
                    op: node.op.name(),
                    name: node.name.clone(),
                    rule,
                });
            }
        }
        Ok(graph)
    }

    /// Infers every shape; enlargements become those of `sizes`, else twice their input. On an error gives the node.
    fn infer_all(
        &mut self,
        sizes: &HashMap<NodeId, [usize; 2]>,
    ) -> Result<(), (NodeId, BuildError)> {
        for id in self.node_ids() {
            let node = self.node(id);
            let x = node.inputs[0]
                .map(|x| self.shape(x).to_vec())
                .unwrap_or_default();
            if matches!(node.op, Op::Copy { .. } | Op::Reshape { .. }) && follows(&x) {
                let rule = format!("its strides are those of {:?}", self.shape(node.output));
                return Err((
                    id,
                    BuildError {
                        op: node.op.name(),
                        name: node.name.clone(),
                        rule,
                    },
                ));
            }
            if let Op::Upsample { size } | Op::Conv2d { up: Some(size), .. } =
                &mut self.node_mut(id).op
            {
                *size = sizes.get(&id).copied().unwrap_or([x[0] * 2, x[1] * 2]);
            }
            self.infer_node(id).map_err(|e| (id, e))?;
        }
        Ok(())
    }

    /// The enlargement to blame for two sources of different heights or widths at a node, and the size that it must have.
    fn mismatch(
        &self,
        id: NodeId,
        sizes: &HashMap<NodeId, [usize; 2]>,
    ) -> Option<(NodeId, [usize; 2])> {
        let node = self.node(id);
        let (x, x2) = (node.input("x")?, node.input("x2")?);
        let ([h, w, _], [h2, w2, _]) = (self.shape(x), self.shape(x2)) else {
            return None;
        };
        if (h, w) == (h2, w2) {
            return None;
        }
        let mut value = x;
        loop {
            let (id, node) = self.producer(value)?;
            let enlarges = matches!(
                node.op,
                Op::Upsample { .. } | Op::Conv2d { up: Some(_), .. }
            );
            if enlarges {
                return (!sizes.contains_key(&id)).then_some((id, [*h2, *w2]));
            }
            value = node.inputs[0]?;
        }
    }
}

/// Whether a shape follows the picture's: rows that are pixels have its height and width.
fn follows(shape: &[usize]) -> bool {
    shape.len() == 3
}
