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

/// `out[i] = table[ids[i]] + positions[i]`, added in `f32` and rounded once.
pub struct Embed<'a, T, W> {
    kernels: Kernels,
    params: EmbedParams,
    ids: &'a [i32],
    table: &'a [W],
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
        table: &'a [W],
        positions: Option<&'a [W]>,
        out: &'a mut [T],
    ) -> Result<Self, ArgumentError> {
        let check = Check("Embed");
        let EmbedParams { rows, dim, vocab } = params;
        check.len("ids", ids.len(), rows)?;
        check.len("table", table.len(), check.size("vocab", &[vocab, dim])?)?;
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
        let entry = &self.table[self.ids[row] as usize * dim..][..dim];
        match self.positions {
            None => out
                .iter_mut()
                .zip(entry)
                .for_each(|(out, x)| *out = T::store(x.load())),
            Some(positions) => {
                for ((out, x), position) in out.iter_mut().zip(entry).zip(&positions[row * dim..]) {
                    *out = T::store(x.load() + position.load());
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
