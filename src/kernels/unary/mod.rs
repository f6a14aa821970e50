//! A function of each element.

#[cfg(test)]
mod tests;

use crate::{
    Activation, ArgumentError, Element, Kernels, Source,
    elementwise::{self, Map},
    error::Check,
    job::Body,
    math,
    output::Output,
};

/// Attributes of [`Unary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnaryParams {
    /// Elements.
    pub len: usize,
    /// Not [`Activation::Geglu`].
    pub activation: Activation,
}

/// The activation of each element, computed in `f32` and rounded once.
pub struct Unary<'a, T> {
    kernels: Kernels,
    params: UnaryParams,
    x: Source<'a, T>,
    out: Output<'a, T>,
}

impl<'a, T: Element> Unary<'a, T> {
    /// `x` and `out` have `len` elements.
    pub fn new(
        kernels: Kernels,
        params: UnaryParams,
        x: Source<'a, T>,
        out: &'a mut [T],
    ) -> Result<Self, ArgumentError> {
        let check = Check("Unary");
        check.that("activation", params.activation != Activation::Geglu)?;
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

impl Map for UnaryParams {
    #[inline(always)]
    fn map(&self, values: &mut [f32]) {
        math::activate_slice(self.activation, values);
    }
}

impl<T: Element> Body for Unary<'_, T> {
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
