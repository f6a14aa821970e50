//! diffusers' `AutoencoderTiny` (TAESD): `encoder.layers.` and `decoder.layers.`, numbered as the modules of their
//! `Sequential`, those without parameters counted.

use super::config::TinyVaeConfig;
use super::layers::{ArchitectureError, Builder, Built, Kernel};
use super::parameters::Parameters;
use crate::graph::{Activation, Graph, Op, ValueId};

/// Builds the graph `vae_decoder`: `latents` of that height and width to `sample`, a picture of about -1 to 1, as
/// `AutoencoderTiny.decode` gives it: latents `x` are taken as `3 tanh(x / 3)`, the picture of 0 to 1 as `2 x - 1`.
pub fn decoder(
    config: &TinyVaeConfig,
    latent: [usize; 2],
    parameters: &mut dyn Parameters,
) -> Result<Graph, ArchitectureError> {
    let mut b = Builder::new("vae_decoder", "", parameters);
    check(
        &b,
        config,
        "decoder_block_out_channels",
        &config.decoder_block_out_channels,
        &config.num_decoder_blocks,
    )?;
    b.check_sizes("the latent's size", &latent)?;
    let widths = &config.decoder_block_out_channels;
    let shape = [1, config.latent_channels, latent[0], latent[1]];
    let x = b.graph.add_input("latents", &shape);
    let x = affine(&mut b, "decoder", x, 1.0 / 3.0, 0.0)?;
    let x = b.unary("decoder", x, Activation::Tanh)?;
    let mut x = affine(&mut b, "decoder", x, 3.0, 0.0)?;

    let mut number = 0..;
    let mut next = || format!("decoder.layers.{}", number.next().unwrap_or(usize::MAX));
    x = b.conv(&next(), x, widths[0], Kernel::THREE)?;
    x = b.unary(&next(), x, Activation::Relu)?;
    for (i, (width, blocks)) in widths.iter().zip(&config.num_decoder_blocks).enumerate() {
        for _ in 0..*blocks {
            x = block(&mut b, &next(), x, *width)?;
        }
        if i + 1 < widths.len() {
            let kernel = Kernel {
                bias: false,
                ..Kernel::THREE
            };
            next();
            x = b.enlarge(&next(), x, *width, kernel)?;
        } else {
            x = b.conv(&next(), x, 3, Kernel::THREE)?;
        }
    }
    let x = affine(&mut b, "decoder", x, 2.0, -1.0)?;
    Ok(b.finish(x, "sample"))
}

/// Builds the graph `vae_encoder`: `image`, a picture of -1 to 1 that gives a latent of that height and width, to
/// `latents`, as `AutoencoderTiny.encode` gives them. There is no variance: these are no moments.
pub fn encoder(
    config: &TinyVaeConfig,
    latent: [usize; 2],
    parameters: &mut dyn Parameters,
) -> Result<Graph, ArchitectureError> {
    let mut b = Builder::new("vae_encoder", "", parameters);
    check(
        &b,
        config,
        "encoder_block_out_channels",
        &config.encoder_block_out_channels,
        &config.num_encoder_blocks,
    )?;
    b.check_sizes("the latent's size", &latent)?;
    let widths = &config.encoder_block_out_channels;
    let [height, width] = latent.map(|n| n << (widths.len() - 1));
    let x = b.graph.add_input("image", &[1, 3, height, width]);
    let mut x = affine(&mut b, "encoder", x, 0.5, 0.5)?;

    let mut number = 0..;
    let mut next = || format!("encoder.layers.{}", number.next().unwrap_or(usize::MAX));
    for (i, (width, blocks)) in widths.iter().zip(&config.num_encoder_blocks).enumerate() {
        let kernel = match i {
            0 => Kernel::THREE,
            _ => Kernel {
                stride: 2,
                bias: false,
                ..Kernel::THREE
            },
        };
        x = b.conv(&next(), x, *width, kernel)?;
        for _ in 0..*blocks {
            x = block(&mut b, &next(), x, *width)?;
        }
    }
    x = b.conv(&next(), x, config.latent_channels, Kernel::THREE)?;
    Ok(b.finish(x, "latents"))
}

/// Three convolutions beside a shortcut: diffusers' `AutoencoderTinyBlock`.
fn block(b: &mut Builder<'_>, layer: &str, x: ValueId, out: usize) -> Built {
    let mut h = x;
    for conv in [0, 2, 4] {
        if conv > 0 {
            h = b.unary(&format!("{layer}.conv.{}", conv - 1), h, Activation::Relu)?;
        }
        h = b.conv(&format!("{layer}.conv.{conv}"), h, out, Kernel::THREE)?;
    }
    let skip = if b.channels(x) == out {
        x
    } else {
        let kernel = Kernel {
            bias: false,
            ..Kernel::ONE
        };
        b.conv(&format!("{layer}.skip"), x, out, kernel)?
    };
    let sum = b.sum(layer, h, skip)?;
    b.unary(&format!("{layer}.fuse"), sum, Activation::Relu)
}

fn affine(b: &mut Builder<'_>, layer: &str, x: ValueId, scale: f32, offset: f32) -> Built {
    b.add(Op::Affine { scale, offset }, &[Some(x)], layer)
}

fn check(
    b: &Builder<'_>,
    config: &TinyVaeConfig,
    name: &str,
    widths: &[usize],
    blocks: &[usize],
) -> Built<()> {
    b.check_sizes("latent_channels", &[config.latent_channels])?;
    b.check_sizes(name, widths)?;
    b.check_sizes("the number of blocks", blocks)?;
    b.check(widths.len() == blocks.len() && widths.len() <= 8, || {
        format!(
            "{name} has {} levels, the blocks {}; there may be 8",
            widths.len(),
            blocks.len()
        )
    })
}
