use std::arch::{aarch64::*, asm};

use super::tile::{Rows, Steps};

/// Four columns' sums of two rows: each two columns of both.
type Block = [int32x4_t; 2];

/// [`Left::multiply`](super::tile::Left::multiply) of bytes: eight steps of two rows times two columns is one
/// instruction. One `zip` puts two groups of steps of two columns together.
///
/// # Safety
/// This CPU has the features. The panels of `b` are equally long, at most `STRIDE / 4`. `STRIDE` is a multiple of 8.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub unsafe fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    a: &[[u8; STRIDE]; ROWS],
    b: [&[Steps]; PANELS],
    sums: [&mut Rows<ROWS>; PANELS],
) {
    const { assert!(STRIDE.is_multiple_of(8)) }
    let (fours, rest) = a.as_chunks::<4>();
    let (pairs, single) = rest.as_chunks::<2>();
    for (b, sums) in b.into_iter().zip(sums) {
        let (sums_of_fours, rest) = sums.as_chunks_mut::<4>();
        let (sums_of_pairs, sums_of_single) = rest.as_chunks_mut::<2>();
        for ([p, q, r, s], sums) in fours.iter().zip(sums_of_fours) {
            // SAFETY: the caller's promise.
            unsafe { tile([[p, q], [r, s]].map(rows), b, sums.as_flattened_mut()) }
        }
        for ([p, q], sums) in pairs.iter().zip(sums_of_pairs) {
            // SAFETY: the same.
            unsafe { tile([rows([p, q])], b, sums.as_flattened_mut()) }
        }
        for (row, sums) in single.iter().zip(sums_of_single) {
            let mut both = [*sums; 2];
            // SAFETY: the same.
            unsafe { tile([rows([row, row])], b, both.as_flattened_mut()) }
            *sums = both[0];
        }
    }
}

fn rows<const STRIDE: usize>(pair: [&[u8; STRIDE]; 2]) -> [*const u8; 2] {
    pair.map(|row| row.as_ptr())
}

/// Adds the products of pairs of rows with a panel to `sums`, sixteen for each row.
///
/// # Safety
/// This CPU has the features. Each row is as long as the panel, and then as a multiple of 8 codes; `sums` has sixteen for
/// each row.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "neon,i8mm")]
unsafe fn tile<const PAIRS: usize>(a: [[*const u8; 2]; PAIRS], b: &[Steps], sums: &mut [i32]) {
    let mut local = [[[vdupq_n_s32(0); 2]; 4]; PAIRS];
    let (twos, rest) = b.as_chunks::<2>();
    for (two, [first, second]) in twos.iter().enumerate() {
        // SAFETY: eight codes of each row, inside by the caller's promise.
        let x = unsafe { codes(a, 8 * two) };
        eight(&mut local, first, Some(second), x);
    }
    if let [last] = rest {
        // SAFETY: the same.
        let x = unsafe { codes(a, 8 * twos.len()) };
        eight(&mut local, last, None, x);
    }
    for pair in 0..PAIRS {
        for quarter in 0..4 {
            // SAFETY: four of sixteen sums of each of these two rows.
            unsafe {
                let first = sums.as_mut_ptr().add(32 * pair + 4 * quarter);
                let second = first.add(16);
                let [even, odd] = local[pair][quarter].map(|sums| vreinterpretq_s64_s32(sums));
                let [more, below] = [vzip1q_s64(even, odd), vzip2q_s64(even, odd)];
                vst1q_s32(
                    first,
                    vaddq_s32(vld1q_s32(first), vreinterpretq_s32_s64(more)),
                );
                vst1q_s32(
                    second,
                    vaddq_s32(vld1q_s32(second), vreinterpretq_s32_s64(below)),
                );
            }
        }
    }
}

/// Eight codes from `k` on of each pair's first row, then of its second.
///
/// # Safety
/// This CPU has the features. The codes are there.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn codes<const PAIRS: usize>(a: [[*const u8; 2]; PAIRS], k: usize) -> [uint8x16_t; PAIRS] {
    let mut x = [vdupq_n_u8(0); PAIRS];
    for (x, [first, second]) in x.iter_mut().zip(a) {
        // SAFETY: the caller's promise.
        *x = unsafe { vcombine_u8(vld1_u8(first.add(k)), vld1_u8(second.add(k))) };
    }
    x
}

/// Adds two groups of steps, the second of them zeros where there is none, times each pair's eight codes of two rows.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "neon,i8mm")]
fn eight<const PAIRS: usize>(
    sums: &mut [[Block; 4]; PAIRS],
    first: &Steps,
    second: Option<&Steps>,
    x: [uint8x16_t; PAIRS],
) {
    for quarter in 0..4 {
        // SAFETY: sixteen of sixty-four.
        let load = |steps: &Steps| unsafe { vld1q_s32(steps.as_ptr().add(16 * quarter).cast()) };
        let (first, second) = (load(first), second.map_or(vdupq_n_s32(0), load));
        let columns = [vzip1q_s32(first, second), vzip2q_s32(first, second)];
        for pair in 0..PAIRS {
            for two in 0..2 {
                let sum = &mut sums[pair][quarter][two];
                *sum = product(*sum, x[pair], columns[two]);
            }
        }
    }
}

/// Adds two rows times two columns, eight bytes each. In assembly, since the intrinsic is not stable.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn product(mut sum: int32x4_t, rows: uint8x16_t, columns: int32x4_t) -> int32x4_t {
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "usmmla {sum:v}.4s, {rows:v}.16b, {columns:v}.16b",
            sum = inout(vreg) sum,
            rows = in(vreg) rows,
            columns = in(vreg) columns,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
