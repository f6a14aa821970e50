//! Two operands side by side.

#[cfg(test)]
mod tests;

use crate::{ArgumentError, Element, Kernels, error::Check, job::Body, output::Output};

/// Rows of a task.
const TASK_ROWS: usize = 32;

/// Attributes of [`Concat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcatParams {
    /// Rows.
    pub rows: usize,
    /// Columns of `x`.
    pub c: usize,
    /// Columns of `x2`.
    pub c2: usize,
}

/// `[rows, c]` and `[rows, c2]` as one `[rows, c + c2]`.
pub struct Concat<'a, T> {
    kernels: Kernels,
    params: ConcatParams,
    x: &'a [T],
    x2: &'a [T],
    out: Output<'a, T>,
}

impl<'a, T: Element> Concat<'a, T> {
    /// Checks the operands' lengths.
    pub fn new(
        kernels: Kernels,
        params: ConcatParams,
        x: &'a [T],
        x2: &'a [T],
        out: &'a mut [T],
    ) -> Result<Self, ArgumentError> {
        let check = Check("Concat");
        let ConcatParams { rows, c, c2 } = params;
        check.that("c", c > 0 && c2 > 0 && c.checked_add(c2).is_some())?;
        check.len("x", x.len(), check.size("c", &[rows, c])?)?;
        check.len("x2", x2.len(), check.size("c2", &[rows, c2])?)?;
        check.len("out", out.len(), check.size("c", &[rows, c + c2])?)?;
        Ok(Self {
            kernels,
            params,
            x,
            x2,
            out: Output::new(out),
        })
    }
}

impl<T: Element> Body for Concat<'_, T> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.params.rows.div_ceil(TASK_ROWS)
    }
    unsafe fn scalar(&self, _: usize, task: usize, _: &mut [u8]) {
        let ConcatParams { rows, c, c2 } = self.params;
        for row in task * TASK_ROWS..rows.min((task + 1) * TASK_ROWS) {
            // SAFETY: this task alone has this row.
            let out = unsafe { self.out.slice_mut(row * (c + c2)..(row + 1) * (c + c2)) };
            out[..c].copy_from_slice(&self.x[row * c..][..c]);
            out[c..].copy_from_slice(&self.x2[row * c2..][..c2]);
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, _: Kernels, phase: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.scalar(phase, task, scratch) }
    }
}
