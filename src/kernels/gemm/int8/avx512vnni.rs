use std::arch::x86_64::*;

use super::{
    Pairs,
    tile::{Rows, Steps},
    winograd::{self, NINTH},
};
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

/// Sets `sums` to rows of `a`, each a stride after the one before, times an expanded panel.
///
/// # Safety
/// This CPU has the features. Each row of `a`, one for each of `sums`, has two readable elements for each of `b`.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub unsafe fn multiply_pairs(a: (*const i16, usize), b: &[Pairs], sums: &mut [[i32; PANEL]]) {
    let (by_24, rest) = sums.as_chunks_mut();
    let (by_12, rest) = rest.as_chunks_mut();
    let (by_4, rest) = rest.as_chunks_mut();
    let mut row = 0;
    // SAFETY: the caller's promise.
    unsafe {
        for sums in by_24 {
            multiply_rows::<24, 1>(a, &mut row, b, sums);
        }
        for sums in by_12 {
            multiply_rows::<12, 1>(a, &mut row, b, sums);
        }
        for sums in by_4 {
            multiply_rows::<4, 4>(a, &mut row, b, sums);
        }
        for sums in rest {
            multiply_rows::<1, 4>(a, &mut row, b, std::array::from_mut(sums));
        }
    }
}

/// [`multiply_pairs`] of the rows from `row` on, which it moves past them, in so many chains for each.
///
/// # Safety
/// As there.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn multiply_rows<const ROWS: usize, const CHAINS: usize>(
    (a, stride): (*const i16, usize),
    row: &mut usize,
    b: &[Pairs],
    sums: &mut Rows<ROWS>,
) {
    let mut local = [[_mm512_setzero_si512(); ROWS]; CHAINS];
    let (chunks, rest) = b.as_chunks::<CHAINS>();
    let mut step = |chain: usize, pair: usize, columns: &Pairs| {
        // SAFETY: 32 elements.
        let columns = unsafe { _mm512_loadu_si512(columns.as_ptr().cast()) };
        for i in 0..ROWS {
            // SAFETY: two elements, there by the caller's promise.
            let x = _mm512_set1_epi32(unsafe {
                a.add((*row + i) * stride + 2 * pair)
                    .cast::<i32>()
                    .read_unaligned()
            });
            local[chain][i] = _mm512_dpwssd_epi32(local[chain][i], columns, x);
        }
    };
    for (index, chunk) in chunks.iter().enumerate() {
        for chain in 0..CHAINS {
            step(chain, index * CHAINS + chain, &chunk[chain]);
        }
    }
    for (index, columns) in rest.iter().enumerate() {
        step(0, chunks.len() * CHAINS + index, columns);
    }
    for i in 0..ROWS {
        let mut sum = local[0][i];
        for chain in 1..CHAINS {
            sum = _mm512_add_epi32(sum, local[chain][i]);
        }
        // SAFETY: sixteen sums.
        unsafe { _mm512_storeu_si512(sums[i].as_mut_ptr().cast(), sum) }
    }
    *row += ROWS;
}

/// 32 of them: of an expanded panel, a row.
#[derive(Clone, Copy)]
pub struct Shorts(__m512i);

winograd::arithmetic!(Shorts, _mm512_add_epi16, _mm512_sub_epi16);

impl winograd::Shorts for Shorts {
    const LEN: usize = 32;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the features by the caller's promise.
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn of_codes(from: *const u8) -> Self {
        // SAFETY: 32 codes by the caller's promise.
        Self(unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast())) })
    }

    #[inline(always)]
    unsafe fn of_steps(steps: &Steps, part: usize) -> Self {
        // The first two or the last two of each column's four steps, in the upper bytes of 16 bits.
        let columns = [0, 0x0400_0400, 0x0800_0800, 0x0c00_0c00]
            .map(|columns| columns + if part == 0 { 0x0180_0080 } else { 0x0380_0280 });
        // SAFETY: a row of 64 bytes; 16 bytes of the constants.
        Self(unsafe {
            let columns = _mm512_broadcast_i32x4(_mm_loadu_si128(columns.as_ptr().cast()));
            let steps = _mm512_loadu_si512(steps.as_ptr().cast());
            _mm512_srai_epi16::<8>(_mm512_shuffle_epi8(steps, columns))
        })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i16) {
        // SAFETY: 32 elements by the caller's promise.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }

    #[inline(always)]
    fn minus(self, x: i16) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { _mm512_sub_epi16(self.0, _mm512_set1_epi16(x)) })
    }

    #[inline(always)]
    fn times_4(self) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { _mm512_slli_epi16::<2>(self.0) })
    }
}

/// Sixteen sums.
#[derive(Clone, Copy)]
pub struct Ints(__m512i);

winograd::arithmetic!(Ints, _mm512_add_epi32, _mm512_sub_epi32);

impl winograd::Ints for Ints {
    const LEN: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the features by the caller's promise.
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: sixteen elements by the caller's promise.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: sixteen elements by the caller's promise.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }

    #[inline(always)]
    fn times_4(self) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { _mm512_slli_epi32::<2>(self.0) })
    }

    #[inline(always)]
    fn times_8(self) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { _mm512_slli_epi32::<3>(self.0) })
    }

    #[inline(always)]
    fn over_576(self) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe {
            let over_9 = _mm512_mullo_epi32(self.0, _mm512_set1_epi32(NINTH));
            _mm512_srai_epi32::<6>(over_9)
        })
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
