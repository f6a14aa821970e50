//! Weight panels: `[ceil(n / 16)][k][16]`, columns past `n` zero; of `i8` `[ceil(n / 16)][k8 / 4][16][4]`, k padded with
//! zeros to `k8`, a multiple of 8.

use crate::{Element, PANEL};

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

/// Panels of a matrix whose row `column` is `rows[column * k ..][.. k]`: `[n, k]` as PyTorch's Linear stores it.
pub fn pack_panels<W: Element>(n: usize, k: usize, rows: &[f32]) -> Vec<W> {
    assert_eq!(rows.len(), n * k);
    pack_panels_with(n, k, |column, k_index| rows[column * k + k_index])
}

/// Panels of the matrix `weight(column, k)`.
pub fn pack_panels_with<W: Element>(
    n: usize,
    k: usize,
    weight: impl Fn(usize, usize) -> f32,
) -> Vec<W> {
    let mut panels = vec![W::default(); panel_len(n, k)];
    for column in 0..n {
        let panel = &mut panels[column / PANEL * PANEL * k..][..PANEL * k];
        for (k_index, row) in panel.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
            row[column % PANEL] = W::store(weight(column, k_index));
        }
    }
    panels
}

/// Panels for [`Geglu`](crate::Activation::Geglu), alternately 16 value and 16 gate columns. `rows` is `[2 n, k]`, all
/// values before all gates.
pub fn pack_geglu_panels<W: Element>(n: usize, k: usize, rows: &[f32]) -> Vec<W> {
    assert_eq!(rows.len(), 2 * n * k);
    let padded = n.next_multiple_of(PANEL);
    pack_panels_with(2 * padded, k, |column, k_index| {
        let (pair, gate, lane) = (column / (2 * PANEL), column / PANEL % 2, column % PANEL);
        let column = pair * PANEL + lane;
        if column < n {
            rows[(gate * n + column) * k + k_index]
        } else {
            0.0
        }
    })
}

/// Panels of a convolution's weights `[out_c, in_c, kernel_h, kernel_w]`; k runs over kernel row, kernel column and
/// input channel.
pub fn pack_conv_panels<W: Element>(
    out_c: usize,
    in_c: usize,
    kernel: (usize, usize),
    weights: &[f32],
) -> Vec<W> {
    let taps = kernel.0 * kernel.1;
    assert_eq!(weights.len(), out_c * in_c * taps);
    pack_panels_with(out_c, in_c * taps, |column, k_index| {
        weights[(column * in_c + k_index % in_c) * taps + k_index / in_c]
    })
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
    assert_eq!(weights.len(), n * k);
    let (mut codes, mut scales, mut sums) = (
        Vec::with_capacity(n * k),
        Vec::with_capacity(n),
        Vec::with_capacity(n),
    );
    for row in 0..n {
        let row = &weights[row * k..][..k];
        let largest = row
            .iter()
            .fold(0.0f32, |m, w| if w.abs() > m { w.abs() } else { m });
        let scale = largest / 127.0;
        let scale = if scale.is_finite() { scale } else { 0.0 };
        let code = |w: &f32| {
            if scale > 0.0 {
                (w / scale).round_ties_even().clamp(-127.0, 127.0) as i8
            } else {
                0
            }
        };
        codes.extend(row.iter().map(code));
        scales.push(scale);
        sums.push(
            codes[codes.len() - k..]
                .iter()
                .map(|code| i32::from(*code))
                .sum(),
        );
    }
    QuantizedWeights {
        codes,
        scale: scales,
        sums,
    }
}

/// Panels of the codes `[n, k]`.
pub fn pack_i8_panels(n: usize, k: usize, codes: &[i8]) -> Vec<i8> {
    assert_eq!(codes.len(), n * k);
    pack_i8_panels_with(n, k, |column, k_index| codes[column * k + k_index])
}

/// Panels of the matrix `code(column, k)`.
pub fn pack_i8_panels_with(n: usize, k: usize, code: impl Fn(usize, usize) -> i8) -> Vec<i8> {
    let mut panels = vec![0; i8_panel_len(n, k)];
    for column in 0..n {
        for k_index in 0..k {
            panels[i8_index(k, column, k_index)] = code(column, k_index);
        }
    }
    panels
}

/// Panels for [`Geglu`](crate::Activation::Geglu), alternately 16 value and 16 gate columns. `codes` is `[2 n, k]`, all
/// values before all gates.
pub fn pack_i8_geglu_panels(n: usize, k: usize, codes: &[i8]) -> Vec<i8> {
    assert_eq!(codes.len(), 2 * n * k);
    pack_i8_panels_with(2 * n.next_multiple_of(PANEL), k, |column, k_index| {
        let (pair, gate, lane) = (column / (2 * PANEL), column / PANEL % 2, column % PANEL);
        let column = pair * PANEL + lane;
        if column < n {
            codes[(gate * n + column) * k + k_index]
        } else {
            0
        }
    })
}

/// Panels of a convolution's codes `[out_c, in_c, kernel_h, kernel_w]`; k runs over kernel row, kernel column and input
/// channel.
pub fn pack_i8_conv_panels(
    out_c: usize,
    in_c: usize,
    kernel: (usize, usize),
    codes: &[i8],
) -> Vec<i8> {
    let taps = kernel.0 * kernel.1;
    assert_eq!(codes.len(), out_c * in_c * taps);
    pack_i8_panels_with(out_c, in_c * taps, |column, k_index| {
        codes[(column * in_c + k_index % in_c) * taps + k_index / in_c]
    })
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
