//! What the passes ask of a graph.

use crate::graph::{BinaryKind, Graph, Literal, Node, NodeId, Op, ReduceKind, ValueId, Weight};

/// The only reader of a value; `None` when there are more, or an output is among them.
pub(super) fn sole_reader(graph: &Graph, value: ValueId) -> Option<NodeId> {
    if graph.outputs.contains(&value) {
        return None;
    }
    let mut readers = graph
        .iter_nodes()
        .flat_map(|(id, n)| n.operands().filter(|o| *o == value).map(move |_| id));
    let first = readers.next()?;
    readers.next().is_none().then_some(first)
}

/// The node that computes a value and is read once.
pub(super) fn private(graph: &Graph, value: ValueId) -> Option<(NodeId, &Node)> {
    sole_reader(graph, value)?;
    graph.producer(value)
}

/// The constant that a value is, if it has one element.
pub(super) fn scalar(graph: &Graph, value: ValueId) -> Option<f32> {
    graph.value(value).weight().and_then(Weight::scalar)
}

/// The two operands of a binary source operator.
pub(super) fn binary(node: &Node, kind: BinaryKind) -> Option<(ValueId, ValueId)> {
    match (&node.op, node.inputs.as_slice()) {
        (Op::SourceBinary { kind: found }, [Some(a), Some(b)]) if *found == kind => Some((*a, *b)),
        _ => None,
    }
}

/// The computed and the constant operand of a sum or product, in whatever order they stand.
pub(super) fn with_constant(
    graph: &Graph,
    node: &Node,
    kind: BinaryKind,
) -> Option<(ValueId, ValueId)> {
    let (a, b) = binary(node, kind)?;
    match (graph.value(a).weight(), graph.value(b).weight()) {
        (None, Some(_)) => Some((a, b)),
        (Some(_), None) => Some((b, a)),
        _ => None,
    }
}

/// Takes one multiplication or division by a constant of one element off a value.
pub(super) fn unscaled(graph: &Graph, value: ValueId) -> (ValueId, f32) {
    let unscale = || {
        let (_, node) = graph.producer(value)?;
        if let Some((x, c)) = with_constant(graph, node, BinaryKind::Mul) {
            return Some((x, scalar(graph, c)?));
        }
        let (x, c) = binary(node, BinaryKind::Div)?;
        Some((x, 1.0 / scalar(graph, c)?))
    };
    unscale().unwrap_or((value, 1.0))
}

/// Whether two constants are the same but for rounding.
pub(super) fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-5 * b.abs()
}

/// `(x - mean x) / sqrt(variance + eps)` over one axis, recognized at its last node: gives `x`, the axis and `eps`.
pub(super) fn normalized(graph: &Graph, node: &Node) -> Option<(ValueId, usize, f32)> {
    let Op::RmsNorm { axis, eps } = node.op else {
        return None;
    };
    let (_, centred) = graph.producer(node.inputs[0]?)?;
    let (x, mean) = binary(centred, BinaryKind::Sub)?;
    let (sum, factor) = unscaled(graph, mean);
    let (_, reduce) = graph.producer(sum)?;
    let Op::Reduce { kind, axes } = &reduce.op else {
        return None;
    };
    let n = graph.shape(x)[axis] as f32;
    let expected = match kind {
        ReduceKind::Sum => 1.0 / n,
        ReduceKind::Mean => 1.0,
        ReduceKind::MeanOfSquares => return None,
    };
    (axes[..] == [axis] && reduce.inputs[0] == Some(x) && close(factor, expected))
        .then_some((x, axis, eps))
}

/// A constant as a vector along one axis of a tensor of `rank` axes that it is broadcast to; `None` if it varies along
/// another.
pub(super) fn vector(
    graph: &mut Graph,
    constant: ValueId,
    rank: usize,
    axis: usize,
    n: usize,
) -> Option<ValueId> {
    let shape = graph.shape(constant).to_vec();
    let missing = rank.checked_sub(shape.len())?;
    let along = axis
        .checked_sub(missing)
        .and_then(|i| shape.get(i))
        .copied()
        .unwrap_or(1);
    if shape.iter().product::<usize>() != along || (along != n && along != 1) {
        return None;
    }
    if shape == [n] {
        return Some(constant);
    }
    let weight = graph.value(constant).weight()?.clone();
    let name = graph.value(constant).name.clone();
    let values = weight.read();
    let values = if along == n {
        values.into_owned()
    } else {
        vec![values[0]; n]
    };
    let weight = if weight.is_literal() {
        Weight::new(Literal {
            shape: vec![n],
            values,
        })
    } else {
        Weight::new(Vector(values, [n]))
    };
    Some(graph.add_weight(name, weight))
}

/// A vector computed from the model's weights.
struct Vector(Vec<f32>, [usize; 1]);

impl crate::graph::WeightData for Vector {
    fn shape(&self) -> &[usize] {
        &self.1
    }
    fn read(&self) -> std::borrow::Cow<'_, [f32]> {
        self.0.as_slice().into()
    }
}

/// The scale and offset vectors that follow a normalized value, `x * gamma + beta` along one axis, and the value and
/// layer name after them.
pub(super) struct Tail {
    pub gamma: Option<ValueId>,
    pub beta: Option<ValueId>,
    pub value: ValueId,
    pub name: Option<String>,
}

/// Follows a value through its multiplication by and addition of vectors along `axis`. Ones and zeros may have been
/// folded away, so each is optional.
pub(super) fn tail(graph: &mut Graph, value: ValueId, axis: usize) -> Tail {
    let shape = graph.shape(value).to_vec();
    let mut tail = Tail {
        gamma: None,
        beta: None,
        value,
        name: None,
    };
    for kind in [BinaryKind::Mul, BinaryKind::Add] {
        let Some(reader) = sole_reader(graph, tail.value) else {
            break;
        };
        let node = graph.node(reader);
        let Some((_, constant)) = with_constant(graph, node, kind) else {
            continue;
        };
        let (output, name) = (node.output, node.name.clone());
        if graph.shape(output) != shape {
            break;
        }
        let Some(vector) = vector(graph, constant, shape.len(), axis, shape[axis]) else {
            break;
        };
        let slot = if kind == BinaryKind::Mul {
            &mut tail.gamma
        } else {
            &mut tail.beta
        };
        *slot = Some(vector);
        tail.name.get_or_insert(name);
        tail.value = output;
    }
    tail
}
