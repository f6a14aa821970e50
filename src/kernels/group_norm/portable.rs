use std::ops::Range;

use super::{CHANNELS, FACTORS, MAXIMA, MEANS, MINIMA, Norm};
use crate::{Element, Kernels, codes::min, math, output::Output};

/// One number per channel of a task.
type Channels = [f32; CHANNELS];

impl<T: Element> Norm<'_, T> {
    /// [`Norm::scalar_statistics`], many channels at a time; `RANGES` is `ranges`.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn portable_statistics<const RANGES: bool>(
        &self,
        records: &Output<'_, f32>,
        kernels: Kernels,
        task: usize,
    ) {
        let block = task % self.blocks();
        let (rows, channels) = (self.block(block), self.chunk(task));
        let pixels = rows.len() as f32;
        let (mut x, mut mean): (Channels, Channels) = ([0.0; CHANNELS], [0.0; CHANNELS]);
        let (mut minima, mut maxima): (Channels, Channels) =
            ([f32::INFINITY; CHANNELS], [f32::NEG_INFINITY; CHANNELS]);
        for row in rows.clone() {
            self.load_row(kernels, row, channels.clone(), &mut x[..channels.len()]);
            for i in 0..CHANNELS {
                mean[i] += x[i];
            }
            if RANGES {
                for i in 0..CHANNELS {
                    minima[i] = min(x[i], minima[i]);
                    maxima[i] = math::max(x[i], maxima[i]);
                }
            }
        }
        for mean in &mut mean {
            *mean /= pixels;
        }
        let (mut sum, mut squares): (Channels, Channels) = ([0.0; CHANNELS], [0.0; CHANNELS]);
        for row in rows {
            self.load_row(kernels, row, channels.clone(), &mut x[..channels.len()]);
            for i in 0..CHANNELS {
                let d = x[i] - mean[i];
                sum[i] += d;
                squares[i] = d.mul_add(d, squares[i]);
            }
        }
        for i in 0..CHANNELS {
            let drift = sum[i] / pixels;
            mean[i] += drift;
            squares[i] = (-drift).mul_add(sum[i], squares[i]);
        }
        let write = |kind, numbers: &Channels| {
            // SAFETY: this task alone has this block's record of these channels.
            let to = unsafe { records.slice_mut(self.record(block, kind, channels.clone())) };
            to.copy_from_slice(&numbers[..to.len()]);
        };
        write(MEANS, &mean);
        write(FACTORS, &squares);
        if RANGES {
            write(MINIMA, &minima);
            write(MAXIMA, &maxima);
        }
    }

    /// Some channels of a row of the two sources side by side.
    #[inline(always)]
    fn load_row(&self, kernels: Kernels, row: usize, channels: Range<usize>, to: &mut [f32]) {
        let (c, c2) = (self.params.c, self.params.c2);
        let (to, to2) = to.split_at_mut(c.saturating_sub(channels.start).min(channels.len()));
        if !to.is_empty() {
            T::load_slice(kernels, &self.x[row * c + channels.start..][..to.len()], to);
        }
        if !to2.is_empty() {
            let start = channels.start + to.len() - c;
            T::load_slice(kernels, &self.x2[row * c2 + start..][..to2.len()], to2);
        }
    }

    /// [`Norm::scalar_value`] of some channels of a row; at most `CHANNELS`.
    #[inline(always)]
    pub(super) fn values(
        &self,
        whole: &[f32],
        kernels: Kernels,
        row: usize,
        channels: Range<usize>,
        values: &mut [f32],
    ) {
        self.load_row(kernels, row, channels.clone(), values);
        let means = &whole[self.of_whole(MEANS, channels.clone())];
        let factors = &whole[self.of_whole(FACTORS, channels.clone())];
        if let Some(beta) = self.beta {
            let beta = &beta[channels];
            for (((x, mean), factor), beta) in values.iter_mut().zip(means).zip(factors).zip(beta) {
                *x = (*x - mean).mul_add(*factor, *beta);
            }
        } else {
            for ((x, mean), factor) in values.iter_mut().zip(means).zip(factors) {
                *x = (*x - mean) * factor;
            }
        }
        math::activate_slice(self.params.activation, values);
    }
}

impl<T: Element> Norm<'_, T> {
    /// [`Norm::scalar_normalize`], many channels at a time.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run): this task alone has its rows of `out`.
    #[inline(always)]
    pub(super) unsafe fn portable_normalize(
        &self,
        whole: &[f32],
        out: &Output<'_, T>,
        kernels: Kernels,
        task: usize,
    ) {
        let all = self.channels();
        let mut values: Channels = [0.0; CHANNELS];
        for row in self.task_rows(task) {
            for start in (0..all).step_by(CHANNELS) {
                let channels = start..all.min(start + CHANNELS);
                let values = &mut values[..channels.len()];
                self.values(whole, kernels, row, channels.clone(), values);
                // SAFETY: the caller's promise.
                let out =
                    unsafe { out.slice_mut(row * all + channels.start..row * all + channels.end) };
                T::store_slice(kernels, values, out);
            }
        }
    }
}
