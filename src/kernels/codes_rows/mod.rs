//! A band of rows of codes per tensor, as codes of their own.

use crate::{
    ArgumentError, Kernels,
    codes::{self, Codes, codes_start},
    error::Check,
    job::Body,
    output::Output,
};

#[cfg(test)]
mod tests;

/// Bytes of a task, about.
const TASK_BYTES: usize = 64 << 10;

/// Attributes of [`CodesRows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodesRowsParams {
    /// Rows of `x`.
    pub rows: usize,
    /// Columns.
    pub c: usize,
    /// The first row that is taken.
    pub first: usize,
    /// Rows that are taken.
    pub count: usize,
}

/// `out` is the map of `x` and the codes of its rows `first..first + count`.
pub struct CodesRows<'a> {
    kernels: Kernels,
    params: CodesRowsParams,
    /// The bytes before the first code.
    start: &'a [u8],
    /// The rows that are taken.
    codes: &'a [u8],
    out: Output<'a, u8>,
}

impl<'a> CodesRows<'a> {
    /// `x` is codes per tensor of `[rows, c]`, `out` of `[count, c]`.
    pub fn new(
        kernels: Kernels,
        params: CodesRowsParams,
        x: &'a [u8],
        out: &'a mut [u8],
    ) -> Result<Self, ArgumentError> {
        let check = Check("CodesRows");
        let CodesRowsParams {
            rows,
            c,
            first,
            count,
        } = params;
        check.that("c", c > 0)?;
        check.that("count", count > 0)?;
        let end = first.checked_add(count);
        check.that("first", end.is_some_and(|end| end <= rows))?;
        let whole = Codes::new(&check, "x", x, rows, c, false)?;
        check.len("out", out.len(), codes::size(&check, count, c, false)?)?;
        Ok(Self {
            kernels,
            params,
            start: &x[..codes_start(rows, false)],
            codes: &whole.codes[first * c..][..count * c],
            out: Output::new(out),
        })
    }
}

impl Body for CodesRows<'_> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.codes.len().div_ceil(TASK_BYTES)
    }
    unsafe fn scalar(&self, _: usize, task: usize, _: &mut [u8]) {
        let start = codes_start(self.params.count, false);
        let part = task * TASK_BYTES..self.codes.len().min((task + 1) * TASK_BYTES);
        // SAFETY: this task alone has this part, the first one what stands before the codes.
        unsafe {
            if task == 0 {
                self.out.slice_mut(0..start).copy_from_slice(self.start);
            }
            self.out
                .slice_mut(start + part.start..start + part.end)
                .copy_from_slice(&self.codes[part]);
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, _: Kernels, phase: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.scalar(phase, task, scratch) }
    }
}
