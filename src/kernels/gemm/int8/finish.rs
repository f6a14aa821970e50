//! What follows the sums of a panel, sixteen columns of a few rows at a time.

use std::ops::Range;

use super::{CodeRows, GemmInt8, tile};
use crate::{Element, Kernels, PANEL, gemm::epilogue::AFTER_ROWS};

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
        let (mut values, mut of_gates) = ([[0.0; PANEL]; AFTER_ROWS], [[0.0; PANEL]; AFTER_ROWS]);
        let mut row = rows.start;
        for (sums, gates) in sums.chunks(AFTER_ROWS).zip(gates.chunks(AFTER_ROWS)) {
            let rows = row..row + sums.len();
            let (values, of_gates) = (&mut values[..sums.len()], &mut of_gates[..sums.len()]);
            self.products(kernels, rows.clone(), sums, (&values_of, center), values);
            if GEGLU {
                self.products(kernels, rows.clone(), gates, (&gates_of, center), of_gates);
            }
            row = rows.end;
            // SAFETY: the caller's promise.
            unsafe { after.store::<GEGLU>(kernels, rows, values, of_gates) }
        }
    }

    /// The products of some rows, of their sums.
    #[inline(always)]
    fn products(
        &self,
        kernels: Kernels,
        rows: Range<usize>,
        sums: &[[i32; PANEL]],
        (of, center): (&Columns, i32),
        to: &mut [[f32; PANEL]],
    ) {
        for ((row, sums), to) in rows.zip(sums).zip(to) {
            let (scale, zero_point) = self.left.pair(row);
            let zero_point = zero_point.wrapping_sub(center);
            *to = tile::scaled(kernels, sums, zero_point, of.weights, scale, of.scales);
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
