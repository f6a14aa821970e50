use super::{Attention, TILE};
use crate::{Element, PANEL, lanes, math, scratch::Scratch};

impl<T: Element> Attention<'_, T> {
    /// The definition, for one row of one head; all in `f32`.
    ///
    /// A score is `scale` times the sum over d of `q k`, fused multiply-adds from zero in ascending order, plus mask if
    /// there is one; under `causal` it is minus infinity for a key after the row's number.
    ///
    /// Keys are taken in tiles of 96 (of the whole sequence; a causal row sees tiles up to its own number / 96). With
    /// `m` the maximum so far (minus infinity at first), `l` and `sums` zero at first, a tile does
    /// `new = max(m, its scores)`; `shift = new`, or 0 where that is minus infinity; `rescale = exp(m - shift)`;
    /// `p = exp(score - shift)`; `l = fma(l, rescale, sum(p))`, the sum as in `lanes.rs`, key `j` of the tile in lane
    /// `j % 16`; `sums = sums rescale`, then for each key in order `sums = fma(p, v, sums)`, where a causal row leaves out
    /// the keys from the next multiple of 12 after its number on; `m = new`.
    ///
    /// The result is `sums / l`, rounded once.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    pub(super) unsafe fn scalar_row(&self, head: usize, query: usize, scratch: &mut [u8]) {
        let p = &self.params;
        let dim = p.head_dim;
        // SAFETY: the caller's promise; the row is written last.
        let q = unsafe { self.query(query, head) };
        let mut scratch = Scratch::new(scratch);
        let sums = scratch.take(dim);
        sums.fill(0.0);
        let (mut m, mut l) = (f32::NEG_INFINITY, 0.0f32);
        let keys = self.visible_keys(query);
        for tile in (0..keys)
            .step_by(TILE)
            .map(|start| start..keys.min(start + TILE))
        {
            let mut scores = [f32::NEG_INFINITY; TILE];
            for (key, score) in tile.clone().zip(&mut scores) {
                let k = &self.k[key * p.k_stride + head * dim..][..dim];
                let dot = q
                    .iter()
                    .zip(k)
                    .fold(0.0f32, |sum, (q, k)| q.load().mul_add(k.load(), sum));
                *score = p.scale * dot;
                if let Some(mask) = self.mask {
                    *score += mask[query * p.kv_rows + key];
                }
                if p.causal && key > query {
                    *score = f32::NEG_INFINITY;
                }
            }
            let mut lanes = [f32::NEG_INFINITY; PANEL];
            scores
                .iter()
                .enumerate()
                .for_each(|(j, s)| lanes[j % PANEL] = math::max(lanes[j % PANEL], *s));
            let new = math::max(m, lanes::join_max(lanes));
            let shift = if new == f32::NEG_INFINITY { 0.0 } else { new };
            let rescale = math::exp(m - shift);
            let mut lanes = [0.0; PANEL];
            for (j, score) in scores.iter_mut().enumerate() {
                *score = math::exp(*score - shift);
                lanes[j % PANEL] += *score;
            }
            l = l.mul_add(rescale, lanes::join_sum(lanes));
            sums.iter_mut().for_each(|sum| *sum *= rescale);
            let taken = self.taken(query, &tile);
            for (key, weight) in tile.zip(scores).take(taken) {
                let v = &self.v[key * p.v_stride + head * dim..][..dim];
                sums.iter_mut()
                    .zip(v)
                    .for_each(|(sum, v)| *sum = weight.mul_add(v.load(), *sum));
            }
            m = new;
        }
        let start = (query * p.heads + head) * dim;
        // SAFETY: this task alone has this row of this head.
        let out = unsafe { self.out.slice_mut(start..start + dim) };
        out.iter_mut()
            .zip(sums)
            .for_each(|(out, sum)| *out = T::store(*sum / l));
    }
}
