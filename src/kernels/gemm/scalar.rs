use super::{Gemm, Rows};
use crate::{Element, PANEL};

impl<T: Element, W: Element, R: Rows> Gemm<'_, T, W, R> {
    /// The definition. Per output element: from zero, one fused multiply-add for each k in ascending order; then the
    /// epilogue. Padding is an operand like any other, of value zero.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    pub(super) unsafe fn scalar(&self, task: usize) {
        let (rows, panels) = self.split.task(self.rows, self.epilogue.panels(), task);
        for row in rows {
            let product = |panel, column: usize| {
                let (weight, lane) = (self.panel(panel), column % self.epilogue.n % PANEL);
                (0..self.k).fold(0.0f32, |sum, k| {
                    self.left
                        .load(row, k)
                        .mul_add(weight[k * PANEL + lane].load(), sum)
                })
            };
            // SAFETY: the caller's promise.
            unsafe { self.epilogue.scalar_row(row, panels.clone(), product) }
        }
    }
}
