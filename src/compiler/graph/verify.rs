//! What must hold of a graph. This page is the specification of the operators' shapes.
//!
//! - A node's operands are values of the graph that stand before it: graph inputs, weights, or outputs of earlier nodes.
//! - A node has as many operand slots as its operator (more only for `source_concat`), and the required ones are filled.
//! - A node's output is a value whose kind names that node, and its shape is what `infer`, below, says.
//! - A weight's shape is its value's shape. Inputs and outputs are values of the graph.
//! - No size is zero.
//! - Codes are read as `x` alone: those of a whole tensor by a `conv2d`, those of rows by a `linear` without `x2`. No
//!   output is codes.
//!
//! Below, `[.., c]` stands for any number of leading axes; *rows* is the product of the leading axes.

use super::op::{Activation, Codes, Op};
use super::{Graph, NodeId, ValueId, ValueKind};

/// A rule that a graph breaks.
#[derive(Clone, Debug, thiserror::Error)]
#[error("graph {graph:?}: {place}: {rule}")]
pub struct VerifyError {
    /// The graph's name.
    pub graph: String,
    /// The node or value.
    pub place: String,
    /// The broken rule, with what was found.
    pub rule: String,
}

impl Graph {
    /// Checks every rule of this module.
    pub fn verify(&self) -> Result<(), VerifyError> {
        let error = |place: String, rule: String| {
            Err(VerifyError {
                graph: self.name.clone(),
                place,
                rule,
            })
        };
        let known = |value: ValueId| value.index() < self.value_count();
        for value in self.inputs.iter().chain(&self.outputs) {
            if !known(*value) {
                return error(
                    value.to_string(),
                    "an input or output is no value of the graph".into(),
                );
            }
        }
        for value in &self.outputs {
            if self.codes(*value).is_some() {
                return error(value.to_string(), "an output is codes".into());
            }
        }
        for (id, value) in self.iter_values() {
            let place = || format!("{id} {:?}", value.name);
            if value.is_empty() {
                return error(place(), format!("shape {:?} has no element", value.shape));
            }
            match &value.kind {
                ValueKind::Weight(weight) if weight.shape() != value.shape => {
                    return error(
                        place(),
                        format!(
                            "the weight is {:?}, its value {:?}",
                            weight.shape(),
                            value.shape
                        ),
                    );
                }
                ValueKind::Input if !self.inputs.contains(&id) => {
                    return error(place(), "is of the input kind but no input".into());
                }
                ValueKind::Node(node)
                    if node.index() >= self.node_count() || self.node(*node).output != id =>
                {
                    return error(place(), format!("{node} does not compute it"));
                }
                _ => (),
            }
        }
        for (id, node) in self.iter_nodes() {
            let place = format!("{id} {} {:?}", node.op.name(), node.name);
            if let Err(rule) = self.verify_node(id) {
                return error(place, rule);
            }
        }
        Ok(())
    }

    fn verify_node(&self, id: NodeId) -> Result<(), String> {
        let node = self.node(id);
        for operand in node.operands() {
            if operand.index() >= self.value_count() {
                return Err(format!("reads {operand}, which is no value of the graph"));
            }
            if self
                .value(operand)
                .node()
                .is_some_and(|producer| producer >= id)
            {
                return Err(format!("reads {operand} before it is computed"));
            }
        }
        if node.output.index() >= self.value_count() || self.value(node.output).node() != Some(id) {
            return Err(format!(
                "its output {} belongs to something else",
                node.output
            ));
        }
        for (index, operand) in node.inputs.iter().enumerate() {
            let Some(codes) = operand.and_then(|operand| self.codes(operand)) else {
                continue;
            };
            let reads = index == 0
                && match node.op {
                    Op::Conv2d { .. } => codes == Codes::PerTensor,
                    Op::Linear { .. } => codes == Codes::PerRow && node.input("x2").is_none(),
                    _ => false,
                };
            check(reads, || {
                let slot = node.op.slots().get(index).unwrap_or(&"operand");
                format!("cannot read codes ({codes:?}) as {slot}")
            })?;
        }
        let shapes: Vec<Option<&[usize]>> = node
            .inputs
            .iter()
            .map(|i| i.map(|i| self.shape(i)))
            .collect();
        let expected = infer(&node.op, &shapes)?;
        let found = self.shape(node.output);
        if expected != found {
            return Err(format!("its output is {found:?}, should be {expected:?}"));
        }
        Ok(())
    }
}

fn check(holds: bool, rule: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule()) }
}

/// An operand of a slot that must have a shape.
fn expect(slot: &str, found: Option<&[usize]>, expected: &[usize]) -> Result<(), String> {
    match found {
        Some(found) if found != expected => {
            Err(format!("{slot} is {found:?}, should be {expected:?}"))
        }
        _ => Ok(()),
    }
}

/// NumPy's broadcasting of two shapes.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == 1 => Some(x),
            (1, y) => Some(y),
            _ => None,
        })
        .collect()
}

/// The letters of an equation `ab,bc->ac`.
pub(crate) fn equation(text: &str) -> Option<[Vec<char>; 3]> {
    let (inputs, output) = text.split_once("->")?;
    let (a, b) = inputs.split_once(',')?;
    Some([a, b, output].map(|s| s.chars().collect()))
}

/// Rows and columns of `[.., c]`.
pub(crate) fn rows(shape: &[usize]) -> (usize, usize) {
    match shape.split_last() {
        Some((c, leading)) => (leading.iter().product(), *c),
        None => (1, 1),
    }
}

fn with_last(shape: &[usize], last: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    match shape.last_mut() {
        Some(c) => *c = last,
        None => shape.push(last),
    }
    shape
}

fn window(
    size: usize,
    before: usize,
    after: usize,
    kernel: usize,
    stride: usize,
) -> Result<usize, String> {
    check(stride > 0 && kernel > 0, || {
        "stride and kernel are at least 1".into()
    })?;
    let padded = size + before + after;
    check(padded >= kernel, || {
        format!("the kernel ({kernel}) is larger than the padded picture ({padded})")
    })?;
    Ok((padded - kernel) / stride + 1)
}

/// The output's shape, or the rule that the operands break. `shapes` stand in slot order.
pub(crate) fn infer(op: &Op, shapes: &[Option<&[usize]>]) -> Result<Vec<usize>, String> {
    let slots = op.slots();
    let variadic = matches!(op, Op::SourceConcat { .. });
    check(
        shapes.len() == slots.len() || (variadic && shapes.len() > slots.len()),
        || {
            format!(
                "has {} operand slots, should have {}",
                shapes.len(),
                slots.len()
            )
        },
    )?;
    for (i, shape) in shapes.iter().enumerate() {
        let slot = slots.get(i).unwrap_or(&slots[slots.len() - 1]);
        check(shape.is_some() || !op.is_required(i), || {
            format!("{slot} is empty")
        })?;
    }
    let get = |slot: &str| {
        slots
            .iter()
            .position(|s| *s == slot)
            .and_then(|i| shapes[i])
    };
    // The first slot of every operator is required.
    let first = shapes[0].unwrap_or_default();
    let (first_rows, c) = rows(first);
    let rank = |slot: &str, shape: &[usize], rank: usize| {
        check(shape.len() == rank, || {
            format!("{slot} is {shape:?}, should have {rank} axes")
        })
    };
    let some_axis = || check(!first.is_empty(), || "x has no axis".into());

    match op {
        Op::Conv2d {
            stride,
            pad,
            up,
            activation,
        } => {
            rank("x", first, 3)?;
            check(*activation != Activation::Geglu, || {
                "a convolution cannot end in geglu".into()
            })?;
            let weight = get("weight").unwrap_or_default();
            rank("weight", weight, 4)?;
            check(weight[1] == c, || {
                format!("weight is {weight:?}, x has {c} channels")
            })?;
            let [h, w] = up.unwrap_or([first[0], first[1]]);
            let out = [
                window(h, pad[0], pad[2], weight[2], *stride)?,
                window(w, pad[1], pad[3], weight[3], *stride)?,
                weight[0],
            ];
            expect("bias", get("bias"), &[out[2]])?;
            expect("shift", get("shift"), &[1, out[2]])?;
            expect("residual", get("residual"), &out)?;
            Ok(out.to_vec())
        }
        Op::Linear { activation } => {
            some_axis()?;
            let k2 = match get("x2") {
                Some(x2) => {
                    expect("x2", Some(x2), &with_last(first, rows(x2).1))?;
                    rows(x2).1
                }
                None => 0,
            };
            let weight = get("weight").unwrap_or_default();
            rank("weight", weight, 2)?;
            check(weight[1] == c + k2, || {
                format!("weight is {weight:?}, x has {} columns", c + k2)
            })?;
            let geglu = *activation == Activation::Geglu;
            check(
                !geglu || (weight[0] % 2 == 0 && get("shift").is_none()),
                || "geglu needs an even number of weight rows and no shift".into(),
            )?;
            let n = if geglu { weight[0] / 2 } else { weight[0] };
            let out = with_last(first, n);
            expect("bias", get("bias"), &[weight[0]])?;
            expect("shift", get("shift"), &[1, n])?;
            expect("residual", get("residual"), &out)?;
            Ok(out)
        }
        Op::GroupNorm {
            groups, activation, ..
        } => {
            some_axis()?;
            check(
                matches!(activation, Activation::None | Activation::Silu),
                || "only silu may follow".into(),
            )?;
            let c2 = get("x2").map_or(0, |x2| rows(x2).1);
            expect("x2", get("x2"), &with_last(first, c2))?;
            check(*groups > 0 && (c + c2) % groups == 0, || {
                format!("{groups} groups of {} channels", c + c2)
            })?;
            expect("gamma", get("gamma"), &[c + c2])?;
            expect("beta", get("beta"), &[c + c2])?;
            Ok(with_last(first, c + c2))
        }
        Op::LayerNorm { .. } => {
            some_axis()?;
            expect("gamma", get("gamma"), &[c])?;
            expect("beta", get("beta"), &[c])?;
            Ok(first.to_vec())
        }
        Op::Attention {
            heads,
            causal,
            integers,
            ..
        } => {
            some_axis()?;
            let k = get("k").unwrap_or_default();
            let (kv_rows, kc) = rows(k);
            check(*heads > 0 && c % heads == 0, || {
                format!("{heads} heads of {c} columns")
            })?;
            check(kc == c, || format!("k is {k:?}, q has {c} columns"))?;
            expect("v", get("v"), k)?;
            expect("mask", get("mask"), &[first_rows, kv_rows])?;
            check(
                !integers || (first_rows == kv_rows && !causal && get("mask").is_none()),
                || format!("in integers with {first_rows} and {kv_rows} rows, a mask or causal"),
            )?;
            check(!causal || first_rows == kv_rows, || {
                format!("causal with {first_rows} and {kv_rows} rows")
            })?;
            Ok(first.to_vec())
        }
        Op::Unary { activation } => {
            check(
                !matches!(activation, Activation::Geglu | Activation::None),
                || "not a function of one element".into(),
            )?;
            Ok(first.to_vec())
        }
        Op::Affine { .. } | Op::SourceUnary { .. } => Ok(first.to_vec()),
        Op::Softmax => some_axis().map(|()| first.to_vec()),
        Op::Binary { .. } => {
            let b = get("b").unwrap_or_default();
            let len: usize = b.iter().product();
            let row = rows(b) == (1, c);
            check(b == first || row || len == 1, || {
                format!("b is {b:?}, neither {first:?} nor a row nor an element of it")
            })?;
            Ok(first.to_vec())
        }
        Op::Quantize { .. } => {
            some_axis()?;
            let c2 = get("x2").map_or(0, |x2| rows(x2).1);
            expect("x2", get("x2"), &with_last(first, c2))?;
            Ok(with_last(first, c + c2))
        }
        Op::Concat => {
            some_axis()?;
            let c2 = rows(get("x2").unwrap_or_default()).1;
            expect("x2", get("x2"), &with_last(first, c2))?;
            Ok(with_last(first, c + c2))
        }
        Op::Upsample { size } => {
            rank("x", first, 3)?;
            check(size[0] >= first[0] && size[1] >= first[1], || {
                format!("cannot make {first:?} {size:?}")
            })?;
            Ok(vec![size[0], size[1], c])
        }
        Op::Embed { .. } => {
            let table = get("table").unwrap_or_default();
            rank("table", table, 2)?;
            let ids: usize = first.iter().product();
            expect("positions", get("positions"), &[ids, table[1]])?;
            Ok([first, &table[1..]].concat())
        }
        Op::TimestepEmbedding { .. } => {
            expect("timestep", Some(first), &[1])?;
            let frequencies = get("frequencies").unwrap_or_default();
            rank("frequencies", frequencies, 1)?;
            Ok(vec![1, 2 * frequencies[0]])
        }
        Op::Copy {
            shape,
            strides,
            offset,
        } => {
            check(
                shape.len() == strides.len() && (1..=4).contains(&shape.len()),
                || "one to four axes".into(),
            )?;
            let last: usize = shape
                .iter()
                .zip(strides)
                .map(|(n, s)| n.saturating_sub(1) * s)
                .sum();
            let len: usize = first.iter().product();
            check(offset + last < len, || {
                format!("reads element {} of {len}", offset + last)
            })?;
            Ok(shape.clone())
        }

        Op::SourceConv { stride, pad } => {
            rank("x", first, 4)?;
            let weight = get("weight").unwrap_or_default();
            rank("weight", weight, 4)?;
            check(first[0] == 1 && weight[1] == first[1], || {
                format!("x is {first:?}, weight {weight:?}")
            })?;
            expect("bias", get("bias"), &[weight[0]])?;
            let h = window(first[2], pad[0], pad[2], weight[2], *stride)?;
            Ok(vec![
                1,
                weight[0],
                h,
                window(first[3], pad[1], pad[3], weight[3], *stride)?,
            ])
        }
        Op::Einsum { equation: text } => {
            let [a, b, out] =
                equation(text).ok_or_else(|| format!("equation {text:?} does not parse"))?;
            let (sa, sb) = (first, get("b").unwrap_or_default());
            rank("a", sa, a.len())?;
            rank("b", sb, b.len())?;
            let mut sizes = std::collections::HashMap::new();
            for (letter, size) in a.iter().zip(sa).chain(b.iter().zip(sb)) {
                let known = *sizes.entry(*letter).or_insert(*size);
                check(known == *size, || {
                    format!("axis {letter} is {known} and {size}")
                })?;
            }
            // A letter that only the output has is an axis of size 1.
            Ok(out
                .iter()
                .map(|letter| sizes.get(letter).copied().unwrap_or(1))
                .collect())
        }
        Op::SourceBinary { .. } => {
            let b = get("b").unwrap_or_default();
            broadcast(first, b).ok_or_else(|| format!("{first:?} and {b:?} do not broadcast"))
        }
        Op::Reduce { axes, .. } => {
            let mut shape = first.to_vec();
            for axis in axes {
                *shape
                    .get_mut(*axis)
                    .ok_or_else(|| format!("x has no axis {axis}"))? = 1;
            }
            Ok(shape)
        }
        Op::RmsNorm { axis, .. } | Op::SourceSoftmax { axis } => {
            check(*axis < first.len(), || format!("x has no axis {axis}"))?;
            Ok(first.to_vec())
        }
        Op::Reshape { shape } => {
            let (from, to): (usize, usize) = (first.iter().product(), shape.iter().product());
            check(from == to, || {
                format!("{first:?} has not as many elements as {shape:?}")
            })?;
            Ok(shape.clone())
        }
        Op::Transpose { perm } => {
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            check(sorted.iter().copied().eq(0..first.len()), || {
                format!("{perm:?} does not permute {} axes", first.len())
            })?;
            Ok(perm.iter().map(|p| first[*p]).collect())
        }
        Op::Slice { axis, start, end } => {
            check(
                *axis < first.len() && start < end && *end <= first[*axis],
                || format!("{start}..{end} of axis {axis} of {first:?}"),
            )?;
            let mut shape = first.to_vec();
            shape[*axis] = end - start;
            Ok(shape)
        }
        Op::SourceConcat { axis } => {
            check(*axis < first.len(), || format!("x has no axis {axis}"))?;
            let mut out = first.to_vec();
            for shape in shapes[1..].iter().flatten() {
                let mut expected = first.to_vec();
                expected[*axis] = *shape
                    .get(*axis)
                    .ok_or_else(|| format!("{shape:?} has no axis {axis}"))?;
                expect("x", Some(shape), &expected)?;
                out[*axis] += expected[*axis];
            }
            Ok(out)
        }
        Op::Expand { shape } => {
            check(broadcast(first, shape).as_ref() == Some(shape), || {
                format!("{first:?} does not broadcast to {shape:?}")
            })?;
            Ok(shape.clone())
        }
        Op::SourceUpsample { scale } => {
            rank("x", first, 4)?;
            Ok(vec![
                first[0],
                first[1],
                first[2] * scale[0],
                first[3] * scale[1],
            ])
        }
        Op::Gather => {
            check(!first.is_empty(), || "table has no axis".into())?;
            Ok([get("ids").unwrap_or_default(), &first[1..]].concat())
        }
        Op::SourceGroupNorm {
            groups, activation, ..
        } => {
            check(first.len() >= 3 && first[0] == 1, || {
                format!("x is {first:?}, should be [1, c, ..]")
            })?;
            check(
                matches!(activation, Activation::None | Activation::Silu),
                || "only silu may follow".into(),
            )?;
            let c = first[1];
            check(*groups > 0 && c.is_multiple_of(*groups), || {
                format!("{groups} groups of {c} channels")
            })?;
            expect("gamma", get("gamma"), &[c])?;
            expect("beta", get("beta"), &[c])?;
            Ok(first.to_vec())
        }
    }
}
