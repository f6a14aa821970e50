//! Reductions of a row: element `i` goes to lane `i % 16`, in order of `i`; then lanes 8 apart are joined, 4 apart, 2
//! apart, 1 apart. An operator's reference and its fast body both join by these.

use crate::{PANEL, math};

/// One value per lane.
pub(crate) type Lanes = [f32; PANEL];

/// The lanes' sum.
#[inline(always)]
pub fn join_sum(mut lanes: Lanes) -> f32 {
    for apart in [8, 4, 2, 1] {
        for i in 0..apart {
            lanes[i] += lanes[i + apart];
        }
    }
    lanes[0]
}

/// The lanes' maximum.
#[inline(always)]
pub fn join_max(mut lanes: Lanes) -> f32 {
    for apart in [8, 4, 2, 1] {
        for i in 0..apart {
            lanes[i] = math::max(lanes[i], lanes[i + apart]);
        }
    }
    lanes[0]
}

/// The sum of a row.
#[inline(always)]
pub fn sum(row: &[f32]) -> f32 {
    let mut lanes = [0.0; PANEL];
    let (chunks, rest) = row.as_chunks::<PANEL>();
    for chunk in chunks {
        for i in 0..PANEL {
            lanes[i] += chunk[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x;
    }
    join_sum(lanes)
}

/// The sum of a row's squares, by fused multiply-adds.
#[inline(always)]
pub fn sum_of_squares(row: &[f32]) -> f32 {
    let mut lanes = [0.0f32; PANEL];
    let (chunks, rest) = row.as_chunks::<PANEL>();
    for chunk in chunks {
        for i in 0..PANEL {
            lanes[i] = chunk[i].mul_add(chunk[i], lanes[i]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = x.mul_add(*x, *lane);
    }
    join_sum(lanes)
}

/// The maximum of a row, minus infinity at least.
#[inline(always)]
pub fn max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; PANEL];
    let (chunks, rest) = row.as_chunks::<PANEL>();
    for chunk in chunks {
        for i in 0..PANEL {
            lanes[i] = math::max(lanes[i], chunk[i]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = math::max(*lane, *x);
    }
    join_max(lanes)
}
