use super::{CodeRows, GemmInt8};
use crate::{Element, PANEL};

impl<T: Element, R: CodeRows> GemmInt8<'_, T, R> {
    /// The definition. Per output element: the exact sum of code times weight over k, padding pixels having the zero
    /// point's code; minus the zero point times the weights' sum, exactly; as `f32`, times the product of the row's
    /// scale and the column's; then the epilogue.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    pub(super) unsafe fn scalar(&self, task: usize) {
        let (rows, panels) = self.split.task(self.rows, self.epilogue.panels(), task);
        for row in rows {
            let (scale, zero_point) = self.left.pair(row);
            let product = |panel, column: usize| {
                let (panel, lane) = (self.panel(panel), column % self.epilogue.n % PANEL);
                let term = |k: usize| {
                    i32::from(self.left.code(row, k)) * i32::from(panel[k / 4][lane * 4 + k % 4])
                };
                let sum: i32 = (0..self.k).map(term).sum();
                let sum = sum.wrapping_sub(zero_point.wrapping_mul(self.sums[column]));
                sum as f32 * (scale * self.scale[column])
            };
            // SAFETY: the caller's promise.
            unsafe { self.epilogue.scalar_row(row, panels.clone(), product) }
        }
    }
}
