use crate::{Element, PANEL, lanes};

/// The definition, in `f32`, sums as in `lanes.rs`: `mean = sum(x) / c`; `d = x - mean`; `var = sum(d^2) / c`, a lane's
/// sum being of fused multiply-adds; `rstd = 1 / sqrt(var + eps)`; `y = fma(d rstd, gamma, beta)`, without `gamma`
/// `d rstd + beta`, without `beta` no addition.
pub fn row<T: Element, O: Element>(
    x: &[T],
    gamma: Option<&[f32]>,
    beta: Option<&[f32]>,
    eps: f32,
    out: &mut [O],
) {
    let mut lanes = [0.0; PANEL];
    x.iter()
        .enumerate()
        .for_each(|(i, x)| lanes[i % PANEL] += x.load());
    let mean = lanes::join_sum(lanes) / x.len() as f32;
    let mut lanes = [0.0f32; PANEL];
    for (i, x) in x.iter().enumerate() {
        let d = x.load() - mean;
        lanes[i % PANEL] = d.mul_add(d, lanes[i % PANEL]);
    }
    let rstd = 1.0 / (lanes::join_sum(lanes) / x.len() as f32 + eps).sqrt();
    for (i, (x, out)) in x.iter().zip(out).enumerate() {
        let y = (x.load() - mean) * rstd;
        *out = O::store(match (gamma, beta) {
            (None, None) => y,
            (Some(gamma), None) => y * gamma[i],
            (None, Some(beta)) => y + beta[i],
            (Some(gamma), Some(beta)) => y.mul_add(gamma[i], beta[i]),
        });
    }
}
