use std::arch::x86_64::*;

use super::{
    Pairs,
    tile::{Rows, Steps},
    winograd::{self, NINTH},
};
use crate::PANEL;

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
pub unsafe fn multiply<const ROWS: usize>(
    a: *const i16,
    stride: usize,
    b: &[Pairs],
    sums: &mut Rows<ROWS>,
    add: bool,
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
                let products = _mm256_madd_epi16(x, columns[half]);
                local[row][half] = _mm256_add_epi32(local[row][half], products);
            }
        }
    }
    for row in 0..ROWS {
        for half in 0..2 {
            // SAFETY: eight of sixteen sums.
            unsafe {
                let to: *mut __m256i = sums[row].as_mut_ptr().add(8 * half).cast();
                if add {
                    local[row][half] = _mm256_add_epi32(local[row][half], _mm256_loadu_si256(to));
                }
                _mm256_storeu_si256(to, local[row][half]);
            }
        }
    }
}

/// Sixteen of them: of an expanded panel, half a row.
#[derive(Clone, Copy)]
pub struct Shorts(__m256i);

winograd::arithmetic!(Shorts, _mm256_add_epi16, _mm256_sub_epi16);

impl winograd::Shorts for Shorts {
    const LEN: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the features by the caller's promise.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn of_codes(from: *const u8) -> Self {
        // SAFETY: sixteen codes by the caller's promise.
        Self(unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())) })
    }

    #[inline(always)]
    unsafe fn of_steps(steps: &Steps, part: usize) -> Self {
        // SAFETY: half a row of 64 bytes.
        Self(unsafe {
            widen(_mm256_loadu_si256(steps.as_ptr().add(part % 2 * 32).cast()))[part / 2]
        })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i16) {
        // SAFETY: sixteen elements by the caller's promise.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }

    #[inline(always)]
    fn minus(self, x: i16) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { _mm256_sub_epi16(self.0, _mm256_set1_epi16(x)) })
    }

    #[inline(always)]
    fn times_4(self) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { _mm256_slli_epi16::<2>(self.0) })
    }
}

/// Eight sums.
#[derive(Clone, Copy)]
pub struct Ints(__m256i);

winograd::arithmetic!(Ints, _mm256_add_epi32, _mm256_sub_epi32);

impl winograd::Ints for Ints {
    const LEN: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the features by the caller's promise.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: eight elements by the caller's promise.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: eight elements by the caller's promise.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }

    #[inline(always)]
    fn times_4(self) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { _mm256_slli_epi32::<2>(self.0) })
    }

    #[inline(always)]
    fn times_8(self) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { _mm256_slli_epi32::<3>(self.0) })
    }

    #[inline(always)]
    fn over_576(self) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe {
            let over_9 = _mm256_mullo_epi32(self.0, _mm256_set1_epi32(NINTH));
            _mm256_srai_epi32::<6>(over_9)
        })
    }
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
