//! The product of a tile of codes with `i8` panels, exact in 32 bits.

use std::array;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::Isa;
use crate::{Kernels, PANEL, scratch::Plain};

/// Sums of some rows for one panel.
pub type Rows<const ROWS: usize> = [[i32; PANEL]; ROWS];

/// A row of a panel: four steps of sixteen columns.
pub type Steps = [i8; 4 * PANEL];

/// What the left matrix's codes are kept as: bytes, bytes less [`OFFSET`](Left::OFFSET) for instruction sets that
/// multiply bytes of one kind, or 16 bits for those that multiply these.
pub trait Left: Plain {
    /// What a code as this type is short of.
    const OFFSET: i32 = 0;

    /// Elements of this type as codes, where they are the same.
    #[inline(always)]
    fn as_codes(of: &mut [Self]) -> Option<&mut [u8]> {
        let _ = of;
        None
    }

    /// The codes as this type.
    fn fill(codes: &[u8], to: &mut [Self]);

    /// Adds `a` times `b` to `sums` for four steps of k for each row of `b[_]`, or sets them to it where `add` is false.
    /// `a` has a row per row of the tile, as long as the steps or longer; each of `b` is a panel, all equally long; `sums`
    /// has an entry for each.
    fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
        kernels: Kernels,
        a: &[[Self; STRIDE]; ROWS],
        b: [&[Steps]; PANELS],
        sums: [&mut Rows<ROWS>; PANELS],
        add: bool,
    );
}

/// Sums to be added to.
#[inline(always)]
fn begun<const ROWS: usize, const PANELS: usize>(
    mut sums: [&mut Rows<ROWS>; PANELS],
    add: bool,
) -> [&mut Rows<ROWS>; PANELS] {
    if !add {
        for sums in &mut sums {
            **sums = [[0; PANEL]; ROWS];
        }
    }
    sums
}

fn check<const PANELS: usize>(b: [&[Steps]; PANELS], stride: usize) {
    let steps = b[0].len();
    for panel in b {
        assert!(4 * steps <= stride && panel.len() == steps);
    }
}

impl Left for u8 {
    #[inline(always)]
    fn as_codes(of: &mut [u8]) -> Option<&mut [u8]> {
        Some(of)
    }

    #[inline(always)]
    fn fill(codes: &[u8], to: &mut [u8]) {
        to.copy_from_slice(codes);
    }

    #[inline(always)]
    fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
        kernels: Kernels,
        a: &[[u8; STRIDE]; ROWS],
        b: [&[Steps]; PANELS],
        sums: [&mut Rows<ROWS>; PANELS],
        add: bool,
    ) {
        check(b, STRIDE);
        match kernels.isa() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Kernels` of this set exists only on a CPU that has it; the lengths were checked above.
            Isa::AvxVnni => unsafe { super::avxvnni::multiply(a, b, sums, add) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the same.
            Isa::Avx512Vnni => unsafe { super::avx512vnni::multiply(a, b, sums, add) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the same.
            Isa::NeonI8mm => unsafe { super::neoni8mm::multiply(a, b, begun(sums, add)) },
            _ => portable(a, b, begun(sums, add)),
        }
    }
}

impl Left for i8 {
    const OFFSET: i32 = 128;

    #[inline(always)]
    fn fill(codes: &[u8], to: &mut [i8]) {
        for (code, to) in codes.iter().zip(to) {
            *to = (code ^ 128) as i8;
        }
    }

    #[inline(always)]
    fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
        kernels: Kernels,
        a: &[[i8; STRIDE]; ROWS],
        b: [&[Steps]; PANELS],
        sums: [&mut Rows<ROWS>; PANELS],
        add: bool,
    ) {
        check(b, STRIDE);
        match kernels.isa() {
            #[cfg(target_arch = "aarch64")]
            // SAFETY: a `Kernels` of this set exists only on a CPU that has it; the lengths were checked above.
            Isa::NeonDot => unsafe { super::neondot::multiply(a, b, begun(sums, add)) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the same.
            Isa::Neon => unsafe { super::neon::multiply(a, b, begun(sums, add)) },
            _ => portable(a, b, begun(sums, add)),
        }
    }
}

impl Left for i16 {
    #[inline(always)]
    fn fill(codes: &[u8], to: &mut [i16]) {
        for (code, to) in codes.iter().zip(to) {
            *to = i16::from(*code);
        }
    }

    #[inline(always)]
    fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
        kernels: Kernels,
        a: &[[i16; STRIDE]; ROWS],
        b: [&[Steps]; PANELS],
        sums: [&mut Rows<ROWS>; PANELS],
        add: bool,
    ) {
        let _ = kernels;
        check(b, STRIDE);
        portable(a, b, begun(sums, add))
    }
}

/// A whole panel's products of one row: `sum - zero_point weight` as `f32`, times `scale of_column`.
#[inline(always)]
pub fn scaled(
    kernels: Kernels,
    sums: &[i32; PANEL],
    zero_point: i32,
    weights: &[i32; PANEL],
    scale: f32,
    of_columns: &[f32; PANEL],
) -> [f32; PANEL] {
    match kernels.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Kernels` of these sets exists only on a CPU that has AVX2.
        Isa::Avx2 | Isa::AvxVnni => unsafe {
            super::avx2::scaled(sums, zero_point, weights, scale, of_columns)
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the same, with AVX-512.
        Isa::Avx512Vnni => unsafe {
            super::avx512vnni::scaled(sums, zero_point, weights, scale, of_columns)
        },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: every AArch64 CPU has the features.
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => unsafe {
            super::neon::scaled(sums, zero_point, weights, scale, of_columns)
        },
        _ => {
            let mut products = [0.0; PANEL];
            for lane in 0..PANEL {
                let sum = sums[lane].wrapping_sub(zero_point.wrapping_mul(weights[lane]));
                products[lane] = sum as f32 * (scale * of_columns[lane]);
            }
            products
        }
    }
}

/// As [`scaled`], with what is taken off the sums.
#[inline(always)]
pub fn shifted(
    kernels: Kernels,
    sums: &[i32; PANEL],
    offsets: &[i32; PANEL],
    scale: f32,
    of_columns: &[f32; PANEL],
) -> [f32; PANEL] {
    match kernels.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Kernels` of these sets exists only on a CPU that has AVX2.
        Isa::Avx2 | Isa::AvxVnni => unsafe {
            super::avx2::shifted(sums, offsets, scale, of_columns)
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the same, with AVX-512.
        Isa::Avx512Vnni => unsafe { super::avx512vnni::shifted(sums, offsets, scale, of_columns) },
        _ => {
            let mut products = [0.0; PANEL];
            for lane in 0..PANEL {
                products[lane] = (sums[lane] - offsets[lane]) as f32 * (scale * of_columns[lane]);
            }
            products
        }
    }
}

/// The sums of the rows from `row` on, in storage of `[panel][rows]`, for the panels from `panel` on.
#[inline(always)]
pub fn sums_of<const ROWS: usize, const PANELS: usize>(
    storage: &mut [[i32; PANEL]],
    rows: usize,
    row: usize,
    panel: usize,
) -> [&mut Rows<ROWS>; PANELS] {
    let mut panels = storage[panel * rows..].chunks_exact_mut(rows);
    array::from_fn(|_| {
        let rows = panels
            .next()
            .and_then(|panel| panel[row..].first_chunk_mut());
        rows.expect("storage has these panels and rows")
    })
}

/// The first rows of some sums.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn rows_of<const ROWS: usize>(sums: &mut [[i32; PANEL]]) -> &mut Rows<ROWS> {
    sums.first_chunk_mut().expect("the sums have these rows")
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
fn portable<L: Left + Into<i32>, const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    a: &[[L; STRIDE]; ROWS],
    b: [&[Steps]; PANELS],
    sums: [&mut Rows<ROWS>; PANELS],
) {
    for (b, sums) in b.into_iter().zip(sums) {
        let mut local = *sums;
        for (group, steps) in b.iter().enumerate() {
            for step in 0..4 {
                for row in 0..ROWS {
                    let x: i32 = a[row][group * 4 + step].into();
                    for lane in 0..PANEL {
                        local[row][lane] += x * i32::from(steps[lane * 4 + step]);
                    }
                }
            }
        }
        *sums = local;
    }
}
