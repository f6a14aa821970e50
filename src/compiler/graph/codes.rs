//! What eight bits make of numbers: the definition of codes and of integer weights, as the numbers that they stand for.
//!
//! A set of values (a row, or a tensor) has one scale and one zero point. With `lo = min(0, min x)`, `hi = max(0, max x)`
//! and `range = hi - lo`: a range below 1e-30 makes every code stand for 0; otherwise `scale = range / 255`,
//! `inv = 255 / range`, `zero = rne(-lo inv)` within 0..=255 and `code = rne(x inv) + zero` within 0..=255, which stands for
//! `(code - zero) scale`. A column of weights has `scale = max |w| / 127` and integers `rne(w / scale)` within -127..=127.
//! All in `f32`; `rne` rounds to the nearest, ties to even.

/// Least range that has codes.
const LEAST_RANGE: f32 = 1e-30;
/// The least value of SiLU, and where it is.
const SILU_LEAST: (f32, f32) = (-0.278_464_56, -1.278_464_5);

/// The ends of a set of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    pub lo: f32,
    pub hi: f32,
}

impl Range {
    /// Zero alone, which every range holds.
    pub const ZERO: Range = Range { lo: 0.0, hi: 0.0 };

    pub fn of(values: impl IntoIterator<Item = f32>) -> Range {
        values.into_iter().fold(Range::ZERO, Range::with)
    }

    /// The range with one value more.
    pub fn with(self, x: f32) -> Range {
        Range {
            lo: if x < self.lo { x } else { self.lo },
            hi: if self.hi < x { x } else { self.hi },
        }
    }

    /// Makes each value the one that its code stands for.
    pub fn represent(self, values: &mut [f32]) {
        let range = self.hi - self.lo;
        if range.is_nan() || range < LEAST_RANGE {
            return values.fill(0.0);
        }
        let (scale, inv) = (range / 255.0, 255.0 / range);
        let zero = ((-self.lo * inv).round_ties_even() as i32).clamp(0, 255);
        for x in values {
            let code = ((*x * inv).round_ties_even() as i32)
                .saturating_add(zero)
                .clamp(0, 255);
            *x = (code - zero) as f32 * scale;
        }
    }
}

/// Makes each value the one that its code stands for, with a range for each row of `c`.
pub(crate) fn represent_rows(values: &mut [f32], c: usize) {
    values
        .chunks_mut(c.max(1))
        .for_each(|row| Range::of(row.iter().copied()).represent(row));
}

/// Makes each normalized value of `[.., c]`, once activated, the one that its code stands for, with one range for all: a
/// bound, of what each channel's ends become. An activation is SiLU or nothing.
pub(crate) fn represent_norm(values: &mut [f32], c: usize, activate: impl Fn(f32) -> f32) {
    let mut ends: Vec<(f32, f32)> = values.iter().take(c).map(|v| (*v, *v)).collect();
    for row in values.chunks_exact(c.max(1)) {
        for ((lo, hi), v) in ends.iter_mut().zip(row) {
            (*lo, *hi) = (
                if v < lo { *v } else { *lo },
                if *hi < *v { *v } else { *hi },
            );
        }
    }
    let (least, at) = SILU_LEAST;
    // The least value stands for itself only under SiLU.
    let bends = activate(at) < 0.0 && activate(at) > at;
    let range = ends.iter().fold(Range::ZERO, |range, (lo, hi)| {
        let range = range.with(activate(*lo)).with(activate(*hi));
        if bends && *lo <= at && at <= *hi {
            range.with(least)
        } else {
            range
        }
    });
    values.iter_mut().for_each(|v| *v = activate(*v));
    range.represent(values);
}

/// Makes each weight of `[n, ..]`, with `k` elements in each of the `n` columns of the product, what its integer stands for.
pub(crate) fn represent_weight(weight: &mut [f32], k: usize) {
    weight
        .chunks_mut(k.max(1))
        .for_each(kiln_kernels::pack::represent_row);
}

#[cfg(test)]
mod tests;
