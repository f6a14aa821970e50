//! Enlarging by nearest neighbour.

#[cfg(test)]
mod tests;

use crate::{ArgumentError, Element, Kernels, error::Check, job::Body, output::Output};

/// Attributes of [`Upsample`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpsampleParams {
    /// Input rows.
    pub in_h: usize,
    /// Input columns.
    pub in_w: usize,
    /// Output rows.
    pub out_h: usize,
    /// Output columns.
    pub out_w: usize,
    /// Channels.
    pub c: usize,
}

/// Output pixel `(y, x)` is input pixel `(floor(y in_h / out_h), floor(x in_w / out_w))`.
pub struct Upsample<'a, T> {
    kernels: Kernels,
    params: UpsampleParams,
    x: &'a [T],
    out: Output<'a, T>,
}

impl<'a, T: Element> Upsample<'a, T> {
    /// `x` is `[in_h, in_w, c]`, `out` `[out_h, out_w, c]`.
    pub fn new(
        kernels: Kernels,
        params: UpsampleParams,
        x: &'a [T],
        out: &'a mut [T],
    ) -> Result<Self, ArgumentError> {
        let check = Check("Upsample");
        let UpsampleParams {
            in_h,
            in_w,
            out_h,
            out_w,
            c,
        } = params;
        check.that(
            "in_h",
            in_h > 0 && in_w > 0 && out_h > 0 && out_w > 0 && c > 0,
        )?;
        check.size("out_h", &[in_h, out_h])?;
        check.size("out_w", &[in_w, out_w])?;
        check.len("x", x.len(), check.size("in_h", &[in_h, in_w, c])?)?;
        check.len("out", out.len(), check.size("out_h", &[out_h, out_w, c])?)?;
        Ok(Self {
            kernels,
            params,
            x,
            out: Output::new(out),
        })
    }
}

impl<T: Element> Body for Upsample<'_, T> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.params.out_h
    }
    unsafe fn scalar(&self, _: usize, task: usize, _: &mut [u8]) {
        let UpsampleParams {
            in_h,
            in_w,
            out_h,
            out_w,
            c,
        } = self.params;
        // SAFETY: this task alone has this row of the picture.
        let out = unsafe { self.out.slice_mut(task * out_w * c..(task + 1) * out_w * c) };
        let row = &self.x[task * in_h / out_h * in_w * c..][..in_w * c];
        for (x, out) in out.chunks_exact_mut(c).enumerate() {
            out.copy_from_slice(&row[x * in_w / out_w * c..][..c]);
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, _: Kernels, phase: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.scalar(phase, task, scratch) }
    }
}
