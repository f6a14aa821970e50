use crate::{
    Element, Kernels, PANEL,
    lanes::{self, CHUNK},
};

/// [`super::scalar::row`], many columns at a time.
#[inline(always)]
pub fn row<T: Element, O: Element>(
    kernels: Kernels,
    x: &[T],
    gamma: Option<&[f32]>,
    beta: Option<&[f32]>,
    eps: f32,
    out: &mut [O],
) {
    let count = x.len() as f32;
    let mut line = [0.0; CHUNK];
    let mut sums = [0.0; PANEL];
    for x in x.chunks(CHUNK) {
        T::load_slice(kernels, x, &mut line[..x.len()]);
        lanes::add_up(&mut sums, &line[..x.len()]);
    }
    let mean = lanes::join_sum(sums) / count;
    let mut squares = [0.0; PANEL];
    for x in x.chunks(CHUNK) {
        T::load_slice(kernels, x, &mut line[..x.len()]);
        lanes::add_up_squares(&mut squares, &line[..x.len()], mean);
    }
    let rstd = 1.0 / (lanes::join_sum(squares) / count + eps).sqrt();
    for (index, (x, out)) in x.chunks(CHUNK).zip(out.chunks_mut(CHUNK)).enumerate() {
        let line = &mut line[..x.len()];
        T::load_slice(kernels, x, line);
        for x in line.iter_mut() {
            *x = (*x - mean) * rstd;
        }
        let columns = index * CHUNK..index * CHUNK + x.len();
        match (gamma, beta) {
            (None, None) => {}
            (Some(gamma), None) => {
                for (y, gamma) in line.iter_mut().zip(&gamma[columns]) {
                    *y *= gamma;
                }
            }
            (None, Some(beta)) => {
                for (y, beta) in line.iter_mut().zip(&beta[columns]) {
                    *y += beta;
                }
            }
            (Some(gamma), Some(beta)) => {
                for ((y, gamma), beta) in line
                    .iter_mut()
                    .zip(&gamma[columns.clone()])
                    .zip(&beta[columns])
                {
                    *y = y.mul_add(*gamma, *beta);
                }
            }
        }
        O::store_slice(kernels, line, out);
    }
}
