//! Products of codes with `i8` panels, in exact integers: [`LinearInt8`] and [`Conv2dInt8`].

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
mod conv2d;
mod finish;
mod linear;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neondot;
#[cfg(target_arch = "aarch64")]
mod neoni8mm;
#[cfg(target_arch = "x86_64")]
pub(crate) mod pairs;
mod portable;
mod scalar;
#[cfg(test)]
mod tests;
pub(crate) mod tile;
mod winograd;

pub use conv2d::{Conv2dInt8, Conv2dInt8Operands, scratch_bytes as conv2d_scratch_bytes};
pub use linear::{LinearInt8, LinearInt8Operands};

use std::ops::Range;

use super::{
    BLOCK_ROWS, GROUP_PANELS, ROW_PANELS, Split, WIDE,
    epilogue::{self, Epilogue},
};
use crate::{ArgumentError, Element, Isa, Kernels, PANEL, error::Check, pack, scratch};

/// Codes of the left matrix: of the operand itself, or of the picture's unfolding that is never made.
pub(crate) trait CodeRows: Sync {
    /// One code.
    fn code(&self, row: usize, k: usize) -> u8;
    /// The codes `k ..` of a row, as many as `to` holds.
    fn gather(&self, row: usize, k: usize, to: &mut [u8]);
    /// The `len` codes `k ..` of a row, where they stand together.
    #[cfg(target_arch = "x86_64")]
    fn together(&self, row: usize, k: usize, len: usize) -> Option<&[u8]>;
    /// Scale and zero point of a row.
    fn pair(&self, row: usize) -> (f32, i32);
    /// [`CodeRows::pair`] of some rows.
    fn pairs(&self, rows: Range<usize>) -> impl Iterator<Item = (f32, i32)>;
}

/// `[rows, k]` times panels, and what follows it.
pub(crate) struct GemmInt8<'a, T, R> {
    kernels: Kernels,
    left: R,
    rows: usize,
    k: usize,
    weight: &'a [i8],
    scale: &'a [f32],
    sums: &'a [i32],
    epilogue: Epilogue<'a, T>,
    split: Split,
}

/// The operands that belong to the weights.
pub(crate) struct Weights<'a> {
    pub weight: &'a [i8],
    pub scale: &'a [f32],
    pub sums: &'a [i32],
}

/// A row of an expanded panel: two steps of sixteen columns in 16 bits, `[column][step]` on x86-64, `[step][column]` on ARM.
pub type Pairs = [i16; 2 * PANEL];

/// The longest sum whose terms, 255 times 127 each, fit into 32 bits.
const MAX_K: usize = 1 << 16;
/// Steps of k that are gathered at a time.
pub(crate) const BLOCK_K: usize = 512;

impl<'a, T: Element, R: CodeRows> GemmInt8<'a, T, R> {
    fn new(
        kernels: Kernels,
        check: Check,
        left: R,
        (rows, k, n): (usize, usize, usize),
        weights: Weights<'a>,
        operands: epilogue::Operands<'a, T>,
    ) -> Result<Self, ArgumentError> {
        let Weights {
            weight,
            scale,
            sums,
        } = weights;
        check.that("k", k > 0 && k <= MAX_K)?;
        let epilogue = Epilogue::new(&check, rows, n, operands)?;
        let panels = epilogue.panels();
        check.len(
            "weight",
            weight.len(),
            check.size("n", &[panels, PANEL, pack::i8_padded_k(k)])?,
        )?;
        check.len("scale", scale.len(), epilogue.halves() * n)?;
        check.len("sums", sums.len(), epilogue.halves() * n)?;
        let split = match kernels.isa() {
            Isa::AvxVnni | Isa::Avx512Vnni if rows >= BLOCK_ROWS => {
                Split::of(rows, panels, WIDE.0, WIDE.1)
            }
            _ => Split::of(rows, panels, BLOCK_ROWS, GROUP_PANELS),
        };
        Ok(Self {
            kernels,
            left,
            rows,
            k,
            weight,
            scale,
            sums,
            epilogue,
            split,
        })
    }

    fn tasks(&self) -> usize {
        self.split.tasks(self.rows, self.epilogue.panels())
    }

    /// A panel, a row of it being four steps of sixteen columns.
    #[inline(always)]
    fn panel(&self, index: usize) -> &'a [[i8; 4 * PANEL]] {
        let len = pack::i8_padded_k(self.k) * PANEL;
        self.weight[index * len..][..len].as_chunks().0
    }

    /// What will be read after a panel's `groups`, where a task has these panels: the next panel's, which at the end is
    /// the next task's.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn ahead(
        &self,
        panel: usize,
        panels: &Range<usize>,
        groups: Range<usize>,
    ) -> &'a [[i8; 4 * PANEL]] {
        let all = pack::i8_padded_k(self.k) / 4;
        let (panel, groups) = if panel + 1 < panels.end {
            (panel + 1, groups)
        } else if groups.end < all {
            let next = groups.end..all.min(groups.end + groups.len());
            (panels.start, next)
        } else {
            (panel + 1, 0..groups.len())
        };
        if panel < self.epilogue.panels() {
            &self.panel(panel)[groups]
        } else {
            &[]
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes(self.rows, self.k, self.epilogue.panels() * PANEL)
    }
}

/// Bytes of scratch that each thread needs for `rows` by `k` by `n` (a GEGLU's `n` counting values and gates), whatever
/// the instruction set.
pub const fn scratch_bytes(rows: usize, _k: usize, n: usize) -> usize {
    let rows = if rows < BLOCK_ROWS {
        rows.next_multiple_of(24)
    } else {
        BLOCK_ROWS
    };
    let panels = n.div_ceil(PANEL).next_multiple_of(2);
    let panels = if panels < GROUP_PANELS {
        panels
    } else {
        GROUP_PANELS
    };
    // Codes of 16 bits, a line of bytes, sums; a panel of one block of k in 16 bits.
    scratch::bytes(&[
        rows * BLOCK_K / 2,
        BLOCK_K / 4,
        rows * panels * PANEL,
        BLOCK_K * PANEL / 2,
    ])
}
