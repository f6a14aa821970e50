//! diffusers' `AutoencoderKL`: `decoder.` with `post_quant_conv`, `encoder.` with `quant_conv`.

use super::config::VaeConfig;
use super::layers::{ArchitectureError, Builder, Built, Kernel, Norms};
use super::parameters::Parameters;
use crate::graph::{Graph, ValueId};

/// Epsilon of all norms.
const EPS: f32 = 1e-6;

/// Builds the graph `vae_decoder`: `latents` of that height and width to `sample`, a picture of -1 to 1.
pub fn decoder(
    config: &VaeConfig,
    latent: [usize; 2],
    parameters: &mut dyn Parameters,
) -> Result<Graph, ArchitectureError> {
    let mut b = Builder::new("vae_decoder", "", parameters);
    check(&b, config, latent)?;
    let norms = Norms {
        groups: config.norm_num_groups,
        eps: EPS,
    };
    let widths = &config.block_out_channels;
    let shape = [1, config.latent_channels, latent[0], latent[1]];
    let mut x = b.graph.add_input("latents", &shape);
    if config.use_post_quant_conv {
        x = b.conv("post_quant_conv", x, config.latent_channels, Kernel::ONE)?;
    }
    x = b.conv(
        "decoder.conv_in",
        x,
        widths[widths.len() - 1],
        Kernel::THREE,
    )?;
    x = middle(&mut b, "decoder.mid_block", x, config, norms)?;
    for (i, width) in widths.iter().rev().enumerate() {
        let block = format!("decoder.up_blocks.{i}");
        for j in 0..=config.layers_per_block {
            x = b.resnet(&format!("{block}.resnets.{j}"), x, *width, norms, None)?;
        }
        if i + 1 < widths.len() {
            let layer = format!("{block}.upsamplers.0.conv");
            x = b.enlarge(&layer, x, *width, Kernel::THREE)?;
        }
    }
    x = b.group_norm("decoder.conv_norm_out", x, norms, true)?;
    x = b.conv("decoder.conv_out", x, 3, Kernel::THREE)?;
    Ok(b.finish(x, "sample"))
}

/// Builds the graph `vae_encoder`: `image`, a picture of -1 to 1 that gives a latent of that height and width, to
/// `moments`, the mean and the logarithm of the variance, channels one after the other.
pub fn encoder(
    config: &VaeConfig,
    latent: [usize; 2],
    parameters: &mut dyn Parameters,
) -> Result<Graph, ArchitectureError> {
    let mut b = Builder::new("vae_encoder", "", parameters);
    check(&b, config, latent)?;
    let norms = Norms {
        groups: config.norm_num_groups,
        eps: EPS,
    };
    let widths = &config.block_out_channels;
    let [height, width] = latent.map(|n| n << (widths.len() - 1));
    let mut x = b.graph.add_input("image", &[1, 3, height, width]);
    x = b.conv("encoder.conv_in", x, widths[0], Kernel::THREE)?;
    for (i, width) in widths.iter().enumerate() {
        let block = format!("encoder.down_blocks.{i}");
        for j in 0..config.layers_per_block {
            x = b.resnet(&format!("{block}.resnets.{j}"), x, *width, norms, None)?;
        }
        if i + 1 < widths.len() {
            // Padded on the far sides alone.
            let kernel = Kernel {
                stride: 2,
                pad: [0, 0, 1, 1],
                ..Kernel::THREE
            };
            let layer = format!("{block}.downsamplers.0.conv");
            x = b.conv(&layer, x, *width, kernel)?;
        }
    }
    x = middle(&mut b, "encoder.mid_block", x, config, norms)?;
    x = b.group_norm("encoder.conv_norm_out", x, norms, true)?;
    let moments = 2 * config.latent_channels;
    x = b.conv("encoder.conv_out", x, moments, Kernel::THREE)?;
    if config.use_quant_conv {
        x = b.conv("quant_conv", x, moments, Kernel::ONE)?;
    }
    Ok(b.finish(x, "moments"))
}

/// Two residual blocks and, between them, an attention of one head over all pixels.
fn middle(b: &mut Builder<'_>, block: &str, x: ValueId, config: &VaeConfig, norms: Norms) -> Built {
    let width = b.channels(x);
    let mut x = b.resnet(&format!("{block}.resnets.0"), x, width, norms, None)?;
    if config.mid_block_add_attention {
        let layer = format!("{block}.attentions.0");
        let name = |part: &str| format!("{layer}.{part}");
        let h = b.group_norm(&name("group_norm"), x, norms, false)?;
        let h = b.pixels(&layer, h)?;
        let q = b.linear(&name("to_q"), h, width)?;
        let k = b.linear(&name("to_k"), h, width)?;
        let v = b.linear(&name("to_v"), h, width)?;
        let h = b.attend(&layer, [q, k, v], 1, false)?;
        let h = b.linear(&name("to_out.0"), h, width)?;
        let h = b.picture(&layer, h, x)?;
        x = b.sum(&layer, h, x)?;
    }
    b.resnet(&format!("{block}.resnets.1"), x, width, norms, None)
}

fn check(b: &Builder<'_>, config: &VaeConfig, latent: [usize; 2]) -> Built<()> {
    b.check_sizes("latent_channels", &[config.latent_channels])?;
    b.check_sizes("block_out_channels", &config.block_out_channels)?;
    b.check_sizes("layers_per_block", &[config.layers_per_block])?;
    b.check_sizes("norm_num_groups", &[config.norm_num_groups])?;
    b.check_sizes("the latent's size", &latent)?;
    let levels = config.block_out_channels.len();
    b.check(levels <= 8, || format!("{levels} levels are too many"))
}
