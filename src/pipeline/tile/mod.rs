//! The VAE on overlapping tiles of a picture, for memory that does not grow with the picture.
//!
//! - `axis`: where tiles stand along a side, and what share each has of a pixel.
//! - `decode`, `encode`: a picture of latents, and back.
//!
//! A tile is a program of the VAE at the tile's size. What a GroupNorm sees of a tile has another mean and variance than the
//! whole picture, which would show as another colour and contrast in each. So tiles that cover the picture without overlapping
//! run first and only tell their norms' moments; together these are close to the picture's, and all tiles are then normalized
//! by them. Near a tile's edge, beyond which it sees zeros, its share is zero. Tiles run in a fixed order: the picture does not
//! depend on the threads.

mod axis;
mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use kiln_package::GraphKind;

use crate::runtime::{Data, Norms, ProgramId, RuntimeError, Session, Silent};

use super::error::RequestError;
use super::{Error, Kiln};
use axis::Axis;
pub(super) use axis::SMALLEST;
pub(super) use encode::PictureParts;

/// What size of tiles the VAE works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// The one that the compiler has chosen: small enough for 40 MB at any picture size.
    Auto,
    /// So many pixels wide and high; the package must have the VAE's programs for it.
    Side(u32),
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Side(side) => side.fmt(f),
        }
    }
}

/// A text that is no size of tiles.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected pixels, such as 256, or auto")]
pub struct UnknownTile;

impl FromStr for Tile {
    type Err = UnknownTile;

    fn from_str(text: &str) -> Result<Self, UnknownTile> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => match text.parse() {
                Ok(side) if side > 0 => Ok(Self::Side(side)),
                _ => Err(UnknownTile),
            },
        }
    }
}

/// Width and height of the tiles of a picture.
pub(super) fn tile_size((width, height): (u32, u32), tile: Option<u32>) -> (u32, u32) {
    let side = tile.unwrap_or(u32::MAX);
    (width.min(side), height.min(side))
}

impl Kiln {
    /// The side of the tiles that are asked for, in pixels.
    pub(super) fn tile_side(&self, tile: Option<Tile>) -> Result<Option<u32>, Error> {
        match tile {
            None => Ok(None),
            Some(Tile::Side(side)) => Ok(Some(side)),
            Some(Tile::Auto) => match self.card.tile {
                Some(side) => Ok(Some(side)),
                None => Err(RequestError::NoTile.into()),
            },
        }
    }

    /// The program of one of the VAE's graphs for the tiles of a picture, or for the picture.
    pub(super) fn vae_program(
        &self,
        graph: GraphKind,
        size: (u32, u32),
        tile: Option<u32>,
    ) -> Result<ProgramId, Error> {
        let (width, height) = tile_size(size, tile);
        let found = self.model.find(graph, height, width);
        match (found, tile) {
            (Err(RuntimeError::NoProgram { available, .. }), Some(tile)) => {
                Err(RequestError::Tile {
                    tile,
                    size,
                    graph,
                    available,
                }
                .into())
            }
            (found, _) => Ok(found?),
        }
    }
}

/// A program and its one input and output, each `[1, channels, height, width]`.
struct Tiles<'s> {
    session: &'s mut Session,
    program: ProgramId,
    graph: GraphKind,
    input: (&'static str, [usize; 4]),
    output: (&'static str, [usize; 4]),
}

impl Kiln {
    fn tiles<'s>(
        &self,
        session: &'s mut Session,
        program: ProgramId,
        input: &'static str,
        output: &'static str,
    ) -> Result<Tiles<'s>, Error> {
        let four = |shape: &[u32], name: &str| match shape {
            [1, c, h, w] => Ok([1, *c as usize, *h as usize, *w as usize]),
            _ => Err(self.unusable(format!("`{name}` is {shape:?}, expected four dimensions"))),
        };
        let shapes = [
            four(self.input(program, input)?.shape(), input)?,
            four(self.output(program, output)?.shape(), output)?,
        ];
        let [input_shape, output_shape] = shapes;
        let sides = |shape: [usize; 4]| [shape[2], shape[3]];
        if !(0..2).all(|side| {
            let (a, b) = (sides(input_shape)[side], sides(output_shape)[side]);
            a > 0 && b > 0 && a.max(b).is_multiple_of(a.min(b))
        }) {
            return Err(self.unusable(format!("{input_shape:?} becomes {output_shape:?}")));
        }
        Ok(Tiles {
            session,
            program,
            graph: self.model.program(program).graph(),
            input: (input, input_shape),
            output: (output, output_shape),
        })
    }

    /// Tiles that overlap, and tiles that cover the picture, along both sides of its latents.
    fn axes(&self, sides: [usize; 2], tile: [usize; 2]) -> Result<[[Axis; 2]; 2], Error> {
        for (side, tile) in sides.into_iter().zip(tile) {
            if !(tile == side || (SMALLEST..side).contains(&tile)) {
                let reason = format!("tiles of {tile} on a side of {side} latents");
                return Err(self.unusable(reason));
            }
        }
        let each = |axis: fn(usize, usize) -> Axis| [0, 1].map(|i| axis(sides[i], tile[i]));
        Ok([each(Axis::overlapping), each(Axis::covering)])
    }
}

impl Tiles<'_> {
    /// Runs the program on a tile.
    fn run(&mut self, data: &[f32], norms: Norms<'_>, out: &mut [f32]) -> Result<(), Error> {
        let mut evaluation = self.session.prepare(self.program, 1)?;
        evaluation.input(0, self.input.0, &self.input.1, Data::F32(data))?;
        let mut outputs = evaluation.run_with(norms, &mut Silent)?;
        outputs.read(0, self.output.0, out)?;
        match out.iter().all(|x| x.is_finite()) {
            true => Ok(()),
            false => Err(Error::NotFinite {
                graph: self.graph,
                step: None,
            }),
        }
    }
}
