use std::arch::x86_64::*;

use super::tile::Rows;
use crate::PANEL;

/// [`tile::multiply`](super::tile::multiply) with two vectors to a panel's row.
///
/// # Safety
/// This CPU has the features. The panels of `b` are equally long, at most `STRIDE`.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    a: &[[f32; STRIDE]; ROWS],
    b: [&[[f32; PANEL]]; PANELS],
    sums: [&mut Rows<ROWS>; PANELS],
) {
    let mut local = [[[_mm256_setzero_ps(); 2]; PANELS]; ROWS];
    for row in 0..ROWS {
        for panel in 0..PANELS {
            let from = sums[panel][row].as_ptr();
            // SAFETY: sixteen floats.
            local[row][panel] = unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] };
        }
    }
    for k in 0..b[0].len() {
        let mut columns = [[_mm256_setzero_ps(); 2]; PANELS];
        for panel in 0..PANELS {
            // SAFETY: a row of sixteen floats, inside by the caller's promise.
            columns[panel] = unsafe {
                let from = b[panel].get_unchecked(k).as_ptr();
                [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]
            };
        }
        for row in 0..ROWS {
            // SAFETY: k is below `STRIDE` by the caller's promise.
            let x = _mm256_broadcast_ss(unsafe { a[row].get_unchecked(k) });
            for panel in 0..PANELS {
                for half in 0..2 {
                    local[row][panel][half] =
                        _mm256_fmadd_ps(x, columns[panel][half], local[row][panel][half]);
                }
            }
        }
    }
    for row in 0..ROWS {
        for panel in 0..PANELS {
            let to = sums[panel][row].as_mut_ptr();
            // SAFETY: sixteen floats.
            unsafe {
                _mm256_storeu_ps(to, local[row][panel][0]);
                _mm256_storeu_ps(to.add(8), local[row][panel][1]);
            }
        }
    }
}
