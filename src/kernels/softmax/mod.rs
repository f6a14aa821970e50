//! Softmax of rows.

mod portable;
mod scalar;
#[cfg(test)]
mod tests;

use crate::{ArgumentError, Element, Kernels, Source, error::Check, job::Body, output::Output};

/// Attributes of [`Softmax`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftmaxParams {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
}

/// `exp(x - max) / sum(exp(x - max))` of each row.
pub struct Softmax<'a, T> {
    kernels: Kernels,
    params: SoftmaxParams,
    x: Source<'a, T>,
    out: Output<'a, T>,
}

impl<'a, T: Element> Softmax<'a, T> {
    /// `x` and `out` are `[rows, cols]`.
    pub fn new(
        kernels: Kernels,
        params: SoftmaxParams,
        x: Source<'a, T>,
        out: &'a mut [T],
    ) -> Result<Self, ArgumentError> {
        let check = Check("Softmax");
        check.that("cols", params.cols > 0)?;
        let len = check.size("cols", &[params.rows, params.cols])?;
        check.source("x", &x, len)?;
        check.len("out", out.len(), len)?;
        Ok(Self {
            kernels,
            params,
            x,
            out: Output::new(out),
        })
    }

    /// A row of the output, which holds the input.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    unsafe fn row(&self, row: usize) -> &mut [T] {
        let at = row * self.params.cols..(row + 1) * self.params.cols;
        // SAFETY: a row is one task's.
        let out = unsafe { self.out.slice_mut(at.clone()) };
        if let Source::Other(x) = self.x {
            out.copy_from_slice(&x[at]);
        }
        out
    }
}

impl<T: Element> Body for Softmax<'_, T> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.params.rows
    }
    unsafe fn scalar(&self, _: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        scalar::row(unsafe { self.row(task) })
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, _: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        portable::row(kernels, unsafe { self.row(task) })
    }
}
