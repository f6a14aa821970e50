use std::fmt;

use crate::Kernels;

#[cfg(test)]
mod tests;

/// A type that activations and weights have in memory. Arithmetic is in `f32`: [`Element::load`] is exact and
/// [`Element::store`] rounds to nearest, ties to even.
pub trait Element: Copy + Default + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// `f32` or `f16`.
    const DTYPE_NAME: &'static str;

    /// The value.
    fn load(self) -> f32;

    /// The nearest value.
    fn store(value: f32) -> Self;

    /// [`Element::load`] of each of `from` into `to`, which is as long.
    fn load_slice(kernels: Kernels, from: &[Self], to: &mut [f32]);

    /// [`Element::store`] of each of `from` into `to`, which is as long.
    fn store_slice(kernels: Kernels, from: &[f32], to: &mut [Self]);

    /// The elements themselves where the type is `f32`.
    fn as_f32(slice: &[Self]) -> Option<&[f32]>;
}

impl Element for f32 {
    const DTYPE_NAME: &'static str = "f32";

    #[inline(always)]
    fn load(self) -> f32 {
        self
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn load_slice(_: Kernels, from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    #[inline(always)]
    fn store_slice(_: Kernels, from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }

    #[inline(always)]
    fn as_f32(slice: &[Self]) -> Option<&[f32]> {
        Some(slice)
    }
}

/// An IEEE 754 half-precision number, by its bits.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct F16(u16);

impl F16 {
    /// The number of these bits.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// The nearest half; ties to even, too large becomes infinite. A NaN keeps its sign and upper payload and is quiet.
    #[inline(always)]
    pub fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let sign = (bits >> 16) & 0x8000;
        let magnitude = bits & 0x7fff_ffff;
        // The exponent moves by 112; adding the largest part below a half unit, and the unit's own parity, rounds. A
        // carry into the exponent is the next binade or infinity.
        let odd = (magnitude >> 13) & 1;
        let normal = magnitude.wrapping_add(0xc800_0fff).wrapping_add(odd) >> 13;
        // Below 2^-14 the unit is 2^-24, which is the unit of 0.5: the addition rounds.
        let subnormal = (f32::from_bits(magnitude) + 0.5)
            .to_bits()
            .wrapping_sub(0.5f32.to_bits());
        let nan = ((magnitude >> 13) & 0x3ff) | 0x7e00;
        let finite = if magnitude < 0x3880_0000 {
            subnormal
        } else {
            normal
        };
        // From 65520 on the nearest is infinite.
        let bounded = if magnitude >= 0x477f_f000 {
            0x7c00
        } else {
            finite
        };
        let result = if magnitude > 0x7f80_0000 {
            nan
        } else {
            bounded
        };
        Self((result | sign) as u16)
    }

    /// The value, exactly. A NaN keeps its sign and payload and is quiet.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        let sign = u32::from(self.0 & 0x8000) << 16;
        let magnitude = u32::from(self.0 & 0x7fff);
        let shifted = magnitude << 13;
        let normal = shifted + (112 << 23);
        // As an offset from 2^-14, whose unit in the last place is the half's smallest number.
        let two_14 = f32::from_bits(113 << 23);
        let subnormal = (f32::from_bits(shifted + (113 << 23)) - two_14).to_bits();
        let special = shifted | 0x7f80_0000 | if magnitude > 0x7c00 { 1 << 22 } else { 0 };
        let finite = if magnitude < 0x0400 {
            subnormal
        } else {
            normal
        };
        f32::from_bits(sign | if magnitude >= 0x7c00 { special } else { finite })
    }
}

impl fmt::Debug for F16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_f32(), f)
    }
}

impl Element for F16 {
    const DTYPE_NAME: &'static str = "f16";

    #[inline(always)]
    fn load(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        Self::from_f32(value)
    }

    #[inline(always)]
    fn load_slice(kernels: Kernels, from: &[Self], to: &mut [f32]) {
        crate::arch::f16_to_f32(kernels, from, to);
    }

    #[inline(always)]
    fn store_slice(kernels: Kernels, from: &[f32], to: &mut [Self]) {
        crate::arch::f32_to_f16(kernels, from, to);
    }

    #[inline(always)]
    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }
}
