//! 3x3 convolutions with stride 1 in tiles of 4x4 pixels: Winograd's F(4x4, 3x3) in exact integers.
//!
//! With the tile's 6x6 codes `d` and the 3x3 weights `g`, `y = A' [(G g G') * (B' d B)] A`, element by element in the
//! brackets, summed over the input channels: 36 products for 16 pixels instead of 144. `A` and `B` are of integers, and so is
//! `G` once its rows are multiplied up, after which the last step finds `576 y`.
//!
//! Codes less 128 are in -128..=127, so `B' d B` is in -12800..=12800; weights are in -128..=127, so `G g G'` is in
//! -6272..=6272. Both are 16 bits wide, which makes products dearer than of bytes, two times at most where it pays. Sums wrap
//! around at 2^32. Dividing what wraps around by 9 is exact, by 64 it is where `64 y` fits into 32 bits, which it does for
//! [`CHANNELS`] channels; pixels are added up over these. The result is the direct sum's to the last bit.

mod transform;

pub(super) use transform::{Ints, NINTH, Shorts, arithmetic};

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::{GemmInt8, Pairs, conv2d::Conv2dRows, tile::Steps};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512vnni, avxvnni, pairs};
use crate::{Conv2dParams, Element, Isa, Kernels, PANEL, scratch, scratch::Scratch};

/// Rows and columns of a tile.
const TILE: usize = 4;
/// Rows and columns of the pixels that a tile is found from.
const SIDE: usize = TILE + 2;
/// Positions of a transformed tile.
const POSITIONS: usize = SIDE * SIDE;
/// What a task's tiles are a multiple of, where there are enough.
const ROWS: usize = 12;
/// The most channels that are transformed at a time: `64 * 9 * 128 * 128` times as many is below 2^31.
const CHANNELS: usize = 128;
/// Pairs between the weights of two positions; the odd one keeps them apart in the cache.
const WEIGHT_STRIDE: usize = CHANNELS / 2 + 1;
/// What is taken off each code.
const CENTER: i32 = 128;

/// How a convolution falls into tasks: each a run of tiles times a group of panels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    /// Tiles in a row of the picture, and in all.
    across: usize,
    tiles: usize,
    panels: usize,
    /// Those of a task.
    task_tiles: usize,
    task_panels: usize,
    /// The most channels that are transformed at a time.
    channels: usize,
}

/// What a task has at most. The more tiles the fewer weights are transformed, the more panels the fewer codes; all of it
/// should fit into a processor's second cache.
#[derive(Clone, Copy)]
struct Most {
    tiles: usize,
    panels: usize,
    channels: usize,
}

const MOST: Most = Most {
    tiles: 24,
    panels: 8,
    channels: CHANNELS,
};
/// Four cores of a small computer share a megabyte.
const MOST_OF_NEON: Most = Most {
    tiles: 12,
    panels: 4,
    channels: CHANNELS / 2,
};

impl Split {
    /// The split, if these kernels compute such a convolution so.
    pub fn of(kernels: Kernels, params: &Conv2dParams) -> Option<Self> {
        let p = params;
        let few = p.out_h * p.out_w < 16;
        if !suits(params) || few {
            return None;
        }
        let most = match kernels.isa() {
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni => MOST,
            Isa::Neon => MOST_OF_NEON,
            // They multiply bytes four times as fast as 16 bits, or more.
            Isa::Scalar | Isa::NeonDot | Isa::NeonI8mm => return None,
        };
        let across = p.out_w.div_ceil(TILE);
        let tiles = across * p.out_h.div_ceil(TILE);
        let panels = p.out_c.div_ceil(PANEL);
        let even = |all: usize, most: usize| all.div_ceil(all.div_ceil(most));
        let mut split = Self {
            across,
            tiles,
            panels,
            task_tiles: even(tiles, most.tiles).next_multiple_of(ROWS),
            task_panels: even(panels, most.panels),
            channels: most.channels,
        };
        while split.tasks() < super::super::ENOUGH_TASKS {
            if split.task_panels > 1 {
                split.task_panels = split.task_panels.div_ceil(2);
            } else if split.task_tiles > ROWS {
                split.task_tiles /= 2;
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
        // So that where a pixel starts fits into 32 bits.
        && p.in_h * p.in_w * p.in_c <= i32::MAX as usize
}

/// Bytes of scratch for these attributes.
pub(super) const fn scratch_bytes(params: &Conv2dParams) -> usize {
    if !suits(params) {
        return 0;
    }
    let tiles = params.out_h.div_ceil(TILE) * params.out_w.div_ceil(TILE);
    let tiles = if tiles < MOST.tiles {
        tiles
    } else {
        MOST.tiles
    };
    let panels = params.out_c.div_ceil(PANEL);
    let panels = if panels < MOST.panels {
        panels
    } else {
        MOST.panels
    };
    scratch::bytes(&[
        POSITIONS * code_stride(tiles) / 2,
        POSITIONS * WEIGHT_STRIDE * PANEL,
        POSITIONS * tiles * PANEL,
        panels * tiles * TILE * TILE * PANEL,
        POSITIONS * tiles,
        CHANNELS / 4,
    ])
}

/// Elements between the codes of two positions, whose tiles are [`CHANNELS`] apart; the odd cache line keeps them apart in
/// the cache.
const fn code_stride(tiles: usize) -> usize {
    tiles * CHANNELS + 32
}

impl<T: Element> GemmInt8<'_, T, Conv2dRows<'_>> {
    /// A task.
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
        let params = &self.left.params;
        let in_c = params.in_c;
        let runs = split.tiles.div_ceil(split.task_tiles);
        let first = task % runs * split.task_tiles;
        let tiles = first..split.tiles.min(first + split.task_tiles);
        let first = task / runs * split.task_panels;
        let panels = first..split.panels.min(first + split.task_panels);

        let mut scratch = Scratch::new(scratch);
        let count = tiles.len();
        let stride = code_stride(count);
        let codes: &mut [i16] = scratch.take_of(POSITIONS * stride);
        let weights: &mut [Pairs] = scratch.take_of(POSITIONS * WEIGHT_STRIDE);
        // `[position][tile]`
        let sums: &mut [[i32; PANEL]] = scratch.take_of(POSITIONS * count);
        // `[panel][tile][pixel]`
        let pixels: &mut [[i32; PANEL]] = scratch.take_of(panels.len() * count * TILE * TILE);
        let starts: &mut [[i32; POSITIONS]] = scratch.take_of(count);
        let padding: &mut [u8] = scratch.take_of(CHANNELS);
        padding.fill(self.left.zero);
        for (tile, starts) in tiles.clone().zip(starts.iter_mut()) {
            let (y, x) = (tile / split.across * TILE, tile % split.across * TILE);
            for (position, start) in starts.iter_mut().enumerate() {
                let pixel = params.pixel(y + position / SIDE, x + position % SIDE);
                *start = pixel.map_or(-1, |start| start as i32);
            }
        }

        // In whole vectors of channels.
        let blocks = in_c.div_ceil(split.channels);
        let vector = if in_c.is_multiple_of(32) { 32 } else { 16 };
        for block in 0..blocks {
            let end = |block: usize| block * (in_c / vector) / blocks * vector;
            let channels = end(block)..end(block + 1);
            for (index, starts) in starts.iter().enumerate() {
                let mut from = [padding.as_ptr(); POSITIONS];
                for (from, start) in from.iter_mut().zip(starts) {
                    if let Ok(start) = usize::try_from(*start) {
                        let codes = &self.left.x.codes[start + channels.start..];
                        *from = codes[..channels.len()].as_ptr();
                    }
                }
                let to = &mut codes[index * CHANNELS..];
                assert!(
                    to.len() >= (POSITIONS - 1) * stride + channels.len()
                        && channels.len() <= CHANNELS
                );
                // SAFETY: the kernels' features; as many codes in the picture or in the padding, and room for each
                // position, by the checks above.
                unsafe { codes_of(kernels, &from, channels.len(), to.as_mut_ptr(), stride) }
            }
            for (panel, pixels) in panels
                .clone()
                .zip(pixels.chunks_exact_mut(count * TILE * TILE))
            {
                let panel = self.panel(panel);
                let mut taps: [&[_]; 9] = [&[]; 9];
                for (tap, steps) in taps.iter_mut().enumerate() {
                    *steps = &panel[(tap * in_c + channels.start) / 4..][..channels.len() / 4];
                }
                // SAFETY: the kernels' features; a position has room for two pairs of each four steps.
                unsafe { weights_of(kernels, &taps, weights) }
                for (position, sums) in sums.chunks_exact_mut(count).enumerate() {
                    let codes = &codes[position * stride..][..count * CHANNELS];
                    let weights = &weights[position * WEIGHT_STRIDE..][..channels.len() / 2];
                    multiply(kernels, codes, weights, sums);
                }
                let (pixels, _) = pixels.as_chunks_mut();
                for (tile, pixels) in pixels.iter_mut().enumerate() {
                    let sums = &sums[tile..];
                    assert!(sums.len() > (POSITIONS - 1) * count);
                    // SAFETY: the kernels' features; a row for each position by the check.
                    unsafe { pixels_of(kernels, sums, count, pixels, block > 0) }
                }
            }
        }

        for (panel, pixels) in panels.zip(pixels.chunks_exact(count * TILE * TILE)) {
            let additions = self.additions(kernels, panel, CENTER);
            for (tile, pixels) in tiles.clone().zip(pixels.chunks_exact(TILE * TILE)) {
                let (top, x) = (tile / split.across * TILE, tile % split.across * TILE);
                for (y, sums) in (top..params.out_h).zip(pixels.chunks_exact(TILE)) {
                    let row = y * params.out_w + x;
                    let rows = row..row + TILE.min(params.out_w - x);
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

/// [`transform::codes`] with these kernels' vectors.
///
/// # Safety
/// As there; `channels` is a multiple of 16.
#[inline(always)]
unsafe fn codes_of(
    kernels: Kernels,
    pixels: &[*const u8; POSITIONS],
    channels: usize,
    to: *mut i16,
    stride: usize,
) {
    // SAFETY: the caller's promise; a `Kernels` of these sets exists only on a CPU that has them.
    unsafe {
        match kernels.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni if channels.is_multiple_of(32) => {
                transform::codes::<avx512vnni::Shorts>(pixels, channels, to, stride)
            }
            #[cfg(target_arch = "x86_64")]
            _ => transform::codes::<avx2::Shorts>(pixels, channels, to, stride),
            #[cfg(target_arch = "aarch64")]
            _ => transform::codes::<neon::Shorts>(pixels, channels, to, stride),
        }
    }
}

/// [`transform::weights`] with these kernels' vectors.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn weights_of(kernels: Kernels, taps: &[&[Steps]; 9], to: &mut [Pairs]) {
    // SAFETY: the caller's promise; a `Kernels` of these sets exists only on a CPU that has them.
    unsafe {
        match kernels.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => transform::weights::<avx512vnni::Shorts>(taps, to, WEIGHT_STRIDE),
            #[cfg(target_arch = "x86_64")]
            _ => transform::weights::<avx2::Shorts>(taps, to, WEIGHT_STRIDE),
            #[cfg(target_arch = "aarch64")]
            _ => transform::weights::<neon::Shorts>(taps, to, WEIGHT_STRIDE),
        }
    }
}

/// [`transform::sums`] with these kernels' vectors.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn pixels_of(
    kernels: Kernels,
    sums: &[[i32; PANEL]],
    stride: usize,
    to: &mut [[i32; PANEL]; TILE * TILE],
    add: bool,
) {
    // SAFETY: the caller's promise; a `Kernels` of these sets exists only on a CPU that has them.
    unsafe {
        match kernels.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => transform::sums::<avx512vnni::Ints>(sums, stride, to, add),
            #[cfg(target_arch = "x86_64")]
            _ => transform::sums::<avx2::Ints>(sums, stride, to, add),
            #[cfg(target_arch = "aarch64")]
            _ => transform::sums::<neon::Ints>(sums, stride, to, add),
        }
    }
}

/// Sets `sums` to rows of codes, [`CHANNELS`] apart, times expanded weights.
#[inline(always)]
fn multiply(kernels: Kernels, codes: &[i16], weights: &[Pairs], sums: &mut [[i32; PANEL]]) {
    assert!(codes.len() >= sums.len() * CHANNELS && 2 * weights.len() <= CHANNELS);
    debug_assert!(weights.len().is_multiple_of(8), "channels come in sixteens");
    let left = (codes.as_ptr(), CHANNELS);
    // SAFETY: a `Kernels` of these sets exists only on a CPU that has them; a row of codes for each of the sums, and two
    // codes for each of the weights' pairs, by the check.
    unsafe {
        match kernels.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => avxvnni::multiply_pairs(left, weights, sums),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512vnni::multiply_pairs(left, weights, sums),
            #[cfg(target_arch = "x86_64")]
            _ => pairs::multiply(
                kernels,
                (codes, CHANNELS),
                sums.len(),
                weights,
                sums,
                (false, &[]),
            ),
            #[cfg(target_arch = "aarch64")]
            _ => neon::multiply_pairs(left, weights, sums),
        }
    }
}
