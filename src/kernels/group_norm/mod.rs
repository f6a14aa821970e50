//! Group normalization.

mod bands;
mod codes;
mod moments;
mod portable;
mod scalar;
#[cfg(test)]
mod tests;

pub use bands::{GroupNormApply, GroupNormApplyCodes, GroupNormBlocks, GroupNormMerge};
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
    stats: Stats<'a>,
    out: Output<'a, T>,
}

/// The source and what is done with it.
struct Norm<'a, T> {
    kernels: Kernels,
    params: GroupNormParams,
    x: &'a [T],
    x2: &'a [T],
    gamma: Option<&'a [f32]>,
    beta: Option<&'a [f32]>,
    /// Whether records have ranges.
    ranges: bool,
    moments: Moments<'a>,
}

/// Records: each `channels` means, then as many of something else (a block's sums of squared deviations; for the whole,
/// the factors). With ranges a record goes on with as many minima and maxima; for the whole, each group's ends of its
/// results' range, at the group's number.
struct Stats<'a> {
    /// One for each block.
    blocks: Output<'a, f32>,
    /// One for the whole.
    whole: Output<'a, f32>,
}

impl<'a> Stats<'a> {
    /// The whole's is the last of `stats`, and has `record` elements.
    fn new(stats: &'a mut [f32], record: usize) -> Self {
        let (blocks, whole) = stats.split_at_mut(stats.len() - record);
        Stats {
            blocks: Output::new(blocks),
            whole: Output::new(whole),
        }
    }

    /// The blocks' records.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run), after the first phase.
    #[inline(always)]
    unsafe fn blocks(&self) -> &[f32] {
        // SAFETY: the first phase wrote them, and nobody writes them now.
        unsafe { self.blocks.slice(0..self.blocks.len()) }
    }

    /// The record of the whole.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run), after the second phase.
    #[inline(always)]
    unsafe fn whole(&self) -> &[f32] {
        // SAFETY: the second phase wrote it, and nobody writes it now.
        unsafe { self.whole.slice(0..self.whole.len()) }
    }
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
        let norm = Norm::new(kernels, &check, params, x, x2, (gamma, beta), false)?;
        check.len("stats", stats.len(), norm.stats_len(&check)?)?;
        check.len("out", out.len(), x.len() + norm.x2.len())?;
        let record = norm.record_len();
        Ok(Self {
            norm,
            stats: Stats::new(stats, record),
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

    fn new(
        kernels: Kernels,
        check: &Check,
        params: GroupNormParams,
        x: &'a [T],
        x2: Option<&'a [T]>,
        parameters: (Option<&'a [f32]>, Option<&'a [f32]>),
        ranges: bool,
    ) -> Result<Self, ArgumentError> {
        let norm = Self::without_source(kernels, check, params, parameters, ranges)?;
        let GroupNormParams { rows, c, c2, .. } = params;
        let x2 = x2.unwrap_or(&[]);
        check.len("x", x.len(), check.size("c", &[rows, c])?)?;
        check.len("x2", x2.len(), check.size("c2", &[rows, c2])?)?;
        Ok(Self { x, x2, ..norm })
    }

    /// One that reads no source.
    fn without_source(
        kernels: Kernels,
        check: &Check,
        params: GroupNormParams,
        (gamma, beta): (Option<&'a [f32]>, Option<&'a [f32]>),
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
        check.optional("gamma", gamma, channels)?;
        check.optional("beta", beta, channels)?;
        check.size("c", &[rows, channels])?;
        Ok(Self {
            kernels,
            params,
            x: &[],
            x2: &[],
            gamma,
            beta,
            ranges,
            moments: Moments::default(),
        })
    }

    /// Elements of a record.
    #[inline(always)]
    fn record_len(&self) -> usize {
        self.channels() * if self.ranges { 4 } else { 2 }
    }

    /// Elements of all blocks' records and the whole's.
    fn stats_len(&self, check: &Check) -> Result<usize, ArgumentError> {
        check.size("c", &[self.blocks() + 1, self.record_len()])
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

    /// Where a block's numbers of one kind stand among all blocks' records.
    #[inline(always)]
    fn record(&self, block: usize, kind: usize, channels: Range<usize>) -> Range<usize> {
        let start = block * self.record_len() + kind * self.channels();
        start + channels.start..start + channels.end
    }

    /// Where the whole's numbers of one kind stand in its record.
    #[inline(always)]
    fn of_whole(&self, kind: usize, channels: Range<usize>) -> Range<usize> {
        self.record(0, kind, channels)
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
    /// As [`Job::run`](crate::Job::run): this task alone has the group's part of `whole`.
    #[inline(always)]
    unsafe fn merge(&self, blocks: &[f32], whole: &Output<'_, f32>, group: usize) {
        let size = self.channels() / self.params.groups;
        let channels = group * size..(group + 1) * size;
        let (mut sum, mut m2) = (0.0f64, 0.0f64);
        for block in 0..self.blocks() {
            let pixels = self.block(block).len() as f64;
            for mean in &blocks[self.record(block, MEANS, channels.clone())] {
                sum += pixels * f64::from(*mean);
            }
        }
        let count = (self.params.rows * size) as f64;
        let mean = sum / count;
        for block in 0..self.blocks() {
            let pixels = self.block(block).len() as f64;
            let means = &blocks[self.record(block, MEANS, channels.clone())];
            for (block_mean, block_m2) in means
                .iter()
                .zip(&blocks[self.record(block, FACTORS, channels.clone())])
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
        // SAFETY: the caller's promise; one slice ends before the next begins.
        unsafe { whole.slice_mut(self.of_whole(MEANS, channels.clone())) }.fill(mean as f32);
        // SAFETY: the same.
        let factors = unsafe { whole.slice_mut(self.of_whole(FACTORS, channels.clone())) };
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
                0 => self.norm.scalar_statistics(&self.stats.blocks, task),
                1 => self
                    .norm
                    .merge(self.stats.blocks(), &self.stats.whole, task),
                _ => self
                    .norm
                    .scalar_normalize(self.stats.whole(), &self.out, task),
            }
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, phase: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe {
            match phase {
                0 => self
                    .norm
                    .portable_statistics::<false>(&self.stats.blocks, kernels, task),
                1 => self
                    .norm
                    .merge(self.stats.blocks(), &self.stats.whole, task),
                _ => self
                    .norm
                    .portable_normalize(self.stats.whole(), &self.out, kernels, task),
            }
        }
    }
}
