//! Group normalization of a picture that is never whole in memory: the same three phases as operators of their own.
//!
//! [`GroupNormBlocks`] takes the statistics of a band of rows, [`GroupNormMerge`] merges those of all bands into one record,
//! and [`GroupNormApply`] (or [`GroupNormApplyCodes`]) treats a band by it. A band begins where a block of 64 pixels does, so
//! together they give the bits of [`GroupNorm`](crate::GroupNorm) and [`GroupNormCodes`](crate::GroupNormCodes).

use super::{GroupNormParams, Moments, Norm};
use crate::{ArgumentError, Element, Kernels, codes, error::Check, job::Body, output::Output};

/// The statistics of a band's blocks of 64 pixels.
pub struct GroupNormBlocks<'a, T> {
    norm: Norm<'a, T>,
    out: Output<'a, f32>,
}

impl<'a, T: Element> GroupNormBlocks<'a, T> {
    /// `x` is `[rows, c]`; `out` `[ceil(rows / 64)][c][2]`, `[ceil(rows / 64)][c][4]` with `ranges`.
    pub fn new(
        kernels: Kernels,
        (rows, c, ranges): (usize, usize, bool),
        x: &'a [T],
        out: &'a mut [f32],
    ) -> Result<Self, ArgumentError> {
        let check = Check("GroupNormBlocks");
        let params = GroupNormParams {
            rows,
            c,
            c2: 0,
            groups: c,
            eps: 0.0,
            activation: crate::Activation::None,
        };
        let norm = Norm::new(kernels, &check, params, x, None, (None, None), ranges)?;
        let len = check.size("c", &[norm.blocks(), norm.record_len()])?;
        check.len("out", out.len(), len)?;
        Ok(Self {
            norm,
            out: Output::new(out),
        })
    }
}

impl<T: Element> Body for GroupNormBlocks<'_, T> {
    fn kernels(&self) -> Kernels {
        self.norm.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.norm.tasks(0)
    }
    unsafe fn scalar(&self, _: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.norm.scalar_statistics(&self.out, task) }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, _: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.norm.ranges {
                self.norm
                    .portable_statistics::<true>(&self.out, kernels, task);
            } else {
                self.norm
                    .portable_statistics::<false>(&self.out, kernels, task);
            }
        }
    }
}

/// All blocks' statistics, merged into the record by which every pixel is treated.
pub struct GroupNormMerge<'a> {
    norm: Norm<'a, f32>,
    blocks: &'a [f32],
    out: Output<'a, f32>,
}

impl<'a> GroupNormMerge<'a> {
    /// `params` are those of the whole picture, `c2` being 0. `x` is `[ceil(rows / 64)][c][2]` and `out` `[c][2]`; with
    /// `ranges`, which the codes need, `[..][c][4]` both.
    pub fn new(
        kernels: Kernels,
        params: GroupNormParams,
        ranges: bool,
        x: &'a [f32],
        parameters: (Option<&'a [f32]>, Option<&'a [f32]>),
        out: &'a mut [f32],
    ) -> Result<Self, ArgumentError> {
        let check = Check("GroupNormMerge");
        check.that("c2", params.c2 == 0)?;
        let norm = Norm::without_source(kernels, &check, params, parameters, ranges)?;
        let len = check.size("c", &[norm.blocks(), norm.record_len()])?;
        check.len("x", x.len(), len)?;
        check.len("out", out.len(), norm.record_len())?;
        Ok(Self {
            norm,
            blocks: x,
            out: Output::new(out),
        })
    }

    /// As [`GroupNorm::with_moments`](crate::GroupNorm::with_moments).
    pub fn with_moments(mut self, moments: Moments<'a>) -> Result<Self, ArgumentError> {
        self.norm.set_moments(&Check("GroupNormMerge"), moments)?;
        Ok(self)
    }
}

impl Body for GroupNormMerge<'_> {
    fn kernels(&self) -> Kernels {
        self.norm.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.norm.tasks(1)
    }
    unsafe fn scalar(&self, _: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise: each group's task runs once.
        unsafe {
            self.norm.merge(self.blocks, &self.out, task);
            if self.norm.ranges {
                self.norm.bounds(self.blocks, &self.out, task);
            }
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, _: Kernels, phase: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.scalar(phase, task, scratch) }
    }
}

/// A band, normalized by the record of the whole.
pub struct GroupNormApply<'a, T> {
    norm: Norm<'a, T>,
    whole: &'a [f32],
    out: Output<'a, T>,
}

/// The source of an apply, its record checked. Without groups the record is read by channel alone.
fn source<'a, T: Element>(
    kernels: Kernels,
    check: &Check,
    params: GroupNormParams,
    (x, whole, beta): (&'a [T], &'a [f32], Option<&'a [f32]>),
    ranges: bool,
) -> Result<Norm<'a, T>, ArgumentError> {
    check.that("c2", params.c2 == 0)?;
    let norm = Norm::new(kernels, check, params, x, None, (None, beta), ranges)?;
    check.len("moments", whole.len(), norm.record_len())?;
    Ok(norm)
}

impl<'a, T: Element> GroupNormApply<'a, T> {
    /// `params.rows` are the band's, `x` and `out` `[rows, c]`, `moments` what [`GroupNormMerge`] gave without ranges.
    pub fn new(
        kernels: Kernels,
        params: GroupNormParams,
        x: &'a [T],
        moments: &'a [f32],
        beta: Option<&'a [f32]>,
        out: &'a mut [T],
    ) -> Result<Self, ArgumentError> {
        let check = Check("GroupNormApply");
        let norm = source(kernels, &check, params, (x, moments, beta), false)?;
        check.len("out", out.len(), x.len())?;
        Ok(Self {
            norm,
            whole: moments,
            out: Output::new(out),
        })
    }
}

impl<T: Element> Body for GroupNormApply<'_, T> {
    fn kernels(&self) -> Kernels {
        self.norm.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.norm.tasks(2)
    }
    unsafe fn scalar(&self, _: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.norm.scalar_normalize(self.whole, &self.out, task) }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, _: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe {
            self.norm
                .portable_normalize(self.whole, &self.out, kernels, task)
        }
    }
}

/// As [`GroupNormApply`], the results being codes, all bands' by the same map.
pub struct GroupNormApplyCodes<'a, T> {
    norm: Norm<'a, T>,
    whole: &'a [f32],
    out: Output<'a, u8>,
}

impl<'a, T: Element> GroupNormApplyCodes<'a, T> {
    /// `params.rows` are the band's, `x` `[rows, c]`, `moments` what [`GroupNormMerge`] gave with ranges, `out` codes per
    /// tensor of `[rows, c]`.
    pub fn new(
        kernels: Kernels,
        params: GroupNormParams,
        x: &'a [T],
        moments: &'a [f32],
        beta: Option<&'a [f32]>,
        out: &'a mut [u8],
    ) -> Result<Self, ArgumentError> {
        let check = Check("GroupNormApplyCodes");
        let norm = source(kernels, &check, params, (x, moments, beta), true)?;
        check.len(
            "out",
            out.len(),
            codes::size(&check, params.rows, params.c, false)?,
        )?;
        Ok(Self {
            norm,
            whole: moments,
            out: Output::new(out),
        })
    }
}

impl<T: Element> Body for GroupNormApplyCodes<'_, T> {
    fn kernels(&self) -> Kernels {
        self.norm.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.norm.tasks(2)
    }
    unsafe fn scalar(&self, _: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.norm.scalar_codes(self.whole, &self.out, task) }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, _: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe {
            self.norm
                .portable_codes(self.whole, &self.out, kernels, task)
        }
    }
}
