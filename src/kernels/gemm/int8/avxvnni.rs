use std::arch::x86_64::*;

use super::tile::{Rows, Steps};

/// [`Left::multiply`](super::tile::Left::multiply) of bytes with two vectors to a panel's row.
///
/// # Safety
/// This CPU has the features. The panels of `b` are equally long, at most `STRIDE / 4`.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "avx2,avxvnni")]
pub unsafe fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    a: &[[u8; STRIDE]; ROWS],
    b: [&[Steps]; PANELS],
    sums: [&mut Rows<ROWS>; PANELS],
    add: bool,
) {
    let mut local = [[[_mm256_setzero_si256(); 2]; PANELS]; ROWS];
    if add {
        for row in 0..ROWS {
            for panel in 0..PANELS {
                for half in 0..2 {
                    // SAFETY: eight of sixteen sums.
                    local[row][panel][half] = unsafe {
                        _mm256_loadu_si256(sums[panel][row].as_ptr().add(8 * half).cast())
                    };
                }
            }
        }
    }
    for group in 0..b[0].len() {
        let mut columns = [[_mm256_setzero_si256(); 2]; PANELS];
        for panel in 0..PANELS {
            for half in 0..2 {
                // SAFETY: half a row of 64 bytes, inside by the caller's promise.
                columns[panel][half] = unsafe {
                    let steps = b[panel].get_unchecked(group).as_ptr();
                    _mm256_loadu_si256(steps.add(32 * half).cast())
                };
            }
        }
        for row in 0..ROWS {
            // SAFETY: four codes, inside by the caller's promise.
            let x = _mm256_set1_epi32(unsafe {
                a[row]
                    .as_ptr()
                    .add(4 * group)
                    .cast::<i32>()
                    .read_unaligned()
            });
            for panel in 0..PANELS {
                for half in 0..2 {
                    local[row][panel][half] =
                        _mm256_dpbusd_avx_epi32(local[row][panel][half], x, columns[panel][half]);
                }
            }
        }
    }
    for row in 0..ROWS {
        for panel in 0..PANELS {
            for half in 0..2 {
                // SAFETY: eight of sixteen sums.
                unsafe {
                    _mm256_storeu_si256(
                        sums[panel][row].as_mut_ptr().add(8 * half).cast(),
                        local[row][panel][half],
                    )
                }
            }
        }
    }
}
