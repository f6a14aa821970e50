use crate::{
    Element, Kernels, PANEL,
    lanes::{self, CHUNK},
    math,
};

/// [`super::scalar::row`], many columns at a time.
#[inline(always)]
pub fn row<T: Element>(kernels: Kernels, row: &mut [T]) {
    let mut line = [0.0; CHUNK];
    let mut largest = [f32::NEG_INFINITY; PANEL];
    for x in row.chunks(CHUNK) {
        T::load_slice(kernels, x, &mut line[..x.len()]);
        lanes::raise(&mut largest, &line[..x.len()]);
    }
    let m = lanes::join_max(largest);
    let mut sums = [0.0; PANEL];
    for x in row.chunks(CHUNK) {
        let line = &mut line[..x.len()];
        T::load_slice(kernels, x, line);
        math::exp_slice(line, m);
        lanes::add_up(&mut sums, line);
    }
    let factor = 1.0 / lanes::join_sum(sums);
    for x in row.chunks_mut(CHUNK) {
        let line = &mut line[..x.len()];
        T::load_slice(kernels, x, line);
        math::exp_slice(line, m);
        for x in line.iter_mut() {
            *x *= factor;
        }
        T::store_slice(kernels, line, x);
    }
}
