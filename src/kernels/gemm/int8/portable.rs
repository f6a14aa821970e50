use std::{array, ops::Range};

use super::{
    BLOCK_K, CodeRows, GemmInt8, ROW_PANELS,
    tile::{self, Left, Steps},
};
use crate::{Element, Isa, Kernels, PANEL, pack, scratch::Scratch};

/// One task's work in scratch.
struct Work<'s, L> {
    rows: Range<usize>,
    panels: Range<usize>,
    /// Rows, padded to whole tiles.
    padded: usize,
    /// The rows' codes of one block of k.
    left: &'s mut [[L; BLOCK_K]],
    /// `[panel][row]`
    sums: &'s mut [[i32; PANEL]],
}

impl<T: Element, R: CodeRows> GemmInt8<'_, T, R> {
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn portable(&self, kernels: Kernels, task: usize, scratch: &mut [u8]) {
        let (rows, panels) = self.split.task(self.rows, self.epilogue.panels(), task);
        // SAFETY: the caller's promise.
        unsafe {
            match kernels.isa() {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => self.pairs(kernels, rows, panels, scratch),
                #[cfg(target_arch = "x86_64")]
                Isa::AvxVnni => self.task::<u8, 6, 6, 1>(kernels, rows, panels, scratch),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Vnni => self.task::<u8, 12, 6, 2>(kernels, rows, panels, scratch),
                Isa::Neon => self.task::<i8, 2, 2, 1>(kernels, rows, panels, scratch),
                Isa::NeonDot => self.task::<i8, 6, 6, 1>(kernels, rows, panels, scratch),
                Isa::NeonI8mm => self.task::<u8, 4, 4, 1>(kernels, rows, panels, scratch),
                _ => self.task::<i16, 6, 6, 1>(kernels, rows, panels, scratch),
            }
        }
    }

    #[inline(always)]
    unsafe fn task<L: Left, const ROWS: usize, const FEW: usize, const PANELS: usize>(
        &self,
        kernels: Kernels,
        rows: Range<usize>,
        panels: Range<usize>,
        scratch: &mut [u8],
    ) {
        let mut scratch = Scratch::new(scratch);
        let padded = rows.len().next_multiple_of(FEW);
        let mut work = Work::<L> {
            padded,
            left: scratch.take_of(padded),
            sums: scratch.take_of(panels.len() * padded),
            rows,
            panels,
        };
        let line: &mut [u8] = scratch.take_of(BLOCK_K);
        work.left[work.rows.len()..].fill([L::default(); BLOCK_K]);
        // In fours of k.
        let groups = pack::i8_padded_k(self.k) / 4;
        let blocks = (groups * 4).div_ceil(BLOCK_K);
        for block in 0..blocks {
            // All but the last end with whole fours of these.
            let end = |block: usize| groups.min((block * groups / blocks).next_multiple_of(4));
            let groups = end(block)..end(block + 1);
            let start = groups.start * 4;
            let present = self.k.min(groups.end * 4).saturating_sub(start);
            let line = &mut line[..groups.len() * 4];
            line[present..].fill(0);
            for (row, left) in work.rows.clone().zip(work.left.iter_mut()) {
                let left = &mut left[..line.len()];
                if let Some(left) = L::as_codes(left) {
                    self.left.gather(row, start, &mut left[..present]);
                    left[present..].fill(0);
                } else {
                    self.left.gather(row, start, &mut line[..present]);
                    L::fill(line, left);
                }
            }
            let (mut panel, add) = (work.panels.start, block > 0);
            while panel + PANELS <= work.panels.end {
                self.columns::<L, ROWS, FEW, PANELS>(
                    kernels,
                    &mut work,
                    panel,
                    groups.clone(),
                    add,
                );
                panel += PANELS;
            }
            while panel < work.panels.end {
                self.columns::<L, ROWS, FEW, 1>(kernels, &mut work, panel, groups.clone(), add);
                panel += 1;
            }
        }
        let starts = work.panels.clone().step_by(self.epilogue.halves());
        for (panel, sums) in starts.zip(work.sums.chunks(self.epilogue.halves() * padded)) {
            let rows = work.rows.clone();
            // SAFETY: the caller's promise.
            unsafe { self.finish_panel(kernels, rows, panel, (sums, padded), L::OFFSET) }
        }
    }

    /// All rows, `ROWS` of them at a time and the last ones `FEW`, times the `PANELS` panels from `panel` on, for one block
    /// of k; added to what the blocks before gave.
    #[inline(always)]
    fn columns<L: Left, const ROWS: usize, const FEW: usize, const PANELS: usize>(
        &self,
        kernels: Kernels,
        work: &mut Work<L>,
        panel: usize,
        groups: Range<usize>,
        add: bool,
    ) {
        let b: [_; PANELS] = array::from_fn(|p| &self.panel(panel + p)[groups.clone()]);
        let index = panel - work.panels.start;
        let mut row = 0;
        while row + FEW < work.rows.len() {
            self.rows_of::<L, ROWS, PANELS>(kernels, work, row, b, index, add);
            row += ROWS;
        }
        while row + 1 < work.rows.len() {
            self.rows_of::<L, FEW, PANELS>(kernels, work, row, b, index, add);
            row += FEW;
        }
        if row < work.rows.len() {
            self.rows_of::<L, 1, PANELS>(kernels, work, row, b, index, add);
        }
    }

    /// `ROWS` rows from `row` on times the panels `b`, of which the first has this index among the task's.
    #[inline(always)]
    fn rows_of<L: Left, const ROWS: usize, const PANELS: usize>(
        &self,
        kernels: Kernels,
        work: &mut Work<L>,
        row: usize,
        b: [&[Steps]; PANELS],
        index: usize,
        add: bool,
    ) {
        let left = work.left[row..].first_chunk().expect("rows are padded");
        let sums = tile::sums_of(work.sums, work.padded, row, index);
        L::multiply::<ROWS, PANELS, _>(kernels, left, b, sums, add);
    }

    /// What follows the sums of one row, which stand in `sums` every `stride` rows and are of codes less `center`.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn finish(
        &self,
        kernels: Kernels,
        row: usize,
        panels: Range<usize>,
        sums: &[[i32; PANEL]],
        stride: usize,
        center: i32,
    ) {
        let (scale, zero_point) = self.left.pair(row);
        let zero_point = zero_point.wrapping_sub(center);
        let mut start = panels.start;
        while start < panels.end {
            let end = panels.end.min(start + ROW_PANELS);
            let mut products = [[0.0; PANEL]; ROW_PANELS];
            let sums = sums[(start - panels.start) * stride..]
                .iter()
                .step_by(stride);
            for ((panel, sums), products) in (start..end).zip(sums).zip(&mut products) {
                let (column, width) = self.columns_of(panel);
                let (scales, weights) = (
                    &self.scale[column..][..width],
                    &self.sums[column..][..width],
                );
                // A whole panel is a loop of constant length.
                match (scales.first_chunk(), weights.first_chunk()) {
                    (Some(scales), Some(weights)) => {
                        *products = tile::scaled(kernels, sums, zero_point, weights, scale, scales);
                    }
                    _ => {
                        for lane in 0..width {
                            let sum =
                                sums[lane].wrapping_sub(zero_point.wrapping_mul(weights[lane]));
                            products[lane] = sum as f32 * (scale * scales[lane]);
                        }
                    }
                }
            }
            let products = &mut products[..end - start];
            // SAFETY: the caller's promise.
            unsafe {
                match self.epilogue.halves() {
                    1 => self.epilogue.row_of(kernels, row, start..end, products),
                    _ => self.epilogue.row(kernels, row, start..end, products, 1),
                }
            }
            start = end;
        }
    }

    /// Where the scales of a panel's columns begin, and how many columns it has.
    #[inline(always)]
    pub(super) fn columns_of(&self, panel: usize) -> (usize, usize) {
        let halves = self.epilogue.halves();
        let column = panel / halves * PANEL;
        let width = PANEL.min(self.epilogue.n - column);
        (column + panel % halves * self.epilogue.n, width)
    }
}
