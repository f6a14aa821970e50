//! Rows of a table.

#[cfg(test)]
mod tests;

use crate::{ArgumentError, Element, Kernels, error::Check, job::Body, output::Output};

/// Attributes of [`Embed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbedParams {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub dim: usize,
    /// Rows of the table.
    pub vocab: usize,
}

/// The table of an [`Embed`], `[vocab, dim]`.
#[derive(Clone, Copy, Debug)]
pub enum Table<'a, W> {
    /// Its elements.
    Plain(&'a [W]),
    /// Integers, and what a one of each row stands for.
    Codes {
        /// `[vocab, dim]`
        codes: &'a [i8],
        /// `[vocab]`
        scale: &'a [f32],
    },
}

/// `out[i] = table[ids[i]] + positions[i]`, added in `f32` and rounded once. With codes the sum is
/// `codes[ids[i]] * scale[ids[i]] + positions[i]`, a fused multiply-add, or the product where there are no positions.
pub struct Embed<'a, T, W> {
    kernels: Kernels,
    params: EmbedParams,
    ids: &'a [i32],
    table: Table<'a, W>,
    positions: Option<&'a [W]>,
    out: Output<'a, T>,
}

impl<'a, T: Element, W: Element> Embed<'a, T, W> {
    /// `ids` is `[rows]`, each at least 0 and below `vocab`; `table` `[vocab, dim]`; `positions` and `out`
    /// `[rows, dim]`.
    pub fn new(
        kernels: Kernels,
        params: EmbedParams,
        ids: &'a [i32],
        table: Table<'a, W>,
        positions: Option<&'a [W]>,
        out: &'a mut [T],
    ) -> Result<Self, ArgumentError> {
        let check = Check("Embed");
        let EmbedParams { rows, dim, vocab } = params;
        check.len("ids", ids.len(), rows)?;
        let entries = check.size("vocab", &[vocab, dim])?;
        match table {
            Table::Plain(table) => check.len("table", table.len(), entries)?,
            Table::Codes { codes, scale } => {
                check.len("table", codes.len(), entries)?;
                check.len("scale", scale.len(), vocab)?;
            }
        }
        let len = check.size("dim", &[rows, dim])?;
        check.optional("positions", positions, len)?;
        check.len("out", out.len(), len)?;
        for (row, id) in ids.iter().enumerate() {
            if usize::try_from(*id).map_or(true, |id| id >= vocab) {
                return Err(ArgumentError::Id {
                    row,
                    id: *id,
                    vocab,
                });
            }
        }
        Ok(Self {
            kernels,
            params,
            ids,
            table,
            positions,
            out: Output::new(out),
        })
    }
}

impl<T: Element, W: Element> Body for Embed<'_, T, W> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.params.rows
    }
    unsafe fn scalar(&self, _: usize, row: usize, _: &mut [u8]) {
        let dim = self.params.dim;
        // SAFETY: this task alone has this row.
        let out = unsafe { self.out.slice_mut(row * dim..(row + 1) * dim) };
        let id = self.ids[row] as usize;
        let entry = id * dim..(id + 1) * dim;
        let positions = self.positions.map(|positions| &positions[row * dim..]);
        match (self.table, positions) {
            (Table::Plain(table), None) => out
                .iter_mut()
                .zip(&table[entry])
                .for_each(|(out, x)| *out = T::store(x.load())),
            (Table::Plain(table), Some(positions)) => {
                for ((out, x), position) in out.iter_mut().zip(&table[entry]).zip(positions) {
                    *out = T::store(x.load() + position.load());
                }
            }
            (Table::Codes { codes, scale }, None) => out
                .iter_mut()
                .zip(&codes[entry])
                .for_each(|(out, code)| *out = T::store(f32::from(*code) * scale[id])),
            (Table::Codes { codes, scale }, Some(positions)) => {
                for ((out, code), position) in out.iter_mut().zip(&codes[entry]).zip(positions) {
                    *out = T::store(f32::from(*code).mul_add(scale[id], position.load()));
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, _: Kernels, phase: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.scalar(phase, task, scratch) }
    }
}
