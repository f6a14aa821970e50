//! What follows the sums of a panel, sixteen columns of a few rows at a time.

use std::ops::Range;

use super::{CodeRows, GemmInt8, tile};
use crate::{
    Element, Kernels, PANEL,
    gemm::epilogue::{AFTER_ROWS, After},
};

/// What belongs to a whole panel's columns.
struct Columns<'a> {
    scales: &'a [f32; PANEL],
    weights: &'a [i32; PANEL],
}

/// What follows the sums of a whole panel where all of it is added: a row of it needs no memory but the result's.
pub(super) struct Additions<'e, 'a, T> {
    columns: Columns<'e>,
    after: After<'e, 'a, T>,
    center: i32,
}

impl<'a, T: Element, R: CodeRows> GemmInt8<'a, T, R> {
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
            if let Some(additions) = self.additions(kernels, panel, center) {
                self.add_to_rows(kernels, rows, sums, &additions)
            } else if self.columns_of(panel).1 < PANEL {
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

    /// What follows the sums of a panel, if it is whole and all of that is added.
    #[inline(always)]
    pub(super) fn additions(
        &self,
        kernels: Kernels,
        panel: usize,
        center: i32,
    ) -> Option<Additions<'_, 'a, T>> {
        let whole = self.columns_of(panel).1 == PANEL;
        (whole && self.epilogue.only_adds()).then(|| Additions {
            columns: self.whole_columns(panel),
            after: self.epilogue.after(kernels, panel),
            center,
        })
    }

    /// Stores the results of some rows' sums.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run): this task alone has the rows and the panel's columns.
    #[inline(always)]
    pub(super) unsafe fn add_to_rows(
        &self,
        kernels: Kernels,
        rows: Range<usize>,
        sums: &[[i32; PANEL]],
        additions: &Additions<T>,
    ) {
        let of = &additions.columns;
        // SAFETY: the caller's promise.
        let (out, mut residual) = unsafe { additions.after.rows(rows.clone()) };
        for ((pair, sums), out) in self.left.pairs(rows).zip(sums).zip(out) {
            let product = product(kernels, pair, sums, (of, additions.center));
            additions
                .after
                .add_and_store(kernels, product, out, &mut residual);
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
        of: (&Columns, i32),
        to: &mut [[f32; PANEL]],
    ) {
        for ((pair, sums), to) in self.left.pairs(rows).zip(sums).zip(to) {
            *to = product(kernels, pair, sums, of);
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

/// The products of a row, of its sums.
#[inline(always)]
fn product(
    kernels: Kernels,
    (scale, zero_point): (f32, i32),
    sums: &[i32; PANEL],
    (of, center): (&Columns, i32),
) -> [f32; PANEL] {
    let zero_point = zero_point.wrapping_sub(center);
    tile::scaled(kernels, sums, zero_point, of.weights, scale, of.scales)
}
