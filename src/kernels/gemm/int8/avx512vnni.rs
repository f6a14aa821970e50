use std::arch::x86_64::*;

use super::tile::{Rows, Steps};
use crate::PANEL;

/// [`Left::multiply`](super::tile::Left::multiply) of bytes with one vector to a panel's row.
///
/// # Safety
/// This CPU has the features. The panels of `b` are equally long, at most `STRIDE / 4`.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "avx512f,avx512vnni")]
pub unsafe fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    a: &[[u8; STRIDE]; ROWS],
    b: [&[Steps]; PANELS],
    sums: [&mut Rows<ROWS>; PANELS],
    add: bool,
) {
    let mut local = [[_mm512_setzero_si512(); PANELS]; ROWS];
    if add {
        for row in 0..ROWS {
            for panel in 0..PANELS {
                // SAFETY: sixteen sums.
                local[row][panel] = unsafe { _mm512_loadu_si512(sums[panel][row].as_ptr().cast()) };
            }
        }
    }
    for group in 0..b[0].len() {
        let mut columns = [_mm512_setzero_si512(); PANELS];
        for panel in 0..PANELS {
            // SAFETY: a row of 64 bytes, inside by the caller's promise.
            columns[panel] =
                unsafe { _mm512_loadu_si512(b[panel].get_unchecked(group).as_ptr().cast()) };
        }
        for row in 0..ROWS {
            // SAFETY: four codes, inside by the caller's promise.
            let x = _mm512_set1_epi32(unsafe {
                a[row]
                    .as_ptr()
                    .add(4 * group)
                    .cast::<i32>()
                    .read_unaligned()
            });
            for panel in 0..PANELS {
                local[row][panel] = _mm512_dpbusd_epi32(local[row][panel], x, columns[panel]);
            }
        }
    }
    for row in 0..ROWS {
        for panel in 0..PANELS {
            // SAFETY: sixteen sums.
            unsafe { _mm512_storeu_si512(sums[panel][row].as_mut_ptr().cast(), local[row][panel]) }
        }
    }
}

/// [`tile::scaled`](super::tile::scaled). (In vectors: of a loop over rows around it the compiler would make gathers.)
///
/// # Safety
/// This CPU has the features.
#[inline]
#[target_feature(enable = "avx512f")]
pub unsafe fn scaled(
    sums: &[i32; PANEL],
    zero_point: i32,
    weights: &[i32; PANEL],
    scale: f32,
    of_columns: &[f32; PANEL],
) -> [f32; PANEL] {
    // SAFETY: the features; sixteen elements.
    unsafe {
        let weights = _mm512_loadu_si512(weights.as_ptr().cast());
        let offsets = _mm512_mullo_epi32(_mm512_set1_epi32(zero_point), weights);
        less(sums, offsets, scale, of_columns)
    }
}

/// [`tile::shifted`](super::tile::shifted).
///
/// # Safety
/// This CPU has the features.
#[inline]
#[target_feature(enable = "avx512f")]
pub unsafe fn shifted(
    sums: &[i32; PANEL],
    offsets: &[i32; PANEL],
    scale: f32,
    of_columns: &[f32; PANEL],
) -> [f32; PANEL] {
    // SAFETY: the features; sixteen elements.
    unsafe {
        let offsets = _mm512_loadu_si512(offsets.as_ptr().cast());
        less(sums, offsets, scale, of_columns)
    }
}

/// # Safety
/// This CPU has the features.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn less(
    sums: &[i32; PANEL],
    offsets: __m512i,
    scale: f32,
    of_columns: &[f32; PANEL],
) -> [f32; PANEL] {
    let mut products = [0.0; PANEL];
    // SAFETY: sixteen elements each.
    unsafe {
        let sums = _mm512_sub_epi32(_mm512_loadu_si512(sums.as_ptr().cast()), offsets);
        let of_columns = _mm512_loadu_ps(of_columns.as_ptr());
        let scale = _mm512_mul_ps(_mm512_set1_ps(scale), of_columns);
        let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale);
        _mm512_storeu_ps(products.as_mut_ptr(), scaled);
    }
    products
}
