//! Activations to codes.

mod portable;
mod scalar;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::{
    ArgumentError, Element, Kernels,
    codes::{self, Quantizer, codes_start},
    error::Check,
    job::Body,
    output::Output,
};

/// Rows of a block whose range is taken at once.
const BLOCK: usize = 64;
/// Elements of a task of coding, about.
const TASK_ELEMENTS: usize = 8 << 10;

/// Attributes of [`Quantize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantizeParams {
    /// Rows.
    pub rows: usize,
    /// Columns of `x`.
    pub c: usize,
    /// Columns of `x2`; 0 when there is none.
    pub c2: usize,
    /// A scale and a zero point for each row, else one for all.
    pub per_row: bool,
}

/// `[rows, c]` and `[rows, c2]` side by side, as codes.
pub struct Quantize<'a, T> {
    kernels: Kernels,
    params: QuantizeParams,
    x: &'a [T],
    x2: &'a [T],
    /// Per tensor: the ends of each block's range.
    ranges: Output<'a, f32>,
    out: Output<'a, u8>,
}

/// Elements of [`Quantize`]'s `ranges`: two for every 64 rows; per row, two.
pub const fn ranges_len(rows: usize, per_row: bool) -> usize {
    if per_row { 2 } else { 2 * rows.div_ceil(BLOCK) }
}

impl<'a, T: Element> Quantize<'a, T> {
    /// `ranges` is for the operator's own use, [`ranges_len`] elements; `out` is
    /// [`codes_bytes`](crate::codes_bytes)`(rows, c + c2, per_row)` bytes.
    pub fn new(
        kernels: Kernels,
        params: QuantizeParams,
        x: &'a [T],
        x2: Option<&'a [T]>,
        ranges: &'a mut [f32],
        out: &'a mut [u8],
    ) -> Result<Self, ArgumentError> {
        let check = Check("Quantize");
        let QuantizeParams {
            rows,
            c,
            c2,
            per_row,
        } = params;
        let x2 = x2.unwrap_or(&[]);
        check.that("rows", rows > 0)?;
        check.that("c", c > 0)?;
        let width = check.size("c2", &[1, c.saturating_add(c2)])?;
        check.len("out", out.len(), codes::size(&check, rows, width, per_row)?)?;
        check.len("x", x.len(), rows * c)?;
        check.len("x2", x2.len(), rows * c2)?;
        check.len("ranges", ranges.len(), ranges_len(rows, per_row))?;
        Ok(Self {
            kernels,
            params,
            x,
            x2,
            ranges: Output::new(ranges),
            out: Output::new(out),
        })
    }

    #[inline(always)]
    fn width(&self) -> usize {
        self.params.c + self.params.c2
    }

    /// A row of the two sources.
    #[inline(always)]
    fn row(&self, row: usize) -> [&'a [T]; 2] {
        let QuantizeParams { c, c2, .. } = self.params;
        [&self.x[row * c..][..c], &self.x2[row * c2..][..c2]]
    }

    fn blocks(&self) -> usize {
        self.params.rows.div_ceil(BLOCK)
    }

    #[inline(always)]
    fn block(&self, block: usize) -> Range<usize> {
        block * BLOCK..self.params.rows.min((block + 1) * BLOCK)
    }

    fn rows_per_task(&self) -> usize {
        (TASK_ELEMENTS / self.width()).max(1)
    }

    #[inline(always)]
    fn task_rows(&self, task: usize) -> Range<usize> {
        let rows = self.rows_per_task();
        task * rows..self.params.rows.min((task + 1) * rows)
    }

    /// Where a row's codes stand in `out`.
    #[inline(always)]
    fn codes(&self, row: usize) -> Range<usize> {
        let start = codes_start(self.params.rows, self.params.per_row) + row * self.width();
        start..start + self.width()
    }

    /// Per tensor: the map for the union of the blocks' ranges. The first phase wrote them.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run), after the first phase.
    #[inline(always)]
    unsafe fn quantizer(&self) -> Quantizer {
        // SAFETY: the first phase wrote the ranges, and nobody writes them now.
        Quantizer::of(unsafe { self.ranges.slice(0..self.ranges.len()) })
    }
}

impl<T: Element> Body for Quantize<'_, T> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn phases(&self) -> usize {
        if self.params.per_row { 1 } else { 2 }
    }
    fn tasks(&self, phase: usize) -> usize {
        let ranges = !self.params.per_row && phase == 0;
        if ranges {
            self.blocks()
        } else {
            self.params.rows.div_ceil(self.rows_per_task())
        }
    }
    unsafe fn scalar(&self, phase: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.params.per_row, phase) {
                (true, _) => self.scalar_rows(task),
                (false, 0) => self.scalar_range(task),
                (false, _) => self.scalar_codes(task),
            }
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, phase: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.params.per_row, phase) {
                (true, _) => self.portable_rows(kernels, task),
                (false, 0) => self.portable_range(kernels, task),
                (false, _) => self.portable_codes(kernels, task),
            }
        }
    }
}
