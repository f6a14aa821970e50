use crate::{Element, Kernels, lanes, math};

/// [`super::scalar::row`] by way of `line`, as long as the row.
#[inline(always)]
pub fn row<T: Element>(kernels: Kernels, row: &mut [T], line: &mut [f32]) {
    T::load_slice(kernels, row, line);
    let m = lanes::max(line);
    math::exp_slice(line, m);
    let factor = 1.0 / lanes::sum(line);
    for x in line.iter_mut() {
        *x *= factor;
    }
    T::store_slice(kernels, line, row);
}
