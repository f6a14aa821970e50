use std::arch::{aarch64::*, asm};

use super::tile::{Rows, Steps};

/// [`Left::multiply`](super::tile::Left::multiply) of shifted bytes, four groups of steps at a time: a row's sixteen codes
/// are one register, multiplied by lanes. With six rows, 24 sums, 6 rows and 2 of a panel's registers fill all 32.
///
/// # Safety
/// This CPU has the features. The panels of `b` are equally long, at most `STRIDE / 4`.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "neon,dotprod")]
pub unsafe fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    a: &[[i8; STRIDE]; ROWS],
    b: [&[Steps]; PANELS],
    sums: [&mut Rows<ROWS>; PANELS],
) {
    for (b, sums) in b.into_iter().zip(sums) {
        let mut local = [[vdupq_n_s32(0); 4]; ROWS];
        for row in 0..ROWS {
            for quarter in 0..4 {
                // SAFETY: four of sixteen sums.
                local[row][quarter] = unsafe { vld1q_s32(sums[row].as_ptr().add(4 * quarter)) };
            }
        }
        let (fours, rest) = b.as_chunks::<4>();
        for (four, steps) in fours.iter().enumerate() {
            let mut x = [vdupq_n_s8(0); ROWS];
            for row in 0..ROWS {
                // SAFETY: sixteen codes, inside by the caller's promise.
                x[row] = unsafe { vld1q_s8(a[row].as_ptr().add(16 * four)) };
            }
            group::<ROWS, 0>(&mut local, &steps[0], x);
            group::<ROWS, 1>(&mut local, &steps[1], x);
            group::<ROWS, 2>(&mut local, &steps[2], x);
            group::<ROWS, 3>(&mut local, &steps[3], x);
        }
        for (one, steps) in rest.iter().enumerate() {
            let mut x = [vdupq_n_s8(0); ROWS];
            for row in 0..ROWS {
                // SAFETY: four codes, inside by the caller's promise; any address will do.
                let codes = unsafe {
                    vld1q_dup_s32(a[row].as_ptr().add(16 * fours.len() + 4 * one).cast())
                };
                x[row] = vreinterpretq_s8_s32(codes);
            }
            group::<ROWS, 0>(&mut local, steps, x);
        }
        for row in 0..ROWS {
            for quarter in 0..4 {
                // SAFETY: four of sixteen sums.
                unsafe { vst1q_s32(sums[row].as_mut_ptr().add(4 * quarter), local[row][quarter]) }
            }
        }
    }
}

/// Adds a panel's row times each row's four codes at `LANE`.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "neon,dotprod")]
fn group<const ROWS: usize, const LANE: usize>(
    sums: &mut [[int32x4_t; 4]; ROWS],
    steps: &Steps,
    x: [int8x16_t; ROWS],
) {
    for quarter in 0..4 {
        // SAFETY: sixteen of sixty-four.
        let columns = unsafe { vld1q_s8(steps.as_ptr().add(16 * quarter)) };
        for row in 0..ROWS {
            sums[row][quarter] = dot::<LANE>(sums[row][quarter], columns, x[row]);
        }
    }
}

/// Adds the products of each four of `columns` with the four of `x` at `LANE`. In assembly, since the intrinsic is not
/// stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<const LANE: usize>(mut sum: int32x4_t, columns: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {columns:v}.16b, {x:v}.4b[{lane}]",
            sum = inout(vreg) sum,
            columns = in(vreg) columns,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
