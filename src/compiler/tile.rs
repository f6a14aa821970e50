//! The size of the tiles that a picture is decoded and encoded in, and the VAE's programs for them.

#[cfg(test)]
mod tests;

use kiln_package::{GraphKind, Stage};

use crate::frontend::Checkpoint;
use crate::graph::Graph;
use crate::plan::{self, Part, Precision};
use crate::{CompileError, CompileOptions, quantize};

/// The most bytes of a tile program's arena. With a picture of 2048x2048, its rows that are not finished, latents and scratch
/// that is less than 40 MB.
const ARENA: u64 = 20_000_000;
/// The largest side that is chosen, in pixels.
const LARGEST: usize = 256;
/// The least, in pixels of the latents: the runtime takes no smaller ones.
const SMALLEST: usize = 8;

/// The graphs that pictures go through in tiles, with whether their input is the picture.
fn graphs(model: &Checkpoint) -> impl Iterator<Item = (GraphKind, &Graph, bool)> {
    let encoder = model.vae_encoder.as_ref();
    let taesd = model.taesd_decoder.as_ref();
    [(GraphKind::VaeDecoder, &model.vae_decoder, false)]
        .into_iter()
        .chain(encoder.map(|graph| (GraphKind::VaeEncoder, graph, true)))
        .chain(taesd.map(|graph| (GraphKind::TaesdDecoder, graph, false)))
}

/// The programs of the VAE for pictures of a size.
pub(crate) fn parts(
    model: &Checkpoint,
    (width, height): (usize, usize),
    precision: Precision,
) -> Result<Vec<Part>, CompileError> {
    let factor = model.vae_factor;
    let part =
        |(kind, graph, takes_picture): (GraphKind, &Graph, bool)| -> Result<Part, CompileError> {
            let size = match takes_picture {
                true => [height, width],
                false => [height / factor, width / factor],
            };
            let mut graph = graph.resized(size)?;
            if precision == Precision::Int8 {
                quantize::integer_attention(&mut graph);
            }
            // Sizes are at most `MAX_SIZE`.
            Ok(Part {
                kind,
                stage: Stage::Whole,
                max_chunks: 1,
                height: height as u32,
                width: width as u32,
                clip_skip: 0,
                graph,
            })
        };
    graphs(model).map(part).collect()
}

/// The side of the tiles in pixels: the one that is asked for, or the largest whose programs fit in [`ARENA`]. `None` for a
/// VAE that has no other size than its own.
pub(crate) fn side(
    model: &Checkpoint,
    options: &CompileOptions,
) -> Result<Option<usize>, CompileError> {
    let factor = model.vae_factor;
    let least = SMALLEST * factor;
    if let Some(side) = options.tile {
        return match side >= least && side <= crate::MAX_SIZE && side.is_multiple_of(factor.max(8))
        {
            true => Ok(Some(side)),
            false => Err(CompileError::Tile {
                side,
                least,
                multiple: factor.max(8),
            }),
        };
    }
    let fits = |latents: usize| -> Result<bool, CompileError> {
        let side = latents * factor;
        for part in parts(model, (side, side), options.precision)? {
            let bytes = plan::arena_bytes(&part, options.precision).map_err(CompileError::Plan)?;
            if bytes > ARENA {
                return Ok(false);
            }
        }
        Ok(true)
    };
    // Sides are multiples of 8 pixels, as pictures' are.
    let step = (8 / factor).max(1);
    let (mut low, mut high) = (
        SMALLEST / step,
        (LARGEST / factor / step).max(SMALLEST / step),
    );
    match fits(high * step) {
        Ok(true) => low = high,
        Ok(false) => {}
        Err(CompileError::Resize(_)) => return Ok(None),
        Err(error) => return Err(error),
    }
    while high - low > 1 {
        let middle = low.midpoint(high);
        match fits(middle * step)? {
            true => low = middle,
            false => high = middle,
        }
    }
    Ok(Some(low * step * factor))
}

/// The sizes of tiles for pictures of these sizes, other than the pictures' own.
pub(crate) fn sizes(sizes: &[(usize, usize)], side: usize) -> Vec<(usize, usize)> {
    let mut tiles = Vec::new();
    for (width, height) in sizes {
        let tile = (side.min(*width), side.min(*height));
        if !sizes.contains(&tile) && !tiles.contains(&tile) {
            tiles.push(tile);
        }
    }
    tiles
}
