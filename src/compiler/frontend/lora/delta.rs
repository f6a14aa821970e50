//! The change of one weight, as the factors that it is stored in.
//!
//! A weight `[out, ..]` is treated as a matrix of `out` rows. Every change is made of matrices, each stored whole or as a
//! product of two, with a core between them where a convolution was taken apart (Tucker's decomposition).

use std::ops::Range;

use kiln_kernels::{
    Activation, Kernels, Linear, LinearOperands, LinearParams, Residual, pack, run_alone,
};

use crate::graph::Weight;

/// Rows that a change is computed at a time, where it takes memory of its own.
const ROWS: usize = 64;

/// `left x right`, or with a core `left x (core x right)` where the core has `taps` numbers for each pair of its rows and
/// columns: `sum over i, j of left[m, i] core[i, j, t] right[j, n]` is the element `[m, n, t]`.
#[derive(Clone)]
pub(super) struct Product {
    /// `[rows, rank]`; `[rank, rows]` if transposed. Further sizes are 1.
    pub left: Weight,
    /// Whether the rank comes first.
    pub transposed: bool,
    /// `[rank, inner, kernel_h, kernel_w]`
    pub core: Option<Weight>,
    /// `[rank, ..]`, or `[inner, columns]` under a core.
    pub right: Weight,
}

/// A matrix as stored.
#[derive(Clone)]
pub(super) enum Matrix {
    /// Each element.
    Whole(Weight),
    /// As factors.
    Product(Product),
}

/// The change of a weight, before it is scaled.
#[derive(Clone)]
pub(super) enum Delta {
    /// LoRA, LoCon, a whole difference.
    Matrix(Matrix),
    /// LoHa: element by element.
    Hadamard(Matrix, Matrix),
    /// LoKr: each element of the first times the second. A second of convolutions has its taps innermost.
    Kronecker(Matrix, Matrix),
}

/// A matrix that was read: its rows can be computed.
enum Ready<'w> {
    Whole {
        columns: usize,
        elements: std::borrow::Cow<'w, [f32]>,
    },
    Product {
        rank: usize,
        columns: usize,
        /// `[rows, rank]`
        left: Vec<f32>,
        panels: Vec<f32>,
    },
}

fn rest(shape: &[usize]) -> usize {
    shape.iter().skip(1).product()
}

impl Product {
    fn rank(&self) -> usize {
        let shape = self.right.shape();
        self.core.as_ref().map_or(shape[0], |c| c.shape()[0])
    }

    fn ready(&self) -> Ready<'_> {
        let left = self.left.read();
        let rank = self.rank();
        let left = if self.transposed {
            let rows = left.len() / rank.max(1);
            let at = |i: usize| left[i % rank * rows + i / rank];
            (0..left.len()).map(at).collect()
        } else {
            left.into_owned()
        };
        let right = self.right.read();
        let columns = rest(self.right.shape());
        let Some(core) = &self.core else {
            let panels = pack::pack_panels_with(columns, rank, |n, k| right[k * columns + n]);
            return Ready::Product {
                rank,
                columns,
                left,
                panels,
            };
        };
        // [rank, inner, taps] x [inner, columns] is [rank, columns, taps].
        let (inner, taps) = (core.shape()[1], rest(core.shape()) / core.shape()[1].max(1));
        let core = core.read();
        let by_tap: Vec<f32> = (0..core.len())
            .map(|i| {
                let (row, tap, j) = (i / inner / taps, i / inner % taps, i % inner);
                core[(row * inner + j) * taps + tap]
            })
            .collect();
        let panels = pack::pack_panels_with(columns, inner, |n, k| right[k * columns + n]);
        let mut joined = vec![0.0; rank * taps * columns];
        add_product(&mut joined, &by_tap, &panels, [rank * taps, inner, columns]);
        let panels = pack::pack_panels_with(columns * taps, rank, |n, k| {
            joined[(k * taps + n % taps) * columns + n / taps]
        });
        Ready::Product {
            rank,
            columns: columns * taps,
            left,
            panels,
        }
    }
}

impl Matrix {
    fn shape(&self) -> Vec<usize> {
        match self {
            Matrix::Whole(weight) => weight.shape().to_vec(),
            Matrix::Product(product) => {
                let left = product.left.shape();
                let rows = if product.transposed {
                    rest(left)
                } else {
                    left.first().copied().unwrap_or(1)
                };
                let mut shape = vec![rows];
                shape.extend(&product.right.shape()[1..]);
                if let Some(core) = &product.core {
                    shape.truncate(2);
                    shape.extend(&core.shape()[2..]);
                }
                shape
            }
        }
    }

    fn rows(&self) -> usize {
        self.shape().first().copied().unwrap_or(1)
    }

    fn ready(&self) -> Ready<'_> {
        match self {
            Matrix::Whole(weight) => Ready::Whole {
                columns: rest(weight.shape()),
                elements: weight.read(),
            },
            Matrix::Product(product) => product.ready(),
        }
    }

    /// The weights that it is made of.
    fn factors(&self) -> Vec<&Weight> {
        match self {
            Matrix::Whole(weight) => vec![weight],
            Matrix::Product(p) => [Some(&p.left), p.core.as_ref(), Some(&p.right)]
                .into_iter()
                .flatten()
                .collect(),
        }
    }

    /// What no element's magnitude is above.
    fn bound(&self, largest: &mut impl FnMut(&Weight) -> f64) -> f64 {
        let product: f64 = self.factors().into_iter().map(&mut *largest).product();
        match self {
            Matrix::Whole(_) => product,
            Matrix::Product(p) => {
                let inner = p.core.as_ref().map_or(1, |core| core.shape()[1]);
                product * p.rank() as f64 * inner as f64
            }
        }
    }
}

impl Ready<'_> {
    fn columns(&self) -> usize {
        match self {
            Ready::Whole { columns, .. } | Ready::Product { columns, .. } => *columns,
        }
    }

    /// Adds `scale` times these rows to `out`.
    fn add_rows(&self, rows: Range<usize>, scale: f32, out: &mut [f32]) {
        match self {
            Ready::Whole { columns, elements } => {
                let elements = &elements[rows.start * columns..rows.end * columns];
                for (out, element) in out.iter_mut().zip(elements) {
                    *out += scale * element;
                }
            }
            Ready::Product {
                rank,
                columns,
                left,
                panels,
            } => {
                let left = &left[rows.start * rank..rows.end * rank];
                let left: Vec<f32> = left.iter().map(|x| scale * x).collect();
                add_product(out, &left, panels, [rows.len(), *rank, *columns]);
            }
        }
    }
}

impl Delta {
    /// The shape of the weight that it changes, as the factors tell it: the sizes of a kernel may be missing.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Delta::Matrix(matrix) | Delta::Hadamard(matrix, _) => matrix.shape(),
            Delta::Kronecker(first, second) => {
                let (first, mut shape) = (first.shape(), second.shape());
                for (size, factor) in shape.iter_mut().zip(&first) {
                    *size = size.saturating_mul(*factor);
                }
                shape
            }
        }
    }

    /// What no element's magnitude is above. `largest` gives the largest magnitude of a factor's elements.
    pub fn bound(&self, mut largest: impl FnMut(&Weight) -> f64) -> f64 {
        match self {
            Delta::Matrix(matrix) => matrix.bound(&mut largest),
            Delta::Hadamard(a, b) | Delta::Kronecker(a, b) => {
                a.bound(&mut largest) * b.bound(&mut largest)
            }
        }
    }

    /// Adds `scale` times the change to the weight's elements, of which there are as many as [`Delta::shape`] says. A
    /// product is one sum of `f32` in order of the rank, the weight added at its end.
    pub fn add_to(&self, scale: f32, weight: &mut [f32]) {
        match self {
            Delta::Matrix(matrix) => matrix.ready().add_rows(0..matrix.rows(), scale, weight),
            Delta::Hadamard(a, b) => {
                let rows = a.rows();
                let (a, b) = (a.ready(), b.ready());
                let columns = a.columns();
                let (mut left, mut right) = (vec![], vec![]);
                for start in (0..rows).step_by(ROWS) {
                    let rows = start..rows.min(start + ROWS);
                    for (matrix, part) in [(&a, &mut left), (&b, &mut right)] {
                        part.clear();
                        part.resize(rows.len() * columns, 0.0);
                        matrix.add_rows(rows.clone(), 1.0, part);
                    }
                    let out = &mut weight[rows.start * columns..rows.end * columns];
                    for ((out, a), b) in out.iter_mut().zip(&left).zip(&right) {
                        *out += scale * (a * b);
                    }
                }
            }
            Delta::Kronecker(first, second) => {
                let (m, p) = (first.rows(), second.rows());
                let (first, second) = (first.ready(), second.ready());
                let (n, columns) = (first.columns(), second.columns());
                let mut outer = vec![0.0; m * n];
                first.add_rows(0..m, scale, &mut outer);
                let mut row = vec![0.0; columns];
                for i in 0..p {
                    row.fill(0.0);
                    second.add_rows(i..i + 1, 1.0, &mut row);
                    for (j, factors) in outer.chunks_exact(n.max(1)).enumerate() {
                        let out = &mut weight[(j * p + i) * n * columns..][..n * columns];
                        for (out, factor) in out.chunks_exact_mut(columns.max(1)).zip(factors) {
                            for (out, element) in out.iter_mut().zip(&row) {
                                *out += factor * element;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `out[m, n] += left[m, k] right[k, n]`, `right` in panels.
fn add_product(out: &mut [f32], left: &[f32], panels: &[f32], [m, k, n]: [usize; 3]) {
    if out.is_empty() || k == 0 {
        return;
    }
    let params = LinearParams {
        rows: m,
        k,
        k2: 0,
        n,
        activation: Activation::None,
    };
    let operands = LinearOperands {
        x: left,
        x2: None,
        weight: panels,
        bias: None,
        shift: None,
        residual: Residual::InPlace,
        out,
    };
    // Every length follows from the same three sizes.
    let mut linear = Linear::new(Kernels::detect(), params, operands).expect("lengths that agree");
    let mut scratch = vec![0; kiln_kernels::Job::scratch_bytes(&linear)];
    run_alone(&mut linear, &mut scratch);
}
