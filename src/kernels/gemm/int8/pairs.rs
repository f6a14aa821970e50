//! Products in 16 bits, two steps at a time, from panels that are expanded once for many rows.

use std::ops::Range;

use super::{
    BLOCK_K, CodeRows, GemmInt8,
    avx2::{self, Pairs},
    tile::{Left, Steps},
};
use crate::{Element, Kernels, PANEL, arch, pack, scratch::Scratch};

/// Rows of a tile.
pub(crate) const ROWS: usize = 6;

impl<T: Element, R: CodeRows> GemmInt8<'_, T, R> {
    /// A task. `kernels` are those of AVX2.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn pairs(
        &self,
        kernels: Kernels,
        rows: Range<usize>,
        panels: Range<usize>,
        scratch: &mut [u8],
    ) {
        let mut scratch = Scratch::new(scratch);
        let padded = rows.len().next_multiple_of(ROWS);
        let left: &mut [[i16; BLOCK_K]] = scratch.take_of(padded);
        let sums: &mut [[i32; PANEL]] = scratch.take_of(panels.len() * padded);
        let line: &mut [u8] = scratch.take_of(BLOCK_K);
        let expanded: &mut [Pairs] = scratch.take_of(BLOCK_K / 2);
        left[rows.len()..].fill([0; BLOCK_K]);
        // In fours of k.
        let all = pack::i8_padded_k(self.k) / 4;
        let blocks = (all * 4).div_ceil(BLOCK_K);
        for block in 0..blocks {
            let groups = block * all / blocks..(block + 1) * all / blocks;
            let start = groups.start * 4;
            let present = self.k.min(groups.end * 4).saturating_sub(start);
            let line = &mut line[..groups.len() * 4];
            line[present..].fill(0);
            for (row, left) in rows.clone().zip(left.iter_mut()) {
                if let Some(codes) = self.left.together(row, start, present) {
                    Left::fill(codes, &mut left[..present]);
                    left[present..line.len()].fill(0);
                } else {
                    self.left.gather(row, start, &mut line[..present]);
                    Left::fill(line, &mut left[..line.len()]);
                }
            }
            let expanded = &mut expanded[..groups.len() * 2];
            for (panel, sums) in panels.clone().zip(sums.chunks_exact_mut(padded)) {
                let steps = &self.panel(panel)[groups.clone()];
                // SAFETY: the kernels' features; two rows for each of the panel's.
                unsafe { avx2::expand(steps, expanded) }
                let next = self.ahead(panel, &panels, groups.clone());
                multiply(
                    kernels,
                    (left.as_flattened(), BLOCK_K),
                    rows.len(),
                    expanded,
                    sums,
                    (block > 0, next),
                );
            }
        }
        let halves = self.epilogue.halves();
        for (panel, sums) in panels.step_by(halves).zip(sums.chunks(halves * padded)) {
            // SAFETY: the caller's promise.
            unsafe { self.finish_panel(kernels, rows.clone(), panel, (sums, padded), 0) }
        }
    }
}

/// Adds the rows of `left`, each `stride` after the one before, times an expanded panel to `sums`, or sets them to it.
/// Both are padded to whole tiles, of which those are computed that hold the first `rows`. What will be read `next` is
/// asked for meanwhile. `kernels` are those of AVX2.
#[inline(always)]
pub(crate) fn multiply(
    kernels: Kernels,
    (left, stride): (&[i16], usize),
    rows: usize,
    b: &[Pairs],
    sums: &mut [[i32; PANEL]],
    (add, next): (bool, &[Steps]),
) {
    match add {
        true => multiply_tiles::<true>(kernels, (left, stride), rows, b, sums, next),
        false => multiply_tiles::<false>(kernels, (left, stride), rows, b, sums, next),
    }
}

#[inline(always)]
fn multiply_tiles<const ADD: bool>(
    kernels: Kernels,
    (left, stride): (&[i16], usize),
    rows: usize,
    b: &[Pairs],
    sums: &mut [[i32; PANEL]],
    next: &[Steps],
) {
    debug_assert_eq!(kernels.isa(), crate::Isa::Avx2);
    assert!(2 * b.len() <= stride);
    let mut next = next.chunks(next.len().div_ceil(rows.div_ceil(ROWS)).max(1));
    let mut row = 0;
    while row + 1 < rows {
        arch::prefetch(next.next().unwrap_or_default());
        let left = &left[row * stride..][..ROWS * stride];
        let sums = sums[row..].first_chunk_mut().expect("rows are padded");
        // SAFETY: the kernels' features; rows of `stride` elements, by the checks above.
        unsafe { avx2::multiply::<ROWS, ADD>(left.as_ptr(), stride, b, sums) }
        row += ROWS;
    }
    if row < rows {
        let left = &left[row * stride..][..stride];
        let sums = sums[row..].first_chunk_mut().expect("inside the rows");
        // SAFETY: the same.
        unsafe { avx2::multiply::<1, ADD>(left.as_ptr(), stride, b, sums) }
    }
}
