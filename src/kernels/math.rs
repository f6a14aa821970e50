//! Functions of one `f32`, the same bits on every machine: additions, multiplications, fused multiply-adds and
//! divisions in a fixed order, no branches, no tables. An error of n ulp is n units in the last place of the result.
//!
//! No step gives a subnormal number, on which some CPUs spend more than a hundred cycles, for any finite argument that is
//! zero or 2^-30 or more in magnitude. (No half but zero is less than 2^-24.) What would lead to one is a zero before: `exp`
//! below 2^-93, which keeps what it is multiplied with or divided by in GELU and softmax normal, too.

use crate::{Activation, PANEL};

#[cfg(test)]
mod tests;

/// Any activation but GEGLU, which has two arguments, and leaves the value as it is.
#[inline(always)]
pub fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::None | Activation::Geglu => x,
        Activation::Silu => silu(x),
        Activation::Gelu => gelu(x),
        Activation::QuickGelu => quick_gelu(x),
        Activation::Relu => relu(x),
        Activation::Tanh => tanh(x),
    }
}

/// [`activate`] for each of `values`.
#[inline(always)]
pub fn activate_slice(activation: Activation, values: &mut [f32]) {
    // Loops over functions, not closures: a closure may stay out of line, and there it would not have the caller's
    // instruction set.
    match activation {
        Activation::None | Activation::Geglu => {}
        Activation::Silu => {
            for x in values {
                *x = silu(*x);
            }
        }
        Activation::Gelu => {
            for x in values {
                *x = gelu(*x);
            }
        }
        Activation::QuickGelu => {
            for x in values {
                *x = quick_gelu(*x);
            }
        }
        Activation::Relu => {
            for x in values {
                *x = relu(*x);
            }
        }
        Activation::Tanh => {
            for x in values {
                *x = tanh(*x);
            }
        }
    }
}

/// `e^(x - shift)` for each of `values`.
#[inline(always)]
pub fn exp_slice(values: &mut [f32], shift: f32) {
    // Few enough at a time that not many are left for one by one.
    let (chunks, rest) = values.as_chunks_mut::<PANEL>();
    for chunk in chunks {
        let mut powers = *chunk;
        for x in &mut powers {
            *x = exp(*x - shift);
        }
        *chunk = powers;
    }
    for x in rest {
        *x = exp(*x - shift);
    }
}

/// The larger; `b` where the two cannot be ordered.
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Adding and subtracting it rounds an `f32` below 2^22 to an integer; its low bits then are that integer.
pub const ROUND: f32 = 12_582_912.0;

/// The nearest integer, ties to even, for |x| below 2^22.
#[inline(always)]
pub fn round(x: f32) -> i32 {
    ((x + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

/// [`round`], and the same as an `f32`.
#[inline(always)]
pub fn whole(x: f32) -> (i32, f32) {
    (round(x), (x + ROUND) - ROUND)
}

/// `e^x`, within 1.5 ulp from -64.8 on; 0 below, where it is less than 2^-93.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Outside of these the result is zero or infinite. NaN passes.
    let x = if x < -66.0 { -66.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    // x = n ln 2 + r, |r| <= ln 2 / 2; ln 2 in two parts.
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_145_75, x);
    let r = n.mul_add(-1.428_606_8e-6, r);
    // e^r = 1 + r + r^2 p(r)
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_2e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_6e-1);
    let p = p.mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    // 2^n in two factors, so that only the last product overflows: 2^33 and 2^(n - 33), which is zero from n = -94 down.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let exponent = n.wrapping_add(127 - 33).max(0);
    (y * 8_589_934_592.0) * f32::from_bits((exponent as u32) << 23)
}

/// `1 / (1 + e^-x)`; 0 below -86.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let x = if x < -86.0 { f32::NEG_INFINITY } else { x };
    1.0 / (1.0 + exp(-x))
}

/// `x * sigmoid(x)`, as one division.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x * sigmoid(1.702 x)`, as one division.
#[inline(always)]
pub fn quick_gelu(x: f32) -> f32 {
    x / (1.0 + exp(-1.702 * x))
}

/// `x`, or 0 where it is negative. NaN passes.
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// The hyperbolic tangent, within 2 ulp.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let z = x * x;
    // Below 0.625: x + x z p(z); p is a minimax fit, within 4.4e-9 of the result, relative.
    let p = -5.704_987e-3f32;
    let p = p.mul_add(z, 2.063_908_7e-2);
    let p = p.mul_add(z, -5.373_971_5e-2);
    let p = p.mul_add(z, 0.133_314_42);
    let p = p.mul_add(z, -0.333_332_8);
    let near = p.mul_add(z * x, x);
    // Elsewhere: 1 - 2 / (1 + e^2|x|), which is 1 from 16 on.
    let y = x.abs();
    let y = if y > 16.0 { 16.0 } else { y };
    let far = 1.0 - 2.0 / (1.0 + exp(y + y));
    let far = if x < 0.0 { -far } else { far };
    if y < 0.625 { near } else { far }
}

/// `x * (1 + erf(x / sqrt 2)) / 2`, within 2e-7 of `max(1, |x|)`.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    x * normal_cdf(x)
}

/// `(1 + erf(x / sqrt 2)) / 2`, within 2e-7; 0 below -11.4.
#[inline(always)]
pub fn normal_cdf(x: f32) -> f32 {
    // erfc(z) = t p(t) e^(-z^2) with t = 1 / (1 + 0.55 z), z = |x| / sqrt 2; p is a minimax fit, within 1.8e-8 of erfc.
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    // Long before, the power is zero.
    let z = if z > 16.0 { 16.0 } else { z };
    let t = 1.0 / z.mul_add(0.55, 1.0);
    let p = 0.107_334_98f32;
    let p = p.mul_add(t, -0.518_080_9);
    let p = p.mul_add(t, 0.759_783_15);
    let p = p.mul_add(t, -0.041_481_13);
    let p = p.mul_add(t, 0.390_863_9);
    let p = p.mul_add(t, 0.301_58);
    let tail = 0.5 * (p * t) * exp(-(z * z));
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// Sine and cosine, within 1 ulp for |x| up to 10^6: the angle is reduced and the series summed in `f64`.
#[inline(always)]
pub fn sin_cos(x: f32) -> (f32, f32) {
    let x = f64::from(x);
    // x = n pi / 2 + r, |r| <= pi / 4; pi / 2 in two parts, the first of 33 bits.
    let shifted = x * std::f64::consts::FRAC_2_PI + 6_755_399_441_055_744.0;
    let n = shifted - 6_755_399_441_055_744.0;
    let r = n.mul_add(-1.570_796_326_734_125_6, x);
    let r = n.mul_add(-6.077_100_506_506_192e-11, r);
    let s = r * r;
    let sin = [1.0 / 362_880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0]
        .iter()
        .fold(-1.0 / 39_916_800.0f64, |p, c| p.mul_add(s, *c));
    let sin = (sin * s).mul_add(r, r);
    let cos = [
        -1.0 / 3_628_800.0,
        1.0 / 40_320.0,
        -1.0 / 720.0,
        1.0 / 24.0,
        -0.5,
    ]
    .iter()
    .fold(1.0 / 479_001_600.0f64, |p, c| p.mul_add(s, *c));
    let cos = cos.mul_add(s, 1.0);
    let quadrant = shifted.to_bits() & 3;
    let (sin, cos) = if quadrant & 1 == 1 {
        (cos, sin)
    } else {
        (sin, cos)
    };
    let sin = if quadrant & 2 == 2 { -sin } else { sin };
    let cos = if (quadrant + 1) & 2 == 2 { -cos } else { cos };
    (sin as f32, cos as f32)
}
