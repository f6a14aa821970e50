use std::ops::Range;

use super::{CHANNELS, FACTORS, GroupNormParams, MAXIMA, MEANS, MINIMA, Norm};
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
/// pass over them; see `GroupNormCodes::bounds`.
pub struct GroupNormCodes<'a, T> {
    norm: Norm<'a, T>,
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
        let norm = Norm::new(kernels, &check, params, x, x2, (gamma, beta), stats, true)?;
        check.len(
            "out",
            out.len(),
            codes::size(&check, params.rows, norm.channels(), false)?,
        )?;
        Ok(Self {
            norm,
            out: Output::new(out),
        })
    }

    /// The bounds of a group's results, the same for all instruction sets. For each channel the least and the greatest
    /// `x` of all blocks go through the affine; of the two ends, without activation, the smaller and the larger are the
    /// bounds. Under SiLU they are the larger `silu` of the ends and the smaller, or, where -1.2784645 lies between the
    /// ends, -0.27846456. The group's are the least and the greatest of its channels' and of zero, NaNs passed over.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run), after [`Norm::merge`] of this group.
    #[inline(always)]
    unsafe fn bounds(&self, group: usize) {
        let norm = &self.norm;
        let size = norm.channels() / norm.params.groups;
        let channels = group * size..(group + 1) * size;
        let whole = norm.blocks();
        let (mut lo, mut hi) = (0.0, 0.0);
        for start in channels.clone().step_by(CHANNELS) {
            let channels = start..channels.end.min(start + CHANNELS);
            // SAFETY: the first phase wrote the blocks' records; the whole's was written by this task.
            let read = |record, kind| unsafe {
                norm.stats
                    .slice(norm.record(record, kind, channels.clone()))
            };
            let (mut minima, mut maxima) =
                ([f32::INFINITY; CHANNELS], [f32::NEG_INFINITY; CHANNELS]);
            for block in 0..whole {
                for (m, x) in minima.iter_mut().zip(read(block, MINIMA)) {
                    *m = min(*x, *m);
                }
                for (m, x) in maxima.iter_mut().zip(read(block, MAXIMA)) {
                    *m = math::max(*x, *m);
                }
            }
            let (means, factors) = (read(whole, MEANS), read(whole, FACTORS));
            for (i, channel) in channels.clone().enumerate() {
                let affine = |x: f32| {
                    let d = x - means[i];
                    norm.beta
                        .map_or(d * factors[i], |beta| d.mul_add(factors[i], beta[channel]))
                };
                let (a, b) = (affine(minima[i]), affine(maxima[i]));
                let ends = (min(a, b), math::max(a, b));
                let ends = if norm.params.activation == Activation::Silu {
                    silu_bounds(ends)
                } else {
                    ends
                };
                lo = min(ends.0, lo);
                hi = math::max(ends.1, hi);
            }
        }
        // SAFETY: this task alone has its group's places in the last record; one slice ends before the next begins.
        unsafe {
            norm.stats
                .slice_mut(norm.record(whole, MINIMA, group..group + 1))[0] = lo;
            norm.stats
                .slice_mut(norm.record(whole, MAXIMA, group..group + 1))[0] = hi;
        }
    }

    /// The map for the bounds of all groups.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run), in the last phase.
    #[inline(always)]
    unsafe fn quantizer(&self) -> Quantizer {
        let groups = 0..self.norm.params.groups;
        // SAFETY: the last record was written in the phase before.
        let read = |kind| unsafe {
            self.norm
                .stats
                .slice(self.norm.record(self.norm.blocks(), kind, groups.clone()))
        };
        let lo = read(MINIMA).iter().fold(0.0, |lo, x| min(*x, lo));
        let hi = read(MAXIMA).iter().fold(0.0, |hi, x| math::max(*x, hi));
        Quantizer::of_range(lo, hi)
    }

    /// The map, written by the first task, for the last phase.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run), in the last phase.
    #[inline(always)]
    unsafe fn begin(&self, task: usize) -> Quantizer {
        // SAFETY: the caller's promise; the first task alone has the pair.
        unsafe {
            let quantizer = self.quantizer();
            if task == 0 {
                codes::write_pair(&self.out, self.norm.params.rows, false, 0, quantizer);
            }
            quantizer
        }
    }

    /// Where the codes of some channels of a row stand in `out`.
    #[inline(always)]
    fn codes(&self, row: usize, channels: Range<usize>) -> Range<usize> {
        let start = codes_start(self.norm.params.rows, false) + row * self.norm.channels();
        start + channels.start..start + channels.end
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
        let channels = self.norm.channels();
        // SAFETY: the caller's promise; a task of the last phase alone has its rows.
        unsafe {
            match phase {
                0 => self.norm.scalar_statistics(task),
                1 => {
                    self.norm.merge(task);
                    self.bounds(task);
                }
                _ => {
                    let quantizer = self.begin(task);
                    for row in self.norm.task_rows(task) {
                        for (channel, out) in self
                            .out
                            .slice_mut(self.codes(row, 0..channels))
                            .iter_mut()
                            .enumerate()
                        {
                            *out = quantizer.code(self.norm.scalar_value(row, channel));
                        }
                    }
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, phase: usize, task: usize, _: &mut [u8]) {
        let all = self.norm.channels();
        // SAFETY: the caller's promise; a task of the last phase alone has its rows.
        unsafe {
            match phase {
                0 => self.norm.portable_statistics::<true>(kernels, task),
                1 => {
                    self.norm.merge(task);
                    self.bounds(task);
                }
                _ => {
                    let quantizer = self.begin(task);
                    let mut values = [0.0; CHANNELS];
                    for row in self.norm.task_rows(task) {
                        for start in (0..all).step_by(CHANNELS) {
                            let channels = start..all.min(start + CHANNELS);
                            let values = &mut values[..channels.len()];
                            self.norm.values(kernels, row, channels.clone(), values);
                            let out = self.out.slice_mut(self.codes(row, channels));
                            quantizer.codes(kernels, values, out);
                        }
                    }
                }
            }
        }
    }
}
