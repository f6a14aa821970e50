use std::{array, ops::Range};

use super::{Attention, CAUSAL, STEPS, TILE};
use crate::{Element, Isa, Kernels, PANEL, gemm::tile, lanes, math, scratch::Scratch};

/// Panels of keys in a tile.
const KEY_PANELS: usize = TILE / PANEL;

/// One task's work in scratch.
struct Work<'s> {
    /// Query rows, padded to whole tiles of the instruction set.
    rows: usize,
    /// `[ceil(dim / STEPS)][rows][STEPS]`
    q: &'s [[f32; STEPS]],
    /// Panels of 16 keys: `[KEY_PANELS][dim][16]`.
    keys: &'s mut [[f32; PANEL]],
    /// Panels of 16 columns: `[ceil(dim / 16)][TILE][16]`.
    values: &'s mut [[f32; PANEL]],
    /// A row of scores, later of weights, per query row.
    scores: &'s mut [[f32; TILE]],
    /// `[ceil(dim / 16)][rows][16]`
    sums: &'s mut [[f32; PANEL]],
    /// A row's maximum and sum of weights.
    m: &'s mut [f32],
    l: &'s mut [f32],
    /// What a tile takes off a row's scores, and multiplies its sums with.
    shift: &'s mut [f32],
    rescale: &'s mut [f32],
    /// One row of `k` or `v`.
    line: &'s mut [f32],
}

impl<T: Element> Attention<'_, T> {
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn portable_tile(
        &self,
        kernels: Kernels,
        head: usize,
        queries: Range<usize>,
        scratch: &mut [u8],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match kernels.isa() {
                Isa::Avx512Vnni => self.tile::<12, 2>(kernels, head, queries, scratch),
                _ => self.tile::<6, 1>(kernels, head, queries, scratch),
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<const ROWS: usize, const PANELS: usize>(
        &self,
        kernels: Kernels,
        head: usize,
        queries: Range<usize>,
        scratch: &mut [u8],
    ) {
        // So the rows of a product take in the same keys.
        const { assert!(CAUSAL.is_multiple_of(ROWS)) };
        let p = &self.params;
        let dim = p.head_dim;
        let rows = queries.len().next_multiple_of(ROWS);
        let columns = dim.div_ceil(PANEL);
        let mut scratch = Scratch::new(scratch);
        let q = scratch.take_rows(dim.div_ceil(STEPS) * rows);
        // SAFETY: the caller's promise; nothing is written yet.
        unsafe { self.load_queries(kernels, head, queries.clone(), rows, q) };
        let mut work = Work {
            rows,
            q,
            keys: scratch.take_rows(KEY_PANELS * dim),
            values: scratch.take_rows(columns * TILE),
            scores: scratch.take_rows(rows),
            sums: scratch.take_rows(columns * rows),
            m: scratch.take(rows),
            l: scratch.take(rows),
            shift: scratch.take(rows),
            rescale: scratch.take(rows),
            line: scratch.take(columns * PANEL),
        };
        work.sums.fill([0.0; PANEL]);
        work.m.fill(f32::NEG_INFINITY);
        work.l.fill(0.0);
        work.shift.fill(0.0);
        work.rescale.fill(0.0);
        let keys = self.visible_keys(queries.start);
        for start in (0..keys).step_by(TILE) {
            let tile = start..keys.min(start + TILE);
            self.load_keys(kernels, head, tile.clone(), &mut work);
            for row in (0..rows).step_by(ROWS) {
                let keys = self.taken(queries.start + row, &tile);
                work.score::<ROWS, PANELS>(kernels, row, keys, dim);
            }
            self.weigh(&mut work, queries.clone(), tile.clone());
            for row in (0..rows).step_by(ROWS) {
                let keys = self.taken(queries.start + row, &tile);
                work.gather::<ROWS, PANELS>(kernels, row, keys, columns);
            }
        }
        for (row, query) in queries.enumerate() {
            let start = (query * p.heads + head) * dim;
            for column in 0..columns {
                let range = start + column * PANEL..start + dim.min((column + 1) * PANEL);
                // SAFETY: this task alone has this row of this head.
                let out = unsafe { self.out.slice_mut(range) };
                let mut values = work.sums[column * rows + row];
                for value in &mut values {
                    *value /= work.l[row];
                }
                T::store_slice(kernels, &values[..out.len()], out);
            }
        }
    }

    /// # Safety
    /// As [`Job::run`](crate::Job::run), before the task writes anything.
    #[inline(always)]
    unsafe fn load_queries(
        &self,
        kernels: Kernels,
        head: usize,
        queries: Range<usize>,
        rows: usize,
        to: &mut [[f32; STEPS]],
    ) {
        to.fill([0.0; STEPS]);
        for (row, query) in queries.enumerate() {
            // SAFETY: the caller's promise.
            let q = unsafe { self.query(query, head) };
            for (block, q) in q.chunks(STEPS).enumerate() {
                T::load_slice(kernels, q, &mut to[block * rows + row][..q.len()]);
            }
        }
    }

    /// Brings a tile of keys and values into panels. Lanes of keys past the tile's end are zero.
    #[inline(always)]
    fn load_keys(&self, kernels: Kernels, head: usize, tile: Range<usize>, work: &mut Work) {
        let p = &self.params;
        let dim = p.head_dim;
        if tile.len() < TILE {
            work.keys.fill([0.0; PANEL]);
        }
        for (j, key) in tile.clone().enumerate() {
            let line = &mut work.line[..dim];
            T::load_slice(
                kernels,
                &self.k[key * p.k_stride + head * dim..][..dim],
                line,
            );
            let panel = &mut work.keys[j / PANEL * dim..][..dim];
            panel
                .iter_mut()
                .zip(line)
                .for_each(|(lanes, k)| lanes[j % PANEL] = *k);
        }
        for (j, key) in tile.enumerate() {
            T::load_slice(
                kernels,
                &self.v[key * p.v_stride + head * dim..][..dim],
                &mut work.line[..dim],
            );
            work.line[dim..].fill(0.0);
            for (column, line) in work.line.as_chunks::<PANEL>().0.iter().enumerate() {
                work.values[column * TILE + j] = *line;
            }
        }
    }

    /// Turns products into weights, and brings each row's maximum, its sum and its part of `sums` up to date.
    #[inline(always)]
    fn weigh(&self, work: &mut Work, queries: Range<usize>, tile: Range<usize>) {
        let p = &self.params;
        for (row, query) in queries.clone().enumerate() {
            let width = self.taken(query, &tile).next_multiple_of(PANEL);
            let scores = &mut work.scores[row][..width];
            for score in scores.iter_mut() {
                *score *= p.scale;
            }
            if let Some(mask) = self.mask {
                for (score, mask) in scores
                    .iter_mut()
                    .zip(&mask[query * p.kv_rows..][tile.clone()])
                {
                    *score += mask;
                }
            }
            let seen = if p.causal {
                tile.len().min((query + 1).saturating_sub(tile.start))
            } else {
                tile.len()
            };
            scores[seen..].fill(f32::NEG_INFINITY);
            let new = math::max(work.m[row], lanes::max(scores));
            work.shift[row] = if new == f32::NEG_INFINITY { 0.0 } else { new };
            work.rescale[row] = work.m[row];
            work.m[row] = new;
        }
        for (rescale, shift) in work.rescale.iter_mut().zip(&*work.shift) {
            *rescale = math::exp(*rescale - shift);
        }
        for (row, query) in queries.enumerate() {
            // What is beyond is zero.
            let width = self.taken(query, &tile).next_multiple_of(PANEL);
            let (scores, rescale) = (&mut work.scores[row][..width], work.rescale[row]);
            math::exp_slice(scores, work.shift[row]);
            work.l[row] = work.l[row].mul_add(rescale, lanes::sum(scores));
            // A factor of one, which is the rule once the maximum is found, changes nothing.
            if rescale != 1.0 {
                for sums in work.sums[row..].iter_mut().step_by(work.rows) {
                    for sum in sums {
                        *sum *= rescale;
                    }
                }
            }
        }
    }
}

impl Work<'_> {
    /// The products of `ROWS` query rows with the tile's keys, into `scores`.
    #[inline(always)]
    fn score<const ROWS: usize, const PANELS: usize>(
        &mut self,
        kernels: Kernels,
        row: usize,
        keys: usize,
        dim: usize,
    ) {
        for panel in (0..keys.div_ceil(PANEL)).step_by(PANELS) {
            let mut sums = [[[0.0; PANEL]; ROWS]; PANELS];
            for start in (0..dim).step_by(STEPS) {
                let steps = start..dim.min(start + STEPS);
                let q = self.q[start / STEPS * self.rows + row..]
                    .first_chunk()
                    .expect("rows are padded");
                let keys: [_; PANELS] =
                    array::from_fn(|p| &self.keys[(panel + p) * dim..][steps.clone()]);
                tile::multiply::<ROWS, PANELS, _>(kernels, q, keys, sums.each_mut());
            }
            for (p, sums) in sums.iter().enumerate() {
                for (scores, sums) in self.scores[row..].iter_mut().zip(sums) {
                    scores[(panel + p) * PANEL..][..PANEL].copy_from_slice(sums);
                }
            }
        }
    }

    /// Adds `ROWS` rows of weights times the tile's values to `sums`.
    #[inline(always)]
    fn gather<const ROWS: usize, const PANELS: usize>(
        &mut self,
        kernels: Kernels,
        row: usize,
        keys: usize,
        columns: usize,
    ) {
        let mut column = 0;
        while column + PANELS <= columns {
            self.gather_columns::<ROWS, PANELS>(kernels, row, keys, column);
            column += PANELS;
        }
        while column < columns {
            self.gather_columns::<ROWS, 1>(kernels, row, keys, column);
            column += 1;
        }
    }

    #[inline(always)]
    fn gather_columns<const ROWS: usize, const PANELS: usize>(
        &mut self,
        kernels: Kernels,
        row: usize,
        keys: usize,
        column: usize,
    ) {
        let weights = self.scores[row..].first_chunk().expect("rows are padded");
        let values: [_; PANELS] = array::from_fn(|p| &self.values[(column + p) * TILE..][..keys]);
        let sums = tile::sums_of::<ROWS, PANELS>(self.sums, self.rows, row, column);
        tile::multiply(kernels, weights, values, sums);
    }
}
