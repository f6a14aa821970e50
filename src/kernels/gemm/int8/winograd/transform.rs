//! The transforms of F(4x4, 3x3) with interpolation points 0, 1, -1, 2, -2 and infinity (A. Lavin and S. Gray, "Fast
//! algorithms for convolutional neural networks", 2015), in integers: the weights' rows are multiplied up until they are
//! whole, by 4, -6, -6, 24, 24 and 1, which the transform of the sums makes up for.

use std::ops::{Add, Sub};

use super::{CENTER, POSITIONS, SIDE, TILE};
use crate::{
    PANEL,
    gemm::int8::{Pairs, tile::Steps},
};

/// A vector of integers of 16 bits, on one instruction set. There are values only where the CPU has its features, which who
/// makes the first one promises.
pub trait Shorts: Copy + Add<Output = Self> + Sub<Output = Self> {
    /// How many there are; a row of 64 weights has as many parts as it takes.
    const LEN: usize;

    /// # Safety
    /// This CPU has the features.
    unsafe fn zero() -> Self;
    /// Codes.
    ///
    /// # Safety
    /// This CPU has the features, and there are as many readable codes.
    unsafe fn of_codes(from: *const u8) -> Self;
    /// A part of a panel's row, in the order in which an expanded panel has it.
    ///
    /// # Safety
    /// This CPU has the features.
    unsafe fn of_steps(steps: &Steps, part: usize) -> Self;
    /// # Safety
    /// There are as many writable elements.
    unsafe fn store(self, to: *mut i16);
    fn minus(self, x: i16) -> Self;
    fn times_4(self) -> Self;
}

/// A vector of sums, which wrap around, on one instruction set. There are values only where the CPU has its features, which
/// who makes the first one promises.
pub trait Ints: Copy + Add<Output = Self> + Sub<Output = Self> {
    /// How many there are.
    const LEN: usize;

    /// # Safety
    /// This CPU has the features.
    unsafe fn zero() -> Self;
    /// # Safety
    /// This CPU has the features, and there are as many readable elements.
    unsafe fn load(from: *const i32) -> Self;
    /// # Safety
    /// There are as many writable elements.
    unsafe fn store(self, to: *mut i32);
    fn times_4(self) -> Self;
    fn times_8(self) -> Self;
    /// A ninth of what wraps around, [`NINTH`] times it; of that a 64th of the signed number.
    fn over_576(self) -> Self;
}

/// The sum and the difference of a vector's type by these instructions.
macro_rules! arithmetic {
    ($vector:ty, $add:ident, $sub:ident) => {
        impl std::ops::Add for $vector {
            type Output = Self;

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: there is a vector, so there are the features.
                Self(unsafe { $add(self.0, other.0) })
            }
        }

        impl std::ops::Sub for $vector {
            type Output = Self;

            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                // SAFETY: there is a vector, so there are the features.
                Self(unsafe { $sub(self.0, other.0) })
            }
        }
    };
}
pub(in crate::gemm::int8) use arithmetic;

/// The positions of a tile in the domain of products, of its codes less [`CENTER`]. `pixels` are the first of `channels`
/// codes of each pixel; the results of a position stand `stride` after those of the one before.
///
/// # Safety
/// This CPU has the features. `channels` is a multiple of the vector's length; each pixel has as many readable codes, and
/// `to` as many writable elements for each position.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
pub unsafe fn codes<V: Shorts>(
    pixels: &[*const u8; POSITIONS],
    channels: usize,
    to: *mut i16,
    stride: usize,
) {
    // SAFETY: the features by the caller's promise.
    let zero = unsafe { V::zero() };
    for channel in (0..channels).step_by(V::LEN) {
        let mut rows = [[zero; SIDE]; SIDE];
        for column in 0..SIDE {
            let mut d = [zero; SIDE];
            for row in 0..SIDE {
                // SAFETY: there by the caller's promise.
                d[row] = unsafe { V::of_codes(pixels[SIDE * row + column].add(channel)) };
            }
            let d = along_codes(d);
            for row in 0..SIDE {
                rows[row][column] = d[row];
            }
        }
        for row in 0..SIDE {
            let mut results = along_codes(rows[row]);
            if row == 1 {
                // The one position whose coefficients do not add up to nothing.
                results[1] = results[1].minus(36 * CENTER as i16);
            }
            for column in 0..SIDE {
                // SAFETY: there by the caller's promise.
                unsafe { results[column].store(to.add((SIDE * row + column) * stride + channel)) }
            }
        }
    }
}

/// Rows of `[4, 0, -5, 0, 1, 0]`, `[0, -4, -4, 1, 1, 0]`, `[0, 4, -4, -1, 1, 0]`, `[0, -2, -1, 2, 1, 0]`,
/// `[0, 2, -1, -2, 1, 0]`, `[0, 4, 0, -5, 0, 1]` times these.
#[inline(always)]
fn along_codes<V: Shorts>(d: [V; SIDE]) -> [V; SIDE] {
    let (d24, d13) = (d[4] - d[2], d[3] - d[1]);
    let (even, odd) = (d[4] - d[2].times_4(), d[3] - d[1].times_4());
    let twice = d13 + d13;
    [
        (d[0] - d[2]).times_4() + d24,
        even + odd,
        even - odd,
        d24 + twice,
        d24 - twice,
        d[5] - d[3] - d13.times_4(),
    ]
}

/// The weights of a panel in the domain of products, expanded. The pairs of a position stand `stride` after those of the
/// one before.
///
/// # Safety
/// This CPU has the features. The taps are equally long; `to` has [`POSITIONS`] times `stride` pairs, and `stride` is
/// twice a tap's length or more.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
pub unsafe fn weights<V: Shorts>(taps: &[&[Steps]; 9], to: &mut [Pairs], stride: usize) {
    // SAFETY: the features by the caller's promise.
    let zero = unsafe { V::zero() };
    let to = to.as_mut_ptr();
    for group in 0..taps[0].len() {
        for part in 0..size_of::<Steps>() / V::LEN {
            let mut rows = [[zero; 3]; SIDE];
            for column in 0..3 {
                let mut g = [zero; 3];
                for row in 0..3 {
                    // SAFETY: the taps are equally long.
                    g[row] =
                        unsafe { V::of_steps(taps[3 * row + column].get_unchecked(group), part) };
                }
                let g = along_weights(g);
                for row in 0..SIDE {
                    rows[row][column] = g[row];
                }
            }
            for row in 0..SIDE {
                let results = along_weights(rows[row]);
                for column in 0..SIDE {
                    // SAFETY: a part of two pairs that are there by the caller's promise.
                    unsafe {
                        let to = to.add((SIDE * row + column) * stride + 2 * group);
                        results[column].store(to.cast::<i16>().add(part * V::LEN));
                    }
                }
            }
        }
    }
}

/// Rows of `[1, 0, 0]`, `[1, 1, 1]`, `[1, -1, 1]`, `[1, 2, 4]`, `[1, -2, 4]`, `[0, 0, 1]` times these.
#[inline(always)]
fn along_weights<V: Shorts>(g: [V; 3]) -> [V; SIDE] {
    let (near, far) = (g[0] + g[2], g[0] + g[2].times_4());
    let twice = g[1] + g[1];
    [
        g[0],
        near + g[1],
        near - g[1],
        far + twice,
        far - twice,
        g[2],
    ]
}

/// The pixels of a tile, of the sums of its positions, which stand every `stride` rows: added to `to`, or what it is set
/// to. They are exact if each is below 2^25.
///
/// # Safety
/// This CPU has the features. `sums` has a row for each position.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
pub unsafe fn sums<V: Ints>(
    sums: &[[i32; PANEL]],
    stride: usize,
    to: &mut [[i32; PANEL]; TILE * TILE],
    add: bool,
) {
    // SAFETY: the features by the caller's promise.
    let zero = unsafe { V::zero() };
    for lane in (0..PANEL).step_by(V::LEN) {
        let mut rows = [[zero; SIDE]; TILE];
        for column in 0..SIDE {
            let mut m = [zero; SIDE];
            for row in 0..SIDE {
                // SAFETY: a part of a row that is there by the caller's promise.
                m[row] = unsafe {
                    let from = sums.get_unchecked((SIDE * row + column) * stride);
                    V::load(from.as_ptr().add(lane))
                };
            }
            let m = along_sums(m);
            for row in 0..TILE {
                rows[row][column] = m[row];
            }
        }
        for row in 0..TILE {
            let results = along_sums(rows[row]);
            for column in 0..TILE {
                let to = to[TILE * row + column].as_mut_ptr();
                // SAFETY: a part of sixteen.
                unsafe {
                    let to = to.add(lane);
                    let mut sum = results[column].over_576();
                    if add {
                        sum = sum + V::load(to);
                    }
                    sum.store(to);
                }
            }
        }
    }
}

/// 9 times this is 1, in 32 bits that wrap around.
pub const NINTH: i32 = 0x38e3_8e39;

/// 24 times rows of `[1, 1, 1, 1, 1, 0]`, `[0, 1, -1, 2, -2, 0]`, `[0, 1, 1, 4, 4, 0]`, `[0, 1, -1, 8, -8, 1]` times these
/// over 4, -6, -6, 24, 24, 1.
#[inline(always)]
fn along_sums<V: Ints>(m: [V; SIDE]) -> [V; TILE] {
    let (near, near_odd) = ((m[1] + m[2]).times_4(), (m[1] - m[2]).times_4());
    let (far, far_odd) = (m[3] + m[4], m[3] - m[4]);
    let last = m[5].times_8();
    [
        m[0].times_4() + m[0] + m[0] - near + far,
        far_odd + far_odd - near_odd,
        far.times_4() - near,
        far_odd.times_8() - near_odd + (last + last + last),
    ]
}
