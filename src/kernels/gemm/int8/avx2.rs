use std::arch::x86_64::*;

use super::tile::{Rows, Steps};

/// [`Left::multiply`](super::tile::Left::multiply) of 16 bits, two steps at a time: `pmaddwd` is exact where products of
/// two bytes in pairs, `pmaddubsw`, would saturate.
///
/// # Safety
/// This CPU has the features. The panels of `b` are equally long, at most `STRIDE / 4`.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "avx2")]
pub unsafe fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    a: &[[i16; STRIDE]; ROWS],
    b: [&[Steps]; PANELS],
    sums: [&mut Rows<ROWS>; PANELS],
) {
    // The first two and the last two of each column's four steps, in the upper bytes of 16 bits.
    let first = _mm256_set1_epi32(0x0180_0080);
    let last = _mm256_set1_epi32(0x0380_0280);
    let offsets =
        _mm256_broadcastsi128_si256(_mm_set_epi32(0x0c00_0c00, 0x0800_0800, 0x0400_0400, 0));
    let pairs = [
        _mm256_add_epi8(first, offsets),
        _mm256_add_epi8(last, offsets),
    ];
    let mut local = [[[_mm256_setzero_si256(); 2]; PANELS]; ROWS];
    for row in 0..ROWS {
        for panel in 0..PANELS {
            let from = sums[panel][row].as_ptr();
            // SAFETY: sixteen sums.
            local[row][panel] = unsafe {
                [
                    _mm256_loadu_si256(from.cast()),
                    _mm256_loadu_si256(from.add(8).cast()),
                ]
            };
        }
    }
    for group in 0..b[0].len() {
        for pair in 0..2 {
            let mut columns = [[_mm256_setzero_si256(); 2]; PANELS];
            for panel in 0..PANELS {
                for half in 0..2 {
                    // SAFETY: half a row of 64 bytes, inside by the caller's promise.
                    let steps = unsafe {
                        _mm256_loadu_si256(
                            b[panel].get_unchecked(group).as_ptr().add(32 * half).cast(),
                        )
                    };
                    columns[panel][half] =
                        _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(steps, pairs[pair]));
                }
            }
            for row in 0..ROWS {
                // SAFETY: two codes, inside by the caller's promise.
                let x = unsafe {
                    a[row]
                        .as_ptr()
                        .add(4 * group + 2 * pair)
                        .cast::<i32>()
                        .read_unaligned()
                };
                let x = _mm256_set1_epi32(x);
                for panel in 0..PANELS {
                    for half in 0..2 {
                        let products = _mm256_madd_epi16(x, columns[panel][half]);
                        local[row][panel][half] =
                            _mm256_add_epi32(local[row][panel][half], products);
                    }
                }
            }
        }
    }
    for row in 0..ROWS {
        for panel in 0..PANELS {
            let to = sums[panel][row].as_mut_ptr();
            // SAFETY: sixteen sums.
            unsafe {
                _mm256_storeu_si256(to.cast(), local[row][panel][0]);
                _mm256_storeu_si256(to.add(8).cast(), local[row][panel][1]);
            }
        }
    }
}
