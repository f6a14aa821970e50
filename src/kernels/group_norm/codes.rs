use std::ops::Range;

use super::{CHANNELS, FACTORS, GroupNormParams, MAXIMA, MEANS, MINIMA, Moments, Norm, Stats};
use crate::{
    Activation, ArgumentError, Element, Kernels, Quantizer,
    codes::{self, codes_start, min},
    error::Check,
    job::Body,
    math,
    output::Output,
};

/// Operands of [`GroupNormCodes`].
#[derive(Debug)]
pub struct GroupNormCodesOperands<'a, T> {
    /// `[rows, c]`
    pub x: &'a [T],
    /// `[rows, c2]`
    pub x2: Option<&'a [T]>,
    /// `[c + c2]`
    pub gamma: Option<&'a [f32]>,
    /// `[c + c2]`
    pub beta: Option<&'a [f32]>,
    /// For the operator's own use, [`codes_stats_len`](crate::codes_stats_len) elements.
    pub stats: &'a mut [f32],
    /// Codes per tensor, [`codes_bytes`](crate::codes_bytes)`(rows, c + c2, false)` bytes.
    pub out: &'a mut [u8],
}

/// [`GroupNorm`](crate::GroupNorm) whose results, as `f32`, become codes per tensor. Their range is a bound that needs no
/// pass over them; see `Norm::bounds`.
pub struct GroupNormCodes<'a, T> {
    norm: Norm<'a, T>,
    stats: Stats<'a>,
    out: Output<'a, u8>,
}

/// The least value of `x sigmoid(x)`, and where it is.
const SILU_LEAST: (f32, f32) = (-0.278_464_56, -1.278_464_5);

impl<'a, T: Element> GroupNormCodes<'a, T> {
    /// Checks the operands' lengths.
    pub fn new(
        kernels: Kernels,
        params: GroupNormParams,
        operands: GroupNormCodesOperands<'a, T>,
    ) -> Result<Self, ArgumentError> {
        let check = Check("GroupNormCodes");
        let GroupNormCodesOperands {
            x,
            x2,
            gamma,
            beta,
            stats,
            out,
        } = operands;
        let norm = Norm::new(kernels, &check, params, x, x2, (gamma, beta), true)?;
        check.len("stats", stats.len(), norm.stats_len(&check)?)?;
        check.len(
            "out",
            out.len(),
            codes::size(&check, params.rows, norm.channels(), false)?,
        )?;
        let record = norm.record_len();
        Ok(Self {
            norm,
            stats: Stats::new(stats, record),
            out: Output::new(out),
        })
    }

    /// As [`GroupNorm::with_moments`](crate::GroupNorm::with_moments).
    pub fn with_moments(mut self, moments: Moments<'a>) -> Result<Self, ArgumentError> {
        self.norm.set_moments(&Check("GroupNormCodes"), moments)?;
        Ok(self)
    }
}

impl<T: Element> Norm<'_, T> {
    /// The bounds of a group's results, the same for all instruction sets. For each channel the least and the greatest
    /// `x` of all blocks go through the affine; of the two ends, without activation, the smaller and the larger are the
    /// bounds. Under SiLU they are the larger `silu` of the ends and the smaller, or, where -1.2784645 lies between the
    /// ends, -0.27846456. The group's are the least and the greatest of its channels' and of zero, NaNs passed over.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run), after [`Norm::merge`] of this group: this task alone has its places in `whole`.
    #[inline(always)]
    pub(super) unsafe fn bounds(&self, blocks: &[f32], whole: &Output<'_, f32>, group: usize) {
        let size = self.channels() / self.params.groups;
        let channels = group * size..(group + 1) * size;
        let (mut lo, mut hi) = (0.0, 0.0);
        for start in channels.clone().step_by(CHANNELS) {
            let channels = start..channels.end.min(start + CHANNELS);
            let (mut minima, mut maxima) =
                ([f32::INFINITY; CHANNELS], [f32::NEG_INFINITY; CHANNELS]);
            for block in 0..self.blocks() {
                let read = |kind| &blocks[self.record(block, kind, channels.clone())];
                for (m, x) in minima.iter_mut().zip(read(MINIMA)) {
                    *m = min(*x, *m);
                }
                for (m, x) in maxima.iter_mut().zip(read(MAXIMA)) {
                    *m = math::max(*x, *m);
                }
            }
            // SAFETY: this task wrote them before.
            let read = |kind| unsafe { whole.slice(self.of_whole(kind, channels.clone())) };
            let (means, factors) = (read(MEANS), read(FACTORS));
            for (i, channel) in channels.clone().enumerate() {
                let affine = |x: f32| {
                    let d = x - means[i];
                    self.beta
                        .map_or(d * factors[i], |beta| d.mul_add(factors[i], beta[channel]))
                };
                let (a, b) = (affine(minima[i]), affine(maxima[i]));
                let ends = (min(a, b), math::max(a, b));
                let ends = if self.params.activation == Activation::Silu {
                    silu_bounds(ends)
                } else {
                    ends
                };
                lo = min(ends.0, lo);
                hi = math::max(ends.1, hi);
            }
        }
        // SAFETY: the caller's promise; one slice ends before the next begins.
        unsafe {
            whole.slice_mut(self.of_whole(MINIMA, group..group + 1))[0] = lo;
            whole.slice_mut(self.of_whole(MAXIMA, group..group + 1))[0] = hi;
        }
    }

    /// The map for the bounds of all groups.
    #[inline(always)]
    fn quantizer(&self, whole: &[f32]) -> Quantizer {
        let read = |kind| &whole[self.of_whole(kind, 0..self.params.groups)];
        let lo = read(MINIMA).iter().fold(0.0, |lo, x| min(*x, lo));
        let hi = read(MAXIMA).iter().fold(0.0, |hi, x| math::max(*x, hi));
        Quantizer::of_range(lo, hi)
    }

    /// The map, which the first task writes to `out` too.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run): the first task alone has the pair.
    #[inline(always)]
    unsafe fn begin(&self, whole: &[f32], out: &Output<'_, u8>, task: usize) -> Quantizer {
        let quantizer = self.quantizer(whole);
        if task == 0 {
            // SAFETY: the caller's promise.
            unsafe { codes::write_pair(out, self.params.rows, false, 0, quantizer) };
        }
        quantizer
    }

    /// Where the codes of some channels of a row stand in `out`.
    #[inline(always)]
    fn codes(&self, row: usize, channels: Range<usize>) -> Range<usize> {
        let start = codes_start(self.params.rows, false) + row * self.channels();
        start + channels.start..start + channels.end
    }

    /// The definition of the codes of a task's rows, and with the first task's the map.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run): this task alone has its rows of `out`, the first one the pair.
    pub(super) unsafe fn scalar_codes(&self, whole: &[f32], out: &Output<'_, u8>, task: usize) {
        // SAFETY: the caller's promise.
        let quantizer = unsafe { self.begin(whole, out, task) };
        for row in self.task_rows(task) {
            // SAFETY: the caller's promise.
            let out = unsafe { out.slice_mut(self.codes(row, 0..self.channels())) };
            for (channel, out) in out.iter_mut().enumerate() {
                *out = quantizer.code(self.scalar_value(whole, row, channel));
            }
        }
    }

    /// [`Norm::scalar_codes`], many channels at a time.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn portable_codes(
        &self,
        whole: &[f32],
        out: &Output<'_, u8>,
        kernels: Kernels,
        task: usize,
    ) {
        // SAFETY: the caller's promise.
        let quantizer = unsafe { self.begin(whole, out, task) };
        let all = self.channels();
        let mut values = [0.0; CHANNELS];
        for row in self.task_rows(task) {
            for start in (0..all).step_by(CHANNELS) {
                let channels = start..all.min(start + CHANNELS);
                let values = &mut values[..channels.len()];
                self.values(whole, kernels, row, channels.clone(), values);
                // SAFETY: the caller's promise.
                let out = unsafe { out.slice_mut(self.codes(row, channels)) };
                quantizer.codes(kernels, values, out);
            }
        }
    }
}

/// The bounds of `silu` between two ends.
#[inline(always)]
fn silu_bounds((lo, hi): (f32, f32)) -> (f32, f32) {
    let (a, b) = (math::silu(lo), math::silu(hi));
    let least = if lo <= SILU_LEAST.1 && SILU_LEAST.1 <= hi {
        SILU_LEAST.0
    } else {
        min(a, b)
    };
    (least, math::max(a, b))
}

impl<T: Element> Body for GroupNormCodes<'_, T> {
    fn kernels(&self) -> Kernels {
        self.norm.kernels
    }
    fn phases(&self) -> usize {
        3
    }
    fn tasks(&self, phase: usize) -> usize {
        self.norm.tasks(phase)
    }
    unsafe fn scalar(&self, phase: usize, task: usize, _: &mut [u8]) {
        let (norm, stats) = (&self.norm, &self.stats);
        // SAFETY: the caller's promise; a task of the last phase alone has its rows.
        unsafe {
            match phase {
                0 => norm.scalar_statistics(&stats.blocks, task),
                1 => {
                    norm.merge(stats.blocks(), &stats.whole, task);
                    norm.bounds(stats.blocks(), &stats.whole, task);
                }
                _ => norm.scalar_codes(stats.whole(), &self.out, task),
            }
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, phase: usize, task: usize, _: &mut [u8]) {
        let (norm, stats) = (&self.norm, &self.stats);
        // SAFETY: the caller's promise; a task of the last phase alone has its rows.
        unsafe {
            match phase {
                0 => norm.portable_statistics::<true>(&stats.blocks, kernels, task),
                1 => {
                    norm.merge(stats.blocks(), &stats.whole, task);
                    norm.bounds(stats.blocks(), &stats.whole, task);
                }
                _ => norm.portable_codes(stats.whole(), &self.out, kernels, task),
            }
        }
    }
}
