//! Drops the batch axis and turns pictures to `[height, width, channels]`; movement becomes strides and vanishes.
//!
//! ```text
//! input %0 "sample" [1, 4, 8, 8]
//! %2 = source_conv (x: %0, weight: %1) {..} [1, 16, 8, 8]
//! %3 = transpose (x: %2) {perm: [0, 2, 3, 1]}
//! %4 = reshape (x: %3) {shape: [1, 64, 16]}
//! %5 = layer_norm (x: %4) {..} [1, 64, 16]
//! ```
//! becomes
//! ```text
//! input %0 "sample" [8, 8, 4]
//! %2 = conv2d (x: %0, weight: %1) {..} [8, 8, 16]
//! %5 = layer_norm (x: %2) {..} [8, 8, 16]
//! ```
//!
//! Every source value is a [`View`] of a value of the new graph. An operator asks for its operands in the order in which
//! it walks memory; where the view already is that order nothing happens, else a `copy` brings it there. Rows keep the
//! shape of the picture whose pixels they are. An operator without a counterpart stays as it is, on dense copies, for the
//! error that names it.

use super::matmul::Moved;
use crate::graph::{
    Activation, BinaryKind, BuildError, Graph, Node, Op, ValueId, ValueKind, verify, view::View,
};

/// Where a source value lies.
#[derive(Clone)]
struct Place {
    base: ValueId,
    view: View,
}

struct Converter<'g> {
    old: &'g Graph,
    new: Graph,
    places: Vec<Option<Place>>,
}

pub(super) fn convert(graph: &mut Graph) -> Result<usize, BuildError> {
    let mut c = Converter {
        old: graph,
        new: Graph::new(graph.name.clone()),
        places: vec![None; graph.value_count()],
    };
    for id in &graph.inputs {
        let value = graph.value(*id);
        let place = match value.shape.as_slice() {
            [1, ch, h, w] => {
                let base = c.new.add_input(value.name.clone(), &[*h, *w, *ch]);
                c.picture(base)
            }
            shape => {
                let inner = if shape.len() > 1 && shape[0] == 1 {
                    &shape[1..]
                } else {
                    shape
                };
                let inner = if inner.is_empty() { &[1][..] } else { inner };
                Place {
                    base: c.new.add_input(value.name.clone(), inner),
                    view: View::dense(shape),
                }
            }
        };
        c.places[id.index()] = Some(place);
    }
    for (_, node) in graph.iter_nodes() {
        let place = c.node(node)?;
        c.places[node.output.index()] = Some(place);
    }
    for id in &graph.outputs {
        let place = c.place(*id);
        let value = c.port(&place, &graph.value(*id).name)?;
        c.new.value_mut(value).name = graph.value(*id).name.clone();
        c.new.outputs.push(value);
    }
    let fired = graph.node_count();
    *graph = c.new;
    Ok(fired)
}

/// Whether the view walks every element of its base once.
fn is_whole(view: &View, len: usize) -> bool {
    let order = memory_order(view);
    view.offset == 0 && view.len() == len && view.transpose(&order).is_dense()
}

/// The axes from the largest stride to the smallest, those of size 1 first.
fn memory_order(view: &View) -> Vec<usize> {
    let mut order: Vec<usize> = (0..view.shape.len()).collect();
    order.sort_by_key(|i| (view.shape[*i] != 1, std::cmp::Reverse(view.strides[*i])));
    order
}

/// `[1, c, rest..]` seen as `[rest.., c]`.
fn channels_last(view: &View) -> View {
    let mut order: Vec<usize> = (2..view.shape.len()).collect();
    order.push(1);
    view.transpose(&order)
}

impl Converter<'_> {
    fn place(&mut self, id: ValueId) -> Place {
        if let Some(place) = &self.places[id.index()] {
            return place.clone();
        }
        // Only weights have no place yet: the nodes stand in order.
        let value = self.old.value(id);
        let base = match &value.kind {
            ValueKind::Weight(weight) => self.new.add_weight(value.name.clone(), weight.clone()),
            _ => self.new.add_input(value.name.clone(), &value.shape),
        };
        let place = Place {
            base,
            view: View::dense(&value.shape),
        };
        self.places[id.index()] = Some(place.clone());
        place
    }

    /// A picture `[h, w, c]` as the source's `[1, c, h, w]`.
    fn picture(&self, base: ValueId) -> Place {
        let [h, w, c] = [0, 1, 2].map(|i| self.new.shape(base)[i]);
        let view = View {
            shape: vec![1, h, w, c],
            ..View::dense(&[1, h, w, c])
        };
        Place {
            base,
            view: view.transpose(&[0, 3, 1, 2]),
        }
    }

    /// The elements of `view` in its order. Any dense value whose last axis has `columns` elements will do; else a copy
    /// of `shape` is made.
    fn gather(
        &mut self,
        base: ValueId,
        view: &View,
        shape: &[usize],
        columns: usize,
        name: &str,
    ) -> Result<ValueId, BuildError> {
        let own = self.new.shape(base);
        if view.is_dense()
            && view.len() == self.new.value(base).len()
            && own.last() == Some(&columns)
        {
            return Ok(base);
        }
        self.copy(base, view, shape, name)
    }

    fn copy(
        &mut self,
        base: ValueId,
        view: &View,
        shape: &[usize],
        name: &str,
    ) -> Result<ValueId, BuildError> {
        let direct = view.reshape(shape).filter(|v| v.shape.len() <= 4);
        let squeezed = || {
            let axes: Vec<usize> = (0..view.shape.len())
                .filter(|i| view.shape[*i] != 1)
                .collect();
            view.transpose(&axes)
        };
        let whole = direct.is_some();
        let view = direct.unwrap_or_else(squeezed);
        let op = Op::Copy {
            shape: view.shape,
            strides: view.strides,
            offset: view.offset,
        };
        let copy = self.new.add_full(op, &[base], name)?;
        if whole {
            Ok(copy)
        } else {
            self.copy(copy, &View::dense(self.new.shape(copy)), shape, name)
        }
    }

    /// A picture-shaped operand as `[h, w, c]`.
    fn as_picture(&mut self, id: ValueId, name: &str) -> Result<ValueId, BuildError> {
        let place = self.place(id);
        let view = channels_last(&place.view);
        let shape = view.shape.clone();
        if self.new.shape(place.base) == shape && view.is_dense() {
            return Ok(place.base);
        }
        self.copy(place.base, &view, &shape, name)
    }

    /// An operand whose last axis is walked row by row.
    fn as_rows(&mut self, id: ValueId, name: &str) -> Result<ValueId, BuildError> {
        let place = self.place(id);
        let shape = match place.view.shape.as_slice() {
            [1, rest @ ..] if rest.len() > 1 => rest.to_vec(),
            shape => shape.to_vec(),
        };
        let columns = shape.last().copied().unwrap_or(1);
        self.gather(place.base, &place.view, &shape, columns, name)
    }

    /// A value in the shape that it leaves the graph with.
    fn port(&mut self, place: &Place, name: &str) -> Result<ValueId, BuildError> {
        // A picture may be one pixel high.
        let picture = place.view.shape.len() == 4;
        let view = if picture {
            channels_last(&place.view)
        } else {
            place.view.clone()
        };
        let shape = match view.shape.as_slice() {
            [1, rest @ ..] if rest.len() > 1 && !picture => rest.to_vec(),
            shape => shape.to_vec(),
        };
        if self.new.shape(place.base) == shape && view.is_dense() {
            return Ok(place.base);
        }
        self.copy(place.base, &view, &shape, name)
    }

    fn node(&mut self, node: &Node) -> Result<Place, BuildError> {
        let name = node.name.as_str();
        let shape = self.old.shape(node.output).to_vec();
        let operand = |slot: usize| node.inputs.get(slot).copied().flatten();
        let Some(first) = operand(0) else {
            return self.keep(node);
        };
        match &node.op {
            Op::Reshape { shape } => {
                let place = self.place(first);
                if let Some(view) = place.view.reshape(shape) {
                    return Ok(Place { view, ..place });
                }
                let dense = self.as_rows(first, name)?;
                Ok(Place {
                    base: dense,
                    view: View::dense(shape),
                })
            }
            Op::Transpose { perm } => {
                let place = self.place(first);
                Ok(Place {
                    view: place.view.transpose(perm),
                    ..place
                })
            }
            Op::Slice { axis, start, end } => {
                let place = self.place(first);
                Ok(Place {
                    view: place.view.slice(*axis, *start, *end),
                    ..place
                })
            }
            Op::Expand { shape } => {
                let place = self.place(first);
                Ok(Place {
                    view: place.view.expand(shape),
                    ..place
                })
            }
            Op::SourceConv { stride, pad } => self.conv(node, first, *stride, *pad),
            Op::SourceUpsample { .. } => {
                let x = self.as_picture(first, name)?;
                let base = self.new.add_full(
                    Op::Upsample {
                        size: [shape[2], shape[3]],
                    },
                    &[x],
                    name,
                )?;
                Ok(self.picture(base))
            }
            Op::SourceGroupNorm {
                groups,
                eps,
                activation,
            } => {
                let place = self.place(first);
                let view = channels_last(&place.view);
                let x = self.gather(place.base, &view, &view.shape, shape[1], name)?;
                let op = Op::GroupNorm {
                    groups: *groups,
                    eps: *eps,
                    activation: *activation,
                    quantized: false,
                };
                let (gamma, beta) = (self.vector(operand(1)), self.vector(operand(2)));
                let base = self.new.add(op, &[Some(x), None, gamma, beta], name)?;
                let mut back: Vec<usize> = vec![0, shape.len() - 1];
                back.extend(1..shape.len() - 1);
                let moved: Vec<usize> = [&[1], &shape[2..], &[shape[1]]].concat();
                Ok(Place {
                    base,
                    view: View::dense(&moved).transpose(&back),
                })
            }
            Op::SourceConcat { axis: 1 } if shape.len() == 4 => {
                let mut parts = Vec::new();
                for part in node.operands() {
                    parts.push(self.as_picture(part, name)?);
                }
                let base = self.concat(&parts, name)?;
                Ok(self.picture(base))
            }
            Op::SourceConcat { axis } if axis + 1 == shape.len() => {
                let mut parts = Vec::new();
                for part in node.operands() {
                    parts.push(self.as_rows(part, name)?);
                }
                let base = self.concat(&parts, name)?;
                Ok(Place {
                    base,
                    view: View::dense(&shape),
                })
            }
            Op::SourceSoftmax { axis } if axis + 1 == shape.len() => {
                let x = self.as_rows(first, name)?;
                Ok(Place {
                    base: self.new.add_full(Op::Softmax, &[x], name)?,
                    view: View::dense(&shape),
                })
            }
            Op::SourceBinary { kind } => match operand(1) {
                Some(second) => self.binary(node, *kind, first, second),
                None => self.keep(node),
            },
            Op::Unary { .. } | Op::Affine { .. } => {
                let place = self.place(first);
                if is_whole(&place.view, self.new.value(place.base).len()) {
                    return Ok(Place {
                        base: self.new.add_full(node.op.clone(), &[place.base], name)?,
                        ..place
                    });
                }
                let x = self.as_rows(first, name)?;
                let base = self.new.add_full(node.op.clone(), &[x], name)?;
                Ok(Place {
                    base,
                    view: View::dense(&shape),
                })
            }
            Op::Linear { .. }
            | Op::LayerNorm { .. }
            | Op::Attention { .. }
            | Op::Softmax
            | Op::TimestepEmbedding { .. } => self.rows(node, &shape),
            Op::Embed { .. } => self.rows(node, &shape),
            _ => self.keep(node),
        }
    }

    /// An operator that walks rows: the same on the new values.
    fn rows(&mut self, node: &Node, shape: &[usize]) -> Result<Place, BuildError> {
        let mut inputs = Vec::new();
        for operand in &node.inputs {
            inputs.push(match operand {
                Some(id) if self.old.value(*id).weight().is_some() => Some(self.place(*id).base),
                Some(id) => Some(self.as_rows(*id, &node.name)?),
                None => None,
            });
        }
        let base = self.new.add(node.op.clone(), &inputs, node.name.as_str())?;
        Ok(Place {
            base,
            view: View::dense(shape),
        })
    }

    fn vector(&mut self, id: Option<ValueId>) -> Option<ValueId> {
        id.map(|id| self.place(id).base)
    }

    fn concat(&mut self, parts: &[ValueId], name: &str) -> Result<ValueId, BuildError> {
        let mut all = parts[0];
        for part in &parts[1..] {
            all = self.new.add_full(Op::Concat, &[all, *part], name)?;
        }
        Ok(all)
    }

    fn conv(
        &mut self,
        node: &Node,
        x: ValueId,
        stride: usize,
        pad: [usize; 4],
    ) -> Result<Place, BuildError> {
        let name = node.name.as_str();
        let x = self.as_picture(x, name)?;
        let Some(weight) = node.input("weight").map(|w| self.place(w)) else {
            return self.keep(node);
        };
        let bias = self.vector(node.input("bias"));
        let shape = self.new.shape(weight.base).to_vec();
        let constant = self.new.value(weight.base).weight().cloned();
        let base = match (shape.as_slice(), constant) {
            ([o, c, 1, 1], Some(constant)) if stride == 1 && pad == [0; 4] => {
                let constant = Moved::weight(constant, View::dense(&[*o, *c]), vec![*o, *c]);
                let weight_name = self.new.value(weight.base).name.clone();
                let weight = self.new.add_weight(weight_name, constant);
                let op = Op::Linear {
                    activation: Activation::None,
                };
                self.new
                    .add(op, &[Some(x), None, Some(weight), bias], name)?
            }
            _ => {
                let op = Op::Conv2d {
                    stride,
                    pad,
                    up: None,
                    activation: Activation::None,
                };
                self.new
                    .add(op, &[Some(x), Some(weight.base), bias], name)?
            }
        };
        Ok(self.picture(base))
    }

    fn binary(
        &mut self,
        node: &Node,
        kind: BinaryKind,
        a: ValueId,
        b: ValueId,
    ) -> Result<Place, BuildError> {
        let shape = self.old.shape(node.output).to_vec();
        let name = node.name.as_str();
        let full =
            |id: ValueId| self.old.value(id).weight().is_none() && self.old.shape(id) == shape;
        let commutes = matches!(kind, BinaryKind::Add | BinaryKind::Mul);
        let (x, y) = match (full(a), full(b)) {
            (true, _) => (a, b),
            (false, true) if commutes => (b, a),
            (false, true)
                if kind == BinaryKind::Sub && super::matching::scalar(self.old, a).is_some() =>
            {
                // c - x = -x + c
                let offset = super::matching::scalar(self.old, a).unwrap_or(0.0);
                return self.affine(b, -1.0, offset, name);
            }
            _ => return self.keep(node),
        };
        if let Some(c) = super::matching::scalar(self.old, y) {
            let (scale, offset) = match kind {
                BinaryKind::Add => (1.0, c),
                BinaryKind::Sub => (1.0, -c),
                BinaryKind::Mul => (c, 0.0),
                BinaryKind::Div => (1.0 / c, 0.0),
            };
            return self.affine(x, scale, offset, name);
        }
        let x = self.whole(x, name)?;
        let base_shape = self.new.shape(x.base).to_vec();
        let (rows, columns) = verify::rows(&base_shape);
        // The other operand as it is walked when `x` is walked through memory.
        let other = self.place(y);
        let order = memory_order(&x.view);
        let walked = other.view.expand(&shape).transpose(&order);
        let matrix = walked.reshape(&[rows, columns]);
        let row = matrix
            .as_ref()
            .filter(|m| m.strides[0] == 0 && rows > 1)
            .map(|m| m.slice(0, 0, 1));
        let constant = self.new.value(other.base).weight().cloned();
        let y = match (constant, row) {
            (Some(weight), row) => {
                let (view, shape) = match row {
                    Some(row) => (row, vec![columns]),
                    None => (walked, base_shape),
                };
                let weight_name = self.new.value(other.base).name.clone();
                self.new
                    .add_weight(weight_name, Moved::weight(weight, view, shape))
            }
            (None, Some(row)) if row.is_dense() && self.new.value(other.base).len() == columns => {
                other.base
            }
            // A picture of one pixel is a row as well; what is added to it must still be one when the picture grows.
            (None, None) if base_shape == [1, 1, columns] && self.is_row(&other, columns) => {
                other.base
            }
            (None, Some(row)) => self.copy(other.base, &row, &[1, columns], name)?,
            (None, None) if walked.is_dense() && self.new.shape(other.base) == base_shape => {
                other.base
            }
            (None, None) => self.copy(other.base, &walked, &base_shape, name)?,
        };
        Ok(Place {
            base: self.new.add_full(Op::Binary { kind }, &[x.base, y], name)?,
            ..x
        })
    }

    /// Whether a place is all of a value of one row.
    fn is_row(&self, place: &Place, columns: usize) -> bool {
        self.new.shape(place.base) == [1, columns] && is_whole(&place.view, columns)
    }

    fn affine(
        &mut self,
        x: ValueId,
        scale: f32,
        offset: f32,
        name: &str,
    ) -> Result<Place, BuildError> {
        let x = self.whole(x, name)?;
        Ok(Place {
            base: self
                .new
                .add_full(Op::Affine { scale, offset }, &[x.base], name)?,
            ..x
        })
    }

    /// A place whose view walks its whole base, in whatever order.
    fn whole(&mut self, id: ValueId, name: &str) -> Result<Place, BuildError> {
        let place = self.place(id);
        if is_whole(&place.view, self.new.value(place.base).len()) {
            return Ok(place);
        }
        let base = self.as_rows(id, name)?;
        Ok(Place {
            base,
            view: View::dense(&place.view.shape),
        })
    }

    /// An operator that has no counterpart, on operands of the source's shapes.
    fn keep(&mut self, node: &Node) -> Result<Place, BuildError> {
        let mut inputs = Vec::new();
        for operand in &node.inputs {
            let Some(id) = *operand else {
                inputs.push(None);
                continue;
            };
            let shape = self.old.shape(id).to_vec();
            let place = self.place(id);
            let dense = if place.view.is_dense() {
                place.base
            } else {
                self.as_rows(id, &node.name)?
            };
            inputs.push(Some(self.new.add_full(
                Op::Reshape { shape },
                &[dense],
                node.name.as_str(),
            )?));
        }
        let base = self.new.add(node.op.clone(), &inputs, node.name.as_str())?;
        Ok(Place {
            base,
            view: View::dense(self.new.shape(base)),
        })
    }
}
