//! Quantized activations: a byte per value and the parameters to read it by.
//!
//! A buffer of codes starts with pairs of a `scale` (`f32`) and a `zero_point` (`i32` in 0..=255), little-endian: one
//! for each row (per row) or one for all (per tensor), padded with zeros to a multiple of 64 bytes. Then come the
//! codes, `[rows, c]`. A code stands for `scale (code - zero_point)`.

use crate::{ArgumentError, Kernels, PANEL, arch, error::Check, math, output::Output};

#[cfg(test)]
mod tests;

/// Bytes of a pair.
const PAIR: usize = 8;
/// What the pairs are padded to.
const ALIGN: usize = 64;
/// The least range that is told from zero.
const LEAST_RANGE: f32 = 1e-30;

/// Bytes before the first code.
pub const fn codes_start(rows: usize, per_row: bool) -> usize {
    if per_row {
        (rows * PAIR).next_multiple_of(ALIGN)
    } else {
        ALIGN
    }
}

/// Bytes of a buffer of codes.
pub const fn codes_bytes(rows: usize, c: usize, per_row: bool) -> usize {
    codes_start(rows, per_row) + rows * c
}

/// The map from values in a range to codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantizer {
    scale: f32,
    zero_point: i32,
    inverse: f32,
}

impl Quantizer {
    /// With `lo = min(0, lo)`, `hi = max(0, hi)` and `range = hi - lo`, in `f32`: `scale = range / 255`,
    /// `inverse = 255 / range` and `zero_point = round(-lo inverse)`, ties to even. A range below 1e-30, infinite or NaN
    /// gives zeros: all codes are 0 and stand for 0.
    #[inline(always)]
    pub fn of_range(lo: f32, hi: f32) -> Self {
        let lo = min(lo, 0.0);
        let hi = math::max(hi, 0.0);
        let range = hi - lo;
        if !(LEAST_RANGE..f32::INFINITY).contains(&range) {
            return Self {
                scale: 0.0,
                zero_point: 0,
                inverse: 0.0,
            };
        }
        let inverse = 255.0 / range;
        Self {
            scale: range / 255.0,
            zero_point: math::round(-lo * inverse).clamp(0, 255),
            inverse,
        }
    }

    /// The map for the range of these values; NaNs do not count.
    #[inline(always)]
    pub fn of(values: &[f32]) -> Self {
        let mut range = Range::default();
        range.widen(values);
        range.quantizer()
    }

    /// `clamp(round(x inverse) + zero_point, 0, 255)`, ties to even; 0 for NaN.
    #[inline(always)]
    pub fn code(self, x: f32) -> u8 {
        let x = x * self.inverse;
        let x = if x > -256.0 { x } else { -256.0 };
        let x = if x < 256.0 { x } else { 256.0 };
        (math::round(x) + self.zero_point).clamp(0, 255) as u8
    }

    /// [`Quantizer::code`] of each of `values` into `to`, which is as long.
    #[inline(always)]
    pub fn codes(self, kernels: Kernels, values: &[f32], to: &mut [u8]) {
        arch::codes(kernels, self, values, to);
    }

    /// What a value is multiplied with.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn inverse(self) -> f32 {
        self.inverse
    }

    /// What a code counts.
    pub fn scale(self) -> f32 {
        self.scale
    }

    /// The code of zero.
    pub fn zero_point(self) -> i32 {
        self.zero_point
    }

    /// The value that a code stands for.
    pub fn value(self, code: u8) -> f32 {
        self.scale * (i32::from(code) - self.zero_point) as f32
    }

    #[inline(always)]
    fn pair(self) -> [u8; PAIR] {
        let mut pair = [0; PAIR];
        pair[..4].copy_from_slice(&self.scale.to_le_bytes());
        pair[4..].copy_from_slice(&self.zero_point.to_le_bytes());
        pair
    }
}

/// The smaller; `b` where the two cannot be ordered.
#[inline(always)]
pub(crate) fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The range of zero and of the values seen, in lanes; the lanes' order changes nothing, since a zero stays a positive
/// zero and NaNs are passed over.
#[derive(Clone, Copy, Default)]
pub(crate) struct Range {
    lo: [f32; PANEL],
    hi: [f32; PANEL],
}

impl Range {
    #[inline(always)]
    pub fn widen(&mut self, values: &[f32]) {
        let (chunks, rest) = values.as_chunks::<PANEL>();
        arch::widen(chunks, &mut self.lo, &mut self.hi);
        for (i, x) in rest.iter().enumerate() {
            self.lo[i] = min(*x, self.lo[i]);
            self.hi[i] = math::max(*x, self.hi[i]);
        }
    }

    #[inline(always)]
    pub fn ends(&self) -> (f32, f32) {
        let (mut lo, mut hi) = (0.0, 0.0);
        for i in 0..PANEL {
            lo = min(self.lo[i], lo);
            hi = math::max(self.hi[i], hi);
        }
        (lo, hi)
    }

    #[inline(always)]
    pub fn quantizer(&self) -> Quantizer {
        let (lo, hi) = self.ends();
        Quantizer::of_range(lo, hi)
    }
}

/// A buffer of codes to read.
#[derive(Clone, Copy)]
pub(crate) struct Codes<'a> {
    pairs: &'a [u8],
    pub codes: &'a [u8],
    per_row: bool,
}

impl<'a> Codes<'a> {
    pub fn new(
        check: &Check,
        operand: &'static str,
        buffer: &'a [u8],
        rows: usize,
        c: usize,
        per_row: bool,
    ) -> Result<Self, ArgumentError> {
        check.len(operand, buffer.len(), size(check, rows, c, per_row)?)?;
        let (pairs, codes) = buffer.split_at(codes_start(rows, per_row));
        Ok(Self {
            pairs,
            codes,
            per_row,
        })
    }

    /// Scale and zero point of a row.
    #[inline(always)]
    pub fn pair(&self, row: usize) -> (f32, i32) {
        let (pairs, _) = self.pairs.as_chunks::<PAIR>();
        of_bytes(&pairs[if self.per_row { row } else { 0 }])
    }

    /// Those of some rows, where each row has its own.
    #[inline(always)]
    pub fn pairs(&self, rows: std::ops::Range<usize>) -> impl Iterator<Item = (f32, i32)> {
        debug_assert!(self.per_row);
        let (pairs, _) = self.pairs.as_chunks::<PAIR>();
        pairs[rows].iter().map(of_bytes)
    }
}

#[inline(always)]
fn of_bytes(&[a, b, c, d, e, f, g, h]: &[u8; PAIR]) -> (f32, i32) {
    (
        f32::from_le_bytes([a, b, c, d]),
        i32::from_le_bytes([e, f, g, h]),
    )
}

/// [`codes_bytes`], if it fits.
pub(crate) fn size(
    check: &Check,
    rows: usize,
    c: usize,
    per_row: bool,
) -> Result<usize, ArgumentError> {
    // Eight bytes and more for a row's pair.
    check.size("rows", &[rows, c.saturating_add(2 * ALIGN)])?;
    Ok(codes_bytes(rows, c, per_row))
}

/// Writes the pair of a row (or, per tensor, of row 0), and with the last one the padding.
///
/// # Safety
/// As [`Output::slice_mut`] for the pair.
#[inline(always)]
pub(crate) unsafe fn write_pair(
    out: &Output<u8>,
    rows: usize,
    per_row: bool,
    row: usize,
    quantizer: Quantizer,
) {
    let pairs = if per_row { rows } else { 1 };
    let end = if row + 1 == pairs {
        codes_start(rows, per_row)
    } else {
        (row + 1) * PAIR
    };
    // SAFETY: the caller's promise.
    let to = unsafe { out.slice_mut(row * PAIR..end) };
    to[..PAIR].copy_from_slice(&quantizer.pair());
    to[PAIR..].fill(0);
}

/// The values that a buffer of codes stands for, `[rows, c]`.
pub fn dequantize(
    buffer: &[u8],
    rows: usize,
    c: usize,
    per_row: bool,
) -> Result<Vec<f32>, ArgumentError> {
    let codes = Codes::new(&Check("Codes"), "x", buffer, rows, c, per_row)?;
    let value = |(i, code): (usize, &u8)| {
        let (scale, zero_point) = codes.pair(i / c);
        scale * i32::from(*code).wrapping_sub(zero_point) as f32
    };
    Ok(codes.codes.iter().enumerate().map(value).collect())
}
