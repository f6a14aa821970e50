//! Reductions of a row: element `i` goes to lane `i % 16`, in order of `i`; then lanes 8 apart are joined, 4 apart, 2
//! apart, 1 apart. An operator's reference and its fast body both join by these.

use crate::{PANEL, math};

/// One value per lane.
pub(crate) type Lanes = [f32; PANEL];

/// Elements of a row that are converted together; a multiple of the lanes.
pub(crate) const CHUNK: usize = 256;

/// The lanes' sum.
#[inline(always)]
pub fn join_sum(lanes: Lanes) -> f32 {
    let [sum] = add::<2, 1>(add::<4, 2>(add::<8, 4>(add::<16, 8>(lanes))));
    sum
}

/// The lanes' maximum.
#[inline(always)]
pub fn join_max(lanes: Lanes) -> f32 {
    let [max] = larger::<2, 1>(larger::<4, 2>(larger::<8, 4>(larger::<16, 8>(lanes))));
    max
}

/// The first half plus the second.
#[inline(always)]
fn add<const N: usize, const HALF: usize>(lanes: [f32; N]) -> [f32; HALF] {
    let mut half = [0.0; HALF];
    for i in 0..HALF {
        half[i] = lanes[i] + lanes[i + HALF];
    }
    half
}

/// The larger of the first half and the second.
#[inline(always)]
fn larger<const N: usize, const HALF: usize>(lanes: [f32; N]) -> [f32; HALF] {
    let mut half = [0.0; HALF];
    for i in 0..HALF {
        half[i] = math::max(lanes[i], lanes[i + HALF]);
    }
    half
}

/// Adds elements to their lanes. Of a row in parts, all but the last part are multiples of 16 long.
#[inline(always)]
pub fn add_up(lanes: &mut Lanes, part: &[f32]) {
    let (chunks, rest) = part.as_chunks::<PANEL>();
    for chunk in chunks {
        for i in 0..PANEL {
            lanes[i] += chunk[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x;
    }
}

/// Adds the squares of `x - center` to their lanes by fused multiply-adds; parts as for [`add_up`].
#[inline(always)]
pub fn add_up_squares(lanes: &mut Lanes, part: &[f32], center: f32) {
    let (chunks, rest) = part.as_chunks::<PANEL>();
    for chunk in chunks {
        for i in 0..PANEL {
            let d = chunk[i] - center;
            lanes[i] = d.mul_add(d, lanes[i]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        let d = x - center;
        *lane = d.mul_add(d, *lane);
    }
}

/// Raises lanes to the maximum of their elements; parts as for [`add_up`].
#[inline(always)]
pub fn raise(lanes: &mut Lanes, part: &[f32]) {
    let (chunks, rest) = part.as_chunks::<PANEL>();
    for chunk in chunks {
        for i in 0..PANEL {
            lanes[i] = math::max(lanes[i], chunk[i]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = math::max(*lane, *x);
    }
}

/// The sum of a row.
#[inline(always)]
pub fn sum(row: &[f32]) -> f32 {
    let mut lanes = [0.0; PANEL];
    add_up(&mut lanes, row);
    join_sum(lanes)
}

/// The maximum of a row.
#[inline(always)]
pub fn max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; PANEL];
    raise(&mut lanes, row);
    join_max(lanes)
}
