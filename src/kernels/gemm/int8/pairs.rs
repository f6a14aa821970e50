//! Products in 16 bits, two steps at a time, from panels that are expanded once for many rows.

use std::ops::Range;

use super::{
    BLOCK_K, CodeRows, GemmInt8, Pairs, avx2,
    tile::{self, Left, Steps},
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

/// Adds the first `rows` of `left`, each `stride` after the one before, times an expanded panel to `sums`, or sets them to
/// it. What will be read `next` is asked for meanwhile. `kernels` are those of AVX2.
#[inline(always)]
pub(crate) fn multiply(
    kernels: Kernels,
    (left, stride): (&[i16], usize),
    rows: usize,
    b: &[Pairs],
    sums: &mut [[i32; PANEL]],
    (add, next): (bool, &[Steps]),
) {
    debug_assert_eq!(kernels.isa(), crate::Isa::Avx2);
    assert!(2 * b.len() <= stride && rows * stride <= left.len());
    let mut next = next.chunks(next.len().div_ceil(rows.div_ceil(ROWS)).max(1));
    for (row, left) in (0..rows).zip(left.chunks(stride)).step_by(ROWS) {
        arch::prefetch(next.next().unwrap_or_default());
        let (left, sums) = (left.as_ptr(), &mut sums[row..]);
        // SAFETY: the kernels' features; rows of `stride` elements, by the check above.
        unsafe {
            match rows - row {
                1 => avx2::multiply::<1>(left, stride, b, tile::rows_of(sums), add),
                2 => avx2::multiply::<2>(left, stride, b, tile::rows_of(sums), add),
                3 => avx2::multiply::<3>(left, stride, b, tile::rows_of(sums), add),
                4 => avx2::multiply::<4>(left, stride, b, tile::rows_of(sums), add),
                5 => avx2::multiply::<5>(left, stride, b, tile::rows_of(sums), add),
                _ => avx2::multiply::<ROWS>(left, stride, b, tile::rows_of(sums), add),
            }
        }
    }
}
