//! Matrix products: [`Linear`] and [`Conv2d`] are one driver over two ways to find the left matrix's rows.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
mod conv2d;
mod epilogue;
pub(crate) mod int8;
mod linear;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod scalar;
#[cfg(test)]
mod tests;
pub(crate) mod tile;

pub use conv2d::{Conv2d, Conv2dOperands, Conv2dParams};
pub use int8::{
    Conv2dInt8, Conv2dInt8Operands, LinearInt8, LinearInt8Operands,
    conv2d_scratch_bytes as conv2d_int8_scratch_bytes, scratch_bytes as int8_scratch_bytes,
};
pub use linear::{Linear, LinearOperands, LinearParams};

use crate::{ArgumentError, Element, Kernels, PANEL, error::Check, scratch};
use epilogue::Epilogue;

/// Rows of the left matrix: of the operand itself, or of the picture's unfolding that is never made.
pub(crate) trait Rows: Sync {
    /// One element.
    fn load(&self, row: usize, k: usize) -> f32;
    /// The elements `k ..` of a row, as many as `to` holds.
    fn gather(&self, kernels: Kernels, row: usize, k: usize, to: &mut [f32]);
}

/// `[rows, k]` times panels, and what follows it.
pub(crate) struct Gemm<'a, T, W, R> {
    kernels: Kernels,
    left: R,
    rows: usize,
    k: usize,
    weight: &'a [W],
    epilogue: Epilogue<'a, T>,
    split: Split,
}

impl<'a, T: Element, W: Element, R: Rows> Gemm<'a, T, W, R> {
    fn new(
        kernels: Kernels,
        check: Check,
        left: R,
        (rows, k, n): (usize, usize, usize),
        weight: &'a [W],
        operands: epilogue::Operands<'a, T>,
    ) -> Result<Self, ArgumentError> {
        check.that("k", k > 0)?;
        let epilogue = Epilogue::new(&check, rows, n, operands)?;
        let panels = epilogue.panels();
        check.len(
            "weight",
            weight.len(),
            check.size("n", &[panels, PANEL, k])?,
        )?;
        Ok(Self {
            kernels,
            left,
            rows,
            k,
            weight,
            epilogue,
            split: Split::of(rows, panels, BLOCK_ROWS, GROUP_PANELS),
        })
    }

    fn tasks(&self) -> usize {
        self.split.tasks(self.rows, self.epilogue.panels())
    }

    fn panel(&self, index: usize) -> &'a [W] {
        &self.weight[index * PANEL * self.k..][..PANEL * self.k]
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes(self.rows, self.k, self.epilogue.panels() * PANEL)
    }
}

/// Rows of the largest block; a multiple of every instruction set's tile.
const BLOCK_ROWS: usize = 96;
/// Panels of the largest group.
const GROUP_PANELS: usize = 16;
/// Rows of a block and panels of a group whose rows are costly to gather, which they are again for each group: wider
/// groups, of no more sums.
const WIDE: (usize, usize) = (72, 20);
/// Panels of a row that are finished together; even, so that a GEGLU's stay in pairs.
const ROW_PANELS: usize = 8;
/// Steps of k that are gathered at a time.
pub(crate) const BLOCK_K: usize = 256;
/// The most panels of a tile.
const TILE_PANELS: usize = 2;
/// As many tasks as keep a few threads evenly busy.
const ENOUGH_TASKS: usize = 12;

/// How a product falls into tasks: each a block of rows times a group of panels.
#[derive(Clone, Copy, Debug)]
struct Split {
    rows: usize,
    panels: usize,
}

impl Split {
    /// Blocks of at most `block` rows times groups of at most `group` panels.
    fn of(rows: usize, panels: usize, block: usize, group: usize) -> Self {
        // Groups of about one size, and even: a GEGLU's panels stay in pairs.
        let groups = panels.div_ceil(group);
        let mut split = Self {
            rows: block,
            panels: panels.div_ceil(groups).next_multiple_of(2),
        };
        while split.tasks(rows, panels) < ENOUGH_TASKS {
            if split.panels > 4 {
                split.panels = (split.panels / 2).next_multiple_of(2);
            } else if split.rows > 24 {
                split.rows /= 2;
            } else if split.panels > 2 {
                split.panels /= 2;
            } else {
                break;
            }
        }
        split
    }

    fn tasks(self, rows: usize, panels: usize) -> usize {
        rows.div_ceil(self.rows) * panels.div_ceil(self.panels)
    }

    /// The rows and the panels of a task. Neighbouring tasks share panels.
    #[inline(always)]
    fn task(
        self,
        rows: usize,
        panels: usize,
        task: usize,
    ) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let blocks = rows.div_ceil(self.rows);
        let (row, panel) = (task % blocks * self.rows, task / blocks * self.panels);
        (
            row..rows.min(row + self.rows),
            panel..panels.min(panel + self.panels),
        )
    }
}

/// Bytes of scratch that each thread needs for `rows` by `k` by `n` (a GEGLU's `n` counting values and gates), whatever
/// the instruction set.
pub const fn scratch_bytes(rows: usize, k: usize, n: usize) -> usize {
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
    let k = if k < BLOCK_K { k } else { BLOCK_K };
    scratch::bytes(&[
        rows * BLOCK_K,
        TILE_PANELS * k * PANEL,
        rows * panels * PANEL,
    ])
}
