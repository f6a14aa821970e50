use std::f32::consts::{LN_2, LOG2_E};

use super::{AttentionInt8, OFFSET, Symmetric, TILE, weight};
use crate::{Element, math, scratch::Scratch};

impl<T: Element> AttentionInt8<'_, T> {
    /// The definition, for one row of one head; all but the products in `f32`.
    ///
    /// The query is coded like a key, by its largest magnitude. A score, as a power of two, is the exact product of the
    /// codes times `(query scale * scale * log2 e) * key scale`, these from the left.
    ///
    /// Keys are taken in tiles of 128. With `m` the maximum so far (minus infinity at first), `l` and `sums` zero at
    /// first, a tile does `t = max(its scores)`, 0 for minus infinity; weights `round(255 2^(score - t))`;
    /// `new = max(m, t)`; `old = exp((m - new) ln 2)`; `part = exp((t - new) ln 2)`;
    /// `l = fma(sum of weights, part, l old)`; for each column `sums = fma(sum of weight times code, part, sums old)`;
    /// `m = new`.
    ///
    /// The result is `(sums * value scale) / l`, rounded once.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    pub(super) unsafe fn scalar_row(&self, head: usize, query: usize, scratch: &mut [u8]) {
        let (p, layout) = (self.params(), self.layout());
        let dim = p.head_dim;
        // SAFETY: the first phase wrote the codes, and nobody writes them now.
        let codes = layout.parts(unsafe { self.codes.slice(self.part(head)) });
        // SAFETY: the caller's promise; the row is written last.
        let q = unsafe { self.float.query(query, head) };
        let map = Symmetric::of(
            q.iter()
                .fold(0.0, |largest, x| math::max(x.load().abs(), largest)),
        );
        let factor = map.scale * p.scale * LOG2_E;
        let sums = Scratch::new(scratch).take(dim);
        sums.fill(0.0);
        let (mut m, mut l) = (f32::NEG_INFINITY, 0.0f32);
        for tile in (0..p.kv_rows)
            .step_by(TILE)
            .map(|start| start..p.kv_rows.min(start + TILE))
        {
            let score = |key: usize| {
                let product = |(i, q): (usize, &T)| {
                    let (row, at) = layout.key(key, i);
                    (i32::from(map.code(q.load())) + OFFSET) * i32::from(codes.k[row][at])
                };
                let dot = q.iter().enumerate().map(product).sum::<i32>() - codes.k_offset[key];
                dot as f32 * (factor * codes.k_scale[key])
            };
            let t = tile
                .clone()
                .fold(f32::NEG_INFINITY, |t, key| math::max(score(key), t));
            let t = if t == f32::NEG_INFINITY { 0.0 } else { t };
            let mut weights = [0; TILE];
            tile.clone()
                .zip(&mut weights)
                .for_each(|(key, code)| *code = weight(score(key) - t));
            let new = math::max(m, t);
            let (old, part) = (math::exp((m - new) * LN_2), math::exp((t - new) * LN_2));
            l = (weights.iter().sum::<i32>() as f32).mul_add(part, l * old);
            for (column, sum) in sums.iter_mut().enumerate() {
                let product = |(key, weight): (usize, &i32)| {
                    let (row, at) = layout.value(key, column);
                    weight * i32::from(codes.v[row][at])
                };
                let dot: i32 = tile.clone().zip(&weights).map(product).sum();
                *sum = (dot as f32).mul_add(part, *sum * old);
            }
            m = new;
        }
        let start = (query * p.heads + head) * dim;
        // SAFETY: this task alone has this row of this head.
        let out = unsafe { self.float.out.slice_mut(start..start + dim) };
        for ((out, sum), scale) in out.iter_mut().zip(sums).zip(codes.v_scale) {
            *out = T::store(*sum * scale / l);
        }
    }
}
