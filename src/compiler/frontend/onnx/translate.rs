//! The importer's graph in the compiler's source operators, one for one but for three of its habits, undone here: a guard
//! against NaN after a softmax is dropped, integer casts vanish, and a value added to a convolution's output that was
//! folded into its bias is added to the output again.

use super::{OnnxError, hook};
use crate::graph::{
    Activation, BinaryKind, BuildError, Graph, Op, ReduceKind, UnaryKind, ValueId, Weight,
    WeightData,
};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use tract_core::internal::*;
use tract_core::ops::array::{Gather, MultiBroadcastTo, Slice, TypedConcat};
use tract_core::ops::binary::{BinMiniOp, TypedBinOp};
use tract_core::ops::cast::Cast;
use tract_core::ops::cnn::{Conv, KernelFormat, PaddingSpec};
use tract_core::ops::einsum::EinSum;
use tract_core::ops::element_wise::{ElementWiseMiniOp, ElementWiseOp};
use tract_core::ops::logic::Iff;
use tract_core::ops::math;
use tract_core::ops::nn::{
    DataFormat, GeluExact, NearestUpsample, Reduce, Reducer, RmsNorm, Sigmoid, Silu, Softmax,
    SoftmaxKind,
};

/// A constant of the importer.
struct Constant(Arc<Tensor>);

impl WeightData for Constant {
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn read(&self) -> Cow<'_, [f32]> {
        if let Some(slice) = self
            .0
            .try_as_plain_ram()
            .ok()
            .and_then(|t| t.as_slice::<f32>().ok())
        {
            return slice.into();
        }
        // The translation has seen that the cast works.
        elements(&self.0).unwrap_or_default().into()
    }
}

fn elements(tensor: &Tensor) -> TractResult<Vec<f32>> {
    // Shape arithmetic has a type of its own, which casts to integers only.
    let tensor = if tensor.datum_type() == TDim::datum_type() {
        tensor.cast_to::<i64>()?
    } else {
        Cow::Borrowed(tensor)
    };
    let tensor = tensor.cast_to::<f32>()?;
    Ok(tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
}

fn is_binary<T: BinMiniOp>(op: &TypedBinOp) -> bool {
    op.0.is::<T>()
}

fn is_unary<T: ElementWiseMiniOp>(node: &TypedNode) -> bool {
    node.op_as::<ElementWiseOp>()
        .is_some_and(|op| op.0.is::<T>())
}

struct Translator<'m> {
    model: &'m TypedModel,
    path: &'m Path,
    layers: &'m HashMap<String, String>,
    graph: Graph,
    values: HashMap<OutletId, ValueId>,
}

/// Translates the importer's graph. `layers` gives layer names by ONNX node name.
pub(super) fn translate(
    model: &TypedModel,
    name: &str,
    path: &Path,
    layers: &HashMap<String, String>,
) -> Result<Graph, OnnxError> {
    let mut t = Translator {
        model,
        path,
        layers,
        graph: Graph::new(name),
        values: HashMap::new(),
    };
    let failed = |e: TractError| OnnxError::Import {
        path: path.to_owned(),
        reason: format!("{e:#}"),
    };
    for outlet in &model.inputs {
        let shape = t
            .shape(*outlet)
            .map_err(|reason| t.error(model.node(outlet.node), reason))?;
        let value = t
            .graph
            .add_input(model.node(outlet.node).name.clone(), &shape);
        t.values.insert(*outlet, value);
    }
    for id in model.eval_order().map_err(failed)? {
        let node = model.node(id);
        if t.values.contains_key(&id.into()) || node.outputs.iter().all(|o| o.fact.konst.is_some())
        {
            continue;
        }
        let value = t.node(node).map_err(|reason| t.error(node, reason))?;
        t.values.insert(id.into(), value);
    }
    for outlet in &model.outputs {
        let value = t
            .value(*outlet)
            .map_err(|reason| t.error(model.node(outlet.node), reason))?;
        t.graph.outputs.push(value);
    }
    t.graph.tidy();
    Ok(t.graph)
}

impl Translator<'_> {
    fn error(&self, node: &TypedNode, reason: String) -> OnnxError {
        let (node, op) = (node.name.clone(), node.op.name().into_owned());
        OnnxError::Operator {
            path: self.path.to_owned(),
            node,
            op,
            reason,
        }
    }

    fn constant(&self, outlet: OutletId) -> Option<Arc<Tensor>> {
        self.model.outlet_fact(outlet).ok()?.konst.clone()
    }

    fn shape(&self, outlet: OutletId) -> Result<Vec<usize>, String> {
        let fact = self.model.outlet_fact(outlet).map_err(|e| e.to_string())?;
        let shape = fact
            .shape
            .as_concrete()
            .ok_or_else(|| format!("the shape {:?} is not fixed", fact.shape))?;
        Ok(shape.to_vec())
    }

    /// The value of an outlet; a constant becomes a weight, of rank 0 if it has one element and `scalar` is set.
    fn operand(&mut self, outlet: OutletId, scalar: bool) -> Result<ValueId, String> {
        if let Some(value) = self.values.get(&outlet) {
            return Ok(*value);
        }
        let tensor = self
            .constant(outlet)
            .ok_or("reads a value that was not translated")?;
        if tensor.len() == 1 || tensor.datum_type() != f32::datum_type() {
            let data = elements(&tensor).map_err(|e| format!("a constant cannot be read ({e})"))?;
            if let (true, [one]) = (scalar, data.as_slice()) {
                return Ok(self.graph.add_scalar(*one));
            }
        }
        let name = &self.model.node(outlet.node).name;
        let value = self.graph.add_weight(
            name.strip_suffix(".0").unwrap_or(name),
            Weight::new(Constant(tensor)),
        );
        self.values.insert(outlet, value);
        Ok(value)
    }

    fn value(&mut self, outlet: OutletId) -> Result<ValueId, String> {
        self.operand(outlet, false)
    }

    fn add(&mut self, op: Op, inputs: &[ValueId], name: &str) -> Result<ValueId, String> {
        self.graph
            .add_full(op, inputs, name)
            .map_err(|e: BuildError| e.rule)
    }

    /// The layer that a node belongs to: by its weights, else by the path that it is named by.
    fn layer(&self, node: &str) -> String {
        let known = self.layers.get(node).or_else(|| {
            // The importer appends to the names of nodes that it takes apart.
            node.match_indices('.')
                .rev()
                .find_map(|(end, _)| self.layers.get(&node[..end]))
        });
        if let Some(layer) = known {
            return layer.strip_prefix("model.").unwrap_or(layer).to_owned();
        }
        let Some(path) = node.strip_prefix('/') else {
            return node.to_owned();
        };
        let parts: Vec<&str> = path.split('/').collect();
        let parts = &parts[..parts.len() - 1];
        let parts = if parts.first() == Some(&"model") {
            &parts[1..]
        } else {
            parts
        };
        parts.join(".")
    }

    fn node(&mut self, node: &TypedNode) -> Result<ValueId, String> {
        let name = self.layer(&node.name);
        let outlet = OutletId::from(node.id);
        if let Some(op) = node.op_as::<TypedBinOp>() {
            let kind = match op {
                op if is_binary::<math::Add>(op) => BinaryKind::Add,
                op if is_binary::<math::Sub>(op) => BinaryKind::Sub,
                op if is_binary::<math::Mul>(op) => BinaryKind::Mul,
                op if is_binary::<math::Div>(op) => BinaryKind::Div,
                _ => return Err("no such operator between two tensors is supported".into()),
            };
            let (a, b) = (
                self.operand(node.inputs[0], true)?,
                self.operand(node.inputs[1], true)?,
            );
            return self.add(Op::SourceBinary { kind }, &[a, b], &name);
        }
        if let Some(op) = node.op_as::<Conv>() {
            return self.conv(node, op, &name);
        }
        if node.op_is::<Iff>() {
            return self.guard(node);
        }
        let reshape = |t: &Self| t.shape(outlet).map(|shape| Op::Reshape { shape });
        let dims = |dim: &TDim| dim.to_usize().map_err(|_| format!("{dim} is not fixed"));
        let op = if let Some(op) = node.op_as::<EinSum>() {
            if op.q_params.is_some() || node.inputs.len() != 2 {
                return Err("only products of two tensors of real numbers are supported".into());
            }
            let equation = op.axes.to_string();
            let repeats = equation.split([',', '-', '>']).any(|term| {
                let mut letters: Vec<char> = term.chars().collect();
                letters.sort_unstable();
                letters.windows(2).any(|w| w[0] == w[1])
            });
            if repeats {
                return Err(format!("the product {equation} is not supported"));
            }
            Op::Einsum { equation }
        } else if let Some(op) = node.op_as::<AxisOp>() {
            match op {
                AxisOp::Move(from, to) => {
                    let mut perm: Vec<usize> = (0..self.shape(outlet)?.len()).collect();
                    let axis = perm.remove(*from);
                    perm.insert(*to, axis);
                    Op::Transpose { perm }
                }
                _ => reshape(self)?,
            }
        } else if let Some(op) = node.op_as::<Reduce>() {
            let kind = match op.reducer {
                Reducer::Sum => ReduceKind::Sum,
                Reducer::MeanOfSquares => ReduceKind::MeanOfSquares,
                _ => return Err("only sums and means are supported".into()),
            };
            Op::Reduce {
                kind,
                axes: op.axes.to_vec(),
            }
        } else if let Some(op) = node.op_as::<RmsNorm>() {
            Op::RmsNorm {
                axis: op.axis,
                eps: op.eps.cast_to_scalar().map_err(|e| e.to_string())?,
            }
        } else if let Some(op) = node.op_as::<Softmax>() {
            match (op.axes.as_slice(), &op.kind, op.quant_output_dt) {
                ([axis], SoftmaxKind::Softmax, None) => Op::SourceSoftmax { axis: *axis },
                _ => return Err("only the plain softmax over one axis is supported".into()),
            }
        } else if let Some(op) = node.op_as::<Slice>() {
            Op::Slice {
                axis: op.axis,
                start: dims(&op.start)?,
                end: dims(&op.end)?,
            }
        } else if let Some(op) = node.op_as::<TypedConcat>() {
            Op::SourceConcat { axis: op.axis }
        } else if node.op_is::<MultiBroadcastTo>() {
            Op::Expand {
                shape: self.shape(outlet)?,
            }
        } else if let Some(op) = node.op_as::<NearestUpsample>() {
            match op.scales.as_slice() {
                [1, 1, h, w] => Op::SourceUpsample { scale: [*h, *w] },
                scales => return Err(format!("scales {scales:?} are not those of a picture")),
            }
        } else if let Some(op) = node.op_as::<Gather>() {
            if op.axis != 0 || op.output_type.is_some() {
                return Err(format!(
                    "only the rows of a table can be looked up, not axis {}",
                    op.axis
                ));
            }
            Op::Gather
        } else if let Some(op) = node.op_as::<Cast>() {
            let from = self
                .model
                .outlet_fact(node.inputs[0])
                .map_err(|e| e.to_string())?
                .datum_type;
            if from == f16::datum_type() || op.to == f16::datum_type() {
                return Err("the model computes in float16; export it in float32".into());
            }
            if from == bool::datum_type() || op.to == bool::datum_type() {
                return Err("truth values are not supported".into());
            }
            if !op.to.is_float() || from.is_float() {
                return self.value(node.inputs[0]);
            }
            Op::SourceUnary {
                kind: UnaryKind::Cast,
            }
        } else if is_unary::<Silu>(node) {
            Op::Unary {
                activation: Activation::Silu,
            }
        } else if is_unary::<GeluExact>(node) {
            Op::Unary {
                activation: Activation::Gelu,
            }
        } else if let Some(op) = node.op_as::<hook::GroupNorm>() {
            let op = Op::SourceGroupNorm {
                groups: op.groups,
                eps: f32::from_bits(op.eps_bits),
                activation: Activation::None,
            };
            return self.group_norm(node, op, &name);
        } else if let Some(kind) = unary(node) {
            Op::SourceUnary { kind }
        } else {
            return Err("the operator is not supported".into());
        };
        let inputs: Vec<ValueId> = node
            .inputs
            .iter()
            .map(|i| self.value(*i))
            .collect::<Result<_, _>>()?;
        self.add(op, &inputs, &name)
    }

    fn group_norm(&mut self, node: &TypedNode, op: Op, name: &str) -> Result<ValueId, String> {
        let x = self.value(node.inputs[0])?;
        let channels = self.graph.shape(x).get(1).copied().unwrap_or(0);
        let mut inputs = vec![x];
        for outlet in &node.inputs[1..] {
            let value = self.value(*outlet)?;
            if self.graph.shape(value) != [channels] {
                return Err("scale and bias by group (opset 18 to 20) are not supported; export with opset 17 or 21".into());
            }
            inputs.push(value);
        }
        self.add(op, &inputs, name)
    }

    fn conv(&mut self, node: &TypedNode, op: &Conv, name: &str) -> Result<ValueId, String> {
        let spec = &op.pool_spec;
        let ones = |v: &Option<TVec<usize>>| v.as_ref().is_none_or(|v| v.iter().all(|d| *d == 1));
        if op.group != 1 || !ones(&spec.dilations) || op.q_params.is_some() {
            return Err("convolutions with groups or dilation are not supported".into());
        }
        if spec.data_format != DataFormat::NCHW
            || op.kernel_fmt != KernelFormat::OIHW
            || spec.kernel_shape.len() != 2
        {
            return Err("only two-dimensional convolutions of NCHW pictures are supported".into());
        }
        let strides = spec.strides.clone().unwrap_or_else(|| tvec!(1, 1));
        if strides[0] != strides[1] {
            return Err(format!("strides {strides:?} differ"));
        }
        let pad = match &spec.padding {
            PaddingSpec::Explicit(before, after) => [before[0], before[1], after[0], after[1]],
            PaddingSpec::Valid => [0; 4],
            other => return Err(format!("padding {other:?} is not supported")),
        };
        let (x, weight) = (self.value(node.inputs[0])?, self.value(node.inputs[1])?);
        let out = self.graph.shape(weight)[0];
        let (mut bias, mut shift) = (None, None);
        match self.constant(node.inputs[2]) {
            Some(tensor) if tensor.shape() == [out] => bias = Some(self.value(node.inputs[2])?),
            Some(_) => shift = Some(self.operand(node.inputs[2], true)?),
            None => {
                // The importer adds what follows the convolution to its bias: bias + computed.
                let sum = self.model.node(node.inputs[2].node);
                let is_add = sum
                    .op_as::<TypedBinOp>()
                    .is_some_and(is_binary::<math::Add>);
                let parts = (0..2).find(|i| {
                    is_add
                        && self
                            .constant(sum.inputs[*i])
                            .is_some_and(|t| t.shape() == [out])
                });
                shift = Some(match parts {
                    Some(i) => {
                        bias = Some(self.value(sum.inputs[i])?);
                        self.value(sum.inputs[1 - i])?
                    }
                    None => self.value(node.inputs[2])?,
                });
            }
        }
        let op = Op::SourceConv {
            stride: strides[0],
            pad,
        };
        let conv = self
            .graph
            .add(op, &[Some(x), Some(weight), bias], name)
            .map_err(|e| e.rule)?;
        let Some(mut shift) = shift else {
            return Ok(conv);
        };
        if self.graph.value(shift).weight().and_then(Weight::scalar) == Some(0.0) {
            return Ok(conv);
        }
        if self.graph.value(shift).len() == out {
            shift = self.add(
                Op::Reshape {
                    shape: vec![1, out, 1, 1],
                },
                &[shift],
                name,
            )?;
        }
        self.add(
            Op::SourceBinary {
                kind: BinaryKind::Add,
            },
            &[conv, shift],
            name,
        )
    }

    /// `if isnan(x) { constant } else { x }`, which attention in some exports guards its softmax with, is `x`: no row of
    /// scores is masked whole. The condition, a cast to the translation, has no other reader.
    fn guard(&mut self, node: &TypedNode) -> Result<ValueId, String> {
        let condition = self.model.node(node.inputs[0].node);
        let guards = is_unary::<math::IsNan>(condition) || condition.op.name() == "IsNan";
        if guards
            && condition.inputs[0] == node.inputs[2]
            && self.constant(node.inputs[1]).is_some()
        {
            return self.value(node.inputs[2]);
        }
        Err("choosing between two tensors is not supported".into())
    }
}

fn unary(node: &TypedNode) -> Option<UnaryKind> {
    let table: [(bool, UnaryKind); 11] = [
        (is_unary::<Sigmoid>(node), UnaryKind::Sigmoid),
        (is_unary::<math::Erf>(node), UnaryKind::Erf),
        (is_unary::<math::Sin>(node), UnaryKind::Sin),
        (is_unary::<math::Cos>(node), UnaryKind::Cos),
        (is_unary::<math::Exp>(node), UnaryKind::Exp),
        (is_unary::<math::Sqrt>(node), UnaryKind::Sqrt),
        (is_unary::<math::Rsqrt>(node), UnaryKind::Rsqrt),
        (is_unary::<math::Recip>(node), UnaryKind::Recip),
        (is_unary::<math::Neg>(node), UnaryKind::Neg),
        (is_unary::<math::Square>(node), UnaryKind::Square),
        (node.op.name() == "IsNan", UnaryKind::Cast),
    ];
    table.into_iter().find(|(is, _)| *is).map(|(_, kind)| kind)
}
