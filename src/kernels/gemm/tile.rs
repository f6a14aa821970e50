use std::array;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::Isa;
use crate::{Kernels, PANEL};

/// Sums of some rows for one panel.
pub type Rows<const ROWS: usize> = [[f32; PANEL]; ROWS];

/// Adds `a` times `b` to `sums` for `b[_].len()` steps of k in ascending order, by fused multiply-adds. `a` has a row
/// per row of the tile, as long as the steps or longer; each of `b` is a panel, all equally long; `sums` has an entry
/// for each.
#[inline(always)]
pub fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    kernels: Kernels,
    a: &[[f32; STRIDE]; ROWS],
    b: [&[[f32; PANEL]]; PANELS],
    sums: [&mut Rows<ROWS>; PANELS],
) {
    let steps = b[0].len();
    for panel in b {
        assert!(steps <= STRIDE && panel.len() == steps);
    }
    match kernels.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Kernels` of this set exists only on a CPU that has it; the lengths were checked above.
        Isa::Avx2 | Isa::AvxVnni => unsafe { super::avx2::multiply(a, b, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the same.
        Isa::Avx512Vnni => unsafe { super::avx512vnni::multiply(a, b, sums) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: every AArch64 CPU has the features; the lengths were checked above.
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => unsafe { super::neon::multiply(a, b, sums) },
        _ => portable(a, b, sums),
    }
}

/// The sums of the rows from `row` on, in storage of `[panel][rows]`, for the panels from `panel` on.
#[inline(always)]
pub fn sums_of<const ROWS: usize, const PANELS: usize>(
    storage: &mut [[f32; PANEL]],
    rows: usize,
    row: usize,
    panel: usize,
) -> [&mut Rows<ROWS>; PANELS] {
    let mut panels = storage[panel * rows..].chunks_exact_mut(rows);
    array::from_fn(|_| {
        let rows = panels
            .next()
            .and_then(|panel| panel[row..].first_chunk_mut());
        rows.expect("storage has these panels and rows")
    })
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
fn portable<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    a: &[[f32; STRIDE]; ROWS],
    b: [&[[f32; PANEL]]; PANELS],
    sums: [&mut Rows<ROWS>; PANELS],
) {
    for (b, sums) in b.into_iter().zip(sums) {
        let mut local = *sums;
        for k in 0..b.len() {
            for row in 0..ROWS {
                let x = a[row][k];
                for lane in 0..PANEL {
                    local[row][lane] = x.mul_add(b[k][lane], local[row][lane]);
                }
            }
        }
        *sums = local;
    }
}
