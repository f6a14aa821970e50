//! Attention without a matrix of scores.

mod int8;
mod portable;
mod scalar;
#[cfg(test)]
mod tests;

pub use int8::{
    AttentionInt8, AttentionInt8Operands, codes_len, scratch_bytes as int8_scratch_bytes,
};

use std::ops::Range;

use crate::{
    ArgumentError, Element, Kernels, PANEL, error::Check, job::Body, output::Output, scratch,
};

/// Query rows of a task, and keys that a running softmax takes in at a time. They are equal, so that a causal row sees
/// the key tiles up to the one of its own number.
const TILE: usize = 96;
/// A causal row takes in the keys up to the next multiple of this: the most rows that an instruction set multiplies
/// together, so that all of them take in the same.
const CAUSAL: usize = 12;
/// Columns of a head that stand together in scratch.
const STEPS: usize = 64;

/// Attributes of [`Attention`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionParams {
    /// Rows of `q` and `out`.
    pub q_rows: usize,
    /// Rows of `k` and `v`.
    pub kv_rows: usize,
    /// Heads.
    pub heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
    /// Elements from one row of `q` to the next.
    pub q_stride: usize,
    /// Elements from one row of `k` to the next.
    pub k_stride: usize,
    /// Elements from one row of `v` to the next.
    pub v_stride: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Row `i` sees the rows `0..=i` only.
    pub causal: bool,
}

/// Operands of [`Attention`]. The last row of `q`, `k` and `v` may end with the last head.
#[derive(Debug)]
pub struct AttentionOperands<'a, T> {
    /// `q_rows` rows; empty if they stand in `out`, which the result then takes the place of
    pub q: &'a [T],
    /// `kv_rows` rows
    pub k: &'a [T],
    /// `kv_rows` rows
    pub v: &'a [T],
    /// `[q_rows, kv_rows]`
    pub mask: Option<&'a [f32]>,
    /// `[q_rows, heads * head_dim]`
    pub out: &'a mut [T],
}

/// `softmax(scale * q k^T + mask) v` for each head.
pub struct Attention<'a, T> {
    kernels: Kernels,
    params: AttentionParams,
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    mask: Option<&'a [f32]>,
    out: Output<'a, T>,
}

impl<'a, T: Element> Attention<'a, T> {
    /// Checks the operands' lengths.
    pub fn new(
        kernels: Kernels,
        params: AttentionParams,
        operands: AttentionOperands<'a, T>,
    ) -> Result<Self, ArgumentError> {
        let check = Check("Attention");
        let p = params;
        let AttentionOperands { q, k, v, mask, out } = operands;
        check.that("q_rows", p.q_rows > 0)?;
        check.that("kv_rows", p.kv_rows > 0)?;
        check.that("heads", p.heads > 0 && p.head_dim > 0)?;
        let width = check.size("heads", &[p.heads, p.head_dim])?;
        let in_place = q.is_empty();
        check.that("q_stride", !in_place || p.q_stride == width)?;
        for (name, slice, rows, stride) in [
            ("q", if in_place { &*out } else { q }, p.q_rows, p.q_stride),
            ("k", k, p.kv_rows, p.k_stride),
            ("v", v, p.kv_rows, p.v_stride),
        ] {
            check.that("stride", stride >= width)?;
            let (whole, least) = (
                check.size("stride", &[rows, stride])?,
                (rows - 1) * stride + width,
            );
            if slice.len() < least || slice.len() > whole {
                check.len(name, slice.len(), whole)?;
            }
        }
        check.optional("mask", mask, check.size("kv_rows", &[p.q_rows, p.kv_rows])?)?;
        check.len("out", out.len(), check.size("q_rows", &[p.q_rows, width])?)?;
        Ok(Self {
            kernels,
            params,
            q,
            k,
            v,
            mask,
            out: Output::new(out),
        })
    }

    /// A head's columns of a query.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run): called by the task that alone has them, before it writes them; the slice is
    /// dropped before too.
    #[inline(always)]
    unsafe fn query(&self, query: usize, head: usize) -> &[T] {
        let p = &self.params;
        let start = query * p.q_stride + head * p.head_dim;
        if self.q.is_empty() {
            // SAFETY: the caller's promise.
            unsafe { self.out.slice(start..start + p.head_dim) }
        } else {
            &self.q[start..][..p.head_dim]
        }
    }

    /// The head and the query rows of a task.
    #[inline(always)]
    fn task(&self, task: usize) -> (usize, Range<usize>) {
        let tiles = self.params.q_rows.div_ceil(TILE);
        let start = task % tiles * TILE;
        (task / tiles, start..self.params.q_rows.min(start + TILE))
    }

    /// The keys of a tile that a query row takes in.
    #[inline(always)]
    fn taken(&self, query: usize, tile: &Range<usize>) -> usize {
        if self.params.causal {
            let end = (query / CAUSAL + 1) * CAUSAL;
            tile.len().min(end.saturating_sub(tile.start))
        } else {
            tile.len()
        }
    }

    /// The keys that the query rows of a tile may see.
    #[inline(always)]
    fn visible_keys(&self, query: usize) -> usize {
        let keys = self.params.kv_rows;
        if self.params.causal {
            keys.min((query / TILE + 1) * TILE)
        } else {
            keys
        }
    }
}

/// Bytes of scratch that each thread needs for these attributes, whatever the instruction set.
pub const fn scratch_bytes(params: &AttentionParams) -> usize {
    let dim = params.head_dim;
    let padded = dim.next_multiple_of(PANEL);
    let q = TILE * dim.next_multiple_of(STEPS);
    scratch::bytes(&[
        q,
        TILE * dim,
        TILE * padded,
        TILE * TILE,
        TILE * padded,
        TILE,
        TILE,
        TILE,
        TILE,
        padded,
    ])
}

impl<T: Element> Body for Attention<'_, T> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.params.heads * self.params.q_rows.div_ceil(TILE)
    }
    fn scratch_bytes(&self) -> usize {
        scratch_bytes(&self.params)
    }
    unsafe fn scalar(&self, _: usize, task: usize, scratch: &mut [u8]) {
        let (head, queries) = self.task(task);
        for query in queries {
            // SAFETY: the caller's promise.
            unsafe { self.scalar_row(head, query, scratch) }
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, _: usize, task: usize, scratch: &mut [u8]) {
        let (head, queries) = self.task(task);
        // SAFETY: the caller's promise.
        unsafe { self.portable_tile(kernels, head, queries, scratch) }
    }
}
