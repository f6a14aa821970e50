//! The sinusoidal embedding of a timestep.

#[cfg(test)]
mod tests;

use crate::{ArgumentError, Element, Kernels, error::Check, job::Body, math, output::Output};

/// Attributes of [`TimestepEmbedding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestepEmbeddingParams {
    /// Half of the columns.
    pub half: usize,
    /// Cosines before sines.
    pub cos_first: bool,
}

/// With `a = timestep * frequencies`, a product in `f32`: `[sin a, cos a]`, or `[cos a, sin a]`.
pub struct TimestepEmbedding<'a, T> {
    kernels: Kernels,
    params: TimestepEmbeddingParams,
    timestep: f32,
    frequencies: &'a [f32],
    out: Output<'a, T>,
}

impl<'a, T: Element> TimestepEmbedding<'a, T> {
    /// `frequencies` is `[half]`, `out` `[2 half]`.
    pub fn new(
        kernels: Kernels,
        params: TimestepEmbeddingParams,
        timestep: f32,
        frequencies: &'a [f32],
        out: &'a mut [T],
    ) -> Result<Self, ArgumentError> {
        let check = Check("TimestepEmbedding");
        check.len("frequencies", frequencies.len(), params.half)?;
        check.len("out", out.len(), check.size("half", &[2, params.half])?)?;
        Ok(Self {
            kernels,
            params,
            timestep,
            frequencies,
            out: Output::new(out),
        })
    }
}

impl<T: Element> Body for TimestepEmbedding<'_, T> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        1
    }
    unsafe fn scalar(&self, _: usize, _: usize, _: &mut [u8]) {
        let TimestepEmbeddingParams { half, cos_first } = self.params;
        // SAFETY: this is the only task.
        let (first, second) = unsafe { self.out.slice_mut(0..2 * half) }.split_at_mut(half);
        for ((first, second), frequency) in first.iter_mut().zip(second).zip(self.frequencies) {
            let (sin, cos) = math::sin_cos(self.timestep * frequency);
            let (a, b) = if cos_first { (cos, sin) } else { (sin, cos) };
            (*first, *second) = (T::store(a), T::store(b));
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, _: Kernels, phase: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.scalar(phase, task, scratch) }
    }
}
