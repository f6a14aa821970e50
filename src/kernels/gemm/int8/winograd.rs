//! 3x3 convolutions with stride 1 in tiles of 2x2 pixels: Winograd's F(2x2, 3x3) in exact integers.
//!
//! With the tile's 4x4 codes `d` and the 3x3 weights `g`, `4 y = A' [(2 G g 2 G') * (B' d B)] A`, element by element in the
//! brackets, summed over the input channels: 16 products for 4 pixels instead of 36. `B` and `A` hold -1, 0 and 1, `2 G`
//! holds -1 to 2, so all is in integers.
//!
//! Codes less 128 are in -128..=127, so `B' d B` is in -512..=512; weights are in -128..=127, so `2 G g 2 G'` is in
//! -1152..=1152: both are 16 bits wide, as `pmaddwd` takes them. Sums are exact modulo 2^32; `4 y` is known exactly when
//! it fits into 32 bits, which [`MAX_CHANNELS`] sees to. The result is the direct sum's to the last bit.

#[cfg(target_arch = "x86_64")]
use super::{
    GemmInt8,
    avx2::{self, Pairs},
    conv2d::Conv2dRows,
    pairs,
};
use crate::{Conv2dParams, Isa, Kernels, PANEL, scratch};
#[cfg(target_arch = "x86_64")]
use crate::{Element, scratch::Scratch};

/// The most input channels: `4 * 9 * 128 * 128` times as many is below 2^31.
const MAX_CHANNELS: usize = 3640;
/// Tiles of a task, a multiple of the rows of a product's tile.
const TILES: usize = 48;
/// Panels of a task.
const PANELS: usize = 4;
/// Channels that are transformed at a time.
const CHANNELS: usize = 64;
/// Positions of a transformed tile.
const POSITIONS: usize = 16;
/// Pairs between the weights of two positions; the odd one keeps them apart in the cache.
const WEIGHT_STRIDE: usize = CHANNELS / 2 + 1;
/// Rows of a product's tile.
const ROWS: usize = 6;
/// What is taken off each code.
#[cfg(target_arch = "x86_64")]
const CENTER: i32 = 128;

/// How a convolution falls into tasks: each a run of tiles times a group of panels.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) struct Split {
    /// Tiles in a row of the picture, and in all.
    across: usize,
    tiles: usize,
    panels: usize,
    /// Those of a task.
    task_tiles: usize,
    task_panels: usize,
}

impl Split {
    /// The split, if these kernels compute such a convolution so.
    pub fn of(kernels: Kernels, params: &Conv2dParams) -> Option<Self> {
        let p = params;
        let few = p.out_h * p.out_w < 16;
        if kernels.isa() != Isa::Avx2 || !suits(params) || few {
            return None;
        }
        let across = p.out_w.div_ceil(2);
        let tiles = across * p.out_h.div_ceil(2);
        let panels = p.out_c.div_ceil(PANEL);
        let even = |all: usize, most: usize| all.div_ceil(all.div_ceil(most));
        let mut split = Self {
            across,
            tiles,
            panels,
            task_tiles: even(tiles, TILES).next_multiple_of(ROWS),
            task_panels: even(panels, PANELS),
        };
        while split.tasks() < super::super::ENOUGH_TASKS {
            if split.task_tiles > TILES / 2 {
                split.task_tiles = TILES / 2;
            } else if split.task_panels > 1 {
                split.task_panels = split.task_panels.div_ceil(2);
            } else if split.task_tiles > 2 * ROWS {
                split.task_tiles = 2 * ROWS;
            } else {
                break;
            }
        }
        Some(split)
    }

    pub fn tasks(&self) -> usize {
        self.tiles.div_ceil(self.task_tiles) * self.panels.div_ceil(self.task_panels)
    }
}

/// Whether the convolution can be computed so.
const fn suits(params: &Conv2dParams) -> bool {
    let p = params;
    p.kernel_h == 3
        && p.kernel_w == 3
        && p.stride == 1
        && p.in_c.is_multiple_of(16)
        && p.in_c <= MAX_CHANNELS
        // So that where a pixel starts fits into 32 bits.
        && p.in_h * p.in_w * p.in_c <= i32::MAX as usize
}

/// Bytes of scratch for these attributes.
pub(super) const fn scratch_bytes(params: &Conv2dParams) -> usize {
    if !suits(params) {
        return 0;
    }
    let tiles = params.out_h.div_ceil(2) * params.out_w.div_ceil(2);
    let tiles = if tiles < TILES {
        tiles.next_multiple_of(ROWS)
    } else {
        TILES
    };
    let panels = params.out_c.div_ceil(PANEL);
    let panels = if panels < PANELS { panels } else { PANELS };
    scratch::bytes(&[
        POSITIONS * code_stride(tiles) / 2,
        POSITIONS * WEIGHT_STRIDE * PANEL,
        panels * POSITIONS * tiles * PANEL,
        POSITIONS * tiles,
        CHANNELS / 4,
    ])
}

/// Elements between the codes of two positions, whose tiles are [`CHANNELS`] apart; the odd cache line keeps them apart in
/// the cache.
const fn code_stride(tiles: usize) -> usize {
    tiles * CHANNELS + 32
}

#[cfg(target_arch = "x86_64")]
impl<T: Element> GemmInt8<'_, T, Conv2dRows<'_>> {
    /// A task. `kernels` are those of AVX2.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn winograd(
        &self,
        kernels: Kernels,
        split: &Split,
        task: usize,
        scratch: &mut [u8],
    ) {
        debug_assert_eq!(kernels.isa(), Isa::Avx2);
        let params = &self.left.params;
        let in_c = params.in_c;
        let runs = split.tiles.div_ceil(split.task_tiles);
        let first = task % runs * split.task_tiles;
        let tiles = first..split.tiles.min(first + split.task_tiles);
        let first = task / runs * split.task_panels;
        let panels = first..split.panels.min(first + split.task_panels);

        let mut scratch = Scratch::new(scratch);
        let padded = tiles.len().next_multiple_of(ROWS);
        let stride = code_stride(padded);
        let codes: &mut [i16] = scratch.take_of(POSITIONS * stride);
        let weights: &mut [Pairs] = scratch.take_of(POSITIONS * WEIGHT_STRIDE);
        // `[panel][position][tile]`
        let sums: &mut [[i32; PANEL]] = scratch.take_of(panels.len() * POSITIONS * padded);
        let starts: &mut [[i32; POSITIONS]] = scratch.take_of(tiles.len());
        let padding: &mut [u8] = scratch.take_of(CHANNELS);
        padding.fill(self.left.zero);
        codes.fill(0);
        for (tile, starts) in tiles.clone().zip(starts.iter_mut()) {
            let (y, x) = (tile / split.across * 2, tile % split.across * 2);
            for (position, start) in starts.iter_mut().enumerate() {
                let pixel = params.pixel(y + position / 4, x + position % 4);
                *start = pixel.map_or(-1, |start| start as i32);
            }
        }

        // In sixteens of channels.
        let blocks = in_c.div_ceil(CHANNELS);
        for block in 0..blocks {
            let channels =
                block * (in_c / 16) / blocks * 16..(block + 1) * (in_c / 16) / blocks * 16;
            let count = channels.len();
            for (index, starts) in starts.iter().enumerate() {
                let mut pixels = [padding.as_ptr(); POSITIONS];
                for (pixel, start) in pixels.iter_mut().zip(starts) {
                    if let Ok(start) = usize::try_from(*start) {
                        *pixel = self.left.x.codes[start + channels.start..][..count].as_ptr();
                    }
                }
                let to = &mut codes[index * CHANNELS..];
                assert!(to.len() >= (POSITIONS - 1) * stride + count && count <= CHANNELS);
                // SAFETY: the kernels' features; as many codes in the picture or in the padding, and room for each
                // position, by the checks above.
                unsafe { avx2::transform_codes(&pixels, count, to.as_mut_ptr(), stride) }
            }
            for (panel, sums) in panels
                .clone()
                .zip(sums.chunks_exact_mut(POSITIONS * padded))
            {
                let panel = self.panel(panel);
                let mut taps: [&[_]; 9] = [&[]; 9];
                for (tap, steps) in taps.iter_mut().enumerate() {
                    *steps = &panel[(tap * in_c + channels.start) / 4..][..count / 4];
                }
                // SAFETY: the kernels' features; a position has room for two pairs of each four steps.
                unsafe { avx2::transform_weights(&taps, weights, WEIGHT_STRIDE) }
                for (position, sums) in sums.chunks_exact_mut(padded).enumerate() {
                    pairs::multiply(
                        kernels,
                        (&codes[position * stride..], CHANNELS),
                        tiles.len(),
                        &weights[position * WEIGHT_STRIDE..][..count / 2],
                        sums,
                        (block > 0, &[]),
                    );
                }
            }
        }

        for (panel, sums) in panels.zip(sums.chunks_exact(POSITIONS * padded)) {
            let additions = self.additions(kernels, panel, CENTER);
            for (index, tile) in tiles.clone().enumerate() {
                let sums = &sums[index..];
                assert!(sums.len() > (POSITIONS - 1) * padded);
                // SAFETY: the kernels' features; a row for each position by the check.
                let pixels = unsafe { avx2::transform_sums(sums, padded) };
                let (top, x) = (tile / split.across * 2, tile % split.across * 2);
                for (y, sums) in (top..params.out_h).zip(pixels.as_chunks::<2>().0) {
                    let row = y * params.out_w + x;
                    let rows = row..row + 2.min(params.out_w - x);
                    // SAFETY: the caller's promise; this task alone has the pixels' columns of these panels.
                    unsafe {
                        match &additions {
                            Some(additions) => self.add_to_rows(kernels, rows, sums, additions),
                            None => {
                                self.finish_panel(kernels, rows, panel, (sums, sums.len()), CENTER)
                            }
                        }
                    }
                }
            }
        }
    }
}
