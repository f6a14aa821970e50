//! The graph's meaning, in plain `f32`: one short function per operator, nothing fast but the inner loops of the sums.
//! Codes stand as the numbers that they mean, and so do the integer weights of a product of codes. Passes are checked
//! against it, and so is everything that claims to run a graph. `operators` has the functions, here is the walk.

mod operators;

use super::op::{Activation, Op};
use super::verify::rows;
use super::view::View;
use super::{Graph, Node, ValueId, codes};
use operators::{
    activate, along, attention, binary, c_of, conv, einsum, enlarge, finish, gelu,
    integer_attention, look_up, matmul_nt, moments, reduce, softmax, unary,
};
pub(crate) use operators::{beside, group_norm};
use std::rc::Rc;

/// A dense tensor, row-major. Integers are held as `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Vec<f32>,
}

/// Why a graph could not be interpreted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InterpretError {
    /// The inputs given are not those of the graph.
    #[error("graph {graph:?}: input {index} has the shape {found:?}, should be {expected:?}")]
    Input {
        /// The graph's name.
        graph: String,
        /// Which input.
        index: usize,
        /// Its shape; empty when it is missing.
        found: Vec<usize>,
        /// What it should be.
        expected: Vec<usize>,
    },
    /// A kernel refuses a node's operands.
    #[error("{node}: {reason}")]
    Kernel {
        /// The node's name.
        node: String,
        /// What it says.
        reason: String,
    },
    /// An index outside a table.
    #[error("{node} reads row {row} of a table of {len}")]
    Row {
        /// The node's name.
        node: String,
        /// The index.
        row: f32,
        /// Rows of the table.
        len: usize,
    },
    /// Someone asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Graph {
    /// Runs the graph. `inputs` stand in the order of [`Graph::inputs`]; so do the results in that of the outputs. The graph
    /// must have passed [`Graph::verify`].
    pub fn interpret(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, InterpretError> {
        self.check_inputs(inputs)?;
        let mut values: Vec<Option<Rc<Tensor>>> = vec![None; self.value_count()];
        for (id, input) in self.inputs.iter().zip(inputs) {
            values[id.index()] = Some(Rc::new(input.clone()));
        }
        let mut uses = self.use_counts();
        for (_, node) in self.iter_nodes() {
            let mut operands: Vec<Option<Rc<Tensor>>> = node
                .inputs
                .iter()
                .map(|operand| {
                    let operand = (*operand)?;
                    self.constant(operand)
                        .map(Rc::new)
                        .or_else(|| values[operand.index()].clone())
                })
                .collect();
            if self.has_integers(node) {
                represent_weight(node, &mut operands);
            }
            let out = self.compute(node, &operands)?;
            values[node.output.index()] = Some(Rc::new(out));
            for operand in node.operands() {
                uses[operand.index()] -= 1;
                if uses[operand.index()] == 0 {
                    values[operand.index()] = None;
                }
            }
        }
        let read = |id: &ValueId| {
            let computed = || values[id.index()].as_deref().cloned();
            self.constant(*id).or_else(computed).unwrap_or(Tensor {
                shape: vec![0],
                data: vec![],
            })
        };
        Ok(self.outputs.iter().map(read).collect())
    }

    /// Whether these can be the graph's inputs.
    pub(crate) fn check_inputs(&self, inputs: &[Tensor]) -> Result<(), InterpretError> {
        for (index, id) in self.inputs.iter().enumerate() {
            let expected = self.shape(*id);
            let found = inputs.get(index).map_or(&[][..], |t| &t.shape);
            if inputs.len() <= index
                || found != expected
                || inputs[index].data.len() != self.value(*id).len()
            {
                let (found, expected) = (found.to_vec(), expected.to_vec());
                return Err(InterpretError::Input {
                    graph: self.name.clone(),
                    index,
                    found,
                    expected,
                });
            }
        }
        Ok(())
    }

    /// The elements of a constant; `None` for any other value.
    pub(crate) fn constant(&self, value: ValueId) -> Option<Tensor> {
        let weight = self.value(value).weight()?;
        Some(Tensor {
            shape: self.shape(value).to_vec(),
            data: weight.read().into_owned(),
        })
    }

    /// Whether the node is a product of codes and integer weights.
    pub(crate) fn multiplies_codes(&self, node: &Node) -> bool {
        node.input("weight").is_some() && node.input("x").is_some_and(|x| self.codes(x).is_some())
    }

    /// Whether the node's weights are integers: a product of codes, or a table in 8 bits.
    pub(crate) fn has_integers(&self, node: &Node) -> bool {
        node.op == (Op::Embed { quantized: true }) || self.multiplies_codes(node)
    }

    /// The node's result from its operands, as numbers of `f32`. Codes are given, and come, as what they stand for.
    pub(crate) fn compute(
        &self,
        node: &Node,
        operands: &[Option<Rc<Tensor>>],
    ) -> Result<Tensor, InterpretError> {
        let shape = self.shape(node.output).to_vec();
        let slots = node.op.slots();
        let get = |slot: &str| {
            let index = slots.iter().position(|s| *s == slot)?;
            operands.get(index)?.as_deref()
        };
        let data = |slot: &str| get(slot).map(|t| t.data.as_slice());
        // A verified graph fills the required slots.
        let empty = Tensor {
            shape: vec![],
            data: vec![],
        };
        let first = operands
            .first()
            .and_then(|t| t.as_deref())
            .unwrap_or(&empty);
        let second = operands.get(1).and_then(|t| t.as_deref()).unwrap_or(&empty);
        let x = first.data.as_slice();
        let c = c_of(&first.shape);
        let data = match &node.op {
            Op::Conv2d {
                stride,
                pad,
                up,
                activation,
            } => {
                let (h, w) = (first.shape[0], first.shape[1]);
                let up = up.unwrap_or([h, w]);
                let enlarged = enlarge(x, [h, w, c], up);
                let weight = get("weight").unwrap_or(&empty);
                let mut out = conv(
                    &enlarged,
                    [up[0], up[1], c],
                    weight,
                    *stride,
                    *pad,
                    [shape[0], shape[1]],
                );
                finish(
                    &mut out,
                    shape[2],
                    data("bias"),
                    data("shift"),
                    *activation,
                    data("residual"),
                );
                out
            }
            Op::Linear { activation } => {
                let x = beside(first, get("x2"));
                let weight = get("weight").unwrap_or(&empty);
                let mut out = matmul_nt(&x.data, &weight.data, weight.shape[0], weight.shape[1]);
                if *activation == Activation::Geglu {
                    finish(
                        &mut out,
                        weight.shape[0],
                        data("bias"),
                        None,
                        Activation::None,
                        None,
                    );
                    let n = shape[shape.len() - 1];
                    out = out
                        .chunks_exact(2 * n)
                        .flat_map(|r| (0..n).map(|i| r[i] * gelu(r[n + i])))
                        .collect();
                    finish(&mut out, n, None, None, Activation::None, data("residual"));
                } else {
                    finish(
                        &mut out,
                        weight.shape[0],
                        data("bias"),
                        data("shift"),
                        *activation,
                        data("residual"),
                    );
                }
                out
            }
            Op::GroupNorm {
                groups,
                eps,
                activation,
                quantized,
            } => {
                let x = beside(first, get("x2"));
                let first = if *quantized {
                    Activation::None
                } else {
                    *activation
                };
                let mut out = group_norm(
                    &x.data,
                    rows(&x.shape),
                    *groups,
                    *eps,
                    data("gamma"),
                    data("beta"),
                    first,
                );
                if *quantized {
                    codes::represent_norm(&mut out, c_of(&shape), |v| activate(v, *activation));
                }
                out
            }
            Op::SourceGroupNorm {
                groups,
                eps,
                activation,
            } => {
                let n: usize = first.shape[2..].iter().product();
                let c = first.shape[1];
                let moved = View::dense(&[c, n]).transpose(&[1, 0]).gather(x);
                let out = group_norm(
                    &moved,
                    (n, c),
                    *groups,
                    *eps,
                    data("gamma"),
                    data("beta"),
                    *activation,
                );
                View::dense(&[n, c]).transpose(&[1, 0]).gather(&out)
            }
            Op::LayerNorm { eps, quantized } => {
                let mut out = Vec::with_capacity(x.len());
                for row in x.chunks_exact(c) {
                    let (mean, variance) = moments(row.iter().copied(), row.len());
                    let scale = 1.0 / (variance + f64::from(*eps)).sqrt();
                    out.extend(row.iter().enumerate().map(|(i, v)| {
                        let v = ((f64::from(*v) - mean) * scale) as f32;
                        v * data("gamma").map_or(1.0, |g| g[i]) + data("beta").map_or(0.0, |b| b[i])
                    }));
                }
                if *quantized {
                    codes::represent_rows(&mut out, c);
                }
                out
            }
            Op::Quantize { per_row } => {
                let mut out = beside(first, get("x2")).data;
                let set = if *per_row { c_of(&shape) } else { out.len() };
                codes::represent_rows(&mut out, set);
                out
            }
            Op::Attention {
                heads,
                scale,
                integers: true,
                ..
            } => {
                let (k, v) = (data("k").unwrap_or(&[]), data("v").unwrap_or(&[]));
                integer_attention(x, k, v, c, *heads, *scale)
            }
            Op::Attention {
                heads,
                scale,
                causal,
                ..
            } => {
                let (k, v) = (data("k").unwrap_or(&[]), data("v").unwrap_or(&[]));
                attention(x, k, v, c, *heads, *scale, *causal, data("mask"))
            }
            Op::Unary { activation } => x.iter().map(|v| activate(*v, *activation)).collect(),
            Op::Affine { scale, offset } => x.iter().map(|v| v * scale + offset).collect(),
            Op::Binary { kind } => {
                let b = &second.data;
                x.iter()
                    .enumerate()
                    .map(|(i, v)| binary(*kind, *v, b[i % b.len()]))
                    .collect()
            }
            Op::Concat => beside(first, Some(second)).data,
            Op::Upsample { size } => enlarge(x, [first.shape[0], first.shape[1], c], *size),
            Op::Embed { .. } => {
                let table = data("table").unwrap_or(&[]);
                let mut out = look_up(node, x, table, table.len() / c_of(&shape))?;
                if let Some(positions) = data("positions") {
                    out.iter_mut().zip(positions).for_each(|(o, p)| *o += p);
                }
                out
            }
            Op::Gather => look_up(node, &second.data, x, first.shape[0])?,
            Op::TimestepEmbedding { cos_first } => {
                let angles: Vec<f32> = second.data.iter().map(|f| x[0] * f).collect();
                let sin = angles.iter().map(|a| libm::sinf(*a));
                let cos = angles.iter().map(|a| libm::cosf(*a));
                if *cos_first {
                    cos.chain(sin).collect()
                } else {
                    sin.chain(cos).collect()
                }
            }
            Op::Softmax => {
                let mut out = x.to_vec();
                out.chunks_exact_mut(c).for_each(softmax);
                out
            }
            Op::Copy {
                shape,
                strides,
                offset,
            } => View {
                shape: shape.clone(),
                strides: strides.clone(),
                offset: *offset,
            }
            .gather(x),
            Op::SourceConv { stride, pad } => {
                let [c, h, w] = [first.shape[1], first.shape[2], first.shape[3]];
                let moved = View::dense(&[c, h, w]).transpose(&[1, 2, 0]).gather(x);
                let weight = get("weight").unwrap_or(&empty);
                let mut out = conv(
                    &moved,
                    [h, w, c],
                    weight,
                    *stride,
                    *pad,
                    [shape[2], shape[3]],
                );
                finish(
                    &mut out,
                    shape[1],
                    data("bias"),
                    None,
                    Activation::None,
                    None,
                );
                View::dense(&[shape[2], shape[3], shape[1]])
                    .transpose(&[2, 0, 1])
                    .gather(&out)
            }
            Op::Einsum { equation } => einsum(equation, first, second),
            Op::SourceBinary { kind } => {
                let mut a = View::dense(&first.shape).expand(&shape).gather(x);
                let b = View::dense(&second.shape)
                    .expand(&shape)
                    .gather(&second.data);
                a.iter_mut()
                    .zip(b)
                    .for_each(|(a, b)| *a = binary(*kind, *a, b));
                a
            }
            Op::SourceUnary { kind } => x.iter().map(|v| unary(*kind, *v)).collect(),
            Op::Reduce { kind, axes } => reduce(first, *kind, axes, &shape),
            Op::RmsNorm { axis, eps } => along(first, *axis, |row| {
                let square =
                    row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / row.len() as f64;
                let scale = (1.0 / (square + f64::from(*eps)).sqrt()) as f32;
                row.iter_mut().for_each(|v| *v *= scale);
            }),
            Op::SourceSoftmax { axis } => along(first, *axis, softmax),
            Op::Reshape { .. } => x.to_vec(),
            Op::Transpose { perm } => View::dense(&first.shape).transpose(perm).gather(x),
            Op::Slice { axis, start, end } => View::dense(&first.shape)
                .slice(*axis, *start, *end)
                .gather(x),
            Op::Expand { shape } => View::dense(&first.shape).expand(shape).gather(x),
            Op::SourceConcat { axis } => {
                let inner: usize = shape[axis + 1..].iter().product();
                let outer: usize = shape[..*axis].iter().product();
                let parts = || {
                    operands
                        .iter()
                        .flatten()
                        .map(|t| (&t.data, t.shape[*axis] * inner))
                };
                (0..outer)
                    .flat_map(|o| {
                        parts().flat_map(move |(d, n)| d[o * n..(o + 1) * n].iter().copied())
                    })
                    .collect()
            }
            Op::SourceUpsample { scale } => {
                let [c, h, w] = [first.shape[1], first.shape[2], first.shape[3]];
                let mut out = Vec::with_capacity(c * shape[2] * shape[3]);
                for plane in x.chunks_exact(h * w) {
                    out.extend(enlarge(plane, [h, w, 1], [h * scale[0], w * scale[1]]));
                }
                out
            }
        };
        Ok(Tensor { shape, data })
    }
}

/// Makes a product's weights, or a table, what its integers stand for.
pub(crate) fn represent_weight(node: &Node, operands: &mut [Option<Rc<Tensor>>]) {
    let slot = node
        .op
        .slots()
        .iter()
        .position(|slot| matches!(*slot, "weight" | "table"));
    if let Some(weight) = slot.and_then(|slot| operands.get_mut(slot)?.as_mut()) {
        let weight = Rc::make_mut(weight);
        codes::represent_weight(&mut weight.data, weight.shape[1..].iter().product());
    }
}
