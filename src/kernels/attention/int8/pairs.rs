//! The tile's products in 16 bits, from panels of keys and values that are expanded once for all rows.

use std::ops::Range;

use super::{AttentionInt8, STEPS, TILE, portable::Work};
use crate::{
    Element, Kernels, PANEL,
    gemm::int8::{
        Pairs, avx2,
        pairs::{self, ROWS},
    },
    scratch::Scratch,
};

impl<T: Element> AttentionInt8<'_, T> {
    /// A task. `kernels` are those of AVX2.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn pairs_tile(
        &self,
        kernels: Kernels,
        head: usize,
        queries: Range<usize>,
        scratch: &mut [u8],
    ) {
        let (p, layout) = (self.params(), self.layout());
        // SAFETY: the first phase wrote the codes, and nobody writes them now.
        let codes = layout.parts(unsafe { self.codes.slice(self.part(head)) });
        let mut scratch = Scratch::new(scratch);
        // SAFETY: the caller's promise.
        let mut work =
            unsafe { self.begin::<i16, ROWS>(kernels, head, queries.clone(), &mut scratch) };
        let expanded: &mut [Pairs] = scratch.take_of(layout.dim4.max(TILE) / 2);
        for start in (0..p.kv_rows).step_by(TILE) {
            let keys = TILE.min(p.kv_rows - start);
            let expanded_keys = &mut expanded[..layout.dim4 / 2];
            for panel in 0..keys.div_ceil(PANEL) {
                let steps = layout.dim4 / 4;
                let steps = &codes.k[(start / PANEL + panel) * steps..][..steps];
                // SAFETY: the kernels' features; two pairs for each four steps.
                unsafe { avx2::expand(steps, expanded_keys) }
                work.products_of(kernels, panel, expanded_keys);
            }
            work.weigh(kernels, &codes, start, keys);
            let expanded_values = &mut expanded[..TILE / 2];
            for column in 0..layout.dim16 / PANEL {
                let steps = &codes.v[(column * layout.keys + start) / 4..][..TILE / 4];
                // SAFETY: the kernels' features; two pairs for each four steps.
                unsafe { avx2::expand(steps, expanded_values) }
                work.add_values(kernels, column, expanded_values);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.end(kernels, head, queries, &codes, &work) }
    }
}

impl Work<'_, i16> {
    /// The products of all query rows with a panel of the tile's keys.
    #[inline(always)]
    fn products_of(&mut self, kernels: Kernels, panel: usize, keys: &[Pairs]) {
        let products = &mut self.products[panel * self.rows..][..self.rows];
        for (block, keys) in keys.chunks(STEPS / 2).enumerate() {
            let q = self.q[block * self.rows..][..self.rows].as_flattened();
            pairs::multiply(
                kernels,
                (q, STEPS),
                self.rows,
                keys,
                products,
                (block > 0, &[]),
            );
        }
    }

    /// Adds all rows of weights times the tile's values of a panel of columns to `sums`.
    #[inline(always)]
    fn add_values(&mut self, kernels: Kernels, column: usize, values: &[Pairs]) {
        for row in (0..self.rows).step_by(ROWS) {
            let mut products = [[0; PANEL]; ROWS];
            let weights = self.weights[row..][..ROWS].as_flattened();
            pairs::multiply(
                kernels,
                (weights, TILE),
                ROWS,
                values,
                &mut products,
                (false, &[]),
            );
            let sums = &mut self.sums[column * self.rows + row..][..ROWS];
            for (i, (sums, products)) in sums.iter_mut().zip(&products).enumerate() {
                let (old, part) = (self.old[row + i], self.part[row + i]);
                for lane in 0..PANEL {
                    sums[lane] = (products[lane] as f32).mul_add(part, sums[lane] * old);
                }
            }
        }
    }
}
