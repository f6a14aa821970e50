use std::{array, ops::Range};

use super::{BLOCK_K, Gemm, Rows, TILE_PANELS, tile};
use crate::{Element, Isa, Kernels, PANEL, scratch::Scratch};

/// One task's work in scratch.
struct Work<'s> {
    rows: Range<usize>,
    panels: Range<usize>,
    /// Rows, padded to whole tiles.
    padded: usize,
    /// The rows' elements of one block of k.
    left: &'s mut [[f32; BLOCK_K]],
    /// A tile's panels of one block of k, each in an equal part, where they are not `f32` in memory.
    weights: &'s mut [[f32; PANEL]],
    /// `[panel][row]`
    sums: &'s mut [[f32; PANEL]],
}

impl<T: Element, W: Element, R: Rows> Gemm<'_, T, W, R> {
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn portable(&self, kernels: Kernels, task: usize, scratch: &mut [u8]) {
        let (rows, panels) = self.split.task(self.rows, self.epilogue.panels(), task);
        // SAFETY: the caller's promise.
        unsafe {
            match kernels.isa() {
                Isa::Avx512Vnni => self.task::<12, 2>(kernels, rows, panels, scratch),
                _ => self.task::<6, 1>(kernels, rows, panels, scratch),
            }
        }
    }

    #[inline(always)]
    unsafe fn task<const ROWS: usize, const PANELS: usize>(
        &self,
        kernels: Kernels,
        rows: Range<usize>,
        panels: Range<usize>,
        scratch: &mut [u8],
    ) {
        let mut scratch = Scratch::new(scratch);
        let padded = rows.len().next_multiple_of(ROWS);
        let mut work = Work {
            padded,
            left: scratch.take_rows(padded),
            weights: scratch.take_rows(TILE_PANELS * self.k.min(BLOCK_K)),
            sums: scratch.take_rows(panels.len() * padded),
            rows,
            panels,
        };
        work.sums.fill([0.0; PANEL]);
        work.left[work.rows.len()..].fill([0.0; BLOCK_K]);
        let blocks = self.k.div_ceil(BLOCK_K);
        for block in 0..blocks {
            let steps = block * self.k / blocks..(block + 1) * self.k / blocks;
            for (row, left) in work.rows.clone().zip(work.left.iter_mut()) {
                self.left
                    .gather(kernels, row, steps.start, &mut left[..steps.len()]);
            }
            let mut panel = work.panels.start;
            while panel + PANELS <= work.panels.end {
                self.columns::<ROWS, PANELS>(kernels, &mut work, panel, steps.clone());
                panel += PANELS;
            }
            while panel < work.panels.end {
                self.columns::<ROWS, 1>(kernels, &mut work, panel, steps.clone());
                panel += 1;
            }
        }
        for row in work.rows.clone() {
            let sums = &work.sums[row - work.rows.start..];
            // SAFETY: the caller's promise.
            unsafe {
                self.epilogue
                    .row(kernels, row, work.panels.clone(), sums, padded)
            }
        }
    }

    /// All rows times the `PANELS` panels from `panel` on, for one block of k.
    #[inline(always)]
    fn columns<const ROWS: usize, const PANELS: usize>(
        &self,
        kernels: Kernels,
        work: &mut Work,
        panel: usize,
        steps: Range<usize>,
    ) {
        let elements = steps.start * PANEL..steps.end * PANEL;
        let part = work.weights.len() / TILE_PANELS;
        if W::as_f32(&[]).is_none() {
            for p in 0..PANELS {
                let converted = work.weights[p * part..][..steps.len()].as_flattened_mut();
                W::load_slice(kernels, &self.panel(panel + p)[elements.clone()], converted);
            }
        }
        let b: [&[[f32; PANEL]]; PANELS] =
            array::from_fn(|p| match W::as_f32(self.panel(panel + p)) {
                Some(weights) => weights[elements.clone()].as_chunks().0,
                None => &work.weights[p * part..][..steps.len()],
            });
        let index = panel - work.panels.start;
        let mut row = 0;
        while row + 1 < work.rows.len() {
            let left = work.left[row..].first_chunk().expect("rows are padded");
            tile::multiply::<ROWS, PANELS, _>(
                kernels,
                left,
                b,
                tile::sums_of(work.sums, work.padded, row, index),
            );
            row += ROWS;
        }
        if row < work.rows.len() {
            let left = work.left[row..].first_chunk().expect("inside the rows");
            tile::multiply::<1, PANELS, _>(
                kernels,
                left,
                b,
                tile::sums_of(work.sums, work.padded, row, index),
            );
        }
    }
}
