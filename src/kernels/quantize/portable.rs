use super::Quantize;
use crate::{
    Element, Kernels, Quantizer,
    codes::{self, Range},
    lanes::CHUNK,
};

impl<T: Element> Quantize<'_, T> {
    /// [`Quantize::scalar_rows`], many elements at a time.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn portable_rows(&self, kernels: Kernels, task: usize) {
        for row in self.task_rows(task) {
            let mut range = Range::default();
            self.widen(kernels, row, &mut range);
            let quantizer = range.quantizer();
            // SAFETY: this task alone has this row.
            unsafe {
                codes::write_pair(&self.out, self.params.rows, true, row, quantizer);
                self.code_row(kernels, row, quantizer);
            }
        }
    }

    /// [`Quantize::scalar_range`], many elements at a time.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn portable_range(&self, kernels: Kernels, block: usize) {
        let mut range = Range::default();
        for row in self.block(block) {
            self.widen(kernels, row, &mut range);
        }
        let (lo, hi) = range.ends();
        // SAFETY: this task alone has this block's range.
        unsafe { self.ranges.slice_mut(2 * block..2 * block + 2) }.copy_from_slice(&[lo, hi]);
    }

    /// [`Quantize::scalar_codes`], many elements at a time.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn portable_codes(&self, kernels: Kernels, task: usize) {
        // SAFETY: the caller's promise; this task alone has its rows, and the first the pair.
        unsafe {
            let quantizer = self.quantizer();
            if task == 0 {
                codes::write_pair(&self.out, self.params.rows, false, 0, quantizer);
            }
            for row in self.task_rows(task) {
                self.code_row(kernels, row, quantizer);
            }
        }
    }

    #[inline(always)]
    fn widen(&self, kernels: Kernels, row: usize, range: &mut Range) {
        let mut line = [0.0; CHUNK];
        for source in self.row(row) {
            for x in source.chunks(CHUNK) {
                T::load_slice(kernels, x, &mut line[..x.len()]);
                range.widen(&line[..x.len()]);
            }
        }
    }

    /// # Safety
    /// The caller's task alone has the row.
    #[inline(always)]
    unsafe fn code_row(&self, kernels: Kernels, row: usize, quantizer: Quantizer) {
        let mut line = [0.0; CHUNK];
        // SAFETY: the caller's promise.
        let out = unsafe { self.out.slice_mut(self.codes(row)) };
        let (first, second) = out.split_at_mut(self.params.c);
        for (source, out) in self.row(row).into_iter().zip([first, second]) {
            for (x, out) in source.chunks(CHUNK).zip(out.chunks_mut(CHUNK)) {
                T::load_slice(kernels, x, &mut line[..x.len()]);
                quantizer.codes(kernels, &line[..x.len()], out);
            }
        }
    }
}
