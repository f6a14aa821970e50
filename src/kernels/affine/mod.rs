//! A factor and a summand for all elements.

#[cfg(test)]
mod tests;

use crate::{
    ArgumentError, Element, Kernels, Source,
    elementwise::{self, Map},
    error::Check,
    job::Body,
    output::Output,
};

/// Attributes of [`Affine`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AffineParams {
    /// Elements.
    pub len: usize,
    /// Factor.
    pub scale: f32,
    /// Summand.
    pub offset: f32,
}

/// `x * scale + offset` of each element: a fused multiply-add, rounded once more to the storage type.
pub struct Affine<'a, T> {
    kernels: Kernels,
    params: AffineParams,
    x: Source<'a, T>,
    out: Output<'a, T>,
}

impl<'a, T: Element> Affine<'a, T> {
    /// `x` and `out` have `len` elements.
    pub fn new(
        kernels: Kernels,
        params: AffineParams,
        x: Source<'a, T>,
        out: &'a mut [T],
    ) -> Result<Self, ArgumentError> {
        let check = Check("Affine");
        check.source("x", &x, params.len)?;
        check.len("out", out.len(), params.len)?;
        Ok(Self {
            kernels,
            params,
            x,
            out: Output::new(out),
        })
    }
}

impl Map for AffineParams {
    #[inline(always)]
    fn map(&self, values: &mut [f32]) {
        for x in values {
            *x = x.mul_add(self.scale, self.offset);
        }
    }
}

impl<T: Element> Body for Affine<'_, T> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        elementwise::tasks(self.params.len)
    }
    unsafe fn scalar(&self, phase: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.portable(self.kernels, phase, task, scratch) }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, _: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { elementwise::run(kernels, &self.params, self.x, &self.out, task) }
    }
}
