use super::{FACTORS, MAXIMA, MEANS, MINIMA, Norm};
use crate::{Element, codes::min, math, output::Output};

impl<T: Element> Norm<'_, T> {
    fn load(&self, row: usize, channel: usize) -> f32 {
        let (c, c2) = (self.params.c, self.params.c2);
        if channel < c {
            self.x[row * c + channel].load()
        } else {
            self.x2[row * c2 + channel - c].load()
        }
    }

    /// The definition of a block's statistics, for each channel. With `n` the block's pixels, in order, all in `f32`:
    /// `guess = sum(x) / n`; `d = x - guess`; `drift = sum(d) / n`; `mean = guess + drift`;
    /// `m2 = sum(d^2) - drift sum(d)`. The sum of squares is of fused multiply-adds from zero, as is
    /// `m2 = fma(-drift, sum(d), sum(d^2))`. Where ranges are asked for, also the least and the greatest `x` from plus and
    /// minus infinity on, NaNs passed over, of equal ones the first.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    pub(super) unsafe fn scalar_statistics(&self, records: &Output<'_, f32>, task: usize) {
        let block = task % self.blocks();
        for channel in self.chunk(task) {
            let pixels = self.block(block).len() as f32;
            let guess = self
                .block(block)
                .fold(0.0, |sum, row| sum + self.load(row, channel))
                / pixels;
            let deviations = self.block(block).map(|row| self.load(row, channel) - guess);
            let sum = deviations.clone().fold(0.0f32, |sum, d| sum + d);
            let squares = deviations.fold(0.0f32, |sum, d| d.mul_add(d, sum));
            let drift = sum / pixels;
            // SAFETY: this task alone has this block's record of this channel.
            unsafe {
                let write = |kind, x| {
                    records.slice_mut(self.record(block, kind, channel..channel + 1))[0] = x
                };
                write(MEANS, guess + drift);
                write(FACTORS, (-drift).mul_add(sum, squares));
                if self.ranges {
                    let values = || self.block(block).map(|row| self.load(row, channel));
                    write(MINIMA, values().fold(f32::INFINITY, |m, x| min(x, m)));
                    write(
                        MAXIMA,
                        values().fold(f32::NEG_INFINITY, |m, x| math::max(x, m)),
                    );
                }
            }
        }
    }

    /// The definition of the result: `fma(x - mean, factor, beta)`, without `beta` a product; then the activation. `whole` is
    /// the record of the whole.
    pub(super) fn scalar_value(&self, whole: &[f32], row: usize, channel: usize) -> f32 {
        let read = |kind| whole[self.of_whole(kind, channel..channel + 1)][0];
        let (d, factor) = (self.load(row, channel) - read(MEANS), read(FACTORS));
        let v = self
            .beta
            .map_or(d * factor, |beta| d.mul_add(factor, beta[channel]));
        math::activate(self.params.activation, v)
    }

    /// # Safety
    /// As [`Job::run`](crate::Job::run): this task alone has its rows of `out`.
    pub(super) unsafe fn scalar_normalize(&self, whole: &[f32], out: &Output<'_, T>, task: usize) {
        let channels = self.channels();
        for row in self.task_rows(task) {
            // SAFETY: the caller's promise.
            let out = unsafe { out.slice_mut(row * channels..(row + 1) * channels) };
            for (channel, out) in out.iter_mut().enumerate() {
                *out = T::store(self.scalar_value(whole, row, channel));
            }
        }
    }
}
