//! What one operator computes, on plain numbers.

use super::super::op::{Activation, BinaryKind, ReduceKind, UnaryKind};
use super::super::verify::{self, rows};
use super::super::view::View;
use super::super::{Node, codes};
use super::{InterpretError, Tensor};

pub(super) fn c_of(shape: &[usize]) -> usize {
    rows(shape).1
}

pub(super) fn look_up(
    node: &Node,
    ids: &[f32],
    table: &[f32],
    len: usize,
) -> Result<Vec<f32>, InterpretError> {
    let width = table.len() / len;
    let mut out = Vec::with_capacity(ids.len() * width);
    for id in ids {
        if *id < 0.0 || *id >= len as f32 {
            return Err(InterpretError::Row {
                node: node.name.clone(),
                row: *id,
                len,
            });
        }
        out.extend_from_slice(&table[*id as usize * width..][..width]);
    }
    Ok(out)
}

/// The columns of two tensors side by side.
pub(crate) fn beside(x: &Tensor, x2: Option<&Tensor>) -> Tensor {
    let Some(x2) = x2 else { return x.clone() };
    let (c, c2) = (c_of(&x.shape), c_of(&x2.shape));
    let pairs = x.data.chunks_exact(c).zip(x2.data.chunks_exact(c2));
    let data = pairs
        .flat_map(|(a, b)| a.iter().chain(b).copied())
        .collect();
    let mut shape = x.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = c + c2;
    }
    Tensor { shape, data }
}

/// Rows of `k` times the transpose of `weight [n, k]`.
pub(super) fn matmul_nt(x: &[f32], weight: &[f32], n: usize, k: usize) -> Vec<f32> {
    let turned = View::dense(&[n, k]).transpose(&[1, 0]).gather(weight);
    let mut out = vec![0.0; x.len() / k * n];
    for (row, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(n)) {
        for (x, weight) in row.iter().zip(turned.chunks_exact(n)) {
            out.iter_mut().zip(weight).for_each(|(o, w)| *o += x * w);
        }
    }
    out
}

/// A convolution of `[h, w, c]` as a product: `[h, w, o]`.
pub(super) fn conv(
    x: &[f32],
    [h, w, c]: [usize; 3],
    weight: &Tensor,
    stride: usize,
    pad: [usize; 4],
    out: [usize; 2],
) -> Vec<f32> {
    let [o, kh, kw] = [weight.shape[0], weight.shape[2], weight.shape[3]];
    // [o, c, kh, kw] -> [o, kh, kw, c]
    let weight = View::dense(&weight.shape)
        .transpose(&[0, 2, 3, 1])
        .gather(&weight.data);
    let mut columns = vec![0.0; out[1] * kh * kw * c];
    let mut result = Vec::with_capacity(out[0] * out[1] * o);
    for i in 0..out[0] {
        columns.fill(0.0);
        for (j, u, v) in (0..out[1]).flat_map(|j| (0..kh * kw).map(move |t| (j, t / kw, t % kw))) {
            let (row, column) = (
                (i * stride + u).wrapping_sub(pad[0]),
                (j * stride + v).wrapping_sub(pad[1]),
            );
            if row < h && column < w {
                let to = ((j * kh + u) * kw + v) * c;
                columns[to..to + c].copy_from_slice(&x[(row * w + column) * c..][..c]);
            }
        }
        result.extend(matmul_nt(&columns, &weight, o, kh * kw * c));
    }
    result
}

/// What follows a product, in the order of the programs.
pub(super) fn finish(
    out: &mut [f32],
    n: usize,
    bias: Option<&[f32]>,
    shift: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
) {
    for (i, v) in out.iter_mut().enumerate() {
        let column = i % n;
        *v += bias.map_or(0.0, |b| b[column]);
        *v += shift.map_or(0.0, |s| s[column]);
        *v = activate(*v, activation);
        if let Some(residual) = residual {
            *v += residual[i];
        }
    }
}

/// Nearest neighbour, source index `floor(i * in / out)`.
pub(super) fn enlarge(x: &[f32], [h, w, c]: [usize; 3], size: [usize; 2]) -> Vec<f32> {
    let mut out = Vec::with_capacity(size[0] * size[1] * c);
    for (i, j) in (0..size[0]).flat_map(|i| (0..size[1]).map(move |j| (i, j))) {
        let pixel = (i * h / size[0]) * w + j * w / size[1];
        out.extend_from_slice(&x[pixel * c..][..c]);
    }
    out
}

pub(super) fn moments(values: impl Iterator<Item = f32> + Clone, n: usize) -> (f64, f64) {
    let mean = values.clone().map(f64::from).sum::<f64>() / n as f64;
    (
        mean,
        values.map(|v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n as f64,
    )
}

pub(crate) fn group_norm(
    x: &[f32],
    (n, c): (usize, usize),
    groups: usize,
    eps: f32,
    gamma: Option<&[f32]>,
    beta: Option<&[f32]>,
    activation: Activation,
) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let width = c / groups;
    for group in 0..groups {
        let channels = group * width..(group + 1) * width;
        let values = (0..n).flat_map(|r| x[r * c..][channels.clone()].iter().copied());
        let (mean, variance) = moments(values, n * width);
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        for (r, i) in (0..n).flat_map(|r| channels.clone().map(move |i| (r, i))) {
            let v = ((f64::from(x[r * c + i]) - mean) * scale) as f32;
            let v = v * gamma.map_or(1.0, |g| g[i]) + beta.map_or(0.0, |b| b[i]);
            out[r * c + i] = activate(v, activation);
        }
    }
    out
}

#[allow(clippy::too_many_arguments)]
pub(super) fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    c: usize,
    heads: usize,
    scale: f32,
    causal: bool,
    mask: Option<&[f32]>,
) -> Vec<f32> {
    let d = c / heads;
    let kv_rows = k.len() / c;
    let mut out = vec![0.0; q.len()];
    for (i, h) in (0..q.len() / c).flat_map(|i| (0..heads).map(move |h| (i, h))) {
        let q = &q[i * c + h * d..][..d];
        let seen = if causal { i + 1 } else { kv_rows };
        let mut scores: Vec<f32> = (0..seen)
            .map(|j| {
                let dot: f32 = q
                    .iter()
                    .zip(&k[j * c + h * d..][..d])
                    .map(|(q, k)| q * k)
                    .sum();
                dot * scale + mask.map_or(0.0, |m| m[i * kv_rows + j])
            })
            .collect();
        softmax(&mut scores);
        let out = &mut out[i * c + h * d..][..d];
        for (j, p) in scores.iter().enumerate() {
            out.iter_mut()
                .zip(&v[j * c + h * d..][..d])
                .for_each(|(o, v)| *o += p * v);
        }
    }
    out
}

/// As the kernels', but that a code of a weight is relative to the largest score of all, not to the largest so far.
pub(super) fn integer_attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    c: usize,
    heads: usize,
    scale: f32,
) -> Vec<f32> {
    let (rows, d) = (k.len() / c, c / heads);
    let mut k = k.to_vec();
    for column in 0..c {
        let mean = (0..rows).map(|j| f64::from(k[j * c + column])).sum::<f64>() / rows as f64;
        (0..rows).for_each(|j| k[j * c + column] -= mean as f32);
    }
    // Rows of heads, and columns of values.
    let mut q = q.to_vec();
    codes::represent_weight(&mut q, d);
    codes::represent_weight(&mut k, d);
    let turn = |x: &[f32], shape: [usize; 2]| View::dense(&shape).transpose(&[1, 0]).gather(x);
    let mut columns = turn(v, [rows, c]);
    codes::represent_weight(&mut columns, rows);
    let v = turn(&columns, [c, rows]);
    let mut out = vec![0.0; q.len()];
    for (i, h) in (0..q.len() / c).flat_map(|i| (0..heads).map(move |h| (i, h))) {
        let q = &q[i * c + h * d..][..d];
        let dot = |j: usize| {
            q.iter()
                .zip(&k[j * c + h * d..][..d])
                .map(|(q, k)| q * k)
                .sum::<f32>()
                * scale
        };
        let scores: Vec<f32> = (0..rows).map(dot).collect();
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = scores
            .iter()
            .map(|s| (libm::expf(s - most) * 255.0).round_ties_even())
            .collect();
        let sum: f32 = weights.iter().sum();
        let out = &mut out[i * c + h * d..][..d];
        for (j, p) in weights.iter().enumerate() {
            out.iter_mut()
                .zip(&v[j * c + h * d..][..d])
                .for_each(|(o, v)| *o += p / sum * v);
        }
    }
    out
}

pub(super) fn softmax(row: &mut [f32]) {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|v| *v = libm::expf(*v - most));
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|v| *v /= sum);
}

/// Applies `f` to each line of `x` along an axis.
pub(super) fn along(x: &Tensor, axis: usize, f: impl Fn(&mut [f32])) -> Vec<f32> {
    let (size, inner) = (x.shape[axis], x.shape[axis + 1..].iter().product::<usize>());
    let mut out = x.data.clone();
    let mut line = vec![0.0; size];
    for (o, i) in (0..x.data.len() / (size * inner)).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |j: usize| (o * size + j) * inner + i;
        (0..size).for_each(|j| line[j] = x.data[at(j)]);
        f(&mut line);
        (0..size).for_each(|j| out[at(j)] = line[j]);
    }
    out
}

pub(super) fn reduce(x: &Tensor, kind: ReduceKind, axes: &[usize], shape: &[usize]) -> Vec<f32> {
    let mut sums = vec![0.0f64; shape.iter().product()];
    let into = View::dense(shape).expand(&x.shape);
    let mut next = x.data.iter();
    into.for_each(|i| {
        let v = f64::from(*next.next().unwrap_or(&0.0));
        sums[i] += if kind == ReduceKind::MeanOfSquares {
            v * v
        } else {
            v
        };
    });
    let n: usize = axes.iter().map(|a| x.shape[*a]).product();
    let divisor = if kind == ReduceKind::Sum {
        1.0
    } else {
        n as f64
    };
    sums.iter().map(|s| (s / divisor) as f32).collect()
}

pub(super) fn einsum(text: &str, a: &Tensor, b: &Tensor) -> Vec<f32> {
    let Some([la, lb, lo]) = verify::equation(text) else {
        return Vec::new();
    };
    let size = |l: &char| {
        let find =
            |letters: &[char], t: &Tensor| letters.iter().position(|x| x == l).map(|i| t.shape[i]);
        find(&la, a).or(find(&lb, b)).unwrap_or(1)
    };
    // Loops over the output's letters, then over the summed ones.
    let summed: Vec<char> = la
        .iter()
        .chain(&lb)
        .filter(|l| !lo.contains(l))
        .copied()
        .collect();
    let mut summed = summed;
    summed.sort_unstable();
    summed.dedup();
    let letters: Vec<char> = lo.iter().copied().chain(summed.iter().copied()).collect();
    let shape: Vec<usize> = letters.iter().map(size).collect();
    let view = |own: &[char], t: &Tensor| {
        let dense = View::dense(&t.shape);
        let strides = letters
            .iter()
            .map(|l| {
                own.iter()
                    .position(|o| o == l)
                    .map_or(0, |i| dense.strides[i])
            })
            .collect();
        View {
            shape: shape.clone(),
            strides,
            offset: 0,
        }
    };
    let inner: usize = summed.iter().map(size).product();
    let (xs, ys) = (view(&la, a).gather(&a.data), view(&lb, b).gather(&b.data));
    let dot = |(x, y): (&[f32], &[f32])| {
        x.iter()
            .zip(y)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>() as f32
    };
    xs.chunks_exact(inner)
        .zip(ys.chunks_exact(inner))
        .map(dot)
        .collect()
}

pub(super) fn binary(kind: BinaryKind, a: f32, b: f32) -> f32 {
    match kind {
        BinaryKind::Add => a + b,
        BinaryKind::Sub => a - b,
        BinaryKind::Mul => a * b,
        BinaryKind::Div => a / b,
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + libm::expf(-x))
}

pub(super) fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    (x * 0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))) as f32
}

pub(super) fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::None | Activation::Geglu => x,
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => gelu(x),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu if x < 0.0 => 0.0,
        Activation::Relu => x,
        Activation::Tanh => libm::tanhf(x),
    }
}

pub(super) fn unary(kind: UnaryKind, x: f32) -> f32 {
    match kind {
        UnaryKind::Sigmoid => sigmoid(x),
        UnaryKind::Erf => erf(f64::from(x)) as f32,
        UnaryKind::Sin => libm::sinf(x),
        UnaryKind::Cos => libm::cosf(x),
        UnaryKind::Exp => libm::expf(x),
        UnaryKind::Sqrt => x.sqrt(),
        UnaryKind::Rsqrt => 1.0 / x.sqrt(),
        UnaryKind::Recip => 1.0 / x,
        UnaryKind::Neg => -x,
        UnaryKind::Square => x * x,
        UnaryKind::Cast => x,
    }
}

/// The error function: its Taylor series near zero, its continued fraction elsewhere; good to 1e-12.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 2.5 {
        let (mut sum, mut term) = (a, a);
        for n in 1..60 {
            let n = f64::from(n);
            term *= -a * a / n;
            sum += term / (2.0 * n + 1.0);
        }
        return x.signum() * sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let fraction = (1..60).rev().fold(0.0, |f, k| f64::from(k) / 2.0 / (a + f));
    x.signum() * (1.0 - libm::exp(-a * a) / std::f64::consts::PI.sqrt() / (a + fraction))
}
