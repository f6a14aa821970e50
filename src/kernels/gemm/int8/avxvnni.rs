use std::arch::x86_64::*;

use super::{
    Pairs,
    tile::{Rows, Steps},
};
use crate::PANEL;

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

/// Sets `sums` to rows of `a`, each a stride after the one before, times an expanded panel.
///
/// # Safety
/// This CPU has the features. Each row of `a`, one for each of `sums`, has two readable elements for each of `b`.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
pub unsafe fn multiply_pairs(
    (a, stride): (*const i16, usize),
    b: &[Pairs],
    sums: &mut [[i32; PANEL]],
) {
    let (by_6, rest) = sums.as_chunks_mut();
    let (by_4, rest) = rest.as_chunks_mut();
    let of_rest = 6 * by_6.len() + 4 * by_4.len();
    // SAFETY: the caller's promise.
    unsafe {
        for (i, sums) in by_6.iter_mut().enumerate() {
            multiply_rows::<6>(a.add(6 * i * stride), stride, b, sums);
        }
        for (i, sums) in by_4.iter_mut().enumerate() {
            multiply_rows::<4>(a.add((6 * by_6.len() + 4 * i) * stride), stride, b, sums);
        }
        for (i, sums) in rest.iter_mut().enumerate() {
            let sums = std::array::from_mut(sums);
            multiply_rows::<1>(a.add((of_rest + i) * stride), stride, b, sums);
        }
    }
}

/// [`multiply_pairs`] of so many rows.
///
/// # Safety
/// As there.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn multiply_rows<const ROWS: usize>(
    a: *const i16,
    stride: usize,
    b: &[Pairs],
    sums: &mut Rows<ROWS>,
) {
    let mut local = [[_mm256_setzero_si256(); 2]; ROWS];
    for (pair, columns) in b.iter().enumerate() {
        // SAFETY: halves of 32 elements.
        let columns = unsafe {
            [
                _mm256_loadu_si256(columns.as_ptr().cast()),
                _mm256_loadu_si256(columns.as_ptr().add(16).cast()),
            ]
        };
        for row in 0..ROWS {
            // SAFETY: two elements, there by the caller's promise.
            let x = _mm256_set1_epi32(unsafe {
                a.add(row * stride + 2 * pair)
                    .cast::<i32>()
                    .read_unaligned()
            });
            for half in 0..2 {
                local[row][half] = _mm256_dpwssd_avx_epi32(local[row][half], x, columns[half]);
            }
        }
    }
    for row in 0..ROWS {
        for half in 0..2 {
            // SAFETY: eight of sixteen sums.
            unsafe {
                let to = sums[row].as_mut_ptr().add(8 * half);
                _mm256_storeu_si256(to.cast(), local[row][half]);
            }
        }
    }
}
