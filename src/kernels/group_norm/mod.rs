//! Group normalization.

mod codes;
mod moments;
mod portable;
mod scalar;
#[cfg(test)]
mod tests;

pub use codes::{GroupNormCodes, GroupNormCodesOperands};
pub use moments::{Moment, Moments};

use std::ops::Range;

use crate::{Activation, ArgumentError, Element, Kernels, error::Check, job::Body, output::Output};

/// Pixels of a block of the statistics.
pub const NORM_BLOCK: usize = 64;
/// Channels of a task of the statistics.
const CHANNELS: usize = 64;
/// Elements of a task of the normalization, about.
const TASK_ELEMENTS: usize = 16 << 10;

/// Kinds of numbers in a record of the statistics: means.
const MEANS: usize = 0;
/// Sums of squared deviations; for the whole, factors.
const FACTORS: usize = 1;
/// Minima; for the whole, each group's lower bound.
const MINIMA: usize = 2;
/// Maxima; for the whole, each group's upper bound.
const MAXIMA: usize = 3;

/// Attributes of [`GroupNorm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormParams {
    /// Pixels.
    pub rows: usize,
    /// Channels of `x`.
    pub c: usize,
    /// Channels of `x2`; 0 when there is none.
    pub c2: usize,
    /// Groups; divides `c + c2`.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// `None` or `Silu`.
    pub activation: Activation,
}

/// Operands of [`GroupNorm`].
#[derive(Debug)]
pub struct GroupNormOperands<'a, T> {
    /// `[rows, c]`
    pub x: &'a [T],
    /// `[rows, c2]`
    pub x2: Option<&'a [T]>,
    /// `[c + c2]`
    pub gamma: Option<&'a [f32]>,
    /// `[c + c2]`
    pub beta: Option<&'a [f32]>,
    /// For the operator's own use, [`stats_len`] elements.
    pub stats: &'a mut [f32],
    /// `[rows, c + c2]`
    pub out: &'a mut [T],
}

/// Elements of [`GroupNormOperands::stats`]: `[ceil(rows / 64) + 1][c + c2][2]`.
pub fn stats_len(rows: usize, channels: usize) -> usize {
    (rows.div_ceil(NORM_BLOCK) + 1) * channels * 2
}

/// Elements of [`GroupNormCodes`]'s `stats`: `[ceil(rows / 64) + 1][c + c2][4]`.
pub fn codes_stats_len(rows: usize, channels: usize) -> usize {
    2 * stats_len(rows, channels)
}

/// Normalization of each group of channels over all pixels, then `gamma`, `beta` and an activation.
pub struct GroupNorm<'a, T> {
    norm: Norm<'a, T>,
    out: Output<'a, T>,
}

/// All but the output.
struct Norm<'a, T> {
    kernels: Kernels,
    params: GroupNormParams,
    x: &'a [T],
    x2: &'a [T],
    gamma: Option<&'a [f32]>,
    beta: Option<&'a [f32]>,
    /// A record per block, then one for the whole: each `channels` means, then as many of something else (a block's
    /// sums of squared deviations; for the whole, the factors). With ranges the record goes on with as many minima and
    /// maxima; for the whole, each group's ends of its results' range, at the group's number.
    stats: Output<'a, f32>,
    /// Whether records have ranges.
    ranges: bool,
    moments: Moments<'a>,
}

impl<'a, T: Element> GroupNorm<'a, T> {
    /// Checks the operands' lengths.
    pub fn new(
        kernels: Kernels,
        params: GroupNormParams,
        operands: GroupNormOperands<'a, T>,
    ) -> Result<Self, ArgumentError> {
        let check = Check("GroupNorm");
        let GroupNormOperands {
            x,
            x2,
            gamma,
            beta,
            stats,
            out,
        } = operands;
        let norm = Norm::new(kernels, &check, params, x, x2, (gamma, beta), stats, false)?;
        check.len("out", out.len(), x.len() + norm.x2.len())?;
        Ok(Self {
            norm,
            out: Output::new(out),
        })
    }

    /// Also measures the groups' moments, or normalizes by given ones.
    pub fn with_moments(mut self, moments: Moments<'a>) -> Result<Self, ArgumentError> {
        self.norm.set_moments(&Check("GroupNorm"), moments)?;
        Ok(self)
    }
}

impl<'a, T: Element> Norm<'a, T> {
    fn set_moments(&mut self, check: &Check, moments: Moments<'a>) -> Result<(), ArgumentError> {
        for (name, len) in [
            ("measured moments", moments.measured.len()),
            ("given moments", moments.given.len()),
        ] {
            if len > 0 {
                check.len(name, len, self.params.groups)?;
            }
        }
        self.moments = moments;
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn new(
        kernels: Kernels,
        check: &Check,
        params: GroupNormParams,
        x: &'a [T],
        x2: Option<&'a [T]>,
        (gamma, beta): (Option<&'a [f32]>, Option<&'a [f32]>),
        stats: &'a mut [f32],
        ranges: bool,
    ) -> Result<Self, ArgumentError> {
        let GroupNormParams {
            rows,
            c,
            c2,
            groups,
            activation,
            ..
        } = params;
        let x2 = x2.unwrap_or(&[]);
        check.that("rows", rows > 0)?;
        let channels = c.checked_add(c2).ok_or(ArgumentError::Attribute {
            op: check.0,
            attribute: "c2",
        })?;
        check.that(
            "groups",
            groups > 0 && channels > 0 && channels.is_multiple_of(groups),
        )?;
        check.that(
            "activation",
            matches!(activation, Activation::None | Activation::Silu),
        )?;
        check.len("x", x.len(), check.size("c", &[rows, c])?)?;
        check.len("x2", x2.len(), check.size("c2", &[rows, c2])?)?;
        check.optional("gamma", gamma, channels)?;
        check.optional("beta", beta, channels)?;
        check.size("c", &[rows, channels])?;
        let numbers = if ranges { 4 } else { 2 };
        check.len(
            "stats",
            stats.len(),
            check.size("c", &[rows.div_ceil(NORM_BLOCK) + 1, channels, numbers])?,
        )?;
        Ok(Self {
            kernels,
            params,
            x,
            x2,
            gamma,
            beta,
            stats: Output::new(stats),
            ranges,
            moments: Moments::default(),
        })
    }

    #[inline(always)]
    fn channels(&self) -> usize {
        self.params.c + self.params.c2
    }

    #[inline(always)]
    fn blocks(&self) -> usize {
        self.params.rows.div_ceil(NORM_BLOCK)
    }

    /// The rows of a block.
    #[inline(always)]
    fn block(&self, block: usize) -> Range<usize> {
        block * NORM_BLOCK..self.params.rows.min((block + 1) * NORM_BLOCK)
    }

    /// The channels of a task of the first phase; its block is `task % blocks`.
    #[inline(always)]
    fn chunk(&self, task: usize) -> Range<usize> {
        let start = task / self.blocks() * CHANNELS;
        start..self.channels().min(start + CHANNELS)
    }

    /// Where a record's numbers of one kind stand in `stats`.
    #[inline(always)]
    fn record(&self, record: usize, kind: usize, channels: Range<usize>) -> Range<usize> {
        let start = (record * if self.ranges { 4 } else { 2 } + kind) * self.channels();
        start + channels.start..start + channels.end
    }

    fn tasks(&self, phase: usize) -> usize {
        match phase {
            0 => self.blocks() * self.channels().div_ceil(CHANNELS),
            1 => self.params.groups,
            _ => self.params.rows.div_ceil(self.rows_per_task()),
        }
    }

    fn rows_per_task(&self) -> usize {
        (TASK_ELEMENTS / self.channels()).max(1)
    }

    fn task_rows(&self, task: usize) -> Range<usize> {
        let rows = self.rows_per_task();
        task * rows..self.params.rows.min((task + 1) * rows)
    }

    /// The second phase, the same for all instruction sets: a group's mean and factor from its blocks', in `f64`, in
    /// order of blocks, then channels, unless they are given. With count `n_b` of a block's pixels, `mean = sum(n_b mean_bc) / n` and
    /// `m2 = sum(m2_bc + n_b (mean_bc - mean)^2)`; `rstd = 1 / sqrt(m2 / n + eps)`, then rounded to `f32`, as is the
    /// mean. The factor is `rstd gamma`.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    unsafe fn merge(&self, group: usize) {
        let size = self.channels() / self.params.groups;
        let channels = group * size..(group + 1) * size;
        let (mut sum, mut m2) = (0.0f64, 0.0f64);
        // SAFETY: the first phase wrote the blocks' records and nobody writes them now.
        let read = |range| unsafe { self.stats.slice(range) };
        for block in 0..self.blocks() {
            let pixels = self.block(block).len() as f64;
            for mean in read(self.record(block, MEANS, channels.clone())) {
                sum += pixels * f64::from(*mean);
            }
        }
        let count = (self.params.rows * size) as f64;
        let mean = sum / count;
        for block in 0..self.blocks() {
            let pixels = self.block(block).len() as f64;
            let means = read(self.record(block, MEANS, channels.clone()));
            for (block_mean, block_m2) in
                means
                    .iter()
                    .zip(read(self.record(block, FACTORS, channels.clone())))
            {
                let d = f64::from(*block_mean) - mean;
                m2 += f64::from(*block_m2) + pixels * (d * d);
            }
        }
        let mut moment = [mean, m2 / count];
        if let Some(measured) = self.moments.measured.get(group) {
            measured.set(moment);
        }
        if let Some(given) = self.moments.given.get(group) {
            moment = given.get();
        }
        let [mean, variance] = moment;
        let rstd = (1.0 / (variance + f64::from(self.params.eps)).sqrt()) as f32;
        let whole = self.blocks();
        // SAFETY: this task alone has this group's part of the last record; one slice ends before the next begins.
        unsafe {
            self.stats
                .slice_mut(self.record(whole, MEANS, channels.clone()))
        }
        .fill(mean as f32);
        // SAFETY: the same.
        let factors = unsafe {
            self.stats
                .slice_mut(self.record(whole, FACTORS, channels.clone()))
        };
        for (channel, factor) in channels.zip(factors) {
            *factor = self.gamma.map_or(rstd, |gamma| rstd * gamma[channel]);
        }
    }
}

impl<T: Element> Body for GroupNorm<'_, T> {
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
        // SAFETY: the caller's promise.
        unsafe {
            match phase {
                0 => self.norm.scalar_statistics(task),
                1 => self.norm.merge(task),
                _ => self.scalar_normalize(task),
            }
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, phase: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe {
            match phase {
                0 => self.norm.portable_statistics::<false>(kernels, task),
                1 => self.norm.merge(task),
                _ => self.portable_normalize(kernels, task),
            }
        }
    }
}
