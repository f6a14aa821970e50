use super::GroupNorm;
use crate::{Element, math};

impl<T: Element> GroupNorm<'_, T> {
    fn load(&self, row: usize, channel: usize) -> f32 {
        let (c, c2) = (self.params.c, self.params.c2);
        if channel < c { self.x[row * c + channel].load() } else { self.x2[row * c2 + channel - c].load() }
    }

    /// The definition of a block's statistics, for each channel. With `n` the block's pixels, in order, all in `f32`:
    /// `guess = sum(x) / n`; `d = x - guess`; `drift = sum(d) / n`; `mean = guess + drift`;
    /// `m2 = sum(d^2) - drift sum(d)`. The sum of squares is of fused multiply-adds from zero, as is
    /// `m2 = fma(-drift, sum(d), sum(d^2))`.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    pub(super) unsafe fn scalar_statistics(&self, task: usize) {
        let block = task % self.blocks();
        for channel in self.chunk(task) {
            let pixels = self.block(block).len() as f32;
            let guess = self.block(block).fold(0.0, |sum, row| sum + self.load(row, channel)) / pixels;
            let deviations = self.block(block).map(|row| self.load(row, channel) - guess);
            let sum = deviations.clone().fold(0.0f32, |sum, d| sum + d);
            let squares = deviations.fold(0.0f32, |sum, d| d.mul_add(d, sum));
            let drift = sum / pixels;
            // SAFETY: this task alone has this block's record of this channel.
            unsafe {
                self.stats.slice_mut(self.record(block, channel..channel + 1))[0] = guess + drift;
                self.stats.slice_mut(self.record2(block, channel..channel + 1))[0] = (-drift).mul_add(sum, squares);
            }
        }
    }

    /// The definition of the result: `fma(x - mean, factor, beta)`, without `beta` a product; then the activation.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    pub(super) unsafe fn scalar_normalize(&self, task: usize) {
        let channels = self.channels();
        // SAFETY: the last record was written in the phase before.
        let read = |range| unsafe { self.stats.slice(range) };
        let means = read(self.record(self.blocks(), 0..channels));
        let factors = read(self.record2(self.blocks(), 0..channels));
        for row in self.task_rows(task) {
            // SAFETY: this task alone has this row.
            let out = unsafe { self.out.slice_mut(row * channels..(row + 1) * channels) };
            for (channel, out) in out.iter_mut().enumerate() {
                let d = self.load(row, channel) - means[channel];
                let v = self.beta.map_or(d * factors[channel], |beta| d.mul_add(factors[channel], beta[channel]));
                *out = T::store(math::activate(self.params.activation, v));
            }
        }
    }
}
