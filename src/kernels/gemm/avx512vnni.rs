use std::arch::x86_64::*;

use super::tile::Rows;
use crate::PANEL;

/// [`tile::multiply`](super::tile::multiply) with one vector to a panel's row.
///
/// # Safety
/// This CPU has the features. The panels of `b` are equally long, at most `STRIDE`.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "avx512f")]
pub unsafe fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    a: &[[f32; STRIDE]; ROWS],
    b: [&[[f32; PANEL]]; PANELS],
    sums: [&mut Rows<ROWS>; PANELS],
) {
    let mut local = [[_mm512_setzero_ps(); PANELS]; ROWS];
    for row in 0..ROWS {
        for panel in 0..PANELS {
            // SAFETY: sixteen floats.
            local[row][panel] = unsafe { _mm512_loadu_ps(sums[panel][row].as_ptr()) };
        }
    }
    for k in 0..b[0].len() {
        let mut columns = [_mm512_setzero_ps(); PANELS];
        for panel in 0..PANELS {
            // SAFETY: a row of sixteen floats, inside by the caller's promise.
            columns[panel] = unsafe { _mm512_loadu_ps(b[panel].get_unchecked(k).as_ptr()) };
        }
        for row in 0..ROWS {
            // SAFETY: k is below `STRIDE` by the caller's promise.
            let x = _mm512_set1_ps(unsafe { *a[row].get_unchecked(k) });
            for panel in 0..PANELS {
                local[row][panel] = _mm512_fmadd_ps(x, columns[panel], local[row][panel]);
            }
        }
    }
    for row in 0..ROWS {
        for panel in 0..PANELS {
            // SAFETY: sixteen floats.
            unsafe { _mm512_storeu_ps(sums[panel][row].as_mut_ptr(), local[row][panel]) }
        }
    }
}
