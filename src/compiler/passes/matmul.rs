//! Products with a constant become Linear, between whatever movement brings the rows together.
//!
//! ```text
//! %2 = einsum (a: %0, b: %1) {equation: "NIHW,OI->NOHW"}
//! %4 = source_binary (a: %2, b: [1, o, 1, 1]) {kind: add}
//! ```
//! becomes
//! ```text
//! %5 = transpose (x: %0) {perm: [0, 2, 3, 1]}
//! %6 = linear (x: %5, weight: %1, bias) {activation: none}
//! %4 = transpose (x: %6) {perm: [0, 3, 1, 2]}
//! ```
//! Whether the movement costs anything is the business of `channels-last`.

use super::matching::{sole_reader, vector, with_constant};
use crate::graph::{
    Activation, BinaryKind, BuildError, Graph, Node, Op, ValueId, Weight, WeightData, verify,
    view::View,
};
use std::borrow::Cow;

/// A constant read in another order.
pub(super) struct Moved {
    base: Weight,
    view: View,
    shape: Vec<usize>,
}

impl Moved {
    /// `base` as a tensor of `shape`, its elements in the order of `view`.
    pub fn weight(base: Weight, view: View, shape: Vec<usize>) -> Weight {
        if view.is_dense() && shape == base.shape() {
            base
        } else {
            Weight::new(Moved { base, view, shape })
        }
    }
}

impl WeightData for Moved {
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn read(&self) -> Cow<'_, [f32]> {
        let values = self.base.read();
        if self.view.is_dense() && self.view.len() == values.len() {
            return values;
        }
        self.view.gather(&values).into()
    }
}

/// A movement, unless it moves nothing.
pub(super) fn transpose(
    graph: &mut Graph,
    x: ValueId,
    perm: &[usize],
    name: &str,
) -> Result<ValueId, BuildError> {
    if perm.iter().copied().eq(0..perm.len()) {
        return Ok(x);
    }
    graph.add_full(
        Op::Transpose {
            perm: perm.to_vec(),
        },
        &[x],
        name,
    )
}

/// Another shape, unless it is the same.
pub(super) fn reshape(
    graph: &mut Graph,
    x: ValueId,
    shape: &[usize],
    name: &str,
) -> Result<ValueId, BuildError> {
    if graph.shape(x) == shape {
        return Ok(x);
    }
    graph.add_full(
        Op::Reshape {
            shape: shape.to_vec(),
        },
        &[x],
        name,
    )
}

/// The letters of a product with a constant, by role.
struct Product {
    x: ValueId,
    weight: ValueId,
    /// Letters of `x`, of the constant and of the result.
    letters: [Vec<char>; 3],
    rows: Vec<char>,
    columns: Vec<char>,
    summed: Vec<char>,
}

fn match_node(graph: &Graph, node: &Node) -> Option<Product> {
    let Op::Einsum { equation } = &node.op else {
        return None;
    };
    let [a, b, out] = verify::equation(equation)?;
    let (first, second) = (node.inputs[0]?, node.inputs[1]?);
    let (x, weight, a, b) = match (graph.value(first).weight(), graph.value(second).weight()) {
        (None, Some(_)) => (first, second, a, b),
        (Some(_), None) => (second, first, b, a),
        _ => return None,
    };
    let rows: Vec<char> = a
        .iter()
        .filter(|l| !b.contains(l) && out.contains(l))
        .copied()
        .collect();
    let columns: Vec<char> = b
        .iter()
        .filter(|l| !a.contains(l) && out.contains(l))
        .copied()
        .collect();
    let summed: Vec<char> = a
        .iter()
        .filter(|l| b.contains(l) && !out.contains(l))
        .copied()
        .collect();
    let placed = |own: &[char], with: &[char]| own.len() == with.len() + summed.len();
    // Letters of the result alone are axes of size 1, anything else that has no role is not a product of matrices.
    let whole =
        placed(&a, &rows) && placed(&b, &columns) && !summed.is_empty() && !columns.is_empty();
    whole.then_some(Product {
        x,
        weight,
        letters: [a, b, out],
        rows,
        columns,
        summed,
    })
}

pub(super) fn lower(graph: &mut Graph) -> Result<usize, BuildError> {
    let mut fired = 0;
    for id in graph.node_ids() {
        let node = graph.node(id);
        let Some(product) = match_node(graph, node) else {
            continue;
        };
        let (output, name) = (node.output, node.name.clone());
        let [la, lb, lo] = &product.letters;
        let at =
            |letters: &[char], letter: char| letters.iter().position(|l| *l == letter).unwrap_or(0);
        let (x_shape, w_shape) = (
            graph.shape(product.x).to_vec(),
            graph.shape(product.weight).to_vec(),
        );
        let size = |letter: &char| match la.iter().position(|l| l == letter) {
            Some(i) => x_shape[i],
            None => w_shape[at(lb, *letter)],
        };
        let row_sizes: Vec<usize> = product.rows.iter().map(size).collect();
        let column_sizes: Vec<usize> = product.columns.iter().map(size).collect();
        let n: usize = column_sizes.iter().product();
        let k: usize = product.summed.iter().map(size).product();

        let perm: Vec<usize> = product
            .rows
            .iter()
            .chain(&product.summed)
            .map(|l| at(la, *l))
            .collect();
        let perm_w: Vec<usize> = product
            .columns
            .iter()
            .chain(&product.summed)
            .map(|l| at(lb, *l))
            .collect();
        let Some(base) = graph.value(product.weight).weight().cloned() else {
            continue;
        };
        let view = View::dense(&w_shape).transpose(&perm_w);
        let weight_name = graph.value(product.weight).name.clone();
        let weight = graph.add_weight(weight_name, Moved::weight(base, view, vec![n, k]));

        let (bias, replaced) = match bias(graph, output, lo, &product.columns, n) {
            Some((bias, sum)) => (Some(bias), sum),
            None => (None, output),
        };
        let x = transpose(graph, product.x, &perm, &name)?;
        let x = reshape(graph, x, &[row_sizes.clone(), vec![k]].concat(), &name)?;
        let op = Op::Linear {
            activation: Activation::None,
        };
        let new = graph.add(op, &[Some(x), None, Some(weight), bias], name.clone())?;

        // Rows, then columns, then the axes of size 1 that only the result has.
        let present: Vec<char> = product
            .rows
            .iter()
            .chain(&product.columns)
            .copied()
            .collect();
        let extra: Vec<char> = lo
            .iter()
            .filter(|l| !present.contains(l))
            .copied()
            .collect();
        let order: Vec<char> = present.iter().chain(&extra).copied().collect();
        let sizes = [row_sizes, column_sizes, vec![1; extra.len()]].concat();
        let new = reshape(graph, new, &sizes, &name)?;
        let perm: Vec<usize> = lo.iter().map(|l| at(&order, *l)).collect();
        let new = transpose(graph, new, &perm, &name)?;
        graph.replace(replaced, new);
        fired += 1;
    }
    Ok(fired)
}

/// The constant vector that is added to a product along its columns, and the sum.
fn bias(
    graph: &mut Graph,
    product: ValueId,
    letters: &[char],
    columns: &[char],
    n: usize,
) -> Option<(ValueId, ValueId)> {
    let [column] = columns else { return None };
    let axis = letters.iter().position(|l| l == column)?;
    let node = graph.node(sole_reader(graph, product)?);
    let (_, constant) = with_constant(graph, node, BinaryKind::Add)?;
    let sum = node.output;
    if graph.shape(sum) != graph.shape(product) {
        return None;
    }
    let vector = vector(graph, constant, letters.len(), axis, n)?;
    Some((vector, sum))
}
