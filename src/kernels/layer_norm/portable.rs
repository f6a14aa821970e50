use crate::{Element, Kernels, lanes};

/// [`super::scalar::row`] by way of `line`, as long as the row.
#[inline(always)]
pub fn row<T: Element>(
    kernels: Kernels,
    x: &[T],
    gamma: Option<&[f32]>,
    beta: Option<&[f32]>,
    eps: f32,
    line: &mut [f32],
    out: &mut [T],
) {
    let count = x.len() as f32;
    T::load_slice(kernels, x, line);
    let mean = lanes::sum(line) / count;
    for x in line.iter_mut() {
        *x -= mean;
    }
    let rstd = 1.0 / (lanes::sum_of_squares(line) / count + eps).sqrt();
    for d in line.iter_mut() {
        *d *= rstd;
    }
    match (gamma, beta) {
        (None, None) => {}
        (Some(gamma), None) => {
            for (y, gamma) in line.iter_mut().zip(gamma) {
                *y *= gamma;
            }
        }
        (None, Some(beta)) => {
            for (y, beta) in line.iter_mut().zip(beta) {
                *y += beta;
            }
        }
        (Some(gamma), Some(beta)) => {
            for ((y, gamma), beta) in line.iter_mut().zip(gamma).zip(beta) {
                *y = y.mul_add(*gamma, *beta);
            }
        }
    }
    T::store_slice(kernels, line, out);
}
