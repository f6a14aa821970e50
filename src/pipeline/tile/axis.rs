//! Where tiles stand along a side of a picture.

/// The least side of a tile, in pixels of the latents: the halves of its overlaps and something between them.
pub(in crate::pipeline) const SMALLEST: usize = 8;

/// Tiles of one length along a side, in pixels of the latents.
#[derive(Debug)]
pub(in crate::pipeline) struct Axis {
    tile: usize,
    starts: Vec<usize>,
    /// Pixels of the latents within which one tile's share becomes the next one's.
    ramp: f32,
}

impl Axis {
    /// Tiles that overlap by a quarter or more, so that they can be blended. A tile is as long as the side, or at least
    /// [`SMALLEST`].
    pub(in crate::pipeline) fn overlapping(len: usize, tile: usize) -> Self {
        let overlap = tile.div_ceil(4).max(4);
        let count = match len > tile {
            true => (len - overlap).div_ceil(tile - overlap),
            false => 1,
        };
        Axis {
            ramp: overlap as f32 / 2.0,
            ..Self::spread(len, tile, count)
        }
    }

    /// As few as cover the side.
    pub(in crate::pipeline) fn covering(len: usize, tile: usize) -> Self {
        Self::spread(len, tile, len.div_ceil(tile))
    }

    fn spread(len: usize, tile: usize, count: usize) -> Self {
        let gaps = (count - 1).max(1);
        let start = |i: usize| (i * (len - tile) + gaps / 2) / gaps;
        Axis {
            tile,
            starts: (0..count).map(start).collect(),
            ramp: 1.0,
        }
    }

    /// Where each tile begins.
    pub(in crate::pipeline) fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// The shares that a tile has of what is made of its pixels, `scale` of each, in order. Those of all tiles are 1 together.
    pub(in crate::pipeline) fn shares(&self, index: usize, scale: usize) -> Vec<f32> {
        let start = self.starts[index];
        let at = |i: usize| start as f32 + (i as f32 + 0.5) / scale as f32;
        // In the middle of an overlap, as far from both edges as can be.
        let passed = |from: usize, x: f32| {
            let middle = (self.starts[from] + self.tile + self.starts[from + 1]) as f32 / 2.0;
            let u = ((x - middle) / self.ramp + 0.5).clamp(0.0, 1.0);
            u * u * (3.0 - 2.0 * u)
        };
        let share = |x: f32| {
            let from_last = if index > 0 { passed(index - 1, x) } else { 1.0 };
            let to_next = match index + 1 < self.starts.len() {
                true => passed(index, x),
                false => 0.0,
            };
            from_last * (1.0 - to_next)
        };
        (0..self.tile * scale).map(|i| share(at(i))).collect()
    }
}
