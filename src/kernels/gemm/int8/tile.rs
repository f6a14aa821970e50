//! The product of a tile of codes with `i8` panels, exact in 32 bits.

use std::array;

#[cfg(target_arch = "x86_64")]
use crate::Isa;
use crate::{Kernels, PANEL, scratch::Plain};

/// Sums of some rows for one panel.
pub type Rows<const ROWS: usize> = [[i32; PANEL]; ROWS];

/// A row of a panel: four steps of sixteen columns.
pub type Steps = [i8; 4 * PANEL];

/// What the left matrix's codes are kept as: bytes, or 16 bits for instruction sets that multiply these.
pub trait Left: Plain {
    /// The codes as this type.
    fn fill(codes: &[u8], to: &mut [Self]);

    /// Adds `a` times `b` to `sums` for four steps of k for each row of `b[_]`. `a` has a row per row of the tile, as
    /// long as the steps or longer; each of `b` is a panel, all equally long; `sums` has an entry for each.
    fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
        kernels: Kernels,
        a: &[[Self; STRIDE]; ROWS],
        b: [&[Steps]; PANELS],
        sums: [&mut Rows<ROWS>; PANELS],
    );
}

fn check<const PANELS: usize>(b: [&[Steps]; PANELS], stride: usize) {
    let steps = b[0].len();
    for panel in b {
        assert!(4 * steps <= stride && panel.len() == steps);
    }
}

impl Left for u8 {
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
    ) {
        check(b, STRIDE);
        match kernels.isa() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Kernels` of this set exists only on a CPU that has it; the lengths were checked above.
            Isa::Avx512Vnni => unsafe { super::avx512vnni::multiply(a, b, sums) },
            _ => portable(a, b, sums),
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
    ) {
        let _ = kernels;
        check(b, STRIDE);
        portable(a, b, sums)
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
