//! Attention in integers.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod portable;
mod prepare;
mod scalar;
#[cfg(test)]
mod tests;

use std::ops::Range;

use super::{Attention, AttentionParams};
use crate::{
    ArgumentError, Element, Kernels, PANEL,
    error::Check,
    gemm::int8::tile::Steps,
    job::Body,
    lanes, math,
    output::Output,
    scratch::{self, cast, cast_mut},
};

/// Query rows of a task.
const QUERIES: usize = 96;
/// Keys whose weights are coded by one maximum.
const TILE: usize = 128;
/// Columns of a head that stand together in scratch.
const STEPS: usize = 64;
/// What makes a query's code a byte.
const OFFSET: i32 = 128;

/// Operands of [`AttentionInt8`]. The last row of `q`, `k` and `v` may end with the last head.
#[derive(Debug)]
pub struct AttentionInt8Operands<'a, T> {
    /// `q_rows` rows; empty if they stand in `out`, which the result then takes the place of
    pub q: &'a [T],
    /// `kv_rows` rows
    pub k: &'a [T],
    /// `kv_rows` rows
    pub v: &'a [T],
    /// For the operator's own use, [`codes_len`] elements, whatever their values.
    pub codes: &'a mut [f32],
    /// `[q_rows, heads * head_dim]`
    pub out: &'a mut [T],
}

/// [`Attention`](crate::Attention) without a mask, its products in 8 bits.
pub struct AttentionInt8<'a, T> {
    /// The operands in float, and the output.
    float: Attention<'a, T>,
    /// A part of equal length for each head, see [`Layout`].
    codes: Output<'a, f32>,
}

/// Elements of [`AttentionInt8Operands::codes`]: for each head `keys (dim4 + dim16) / 4 + 2 keys + dim16`, where `keys`
/// is `kv_rows` rounded up to a multiple of 128, `dim4` and `dim16` `head_dim` to multiples of 4 and 16.
pub const fn codes_len(params: &AttentionParams) -> usize {
    params.heads * Layout::of(params).len()
}

/// Where a head's codes stand in its part of the scratch operand.
#[derive(Clone, Copy)]
struct Layout {
    /// Keys, rounded up to whole tiles.
    keys: usize,
    /// Columns, rounded up to fours.
    dim4: usize,
    /// Columns, rounded up to panels.
    dim16: usize,
}

/// A head's keys and values in 8 bits.
struct Head<'c> {
    /// Panels of 16 keys: `[keys / 16][dim4 / 4][16][4]`.
    k: &'c [Steps],
    /// What a code of a key counts.
    k_scale: &'c [f32],
    /// [`OFFSET`] times the sum of a key's codes.
    k_offset: &'c [i32],
    /// Panels of 16 columns: `[dim16 / 16][keys / 4][16][4]`.
    v: &'c [Steps],
    /// What a code of a column counts.
    v_scale: &'c [f32],
}

/// [`Head`], to be written.
struct HeadMut<'c> {
    k: &'c mut [Steps],
    k_scale: &'c mut [f32],
    k_offset: &'c mut [i32],
    v: &'c mut [Steps],
    v_scale: &'c mut [f32],
}

impl Layout {
    const fn of(params: &AttentionParams) -> Self {
        Self {
            keys: params.kv_rows.next_multiple_of(TILE),
            dim4: params.head_dim.next_multiple_of(4),
            dim16: params.head_dim.next_multiple_of(PANEL),
        }
    }

    const fn len(self) -> usize {
        self.keys * (self.dim4 + self.dim16) / 4 + 2 * self.keys + self.dim16
    }

    #[inline(always)]
    fn parts(self, part: &[f32]) -> Head<'_> {
        let (k, part) = part.split_at(self.keys * self.dim4 / 4);
        let (v, part) = part.split_at(self.keys * self.dim16 / 4);
        let (k_scale, part) = part.split_at(self.keys);
        let (k_offset, v_scale) = part.split_at(self.keys);
        Head {
            k: cast(k),
            k_scale,
            k_offset: cast(k_offset),
            v: cast(v),
            v_scale,
        }
    }

    #[inline(always)]
    fn parts_mut(self, part: &mut [f32]) -> HeadMut<'_> {
        let (k, part) = part.split_at_mut(self.keys * self.dim4 / 4);
        let (v, part) = part.split_at_mut(self.keys * self.dim16 / 4);
        let (k_scale, part) = part.split_at_mut(self.keys);
        let (k_offset, v_scale) = part.split_at_mut(self.keys);
        HeadMut {
            k: cast_mut(k),
            k_scale,
            k_offset: cast_mut(k_offset),
            v: cast_mut(v),
            v_scale,
        }
    }

    /// Where a key's code of a column stands in `k`.
    #[inline(always)]
    fn key(self, key: usize, column: usize) -> (usize, usize) {
        (
            key / PANEL * (self.dim4 / 4) + column / 4,
            key % PANEL * 4 + column % 4,
        )
    }

    /// Where a value's code of a column stands in `v`.
    #[inline(always)]
    fn value(self, key: usize, column: usize) -> (usize, usize) {
        (
            column / PANEL * (self.keys / 4) + key / 4,
            column % PANEL * 4 + key % 4,
        )
    }
}

/// The map of some values to codes in -127..=127.
#[derive(Clone, Copy)]
struct Symmetric {
    scale: f32,
    inverse: f32,
}

impl Symmetric {
    /// `scale = largest / 127`, `inverse = 127 / largest`; zeros where `largest` is below 1e-30, infinite or NaN.
    #[inline(always)]
    fn of(largest: f32) -> Self {
        if !(1e-30..f32::INFINITY).contains(&largest) {
            return Self {
                scale: 0.0,
                inverse: 0.0,
            };
        }
        Self {
            scale: largest / 127.0,
            inverse: 127.0 / largest,
        }
    }

    /// `clamp(round(x inverse), -127, 127)`, ties to even; -127 for NaN.
    #[inline(always)]
    fn code(self, x: f32) -> i8 {
        let x = x * self.inverse;
        let x = if x > -127.0 { x } else { -127.0 };
        let x = if x < 127.0 { x } else { 127.0 };
        math::round(x) as i8
    }
}

/// The largest magnitude; NaNs do not count.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
fn largest(values: &[f32]) -> f32 {
    let mut lanes = [0.0; PANEL];
    let (chunks, rest) = values.as_chunks::<PANEL>();
    for chunk in chunks {
        for lane in 0..PANEL {
            lanes[lane] = math::max(chunk[lane].abs(), lanes[lane]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = math::max(x.abs(), *lane);
    }
    lanes::join_max(lanes)
}

/// `255 2^x` for |x| up to a half, within 0.021: a cubic through four Chebyshev points.
const CUBIC: [f32; 4] = [254.980_76, 176.749_86, 61.873_066, 14.238_762];

/// The code of a weight, a byte's value: `round(255 2^x)` within a fortieth before rounding, for x up to 0, which a score
/// less the maximum is; 0 for NaN.
#[inline(always)]
fn weight(x: f32) -> i32 {
    let x = if x > -16.0 { x } else { -16.0 };
    let (n, whole) = math::whole(x);
    let f = x - whole;
    let p = CUBIC[3]
        .mul_add(f, CUBIC[2])
        .mul_add(f, CUBIC[1])
        .mul_add(f, CUBIC[0]);
    let weight = f32::from_bits(p.to_bits().wrapping_add((n << 23) as u32));
    math::round(weight)
}

/// [`weight`] of each of `scores` less `t`, into `codes`, which is as long; their sum.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
fn weights(kernels: Kernels, scores: &[f32], t: f32, codes: &mut [u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if matches!(kernels.isa(), crate::Isa::Avx2 | crate::Isa::AvxVnni) {
        let (chunks, rest) = scores.as_chunks();
        let (to, to_rest) = codes.as_chunks_mut();
        // SAFETY: a `Kernels` of these sets exists only on a CPU that has the features.
        return unsafe { avx2::weights(chunks, t, to) } + one_by_one(rest, t, to_rest);
    }
    one_by_one(scores, t, codes)
}

/// [`weights`] of any number of scores.
#[inline(always)]
fn one_by_one(scores: &[f32], t: f32, codes: &mut [u8]) -> u32 {
    for (code, score) in codes.iter_mut().zip(scores) {
        *code = weight(*score - t) as u8;
    }
    let mut total = 0;
    for code in codes {
        total += u32::from(*code);
    }
    total
}

impl<'a, T: Element> AttentionInt8<'a, T> {
    /// Checks the operands' lengths; there is no `causal`.
    pub fn new(
        kernels: Kernels,
        params: AttentionParams,
        operands: AttentionInt8Operands<'a, T>,
    ) -> Result<Self, ArgumentError> {
        let check = Check("AttentionInt8");
        let AttentionInt8Operands {
            q,
            k,
            v,
            codes,
            out,
        } = operands;
        check.that("causal", !params.causal)?;
        // So that a product of codes fits into 32 bits.
        check.that("head_dim", params.head_dim <= 1 << 16)?;
        let float = Attention::new(
            kernels,
            params,
            super::AttentionOperands {
                q,
                k,
                v,
                mask: None,
                out,
            },
        )?;
        let padded = params.kv_rows.saturating_add(TILE);
        check.size(
            "kv_rows",
            &[params.heads, padded, params.head_dim + 3 * PANEL],
        )?;
        check.len("codes", codes.len(), codes_len(&params))?;
        Ok(Self {
            float,
            codes: Output::new(codes),
        })
    }

    #[inline(always)]
    fn params(&self) -> &AttentionParams {
        &self.float.params
    }

    #[inline(always)]
    fn layout(&self) -> Layout {
        Layout::of(self.params())
    }

    /// Where a head's part of the codes stands.
    #[inline(always)]
    fn part(&self, head: usize) -> Range<usize> {
        let len = self.layout().len();
        head * len..(head + 1) * len
    }

    /// The head and the query rows of a task of the second phase.
    #[inline(always)]
    fn task(&self, task: usize) -> (usize, Range<usize>) {
        let tiles = self.params().q_rows.div_ceil(QUERIES);
        let start = task % tiles * QUERIES;
        (
            task / tiles,
            start..self.params().q_rows.min(start + QUERIES),
        )
    }
}

/// Bytes of scratch that each thread needs for these attributes, whatever the instruction set.
pub const fn scratch_bytes(params: &AttentionParams) -> usize {
    let Layout { dim4, dim16, .. } = Layout::of(params);
    // The longer of a panel's steps, in pairs.
    let steps = if dim4 < TILE { TILE } else { dim4 };
    let q = QUERIES * params.head_dim.next_multiple_of(STEPS);
    let rows = QUERIES;
    scratch::bytes(&[
        q / 2,
        rows * TILE,
        rows * TILE / 2,
        rows * dim16,
        rows,
        rows,
        rows,
        rows,
        rows,
        rows,
        dim16,
        steps / 2 * PANEL,
    ])
}

impl<T: Element> Body for AttentionInt8<'_, T> {
    fn kernels(&self) -> Kernels {
        self.float.kernels
    }
    fn phases(&self) -> usize {
        2
    }
    fn tasks(&self, phase: usize) -> usize {
        let p = self.params();
        if phase == 0 {
            p.heads
        } else {
            p.heads * p.q_rows.div_ceil(QUERIES)
        }
    }
    fn scratch_bytes(&self) -> usize {
        scratch_bytes(self.params())
    }
    unsafe fn scalar(&self, phase: usize, task: usize, scratch: &mut [u8]) {
        if phase == 0 {
            // SAFETY: the caller's promise.
            return unsafe { self.prepare(self.float.kernels, task, scratch) };
        }
        let (head, queries) = self.task(task);
        for query in queries {
            // SAFETY: the caller's promise.
            unsafe { self.scalar_row(head, query, scratch) }
        }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, phase: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe {
            if phase == 0 {
                return self.prepare(kernels, task, scratch);
            }
            let (head, queries) = self.task(task);
            self.portable_tile(kernels, head, queries, scratch)
        }
    }
}
