use super::Quantize;
use crate::{
    Element, Quantizer,
    codes::{self, min},
    math,
};

impl<T: Element> Quantize<'_, T> {
    /// The values of a row of both sources.
    fn values(&self, row: usize) -> impl Iterator<Item = f32> {
        self.row(row).into_iter().flatten().map(|x| x.load())
    }

    /// The definition per row: the map of [`Quantizer::of_range`] for the row's range, and [`Quantizer::code`] of each
    /// element.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    pub(super) unsafe fn scalar_rows(&self, task: usize) {
        for row in self.task_rows(task) {
            let (lo, hi) = self
                .values(row)
                .fold((0.0, 0.0), |(lo, hi), x| (min(x, lo), math::max(x, hi)));
            let quantizer = Quantizer::of_range(lo, hi);
            // SAFETY: this task alone has this row.
            unsafe { codes::write_pair(&self.out, self.params.rows, true, row, quantizer) };
            // SAFETY: the same.
            let out = unsafe { self.out.slice_mut(self.codes(row)) };
            out.iter_mut()
                .zip(self.values(row))
                .for_each(|(out, x)| *out = quantizer.code(x));
        }
    }

    /// The range of a block of rows, for the definition per tensor: the same with the range of all elements.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    pub(super) unsafe fn scalar_range(&self, block: usize) {
        let values = self.block(block).flat_map(|row| self.values(row));
        let (lo, hi) = values.fold((0.0, 0.0), |(lo, hi), x| (min(x, lo), math::max(x, hi)));
        // SAFETY: this task alone has this block's range.
        unsafe { self.ranges.slice_mut(2 * block..2 * block + 2) }.copy_from_slice(&[lo, hi]);
    }

    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    pub(super) unsafe fn scalar_codes(&self, task: usize) {
        // SAFETY: the caller's promise.
        let quantizer = unsafe { self.quantizer() };
        if task == 0 {
            // SAFETY: this task alone has the pair.
            unsafe { codes::write_pair(&self.out, self.params.rows, false, 0, quantizer) };
        }
        for row in self.task_rows(task) {
            // SAFETY: this task alone has this row.
            let out = unsafe { self.out.slice_mut(self.codes(row)) };
            out.iter_mut()
                .zip(self.values(row))
                .for_each(|(out, x)| *out = quantizer.code(x));
        }
    }
}
