//! What follows the sums of a panel, sixteen columns at a time: nothing is stored before the result.

use std::ops::Range;

use super::{CodeRows, GemmInt8, tile};
use crate::{Element, Kernels, PANEL};

/// What belongs to a whole panel's columns.
struct Columns<'a> {
    scales: &'a [f32; PANEL],
    weights: &'a [i32; PANEL],
}

impl<T: Element, R: CodeRows> GemmInt8<'_, T, R> {
    /// What follows the sums of some rows for an output panel, which is two panels under GEGLU. A panel's sums stand one
    /// row after the other and are of codes less `center`; the gate's stand `gate` rows after the value's.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run): this task alone has the rows and the panel's columns.
    #[inline(always)]
    pub(super) unsafe fn finish_panel(
        &self,
        kernels: Kernels,
        rows: Range<usize>,
        panel: usize,
        (sums, gate): (&[[i32; PANEL]], usize),
        center: i32,
    ) {
        let halves = self.epilogue.halves();
        // SAFETY: the caller's promise.
        unsafe {
            if self.columns_of(panel).1 < PANEL {
                for (index, row) in rows.enumerate() {
                    let panels = panel..panel + halves;
                    self.finish(kernels, row, panels, &sums[index..], gate, center)
                }
            } else if halves == 2 {
                self.whole_panel::<true>(kernels, rows, panel, (sums, &sums[gate..]), center)
            } else {
                self.whole_panel::<false>(kernels, rows, panel, (sums, sums), center)
            }
        }
    }

    /// [`GemmInt8::finish_panel`] of a panel all of whose columns are there.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn whole_panel<const GEGLU: bool>(
        &self,
        kernels: Kernels,
        rows: Range<usize>,
        panel: usize,
        (sums, gates): (&[[i32; PANEL]], &[[i32; PANEL]]),
        center: i32,
    ) {
        let values_of = self.whole_columns(panel);
        let gates_of = self.whole_columns(if GEGLU { panel + 1 } else { panel });
        let after = self.epilogue.after(kernels, panel);
        let (sums, gates) = (&sums[..rows.len()], &gates[..rows.len()]);
        for ((row, sums), gates) in rows.zip(sums).zip(gates) {
            let (scale, zero_point) = self.left.pair(row);
            let zero_point = zero_point.wrapping_sub(center);
            let product = |sums, of: &Columns| {
                tile::scaled(kernels, sums, zero_point, of.weights, scale, of.scales)
            };
            let v = product(sums, &values_of);
            let gate = if GEGLU { product(gates, &gates_of) } else { v };
            // SAFETY: the caller's promise.
            unsafe { after.store::<GEGLU>(kernels, row, v, gate) }
        }
    }

    #[inline(always)]
    fn whole_columns(&self, panel: usize) -> Columns<'_> {
        let (column, _) = self.columns_of(panel);
        let whole = "the panel is whole";
        Columns {
            scales: self.scale[column..].first_chunk().expect(whole),
            weights: self.sums[column..].first_chunk().expect(whole),
        }
    }
}
