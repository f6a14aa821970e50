use std::arch::x86_64::*;

use super::tile::{Rows, Steps};
use crate::PANEL;

/// A row of an expanded panel: two steps of sixteen columns in 16 bits, `[column][step]`.
pub type Pairs = [i16; 2 * PANEL];

/// The steps of a panel in 16 bits. `pmaddwd` of two products is exact where `pmaddubsw` of two bytes would saturate, and
/// an expanded panel serves many rows.
///
/// # Safety
/// This CPU has the features. `to` is twice as long as `steps`.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn expand(steps: &[Steps], to: &mut [Pairs]) {
    let (to, _) = to.as_chunks_mut::<2>();
    for (steps, to) in steps.iter().zip(to) {
        for half in 0..2 {
            // SAFETY: half a row of 64 bytes; halves of two rows of 64 bytes.
            unsafe {
                let [first, last] = widen(_mm256_loadu_si256(steps.as_ptr().add(32 * half).cast()));
                _mm256_storeu_si256(to[0].as_mut_ptr().add(16 * half).cast(), first);
                _mm256_storeu_si256(to[1].as_mut_ptr().add(16 * half).cast(), last);
            }
        }
    }
}

/// Four steps of eight columns as two pairs of steps, in 16 bits.
///
/// # Safety
/// This CPU has the features.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn widen(steps: __m256i) -> [__m256i; 2] {
    // The first two and the last two of each column's four steps, in the upper bytes of 16 bits.
    let columns =
        _mm256_broadcastsi128_si256(_mm_set_epi32(0x0c00_0c00, 0x0800_0800, 0x0400_0400, 0));
    let first = _mm256_add_epi8(_mm256_set1_epi32(0x0180_0080), columns);
    let last = _mm256_add_epi8(_mm256_set1_epi32(0x0380_0280), columns);
    [
        _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(steps, first)),
        _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(steps, last)),
    ]
}

/// Adds `a` times an expanded panel to `sums`, or sets them to it. `a` is `ROWS` rows, each `stride` after the one before.
///
/// # Safety
/// This CPU has the features. Each row of `a` has two readable elements for each of `b`.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "avx2")]
pub unsafe fn multiply<const ROWS: usize, const ADD: bool>(
    a: *const i16,
    stride: usize,
    b: &[Pairs],
    sums: &mut Rows<ROWS>,
) {
    let mut local = [[_mm256_setzero_si256(); 2]; ROWS];
    if ADD {
        for row in 0..ROWS {
            for half in 0..2 {
                // SAFETY: eight of sixteen sums.
                local[row][half] =
                    unsafe { _mm256_loadu_si256(sums[row].as_ptr().add(8 * half).cast()) };
            }
        }
    }
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
                let products = _mm256_madd_epi16(x, columns[half]);
                local[row][half] = _mm256_add_epi32(local[row][half], products);
            }
        }
    }
    for row in 0..ROWS {
        for half in 0..2 {
            // SAFETY: eight of sixteen sums.
            unsafe {
                _mm256_storeu_si256(
                    sums[row].as_mut_ptr().add(8 * half).cast(),
                    local[row][half],
                )
            }
        }
    }
}

/// The 16 positions of a tile in the domain of products: rows of `[1, 0, -1, 0]`, `[0, 1, 1, 0]`, `[0, -1, 1, 0]`,
/// `[0, 1, 0, -1]` times the tile's 4x4 codes less 128, times these rows' columns. `pixels` are the first of `channels`
/// codes of each pixel; the results of a position stand `stride` after those of the one before.
///
/// # Safety
/// This CPU has the features. `channels` is a multiple of 16; each pixel has as many readable codes, and `to` as many
/// writable elements for each position.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "avx2")]
pub unsafe fn transform_codes(
    pixels: &[*const u8; 16],
    channels: usize,
    to: *mut i16,
    stride: usize,
) {
    // What 128 taken off each code takes off the one position that adds four of them.
    let center = _mm256_set1_epi16(512);
    for channel in (0..channels).step_by(16) {
        let mut rows = [[center; 4]; 4];
        for column in 0..4 {
            let mut d = [center; 4];
            for row in 0..4 {
                // SAFETY: sixteen codes, there by the caller's promise.
                d[row] = unsafe {
                    let codes = pixels[4 * row + column].add(channel);
                    _mm256_cvtepu8_epi16(_mm_loadu_si128(codes.cast()))
                };
            }
            rows[0][column] = _mm256_sub_epi16(d[0], d[2]);
            rows[1][column] = _mm256_add_epi16(d[1], d[2]);
            rows[2][column] = _mm256_sub_epi16(d[2], d[1]);
            rows[3][column] = _mm256_sub_epi16(d[1], d[3]);
        }
        for row in 0..4 {
            let t = rows[row];
            let mut results = [
                _mm256_sub_epi16(t[0], t[2]),
                _mm256_add_epi16(t[1], t[2]),
                _mm256_sub_epi16(t[2], t[1]),
                _mm256_sub_epi16(t[1], t[3]),
            ];
            if row == 1 {
                results[1] = _mm256_sub_epi16(results[1], center);
            }
            for column in 0..4 {
                // SAFETY: sixteen elements, there by the caller's promise.
                unsafe {
                    let to = to.add((4 * row + column) * stride + channel);
                    _mm256_storeu_si256(to.cast(), results[column]);
                }
            }
        }
    }
}

/// The weights of a panel in the domain of products, expanded: rows of `[2, 0, 0]`, `[1, 1, 1]`, `[1, -1, 1]`, `[0, 0, 2]`
/// times the 3x3 taps, times these rows' columns. The pairs of a position stand `stride` after those of the one before.
///
/// # Safety
/// This CPU has the features. The taps are equally long; `to` has 16 times `stride` pairs, and `stride` is twice a tap's
/// length or more.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "avx2")]
pub unsafe fn transform_weights(taps: &[&[Steps]; 9], to: &mut [Pairs], stride: usize) {
    for group in 0..taps[0].len() {
        for half in 0..2 {
            let mut wide = [[_mm256_setzero_si256(); 2]; 9];
            for tap in 0..9 {
                // SAFETY: half a row of 64 bytes; the taps are equally long.
                wide[tap] = unsafe {
                    let steps = taps[tap].get_unchecked(group).as_ptr().add(32 * half);
                    widen(_mm256_loadu_si256(steps.cast()))
                };
            }
            for pair in 0..2 {
                let mut rows = [[_mm256_setzero_si256(); 3]; 4];
                for column in 0..3 {
                    let g = [
                        wide[column][pair],
                        wide[3 + column][pair],
                        wide[6 + column][pair],
                    ];
                    let ends = _mm256_add_epi16(g[0], g[2]);
                    rows[0][column] = _mm256_add_epi16(g[0], g[0]);
                    rows[1][column] = _mm256_add_epi16(ends, g[1]);
                    rows[2][column] = _mm256_sub_epi16(ends, g[1]);
                    rows[3][column] = _mm256_add_epi16(g[2], g[2]);
                }
                for row in 0..4 {
                    let g = rows[row];
                    let ends = _mm256_add_epi16(g[0], g[2]);
                    let results = [
                        _mm256_add_epi16(g[0], g[0]),
                        _mm256_add_epi16(ends, g[1]),
                        _mm256_sub_epi16(ends, g[1]),
                        _mm256_add_epi16(g[2], g[2]),
                    ];
                    for column in 0..4 {
                        // SAFETY: half of 32 elements of a pair that is there by the caller's promise.
                        unsafe {
                            let to = to
                                .get_unchecked_mut((4 * row + column) * stride + 2 * group + pair);
                            let to = to.as_mut_ptr().add(16 * half);
                            _mm256_storeu_si256(to.cast(), results[column]);
                        }
                    }
                }
            }
        }
    }
}

/// The four pixels of a tile from its 16 positions, which stand every `stride` rows: rows of `[1, 1, 1, 0]` and
/// `[0, 1, -1, -1]` times them, times these rows' columns, over four.
///
/// # Safety
/// This CPU has the features. `sums` has a row for each position.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "avx2")]
pub unsafe fn transform_sums(sums: &[[i32; PANEL]], stride: usize) -> [[i32; PANEL]; 4] {
    let mut pixels = [[0; PANEL]; 4];
    for half in 0..2 {
        let mut rows = [[_mm256_setzero_si256(); 4]; 2];
        for column in 0..4 {
            let mut m = [_mm256_setzero_si256(); 4];
            for row in 0..4 {
                // SAFETY: half of a row that is there by the caller's promise.
                m[row] = unsafe {
                    let from = sums.get_unchecked((4 * row + column) * stride).as_ptr();
                    _mm256_loadu_si256(from.add(8 * half).cast())
                };
            }
            let inner = [_mm256_add_epi32(m[1], m[2]), _mm256_sub_epi32(m[1], m[2])];
            rows[0][column] = _mm256_add_epi32(m[0], inner[0]);
            rows[1][column] = _mm256_sub_epi32(inner[1], m[3]);
        }
        for row in 0..2 {
            let m = rows[row];
            let inner = [_mm256_add_epi32(m[1], m[2]), _mm256_sub_epi32(m[1], m[2])];
            let results = [
                _mm256_add_epi32(m[0], inner[0]),
                _mm256_sub_epi32(inner[1], m[3]),
            ];
            for column in 0..2 {
                let to = pixels[2 * row + column].as_mut_ptr();
                // SAFETY: half of sixteen elements.
                unsafe {
                    _mm256_storeu_si256(
                        to.add(8 * half).cast(),
                        _mm256_srai_epi32::<2>(results[column]),
                    )
                }
            }
        }
    }
    pixels
}

/// [`tile::scaled`](super::tile::scaled). (In vectors: of a loop over rows around it the compiler would make gathers.)
///
/// # Safety
/// This CPU has the features.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn scaled(
    sums: &[i32; PANEL],
    zero_point: i32,
    weights: &[i32; PANEL],
    scale: f32,
    of_columns: &[f32; PANEL],
) -> [f32; PANEL] {
    let zero_point = _mm256_set1_epi32(zero_point);
    // SAFETY: the features; halves of sixteen elements.
    unsafe {
        let weights: *const __m256i = weights.as_ptr().cast();
        let offsets = [
            _mm256_mullo_epi32(zero_point, _mm256_loadu_si256(weights)),
            _mm256_mullo_epi32(zero_point, _mm256_loadu_si256(weights.add(1))),
        ];
        less(sums, offsets, scale, of_columns)
    }
}

/// [`tile::shifted`](super::tile::shifted).
///
/// # Safety
/// This CPU has the features.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn shifted(
    sums: &[i32; PANEL],
    offsets: &[i32; PANEL],
    scale: f32,
    of_columns: &[f32; PANEL],
) -> [f32; PANEL] {
    // SAFETY: the features; halves of sixteen elements.
    unsafe {
        let offsets: *const __m256i = offsets.as_ptr().cast();
        let offsets = [
            _mm256_loadu_si256(offsets),
            _mm256_loadu_si256(offsets.add(1)),
        ];
        less(sums, offsets, scale, of_columns)
    }
}

/// # Safety
/// This CPU has the features.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn less(
    sums: &[i32; PANEL],
    offsets: [__m256i; 2],
    scale: f32,
    of_columns: &[f32; PANEL],
) -> [f32; PANEL] {
    let mut products = [0.0; PANEL];
    for (half, offsets) in offsets.into_iter().enumerate() {
        // SAFETY: eight of sixteen elements each.
        unsafe {
            let sums = _mm256_loadu_si256(sums.as_ptr().add(8 * half).cast());
            let sums = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, offsets));
            let of_columns = _mm256_loadu_ps(of_columns.as_ptr().add(8 * half));
            let scale = _mm256_mul_ps(_mm256_set1_ps(scale), of_columns);
            let scaled = _mm256_mul_ps(sums, scale);
            _mm256_storeu_ps(products.as_mut_ptr().add(8 * half), scaled);
        }
    }
    products
}
