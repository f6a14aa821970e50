use std::ops::Range;

use super::{LayerNormParams, TASK_ELEMENTS, portable, scalar};
use crate::{
    ArgumentError, Element, Kernels, Quantizer,
    codes::{self, codes_start},
    error::Check,
    job::Body,
    output::Output,
    scratch::{self, Scratch},
};

/// [`LayerNorm`](crate::LayerNorm) whose results, as `f32`, become codes per row.
pub struct LayerNormCodes<'a, T> {
    kernels: Kernels,
    params: LayerNormParams,
    x: &'a [T],
    gamma: Option<&'a [f32]>,
    beta: Option<&'a [f32]>,
    out: Output<'a, u8>,
}

/// Bytes of scratch that each thread needs for rows of `c`.
pub const fn scratch_bytes(c: usize) -> usize {
    scratch::bytes(&[c])
}

impl<'a, T: Element> LayerNormCodes<'a, T> {
    /// `x` is `[rows, c]`, `gamma` and `beta` `[c]`, `out` [`codes_bytes`](crate::codes_bytes)`(rows, c, true)` bytes.
    pub fn new(
        kernels: Kernels,
        params: LayerNormParams,
        x: &'a [T],
        gamma: Option<&'a [f32]>,
        beta: Option<&'a [f32]>,
        out: &'a mut [u8],
    ) -> Result<Self, ArgumentError> {
        let check = Check("LayerNormCodes");
        check.that("c", params.c > 0)?;
        check.len(
            "out",
            out.len(),
            codes::size(&check, params.rows, params.c, true)?,
        )?;
        check.len("x", x.len(), params.rows * params.c)?;
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

    fn rows_per_task(&self) -> usize {
        (TASK_ELEMENTS / self.params.c).max(1)
    }

    #[inline(always)]
    fn task_rows(&self, task: usize) -> Range<usize> {
        let rows = self.rows_per_task();
        task * rows..self.params.rows.min((task + 1) * rows)
    }

    #[inline(always)]
    fn input(&self, row: usize) -> &'a [T] {
        &self.x[row * self.params.c..][..self.params.c]
    }

    /// A row's results as codes.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run): this task alone has the row.
    #[inline(always)]
    unsafe fn code(&self, row: usize, values: &[f32]) {
        let LayerNormParams { rows, c, .. } = self.params;
        let start = codes_start(rows, true) + row * c;
        let quantizer = Quantizer::of(values);
        // SAFETY: the caller's promise.
        unsafe {
            codes::write_pair(&self.out, rows, true, row, quantizer);
            quantizer.codes(self.kernels, values, self.out.slice_mut(start..start + c));
        }
    }
}

impl<T: Element> Body for LayerNormCodes<'_, T> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.params.rows.div_ceil(self.rows_per_task())
    }
    fn scratch_bytes(&self) -> usize {
        scratch_bytes(self.params.c)
    }
    unsafe fn scalar(&self, _: usize, task: usize, scratch: &mut [u8]) {
        let values = Scratch::new(scratch).take(self.params.c);
        for row in self.task_rows(task) {
            scalar::row(
                self.input(row),
                self.gamma,
                self.beta,
                self.params.eps,
                values,
            );
            // SAFETY: the caller's promise.
            unsafe { self.code(row, values) }
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, _: usize, task: usize, scratch: &mut [u8]) {
        let values = Scratch::new(scratch).take(self.params.c);
        for row in self.task_rows(task) {
            portable::row(
                kernels,
                self.input(row),
                self.gamma,
                self.beta,
                self.params.eps,
                values,
            );
            // SAFETY: the caller's promise.
            unsafe { self.code(row, values) }
        }
    }
}
