//! Transposition, slicing and repetition.

#[cfg(test)]
mod tests;

use crate::{ArgumentError, Element, Kernels, error::Check, job::Body, output::Output};

/// Elements of a task, about.
const TASK_ELEMENTS: usize = 8 << 10;

/// Attributes of [`Copy`](struct@Copy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyParams {
    /// Output size, outermost first.
    pub d: [usize; 4],
    /// Elements of `x` per step of each.
    pub s: [usize; 4],
    /// First element of `x`.
    pub offset: usize,
}

/// `out[i0, i1, i2, i3] = x[offset + i0 s0 + i1 s1 + i2 s2 + i3 s3]`.
pub struct Copy<'a, T> {
    kernels: Kernels,
    params: CopyParams,
    x: &'a [T],
    out: Output<'a, T>,
}

impl<'a, T: Element> Copy<'a, T> {
    /// `x` reaches at least as far as the largest index; `out` is `d`.
    pub fn new(
        kernels: Kernels,
        params: CopyParams,
        x: &'a [T],
        out: &'a mut [T],
    ) -> Result<Self, ArgumentError> {
        let check = Check("Copy");
        let CopyParams { d, s, offset } = params;
        check.that("d0", d.iter().all(|d| *d > 0))?;
        check.len("out", out.len(), check.size("d0", &d)?)?;
        let reach = d
            .iter()
            .zip(s)
            .try_fold(offset, |reach, (d, s)| {
                reach.checked_add((d - 1).checked_mul(s)?)
            })
            .and_then(|last| last.checked_add(1))
            .ok_or(ArgumentError::Attribute {
                op: "Copy",
                attribute: "offset",
            })?;
        if x.len() < reach {
            check.len("x", x.len(), reach)?;
        }
        Ok(Self {
            kernels,
            params,
            x,
            out: Output::new(out),
        })
    }

    fn lines_per_task(&self) -> usize {
        (TASK_ELEMENTS / self.params.d[3]).max(1)
    }
}

impl<T: Element> Body for Copy<'_, T> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.params.d[..3]
            .iter()
            .product::<usize>()
            .div_ceil(self.lines_per_task())
    }
    unsafe fn scalar(&self, _: usize, task: usize, _: &mut [u8]) {
        let CopyParams { d, s, offset } = self.params;
        let lines = d[0] * d[1] * d[2];
        for line in task * self.lines_per_task()..lines.min((task + 1) * self.lines_per_task()) {
            let [i0, i1, i2] = [line / d[2] / d[1], line / d[2] % d[1], line % d[2]];
            let x = &self.x[offset + i0 * s[0] + i1 * s[1] + i2 * s[2]..];
            // SAFETY: this task alone has this line.
            let out = unsafe { self.out.slice_mut(line * d[3]..(line + 1) * d[3]) };
            match s[3] {
                1 => out.copy_from_slice(&x[..d[3]]),
                0 => out.fill(x[0]),
                step => out
                    .iter_mut()
                    .zip(x.iter().step_by(step))
                    .for_each(|(out, x)| *out = *x),
            }
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, _: Kernels, phase: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.scalar(phase, task, scratch) }
    }
}
