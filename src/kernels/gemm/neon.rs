use std::arch::aarch64::*;

use super::tile::Rows;
use crate::PANEL;

/// [`tile::multiply`](super::tile::multiply), four steps at a time: a row's four elements are one register, multiplied by
/// lanes.
///
/// # Safety
/// This CPU has the features. The panels of `b` are equally long, at most `STRIDE`.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "neon")]
pub unsafe fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    a: &[[f32; STRIDE]; ROWS],
    b: [&[[f32; PANEL]]; PANELS],
    sums: [&mut Rows<ROWS>; PANELS],
) {
    for (b, sums) in b.into_iter().zip(sums) {
        let mut local = [[vdupq_n_f32(0.0); 4]; ROWS];
        for row in 0..ROWS {
            for quarter in 0..4 {
                // SAFETY: four of sixteen sums.
                local[row][quarter] = unsafe { vld1q_f32(sums[row].as_ptr().add(4 * quarter)) };
            }
        }
        let (fours, rest) = b.as_chunks::<4>();
        for (four, steps) in fours.iter().enumerate() {
            let mut x = [vdupq_n_f32(0.0); ROWS];
            for row in 0..ROWS {
                // SAFETY: four elements, inside by the caller's promise.
                x[row] = unsafe { vld1q_f32(a[row].as_ptr().add(4 * four)) };
            }
            step::<ROWS, 0>(&mut local, &steps[0], x);
            step::<ROWS, 1>(&mut local, &steps[1], x);
            step::<ROWS, 2>(&mut local, &steps[2], x);
            step::<ROWS, 3>(&mut local, &steps[3], x);
        }
        for (one, steps) in rest.iter().enumerate() {
            let mut x = [vdupq_n_f32(0.0); ROWS];
            for row in 0..ROWS {
                // SAFETY: inside by the caller's promise.
                x[row] = vdupq_n_f32(unsafe { *a[row].get_unchecked(4 * fours.len() + one) });
            }
            step::<ROWS, 0>(&mut local, steps, x);
        }
        for row in 0..ROWS {
            for quarter in 0..4 {
                // SAFETY: four of sixteen sums.
                unsafe { vst1q_f32(sums[row].as_mut_ptr().add(4 * quarter), local[row][quarter]) }
            }
        }
    }
}

/// Adds a panel's row times each row's element at `LANE`.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "neon")]
fn step<const ROWS: usize, const LANE: i32>(
    sums: &mut [[float32x4_t; 4]; ROWS],
    steps: &[f32; PANEL],
    x: [float32x4_t; ROWS],
) {
    for quarter in 0..4 {
        // SAFETY: four of sixteen.
        let columns = unsafe { vld1q_f32(steps.as_ptr().add(4 * quarter)) };
        for row in 0..ROWS {
            sums[row][quarter] = vfmaq_laneq_f32::<LANE>(sums[row][quarter], columns, x[row]);
        }
    }
}
