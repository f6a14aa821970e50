use super::{Gemm, Rows};
use crate::{Activation, Element, PANEL, Residual, math};

impl<T: Element, W: Element, R: Rows> Gemm<'_, T, W, R> {
    /// The definition. Per output element: from zero, one fused multiply-add for each k in ascending order; then, each
    /// rounded to `f32` and only if present, plus bias, plus shift, activation, plus residual; then rounded once to the
    /// storage type. Padding is an operand like any other, of value zero. GEGLU has such a sum with bias for value and
    /// for gate, and is value times `gelu` of gate.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    pub(super) unsafe fn scalar(&self, task: usize) {
        let (rows, panels) = self.split.task(self.rows, self.panels(), task);
        let halves = if self.activation == Activation::Geglu { 2 } else { 1 };
        let columns = panels.start / halves * PANEL..self.n.min(panels.end / halves * PANEL);
        for row in rows {
            // SAFETY: this task alone has these rows and columns.
            let out = unsafe { self.out.slice_mut(row * self.n + columns.start..row * self.n + columns.end) };
            for (column, out) in columns.clone().zip(out) {
                let mut v = self.sum(row, column / PANEL * halves, column);
                if let Some(shift) = self.shift {
                    v += shift[column].load();
                }
                v = match self.activation {
                    Activation::Geglu => v * math::gelu(self.sum(row, column / PANEL * halves + 1, column + self.n)),
                    activation => math::activate(activation, v),
                };
                v = match self.residual {
                    Residual::None => v,
                    Residual::InPlace => out.load() + v,
                    Residual::Other(residual) => residual[row * self.n + column].load() + v,
                };
                *out = T::store(v);
            }
        }
    }

    /// The sum over k, and the bias that stands at `column` of its row.
    fn sum(&self, row: usize, panel: usize, column: usize) -> f32 {
        let lane = column % self.n % PANEL;
        let weight = self.panel(panel);
        let sum =
            (0..self.k).fold(0.0f32, |sum, k| self.left.load(row, k).mul_add(weight[k * PANEL + lane].load(), sum));
        self.bias.map_or(sum, |bias| sum + bias[column])
    }
}
