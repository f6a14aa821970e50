//! Layer normalization.

mod codes;
mod portable;
mod scalar;
#[cfg(test)]
mod tests;

pub use codes::{LayerNormCodes, scratch_bytes as codes_scratch_bytes};

use std::ops::Range;

use crate::{ArgumentError, Element, Kernels, error::Check, job::Body, output::Output};

/// Elements of a task, about.
const TASK_ELEMENTS: usize = 8 << 10;

/// Attributes of [`LayerNorm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNormParams {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub c: usize,
    /// Added to the variance.
    pub eps: f32,
}

/// Normalization of each row, then `gamma` and `beta`.
pub struct LayerNorm<'a, T> {
    kernels: Kernels,
    params: LayerNormParams,
    x: &'a [T],
    gamma: Option<&'a [f32]>,
    beta: Option<&'a [f32]>,
    out: Output<'a, T>,
}

impl<'a, T: Element> LayerNorm<'a, T> {
    /// `x` and `out` are `[rows, c]`, `gamma` and `beta` `[c]`.
    pub fn new(
        kernels: Kernels,
        params: LayerNormParams,
        x: &'a [T],
        gamma: Option<&'a [f32]>,
        beta: Option<&'a [f32]>,
        out: &'a mut [T],
    ) -> Result<Self, ArgumentError> {
        let check = Check("LayerNorm");
        check.that("c", params.c > 0)?;
        let len = check.size("c", &[params.rows, params.c])?;
        check.len("x", x.len(), len)?;
        check.len("out", out.len(), len)?;
        check.optional("gamma", gamma, params.c)?;
        check.optional("beta", beta, params.c)?;
        Ok(Self {
            kernels,
            params,
            x,
            gamma,
            beta,
            out: Output::new(out),
        })
    }

    #[inline(always)]
    fn rows_per_task(&self) -> usize {
        (TASK_ELEMENTS / self.params.c).max(1)
    }

    #[inline(always)]
    fn task_rows(&self, task: usize) -> Range<usize> {
        let rows = self.rows_per_task();
        task * rows..self.params.rows.min((task + 1) * rows)
    }
}

impl<T: Element> Body for LayerNorm<'_, T> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.params.rows.div_ceil(self.rows_per_task())
    }
    unsafe fn scalar(&self, _: usize, task: usize, _: &mut [u8]) {
        for row in self.task_rows(task) {
            let at = row * self.params.c..(row + 1) * self.params.c;
            // SAFETY: this task alone has this row.
            scalar::row(
                &self.x[at.clone()],
                self.gamma,
                self.beta,
                self.params.eps,
                unsafe { self.out.slice_mut(at) },
            );
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, _: usize, task: usize, _: &mut [u8]) {
        for row in self.task_rows(task) {
            let at = row * self.params.c..(row + 1) * self.params.c;
            // SAFETY: this task alone has this row.
            let out = unsafe { self.out.slice_mut(at.clone()) };
            portable::row(
                kernels,
                &self.x[at],
                self.gamma,
                self.beta,
                self.params.eps,
                out,
            );
        }
    }
}
