use std::{
    array,
    f32::consts::{LN_2, LOG2_E},
    ops::Range,
};

use super::{AttentionInt8, Head, OFFSET, STEPS, Symmetric, TILE, largest};
use crate::{
    Element, Isa, Kernels, PANEL,
    gemm::int8::tile::{self, Left, Steps},
    lanes, math,
    scratch::Scratch,
};

/// Panels of keys in a tile.
const KEY_PANELS: usize = TILE / PANEL;

/// One task's work in scratch.
pub(super) struct Work<'s, L> {
    /// Query rows, padded to whole tiles of the instruction set.
    pub rows: usize,
    /// `[ceil(dim / STEPS)][rows][STEPS]`
    pub q: &'s mut [[L; STEPS]],
    /// Products with the tile's keys: `[TILE / 16][rows][16]`
    pub products: &'s mut [[i32; PANEL]],
    /// A row of coded weights per query row.
    pub weights: &'s mut [[L; TILE]],
    /// `[ceil(dim / 16)][rows][16]`
    pub sums: &'s mut [[f32; PANEL]],
    /// What a row's scores are multiplied with.
    factor: &'s mut [f32],
    /// A row's maximum and sum of weights.
    m: &'s mut [f32],
    l: &'s mut [f32],
    /// A row's sum of the tile's weights.
    total: &'s mut [f32],
    /// What a tile multiplies a row's sums with, and its own.
    pub old: &'s mut [f32],
    pub part: &'s mut [f32],
}

impl<T: Element> AttentionInt8<'_, T> {
    /// [`AttentionInt8::scalar_row`] for all rows of a task.
    ///
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
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => self.pairs_tile(kernels, head, queries, scratch),
                #[cfg(target_arch = "x86_64")]
                Isa::AvxVnni => self.tile::<u8, 6, 1>(kernels, head, queries, scratch),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Vnni => self.tile::<u8, 12, 2>(kernels, head, queries, scratch),
                Isa::Neon => self.tile::<i8, 2, 1>(kernels, head, queries, scratch),
                Isa::NeonDot => self.tile::<i8, 6, 1>(kernels, head, queries, scratch),
                Isa::NeonI8mm => self.tile::<u8, 4, 1>(kernels, head, queries, scratch),
                _ => self.tile::<i16, 6, 1>(kernels, head, queries, scratch),
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<L: Left, const ROWS: usize, const PANELS: usize>(
        &self,
        kernels: Kernels,
        head: usize,
        queries: Range<usize>,
        scratch: &mut [u8],
    ) {
        let (p, layout) = (self.params(), self.layout());
        let columns = layout.dim16 / PANEL;
        // SAFETY: the first phase wrote the codes, and nobody writes them now.
        let codes = layout.parts(unsafe { self.codes.slice(self.part(head)) });
        let mut scratch = Scratch::new(scratch);
        // SAFETY: the caller's promise.
        let mut work =
            unsafe { self.begin::<L, ROWS>(kernels, head, queries.clone(), &mut scratch) };
        let rows = work.rows;
        for start in (0..p.kv_rows).step_by(TILE) {
            let keys = TILE.min(p.kv_rows - start);
            for row in (0..rows).step_by(ROWS) {
                work.multiply_keys::<ROWS, PANELS>(kernels, &codes, row, start, layout.dim4);
            }
            work.weigh(kernels, &codes, start, keys);
            let values = |column: usize| &codes.v[(column * layout.keys + start) / 4..][..TILE / 4];
            let mut column = 0;
            while column + PANELS <= columns {
                let values: [_; PANELS] = array::from_fn(|p| values(column + p));
                work.gather_columns::<ROWS, PANELS>(kernels, values, column);
                column += PANELS;
            }
            while column < columns {
                work.gather_columns::<ROWS, 1>(kernels, [values(column)], column);
                column += 1;
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.end(kernels, head, queries, &codes, &work) }
    }

    /// The task's work before its first tile of keys.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run), before the task writes anything.
    #[inline(always)]
    pub(super) unsafe fn begin<'s, L: Left, const ROWS: usize>(
        &self,
        kernels: Kernels,
        head: usize,
        queries: Range<usize>,
        scratch: &mut Scratch<'s>,
    ) -> Work<'s, L> {
        let layout = self.layout();
        let rows = queries.len().next_multiple_of(ROWS);
        let columns = layout.dim16 / PANEL;
        let mut work = Work::<L> {
            rows,
            q: scratch.take_of(self.params().head_dim.div_ceil(STEPS) * rows),
            products: scratch.take_of(KEY_PANELS * rows),
            weights: scratch.take_of(rows),
            sums: scratch.take_rows(columns * rows),
            factor: scratch.take(rows),
            m: scratch.take(rows),
            l: scratch.take(rows),
            total: scratch.take(rows),
            old: scratch.take(rows),
            part: scratch.take(rows),
        };
        work.sums.fill([0.0; PANEL]);
        work.m.fill(f32::NEG_INFINITY);
        work.l.fill(0.0);
        let line = scratch.take(layout.dim16);
        // SAFETY: the caller's promise; nothing is written yet.
        unsafe { self.load_queries(kernels, head, queries, &mut work, line) };
        work
    }

    /// Stores the results after the last tile of keys.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn end<L>(
        &self,
        kernels: Kernels,
        head: usize,
        queries: Range<usize>,
        codes: &Head,
        work: &Work<L>,
    ) {
        let p = self.params();
        let dim = p.head_dim;
        for (row, query) in queries.enumerate() {
            let start = (query * p.heads + head) * dim;
            for column in 0..dim.div_ceil(PANEL) {
                let range = start + column * PANEL..start + dim.min((column + 1) * PANEL);
                // SAFETY: this task alone has this row of this head.
                let out = unsafe { self.float.out.slice_mut(range) };
                let mut values = work.sums[column * work.rows + row];
                for (value, scale) in values
                    .iter_mut()
                    .zip(&codes.v_scale[column * PANEL..][..PANEL])
                {
                    *value = *value * scale / work.l[row];
                }
                T::store_slice(kernels, &values[..out.len()], out);
            }
        }
    }

    /// Codes the query rows; rows past them and columns past the head's are zero.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run), before the task writes anything.
    #[inline(always)]
    unsafe fn load_queries<L: Left>(
        &self,
        kernels: Kernels,
        head: usize,
        queries: Range<usize>,
        work: &mut Work<L>,
        line: &mut [f32],
    ) {
        let p = self.params();
        work.q.fill([L::default(); STEPS]);
        work.factor.fill(0.0);
        let line = &mut line[..p.head_dim];
        for (row, query) in queries.enumerate() {
            // SAFETY: the caller's promise.
            T::load_slice(kernels, unsafe { self.float.query(query, head) }, line);
            let map = Symmetric::of(largest(line));
            work.factor[row] = map.scale * p.scale * LOG2_E;
            for (block, x) in line.chunks(STEPS).enumerate() {
                let mut codes = [0; STEPS];
                for (code, x) in codes.iter_mut().zip(x) {
                    *code = (i32::from(map.code(*x)) + OFFSET) as u8;
                }
                L::fill(&codes, &mut work.q[block * work.rows + row]);
            }
        }
    }
}

impl<L: Left> Work<'_, L> {
    /// The products of `ROWS` query rows with the tile of keys from `start` on.
    #[inline(always)]
    fn multiply_keys<const ROWS: usize, const PANELS: usize>(
        &mut self,
        kernels: Kernels,
        codes: &Head,
        row: usize,
        start: usize,
        dim4: usize,
    ) {
        for panel in (0..KEY_PANELS).step_by(PANELS) {
            for (block, step) in (0..dim4).step_by(STEPS).enumerate() {
                let steps = step / 4..dim4.min(step + STEPS) / 4;
                let q = self.q[block * self.rows + row..]
                    .first_chunk()
                    .expect("rows are padded");
                let keys: [&[Steps]; PANELS] = array::from_fn(|p| {
                    &codes.k[(start / PANEL + panel + p) * (dim4 / 4)..][steps.clone()]
                });
                let products = tile::sums_of(self.products, self.rows, row, panel);
                L::multiply::<ROWS, PANELS, _>(kernels, q, keys, products, block > 0);
            }
        }
    }

    /// Turns products into weights, and brings each row's maximum and sum up to date.
    #[inline(always)]
    pub fn weigh(&mut self, kernels: Kernels, codes: &Head, start: usize, keys: usize) {
        // The width is constant almost always, and yet the loops are faster if the compiler cannot know it.
        let width = keys.next_multiple_of(PANEL);
        let scales: &[[f32; PANEL]] = codes.k_scale[start..][..width].as_chunks().0;
        let offsets: &[[i32; PANEL]] = codes.k_offset[start..][..width].as_chunks().0;
        let (mut scores, mut weights) = ([0.0; TILE], [0; TILE]);
        for row in 0..self.rows {
            let (scores, factor) = (&mut scores[..width], self.factor[row]);
            let panels = scores.as_chunks_mut::<PANEL>().0;
            let products = self.products.chunks_exact(self.rows);
            for (((scores, products), scales), offsets) in
                panels.iter_mut().zip(products).zip(scales).zip(offsets)
            {
                let products = &products[row];
                // Codes of queries that are short of their offset give products that are, too.
                let offsets = if L::OFFSET == OFFSET {
                    &[0; PANEL]
                } else {
                    offsets
                };
                *scores = tile::shifted(kernels, products, offsets, factor, scales);
            }
            scores[keys..].fill(f32::NEG_INFINITY);
            let t = lanes::max(scores);
            let t = if t == f32::NEG_INFINITY { 0.0 } else { t };
            let total = super::weights(kernels, scores, t, &mut weights[..width]);
            L::fill(&weights, &mut self.weights[row]);
            self.total[row] = total as f32;
            let new = math::max(self.m[row], t);
            self.old[row] = (self.m[row] - new) * LN_2;
            self.part[row] = (t - new) * LN_2;
            self.m[row] = new;
        }
        math::exp_slice(self.old, 0.0);
        math::exp_slice(self.part, 0.0);
        for row in 0..self.rows {
            self.l[row] = self.total[row].mul_add(self.part[row], self.l[row] * self.old[row]);
        }
    }

    /// Adds all rows of weights times the tile's values to `sums`.
    #[inline(always)]
    fn gather_columns<const ROWS: usize, const PANELS: usize>(
        &mut self,
        kernels: Kernels,
        values: [&[Steps]; PANELS],
        column: usize,
    ) {
        // What a row of weights gives that are zero.
        let mut nothing = [[[0; PANEL]; 1]; PANELS];
        if L::OFFSET != 0 {
            let mut weights = [[L::default(); TILE]];
            L::fill(&[0; TILE], &mut weights[0]);
            L::multiply::<1, PANELS, _>(kernels, &weights, values, nothing.each_mut(), false);
        }
        for row in (0..self.rows).step_by(ROWS) {
            self.gather::<ROWS, PANELS>(kernels, values, &nothing, row, column);
        }
    }

    /// [`Work::gather_columns`] of `ROWS` rows.
    #[inline(always)]
    fn gather<const ROWS: usize, const PANELS: usize>(
        &mut self,
        kernels: Kernels,
        values: [&[Steps]; PANELS],
        nothing: &[[[i32; PANEL]; 1]; PANELS],
        row: usize,
        column: usize,
    ) {
        let mut products = [[[0; PANEL]; ROWS]; PANELS];
        if L::OFFSET != 0 {
            for (products, [nothing]) in products.iter_mut().zip(nothing) {
                products.fill(nothing.map(|x| -x));
            }
        }
        let weights = self.weights[row..].first_chunk().expect("rows are padded");
        L::multiply::<ROWS, PANELS, _>(
            kernels,
            weights,
            values,
            products.each_mut(),
            L::OFFSET != 0,
        );
        for (p, products) in products.iter().enumerate() {
            let sums = &mut self.sums[(column + p) * self.rows + row..][..ROWS];
            for (i, (sums, products)) in sums.iter_mut().zip(products).enumerate() {
                let (old, part) = (self.old[row + i], self.part[row + i]);
                let mut values = *sums;
                for lane in 0..PANEL {
                    values[lane] = (products[lane] as f32).mul_add(part, values[lane] * old);
                }
                *sums = values;
            }
        }
    }
}
