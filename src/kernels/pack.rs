//! Weight panels: `[ceil(n / 16)][k][16]`, columns past `n` zero; of `i8` `[ceil(n / 16)][k8 / 4][16][4]`, k padded with
//! zeros to `k8`, a multiple of 8.

use crate::{Element, Kernels, PANEL};

#[cfg(test)]
mod tests;

/// Elements of the panels of `n` columns.
pub fn panel_len(n: usize, k: usize) -> usize {
    n.div_ceil(PANEL) * PANEL * k
}

/// Elements of the panels of a [`Geglu`](crate::Activation::Geglu) of `n` output columns, `2 n` weight columns.
pub fn geglu_panel_len(n: usize, k: usize) -> usize {
    2 * panel_len(n, k)
}

/// A matrix as its source stores it, which says where each column of its panels comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Matrix {
    /// `[n, k]`, as PyTorch's Linear stores it.
    Linear {
        /// Columns of the product.
        n: usize,
        /// Terms of its sums.
        k: usize,
    },
    /// `[2 n, k]`, all values before all gates, for [`Geglu`](crate::Activation::Geglu): panels of 16 values and of 16 gates
    /// alternately.
    Geglu {
        /// Columns of the product.
        n: usize,
        /// Terms of its sums.
        k: usize,
    },
    /// `[out_c, in_c, kernel_h, kernel_w]`; k runs over kernel row, kernel column and input channel.
    Conv {
        /// Output channels.
        out_c: usize,
        /// Input channels.
        in_c: usize,
        /// Elements of the kernel.
        taps: usize,
    },
}

impl Matrix {
    /// Rows as they are stored, and their length.
    pub fn rows(self) -> (usize, usize) {
        match self {
            Matrix::Linear { n, k } => (n, k),
            Matrix::Geglu { n, k } => (2 * n, k),
            Matrix::Conv { out_c, in_c, taps } => (out_c, in_c * taps),
        }
    }

    /// Panels.
    fn panels(self) -> usize {
        match self {
            Matrix::Linear { n, .. } => n.div_ceil(PANEL),
            Matrix::Geglu { n, .. } => 2 * n.div_ceil(PANEL),
            Matrix::Conv { out_c, .. } => out_c.div_ceil(PANEL),
        }
    }

    /// The stored row that is a panel's column.
    fn row(self, panel: usize, lane: usize) -> Option<usize> {
        let column = panel * PANEL + lane;
        match self {
            Matrix::Linear { n, .. } => (column < n).then_some(column),
            Matrix::Geglu { n, .. } => {
                let column = panel / 2 * PANEL + lane;
                (column < n).then_some(panel % 2 * n + column)
            }
            Matrix::Conv { out_c, .. } => (column < out_c).then_some(column),
        }
    }

    /// Where in a row each term stands.
    fn terms(self) -> Vec<usize> {
        let (_, k) = self.rows();
        match self {
            Matrix::Conv { in_c, taps, .. } => {
                let at = |k: usize| k % in_c * taps + k / in_c;
                (0..k).map(at).collect()
            }
            _ => (0..k).collect(),
        }
    }

    /// The panels of `weights`, made by so many threads.
    pub fn pack<W: Element>(self, weights: &[f32], threads: usize) -> Vec<W> {
        const BLOCK: usize = 64;
        let (rows, k) = self.rows();
        assert_eq!(weights.len(), rows * k);
        let (kernels, terms) = (Kernels::detect(), self.terms());
        self.fill(PANEL * k, threads, |panel, out: &mut [W]| {
            let mut block = [0.0; BLOCK * PANEL];
            for (terms, out) in terms.chunks(BLOCK).zip(out.chunks_mut(BLOCK * PANEL)) {
                let block = &mut block[..out.len()];
                for lane in 0..PANEL {
                    let row = self.row(panel, lane).map(|row| &weights[row * k..][..k]);
                    for (term, to) in terms.iter().zip(block.as_chunks_mut::<PANEL>().0) {
                        to[lane] = row.map_or(0.0, |row| row[*term]);
                    }
                }
                W::store_slice(kernels, block, out);
            }
        })
    }

    /// The panels of `codes`, made by so many threads.
    pub fn pack_i8(self, codes: &[i8], threads: usize) -> Vec<i8> {
        let (rows, k) = self.rows();
        assert_eq!(codes.len(), rows * k);
        let terms = self.terms();
        self.fill(PANEL * i8_padded_k(k), threads, |panel, out: &mut [i8]| {
            for lane in 0..PANEL {
                let Some(row) = self.row(panel, lane) else {
                    continue;
                };
                let row = &codes[row * k..][..k];
                for (terms, out) in terms.chunks(4).zip(out.chunks_mut(4 * PANEL)) {
                    for (term, to) in terms.iter().zip(&mut out[lane * 4..]) {
                        *to = row[*term];
                    }
                }
            }
        })
    }

    /// Panels of `len` elements, each filled by `panel`.
    fn fill<W: Copy + Default + Send>(
        self,
        len: usize,
        threads: usize,
        panel: impl Fn(usize, &mut [W]) + Sync,
    ) -> Vec<W> {
        let mut panels = vec![W::default(); self.panels() * len];
        let share = self.panels().div_ceil(threads.max(1)).max(1);
        let panel = &panel;
        let some = |first: usize, part: &mut [W]| {
            for (i, out) in part.chunks_exact_mut(len.max(1)).enumerate() {
                panel(first + i, out);
            }
        };
        let mut parts = panels.chunks_mut((share * len).max(1)).enumerate();
        std::thread::scope(|scope| {
            let own = parts.next();
            for (i, part) in parts {
                scope.spawn(move || some(i * share, part));
            }
            if let Some((_, part)) = own {
                some(0, part);
            }
        });
        panels
    }
}

/// As [`Matrix::Linear`].
pub fn pack_panels<W: Element>(n: usize, k: usize, rows: &[f32]) -> Vec<W> {
    Matrix::Linear { n, k }.pack(rows, 1)
}

/// As [`Matrix::Geglu`].
pub fn pack_geglu_panels<W: Element>(n: usize, k: usize, rows: &[f32]) -> Vec<W> {
    Matrix::Geglu { n, k }.pack(rows, 1)
}

/// As [`Matrix::Conv`].
pub fn pack_conv_panels<W: Element>(
    out_c: usize,
    in_c: usize,
    kernel: (usize, usize),
    weights: &[f32],
) -> Vec<W> {
    let taps = kernel.0 * kernel.1;
    Matrix::Conv { out_c, in_c, taps }.pack(weights, 1)
}

/// Panels of the matrix `weight(column, k)`.
pub fn pack_panels_with<W: Element>(
    n: usize,
    k: usize,
    weight: impl Fn(usize, usize) -> f32,
) -> Vec<W> {
    let rows: Vec<f32> = (0..n * k).map(|i| weight(i / k, i % k)).collect();
    pack_panels(n, k, &rows)
}

/// The matrix `[n, k]` that `panels` hold.
pub fn unpack_panels<W: Element>(n: usize, k: usize, panels: &[W]) -> Vec<f32> {
    assert_eq!(panels.len(), panel_len(n, k));
    (0..n * k)
        .map(|i| (i / k, i % k))
        .map(|(column, k_index)| {
            panels[(column / PANEL * k + k_index) * PANEL + column % PANEL].load()
        })
        .collect()
}

/// The multiple of 8 that `i8` panels pad `k` to.
pub const fn i8_padded_k(k: usize) -> usize {
    k.next_multiple_of(8)
}

/// Elements of the `i8` panels of `n` columns.
pub fn i8_panel_len(n: usize, k: usize) -> usize {
    n.div_ceil(PANEL) * PANEL * i8_padded_k(k)
}

/// Elements of the `i8` panels of a [`Geglu`](crate::Activation::Geglu) of `n` output columns.
pub fn i8_geglu_panel_len(n: usize, k: usize) -> usize {
    2 * i8_panel_len(n, k)
}

/// A matrix `[n, k]` in 8 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedWeights {
    /// `[n, k]`, in -127..=127.
    pub codes: Vec<i8>,
    /// `[n]`: what a code of the row counts.
    pub scale: Vec<f32>,
    /// `[n]`: the sum of a row's codes.
    pub sums: Vec<i32>,
}

/// Each of the `n` rows of `weights`, `k` long, by itself: `scale = max |w| / 127` and codes
/// `clamp(round(w / scale), -127, 127)`, ties to even; zeros where the scale is zero or not finite.
pub fn quantize_weights(n: usize, k: usize, weights: &[f32]) -> QuantizedWeights {
    quantize_weights_on(1, n, k, weights)
}

/// As [`quantize_weights`], by so many threads.
pub fn quantize_weights_on(
    threads: usize,
    n: usize,
    k: usize,
    weights: &[f32],
) -> QuantizedWeights {
    assert_eq!(weights.len(), n * k);
    let mut quantized = QuantizedWeights {
        codes: vec![0; n * k],
        scale: vec![0.0; n],
        sums: vec![0; n],
    };
    let share = n.div_ceil(threads.max(1)).max(1);
    let QuantizedWeights { codes, scale, sums } = &mut quantized;
    let parts = codes
        .chunks_mut((share * k).max(1))
        .zip(weights.chunks((share * k).max(1)))
        .zip(scale.chunks_mut(share).zip(sums.chunks_mut(share)));
    std::thread::scope(|scope| {
        for (index, ((codes, weights), (scale, sums))) in parts.enumerate() {
            let work = move || {
                let rows = codes.chunks_mut(k).zip(weights.chunks(k));
                for ((codes, weights), (scale, sum)) in rows.zip(scale.iter_mut().zip(sums)) {
                    (*scale, *sum) = quantize_row(weights, codes);
                }
            };
            // The last part is this thread's.
            if (index + 1) * share < n {
                scope.spawn(work);
            } else {
                work();
            }
        }
    });
    quantized
}

/// The scale and the sum of a row's codes.
fn quantize_row(row: &[f32], codes: &mut [i8]) -> (f32, i32) {
    let scale = row_scale(row);
    if !scale.is_finite() || scale <= 0.0 {
        codes.fill(0);
        return (if scale.is_finite() { scale } else { 0.0 }, 0);
    }
    for (code, w) in codes.iter_mut().zip(row) {
        *code = nearest(w / scale) as i8;
    }
    (scale, codes.iter().map(|code| i32::from(*code)).sum())
}

fn row_scale(row: &[f32]) -> f32 {
    let largest = row
        .iter()
        .fold(0.0f32, |m, w| if w.abs() > m { w.abs() } else { m });
    largest / 127.0
}

/// The nearest of -127..=127, ties to even.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-127.0, 127.0);
    (x + ROUND) - ROUND
}

/// Makes each weight of rows of `k` what its code stands for, by so many threads; 0 where the scale is 0.
pub fn represent_weights(threads: usize, k: usize, weights: &mut [f32]) {
    let rows = weights.len().div_ceil(k.max(1));
    let share = rows.div_ceil(threads.max(1)).max(1) * k.max(1);
    std::thread::scope(|scope| {
        for part in weights.chunks_mut(share) {
            scope.spawn(move || {
                part.chunks_mut(k.max(1)).for_each(represent_row);
            });
        }
    });
}

/// As [`represent_weights`], of one row.
pub fn represent_row(row: &mut [f32]) {
    let scale = row_scale(row);
    for w in row {
        *w = if scale == 0.0 {
            0.0
        } else {
            nearest(*w / scale) * scale
        };
    }
}

/// As [`Matrix::Linear`], of codes.
pub fn pack_i8_panels(n: usize, k: usize, codes: &[i8]) -> Vec<i8> {
    Matrix::Linear { n, k }.pack_i8(codes, 1)
}

/// As [`Matrix::Geglu`], of codes.
pub fn pack_i8_geglu_panels(n: usize, k: usize, codes: &[i8]) -> Vec<i8> {
    Matrix::Geglu { n, k }.pack_i8(codes, 1)
}

/// As [`Matrix::Conv`], of codes.
pub fn pack_i8_conv_panels(
    out_c: usize,
    in_c: usize,
    kernel: (usize, usize),
    codes: &[i8],
) -> Vec<i8> {
    let taps = kernel.0 * kernel.1;
    Matrix::Conv { out_c, in_c, taps }.pack_i8(codes, 1)
}

/// The codes `[n, k]` that `panels` hold.
pub fn unpack_i8_panels(n: usize, k: usize, panels: &[i8]) -> Vec<i8> {
    assert_eq!(panels.len(), i8_panel_len(n, k));
    (0..n * k)
        .map(|i| panels[i8_index(k, i / k, i % k)])
        .collect()
}

/// Where the code of a column and a step stands in panels.
fn i8_index(k: usize, column: usize, k_index: usize) -> usize {
    column / PANEL * PANEL * i8_padded_k(k)
        + (k_index / 4 * PANEL + column % PANEL) * 4
        + k_index % 4
}
