use crate::{Element, PANEL, lanes, math};

/// The definition, in `f32`, reductions as in `lanes.rs`: with `m` the maximum, `e = exp(x - m)`, `y = e (1 / sum(e))`.
pub fn row<T: Element>(row: &mut [T]) {
    let mut lanes = [f32::NEG_INFINITY; PANEL];
    row.iter()
        .enumerate()
        .for_each(|(i, x)| lanes[i % PANEL] = math::max(lanes[i % PANEL], x.load()));
    let m = lanes::join_max(lanes);
    let mut lanes = [0.0; PANEL];
    row.iter()
        .enumerate()
        .for_each(|(i, x)| lanes[i % PANEL] += math::exp(x.load() - m));
    let factor = 1.0 / lanes::join_sum(lanes);
    row.iter_mut()
        .for_each(|x| *x = T::store(math::exp(x.load() - m) * factor));
}
