//! From a picture to what its encoder says of it, tile by tile.

use crate::pipeline::{Error, Kiln};
use crate::runtime::{Norms, ProgramId, Session};

use super::decode::places;

/// Gives planes of a part of a picture: top, left, height and width to `[3, height, width]`.
pub(in crate::pipeline) type PictureParts<'p> = &'p dyn Fn([usize; 4]) -> Vec<f32>;

impl Kiln {
    /// What the encoder's output `name` is of a picture whose latents have so many rows and columns.
    pub(in crate::pipeline) fn encode_tiles(
        &self,
        session: &mut Session,
        encoder: ProgramId,
        name: &'static str,
        picture: PictureParts<'_>,
        sides: [usize; 2],
    ) -> Result<Vec<f32>, Error> {
        let moments = self.model.norm_moments(encoder);
        let mut tiles = self.tiles(session, encoder, "image", name)?;
        let [_, channels, tile_height, tile_width] = tiles.output.1;
        let [_, _, image_height, image_width] = tiles.input.1;
        let factor = image_height / tile_height;
        let [axes, first] = self.axes(sides, [tile_height, tile_width])?;
        let part = |top: usize, left: usize| {
            picture([top * factor, left * factor, image_height, image_width])
        };
        let mut answer = vec![0.0; channels * tile_height * tile_width];
        let mut norms = Norms::Own;
        let mut moments = moments;
        if let Some(moments) = &mut moments {
            for (top, left) in places(&first) {
                tiles.run(&part(top, left), Norms::Measured(moments), &mut answer)?;
                moments.add();
            }
            moments.settle();
            norms = Norms::Given(moments);
        }

        let mut whole = vec![0.0; channels * sides[0] * sides[1]];
        for (row, top) in axes[0].starts().iter().enumerate() {
            let rows = axes[0].shares(row, 1);
            for (column, left) in axes[1].starts().iter().enumerate() {
                tiles.run(&part(*top, *left), norms, &mut answer)?;
                let columns = axes[1].shares(column, 1);
                for (n, line) in answer.chunks_exact(tile_width).enumerate() {
                    let (channel, y) = (n / tile_height, n % tile_height);
                    let at = (channel * sides[0] + top + y) * sides[1] + left;
                    for ((sum, x), column) in whole[at..].iter_mut().zip(line).zip(&columns) {
                        *sum += rows[y] * column * x;
                    }
                }
            }
        }
        Ok(whole)
    }
}
