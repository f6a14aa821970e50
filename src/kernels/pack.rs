//! Weight panels: `[ceil(n / 16)][k][16]`, columns past `n` zero.

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
pub fn pack_panels_with<W: Element>(n: usize, k: usize, weight: impl Fn(usize, usize) -> f32) -> Vec<W> {
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
        if column < n { rows[(gate * n + column) * k + k_index] } else { 0.0 }
    })
}

/// Panels of a convolution's weights `[out_c, in_c, kernel_h, kernel_w]`; k runs over kernel row, kernel column and
/// input channel.
pub fn pack_conv_panels<W: Element>(out_c: usize, in_c: usize, kernel: (usize, usize), weights: &[f32]) -> Vec<W> {
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
        .map(|(column, k_index)| panels[(column / PANEL * k + k_index) * PANEL + column % PANEL].load())
        .collect()
}
