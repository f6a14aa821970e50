//! Attention spelled out: `softmax(q k^T * scale + mask) v` for each head.
//!
//! ```text
//! %4 = einsum (a: %q, b: %k) {equation: "abmk,abkn->abmn"}
//! %5 = source_softmax (x: %4) {axis: 3}
//! %6 = einsum (a: %5, b: %v) {equation: "abmk,abkn->abmn"}
//! ```
//! becomes
//! ```text
//! %6 = transpose (reshape (attention (q: .., k: .., v: ..) {heads, scale, causal}))
//! ```
//! where q, k and v are brought to `[1, rows, heads * d]` by movement that in every known export undoes the movement
//! that split the heads; `channels-last` proves that by strides. A scale may stand on q, on k (before or after
//! any movement) or on the scores; a constant added to the scores is a mask, or `causal` if it is the causal one.

use super::matching::{scalar, unscaled, with_constant};
use super::matmul::{Moved, reshape, transpose};
use crate::graph::{BinaryKind, BuildError, Graph, Node, NodeId, Op, ValueId, verify, view::View};

pub(super) fn fuse(graph: &mut Graph) -> Result<usize, BuildError> {
    let mut fired = 0;
    for id in graph.node_ids() {
        let Some(found) = match_node(graph, graph.node(id)) else {
            continue;
        };
        fired += usize::from(rewrite(graph, id, &found)?);
    }
    Ok(fired)
}

/// An operand of a product by the roles of its axes.
struct Side {
    value: ValueId,
    /// Axes in the order rows, heads, head elements.
    perm: Vec<usize>,
    rows: usize,
    heads: usize,
    d: usize,
}

struct Match {
    q: Side,
    k: Side,
    v: Side,
    scale: f32,
    mask: Option<ValueId>,
    /// Sizes of the result, rows first, and how its axes stand in the product's output.
    sizes: Vec<usize>,
    perm: Vec<usize>,
}

/// One product of two computed tensors: the letters shared by all three, and each operand's own.
struct Product {
    values: [ValueId; 2],
    letters: [Vec<char>; 3],
    batch: Vec<char>,
    free: [char; 2],
    summed: char,
}

fn product(graph: &Graph, node: &Node) -> Option<Product> {
    let Op::Einsum { equation } = &node.op else {
        return None;
    };
    let letters = verify::equation(equation)?;
    let [a, b, out] = &letters;
    let values = [node.inputs[0]?, node.inputs[1]?];
    if values.iter().any(|v| graph.value(*v).weight().is_some()) {
        return None;
    }
    let only = |mut letters: Vec<char>| (letters.len() == 1).then(|| letters.remove(0));
    let batch: Vec<char> = out
        .iter()
        .filter(|l| a.contains(l) && b.contains(l))
        .copied()
        .collect();
    let free = |own: &[char], other: &[char]| {
        only(
            own.iter()
                .filter(|l| out.contains(l) && !other.contains(l))
                .copied()
                .collect(),
        )
    };
    let free = [free(a, b)?, free(b, a)?];
    let summed = only(
        a.iter()
            .filter(|l| b.contains(l) && !out.contains(l))
            .copied()
            .collect(),
    )?;
    let whole = [a, b, out].iter().all(|l| l.len() == batch.len() + 2);
    whole.then_some(Product {
        values,
        letters,
        batch,
        free,
        summed,
    })
}

fn match_node(graph: &Graph, node: &Node) -> Option<Match> {
    let second = product(graph, node)?;
    // Which operand is the softmax's? Reshapes may stand between as long as rows and columns of the scores stay.
    let softmax = |value: ValueId| {
        let (mut value, own) = (value, graph.shape(value));
        loop {
            let (_, node) = graph.producer(value)?;
            match node.op {
                Op::Reshape { .. } if same_matrix(graph.shape(node.inputs[0]?), own) => {
                    value = node.inputs[0]?
                }
                Op::SourceSoftmax { axis } if axis + 1 == graph.shape(value).len() => {
                    return node.inputs[0];
                }
                _ => return None,
            }
        }
    };
    let (p, mut scores) = (0..2).find_map(|i| Some((i, softmax(second.values[i])?)))?;
    let v = 1 - p;
    // The scores' axes are heads, rows, columns in the second product.
    let weights = &second.letters[p];
    if weights[weights.len() - 2..] != [second.free[p], second.summed] {
        return None;
    }
    if weights[..weights.len() - 2] != second.batch[..] {
        return None;
    }

    let (mut scale, mut mask) = (1.0, None);
    let first = loop {
        let (_, node) = graph.producer(scores)?;
        let (inner, factor) = unscaled(graph, scores);
        if inner != scores {
            (scores, scale) = (inner, scale * factor);
        } else if let Op::Reshape { .. } = node.op {
            let inner = node.inputs[0]?;
            if !same_matrix(graph.shape(inner), graph.shape(scores)) {
                return None;
            }
            scores = inner;
        } else if let Some((inner, constant)) = with_constant(graph, node, BinaryKind::Add) {
            // A mask that is scaled afterwards, or two of them, are not known to occur.
            if mask.is_some() || scale != 1.0 || graph.shape(inner) != graph.shape(scores) {
                return None;
            }
            (scores, mask) = (inner, Some(constant));
        } else {
            break product(graph, node)?;
        }
    };
    let out = &first.letters[2];
    let (rows, columns) = (out[out.len() - 2], out[out.len() - 1]);
    let q = first.free.iter().position(|l| *l == rows)?;
    if first.free[1 - q] != columns || out[..out.len() - 2] != first.batch[..] {
        return None;
    }

    let side = |product: &Product, i: usize, row: char, element: char| {
        let (value, letters) = (product.values[i], &product.letters[i]);
        let at = |letter: &char| letters.iter().position(|l| l == letter);
        let order: Vec<char> = std::iter::once(row)
            .chain(product.batch.iter().copied())
            .chain([element])
            .collect();
        let perm: Vec<usize> = order.iter().filter_map(at).collect();
        let sizes: Vec<usize> = perm.iter().map(|p| graph.shape(value)[*p]).collect();
        let heads = sizes[1..sizes.len() - 1].iter().product();
        (perm.len() == letters.len()).then_some(Side {
            value,
            perm,
            rows: sizes[0],
            heads,
            d: sizes[sizes.len() - 1],
        })
    };
    let q_side = side(&first, q, rows, first.summed)?;
    let k_side = side(&first, 1 - q, columns, first.summed)?;
    let v_side = side(&second, v, second.summed, second.free[v])?;
    let fits = q_side.heads == k_side.heads
        && (q_side.heads, q_side.d) == (v_side.heads, v_side.d)
        && k_side.rows == v_side.rows;
    if !fits {
        return None;
    }
    let order: Vec<char> = std::iter::once(second.free[p])
        .chain(second.batch.iter().copied())
        .chain([second.free[v]])
        .collect();
    let perm: Vec<usize> = second.letters[2]
        .iter()
        .filter_map(|l| order.iter().position(|o| o == l))
        .collect();
    let mut sizes = vec![0; order.len()];
    for (axis, size) in perm.iter().zip(graph.shape(node.output)) {
        sizes[*axis] = *size;
    }
    Some(Match {
        q: q_side,
        k: k_side,
        v: v_side,
        scale,
        mask,
        sizes,
        perm,
    })
}

/// Whether two shapes end in the same two axes and have as many elements before them.
fn same_matrix(a: &[usize], b: &[usize]) -> bool {
    a.len() >= 2 && b.len() >= 2 && a[a.len() - 2..] == b[b.len() - 2..]
}

/// False when the mask is not the same for every head, which no operator of a program can say.
fn rewrite(graph: &mut Graph, id: NodeId, found: &Match) -> Result<bool, BuildError> {
    let node = graph.node(id).clone();
    let name = layer(graph, &found.v, &node.name);
    let (q, q_scale) = without_scale(graph, found.q.value)?;
    let (k, k_scale) = without_scale(graph, found.k.value)?;
    let mut scale = found.scale * q_scale * k_scale;
    let usual = 1.0 / (found.q.d as f32).sqrt();
    if super::matching::close(scale, usual) {
        scale = usual;
    }
    let mut operands = Vec::new();
    for (value, side) in [(q, &found.q), (k, &found.k), (found.v.value, &found.v)] {
        let moved = transpose(graph, value, &side.perm, &name)?;
        operands.push(Some(reshape(
            graph,
            moved,
            &[1, side.rows, side.heads * side.d],
            &name,
        )?));
    }
    let (mut causal, mut mask) = (false, None);
    if let Some(constant) = found.mask {
        match mask_of(graph, constant, found.q.rows, found.k.rows) {
            Mask::Causal => causal = true,
            Mask::Matrix(value) => mask = Some(value),
            Mask::None => (),
            Mask::PerHead => return Ok(false),
        }
    }
    operands.push(mask);
    let op = Op::Attention {
        heads: found.q.heads,
        scale,
        causal,
        integers: false,
    };
    let new = graph.add(op, &operands, name.clone())?;
    let new = reshape(graph, new, &found.sizes, &name)?;
    let new = transpose(graph, new, &found.perm, &name)?;
    graph.replace(node.output, new);
    Ok(true)
}

/// The layer's name: that of the projection of its values, without the projection.
fn layer(graph: &Graph, v: &Side, otherwise: &str) -> String {
    let mut value = v.value;
    while let Some((_, node)) = graph.producer(value) {
        match node.op {
            Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } => {
                value = node.inputs[0].unwrap_or(value)
            }
            _ => {
                return node
                    .name
                    .rsplit_once('.')
                    .map_or(otherwise, |(layer, _)| layer)
                    .to_owned();
            }
        }
    }
    otherwise.to_owned()
}

/// Takes multiplications by a constant of one element off a value, through movement.
fn without_scale(graph: &mut Graph, value: ValueId) -> Result<(ValueId, f32), BuildError> {
    let (inner, factor) = unscaled(graph, value);
    if inner != value && graph.shape(inner) == graph.shape(value) {
        let (inner, more) = without_scale(graph, inner)?;
        return Ok((inner, factor * more));
    }
    let Some((_, node)) = graph.producer(value) else {
        return Ok((value, 1.0));
    };
    let movement = matches!(node.op, Op::Reshape { .. } | Op::Transpose { .. });
    let (Some(x), true) = (node.inputs[0], movement) else {
        return Ok((value, 1.0));
    };
    let (op, name) = (node.op.clone(), node.name.clone());
    let (inner, factor) = without_scale(graph, x)?;
    if inner == x {
        return Ok((value, 1.0));
    }
    Ok((graph.add_full(op, &[inner], name)?, factor))
}

enum Mask {
    None,
    Causal,
    Matrix(ValueId),
    PerHead,
}

fn mask_of(graph: &mut Graph, constant: ValueId, rows: usize, columns: usize) -> Mask {
    if scalar(graph, constant) == Some(0.0) {
        return Mask::None;
    }
    let shape = graph.shape(constant).to_vec();
    let Some(weight) = graph.value(constant).weight().cloned() else {
        return Mask::PerHead;
    };
    let matrix = shape.len().saturating_sub(2);
    if shape[..matrix].iter().any(|n| *n != 1) {
        return Mask::PerHead;
    }
    let view = View::dense(&shape[matrix..]).expand(&[rows, columns]);
    let values = view.gather(&weight.read());
    let causal = values
        .iter()
        .enumerate()
        .all(|(i, v)| match i % columns <= i / columns {
            true => *v == 0.0,
            false => *v <= -1e4,
        });
    if causal && rows == columns {
        return Mask::Causal;
    }
    let name = graph.value(constant).name.clone();
    Mask::Matrix(graph.add_weight(name, Moved::weight(weight, view, vec![rows, columns])))
}
