//! From latents to a picture, tile by tile.

use crate::pipeline::picture::to_byte;
use crate::pipeline::{Error, Kiln};
use crate::runtime::{Norms, ProgramId, Session};

use super::Axis;

/// Told after each tile how many are done, of how many.
type Told<'t> = &'t mut dyn FnMut(usize, usize) -> Result<(), Error>;

/// Rows of a picture that tiles are still to be added to.
struct Band {
    /// Red, green and blue of each pixel.
    sums: Vec<f32>,
    /// Columns of the picture.
    width: usize,
    /// The first row.
    top: usize,
}

impl Band {
    /// Adds a tile of `[3, rows, columns]`, which begins at the band's first row. `shares` are of its rows and its columns.
    fn add(&mut self, left: usize, tile: &[f32], [rows, columns]: [&[f32]; 2]) {
        let area = rows.len() * columns.len();
        for (y, row) in rows.iter().enumerate() {
            let sums = &mut self.sums[(y * self.width + left) * 3..][..columns.len() * 3];
            for (x, (pixel, column)) in sums.chunks_exact_mut(3).zip(columns).enumerate() {
                let at = y * columns.len() + x;
                for (channel, sum) in pixel.iter_mut().enumerate() {
                    *sum += row * column * tile[channel * area + at];
                }
            }
        }
    }

    /// Writes the rows above `row` into the picture; the band then begins there.
    fn finish(&mut self, row: usize, pixels: &mut [u8]) {
        let done = (row - self.top) * self.width * 3;
        let first = self.top * self.width * 3;
        for (byte, sum) in pixels[first..].iter_mut().zip(&self.sums[..done]) {
            *byte = to_byte(*sum);
        }
        self.sums.copy_within(done.., 0);
        let rest = self.sums.len() - done;
        self.sums[rest..].fill(0.0);
        self.top = row;
    }
}

impl Kiln {
    /// The picture of that width and height of latents as the decoder takes them, `[channels, height, width]`:
    /// `[height, width, 3]`.
    pub(in crate::pipeline) fn decode_tiles(
        &self,
        session: &mut Session,
        decoder: ProgramId,
        size: (u32, u32),
        latents: &[f32],
        told: Told<'_>,
    ) -> Result<Vec<u8>, Error> {
        let moments = self.model.norm_moments(decoder);
        let mut tiles = self.tiles(session, decoder, "latents", "sample")?;
        let [_, channels, tile_height, tile_width] = tiles.input.1;
        let factor = tiles.output.1[2] / tile_height;
        let [width, height] = [size.0, size.1].map(|side| side as usize);
        let sides = [height / factor, width / factor];
        if latents.len() != channels * sides[0] * sides[1] {
            return Err(self.unusable(format!("{} takes other latents", tiles.graph)));
        }
        let [axes, first] = self.axes(sides, [tile_height, tile_width])?;
        let count = |axes: &[Axis; 2]| axes[0].starts().len() * axes[1].starts().len();
        let measured = if moments.is_some() { count(&first) } else { 0 };
        let all = measured + count(&axes);
        let mut done = 0;

        let mut input = vec![0.0; channels * tile_height * tile_width];
        let mut planes = vec![0.0; tiles.output.1.iter().product()];
        let cut = |input: &mut [f32], top: usize, left: usize| {
            for (n, row) in input.chunks_exact_mut(tile_width).enumerate() {
                let (channel, y) = (n / tile_height, top + n % tile_height);
                let at = (channel * sides[0] + y) * sides[1] + left;
                row.copy_from_slice(&latents[at..at + tile_width]);
            }
        };
        let mut norms = Norms::Own;
        let mut moments = moments;
        if let Some(moments) = &mut moments {
            for (top, left) in places(&first) {
                cut(&mut input, top, left);
                tiles.run(&input, Norms::Measured(moments), &mut planes)?;
                moments.add();
                done += 1;
                told(done, all)?;
            }
            moments.settle();
            norms = Norms::Given(moments);
        }

        let mut pixels = vec![0; width * height * 3];
        let mut band = Band {
            sums: vec![0.0; tile_height * factor * width * 3],
            width,
            top: 0,
        };
        for (row, top) in axes[0].starts().iter().enumerate() {
            band.finish(top * factor, &mut pixels);
            let rows = axes[0].shares(row, factor);
            for (column, left) in axes[1].starts().iter().enumerate() {
                cut(&mut input, *top, *left);
                tiles.run(&input, norms, &mut planes)?;
                let columns = axes[1].shares(column, factor);
                band.add(left * factor, &planes, [&rows, &columns]);
                done += 1;
                told(done, all)?;
            }
        }
        band.finish(height, &mut pixels);
        Ok(pixels)
    }
}

/// Top and left of each tile, row by row.
pub(super) fn places(axes: &[Axis; 2]) -> impl Iterator<Item = (usize, usize)> {
    let [rows, columns] = axes;
    let across = |top: &usize| {
        let top = *top;
        columns.starts().iter().map(move |left| (top, *left))
    };
    rows.starts().iter().flat_map(across)
}
