//! diffusers' `UNet2DConditionModel`: a latent, a timestep and a context to the predicted noise.

use super::config::UnetConfig;
use super::layers::{ArchitectureError, Builder, Built, Kernel, Norms};
use super::parameters::Parameters;
use crate::graph::{Activation, Graph, Op, ValueId, Weight, WeightData};
use std::borrow::Cow;

/// Epsilon of the group norm before a transformer, and of the layer norms in it.
const TRANSFORMER_GROUP_EPS: f32 = 1e-6;
const TRANSFORMER_LAYER_EPS: f32 = 1e-5;
/// The longest period of the timestep's embedding.
const MAX_PERIOD: f64 = 10_000.0;

/// Builds the graph `unet` for latents of that height and width, which halve evenly at every level, and a context of
/// `tokens` rows.
///
/// Inputs are `sample` `[1, in_channels, height, width]`, `timestep` `[1]`, `encoder_hidden_states`
/// `[1, tokens, cross_attention_dim]` and, if the guidance scale is embedded, `timestep_cond`
/// `[1, 1, time_cond_proj_dim]`, one row; the output is `out_sample`.
pub fn build(
    config: &UnetConfig,
    latent: [usize; 2],
    tokens: usize,
    parameters: &mut dyn Parameters,
) -> Result<Graph, ArchitectureError> {
    let mut b = Builder::new("unet", "", parameters);
    check(&b, config, latent, tokens)?;
    let shape = [1, config.in_channels, latent[0], latent[1]];
    let sample = b.graph.add_input("sample", &shape);
    let timestep = b.graph.add_input("timestep", &[1]);
    let shape = [1, tokens, config.cross_attention_dim];
    let context = b.graph.add_input("encoder_hidden_states", &shape);
    let shift = time_embedding(&mut b, config, timestep)?;
    let mut unet = Unet {
        b,
        config,
        norms: Norms {
            groups: config.norm_num_groups,
            eps: config.norm_eps,
        },
        context,
        shift,
    };

    let widths = &config.block_out_channels;
    let mut x = unet.b.conv("conv_in", sample, widths[0], Kernel::THREE)?;
    let mut skips = vec![x];
    for (level, width) in widths.iter().enumerate() {
        let block = format!("down_blocks.{level}");
        for layer in 0..config.down_layers[level] {
            x = unet.layer(&block, layer, x, level, config.down_attention[level])?;
            skips.push(x);
        }
        if level + 1 < widths.len() {
            let kernel = Kernel {
                stride: 2,
                ..Kernel::THREE
            };
            let layer = format!("{block}.downsamplers.0.conv");
            x = unet.b.conv(&layer, x, *width, kernel)?;
            skips.push(x);
        }
    }
    x = unet.middle(x)?;
    for (i, level) in (0..widths.len()).rev().enumerate() {
        let block = format!("up_blocks.{i}");
        for layer in 0..config.up_layers[level] {
            // `check` has counted them.
            if let Some(skip) = skips.pop() {
                let op = Op::SourceConcat { axis: 1 };
                x = unet.b.add(op, &[Some(x), Some(skip)], &block)?;
            }
            x = unet.layer(&block, layer, x, level, config.up_attention[level])?;
        }
        if level > 0 {
            let layer = format!("{block}.upsamplers.0.conv");
            x = unet.b.enlarge(&layer, x, widths[level], Kernel::THREE)?;
        }
    }
    x = unet.b.group_norm("conv_norm_out", x, unet.norms, true)?;
    x = unet
        .b
        .conv("conv_out", x, config.out_channels, Kernel::THREE)?;
    Ok(unet.b.finish(x, "out_sample"))
}

/// What every block needs.
struct Unet<'p> {
    b: Builder<'p>,
    config: &'p UnetConfig,
    norms: Norms,
    context: ValueId,
    /// The timestep's embedding after its SiLU.
    shift: ValueId,
}

impl Unet<'_> {
    /// A residual block and the transformer after it, if the level has them.
    fn layer(
        &mut self,
        block: &str,
        layer: usize,
        x: ValueId,
        level: usize,
        attention: usize,
    ) -> Built {
        let width = self.config.block_out_channels[level];
        let resnet = format!("{block}.resnets.{layer}");
        let x = self
            .b
            .resnet(&resnet, x, width, self.norms, Some(self.shift))?;
        if attention == 0 {
            return Ok(x);
        }
        let name = format!("{block}.attentions.{layer}");
        self.transformer(&name, x, self.config.heads[level], attention)
    }

    fn middle(&mut self, x: ValueId) -> Built {
        let Some(mid) = &self.config.mid else {
            return Ok(x);
        };
        let (width, shift) = (self.b.channels(x), Some(self.shift));
        let x = self
            .b
            .resnet("mid_block.resnets.0", x, width, self.norms, shift)?;
        if mid.attention == 0 {
            return Ok(x);
        }
        let x = self.transformer("mid_block.attentions.0", x, mid.heads, mid.attention)?;
        self.b
            .resnet("mid_block.resnets.1", x, width, self.norms, shift)
    }

    /// diffusers' `Transformer2DModel` over the pixels.
    fn transformer(&mut self, layer: &str, x: ValueId, heads: usize, blocks: usize) -> Built {
        let b = &mut self.b;
        let width = b.channels(x);
        let [norm, proj_in, proj_out] =
            ["norm", "proj_in", "proj_out"].map(|part| format!("{layer}.{part}"));
        let norms = Norms {
            eps: TRANSFORMER_GROUP_EPS,
            ..self.norms
        };
        let h = b.group_norm(&norm, x, norms, false)?;
        let mut h = if self.config.use_linear_projection {
            let h = b.pixels(layer, h)?;
            b.linear(&proj_in, h, width)?
        } else {
            let h = b.conv(&proj_in, h, width, Kernel::ONE)?;
            b.pixels(layer, h)?
        };
        for block in 0..blocks {
            h = self.block(&format!("{layer}.transformer_blocks.{block}"), h, heads)?;
        }
        let b = &mut self.b;
        let h = if self.config.use_linear_projection {
            let h = b.linear(&proj_out, h, width)?;
            b.picture(layer, h, x)?
        } else {
            let h = b.picture(layer, h, x)?;
            b.conv(&proj_out, h, width, Kernel::ONE)?
        };
        b.sum(layer, h, x)
    }

    /// diffusers' `BasicTransformerBlock`: self-attention, cross-attention, a gated feed-forward layer.
    fn block(&mut self, layer: &str, x: ValueId, heads: usize) -> Built {
        let width = self.b.graph.shape(x)[2];
        let mut x = x;
        for (i, context) in [(1, None), (2, Some(self.context))] {
            let b = &mut self.b;
            let h = b.layer_norm(&format!("{layer}.norm{i}"), x, TRANSFORMER_LAYER_EPS)?;
            let attention = format!("{layer}.attn{i}");
            let name = |part: &str| format!("{attention}.{part}");
            let source = context.unwrap_or(h);
            let q = b.linear_without_bias(&name("to_q"), h, width)?;
            let k = b.linear_without_bias(&name("to_k"), source, width)?;
            let v = b.linear_without_bias(&name("to_v"), source, width)?;
            let h = b.attend(&attention, [q, k, v], heads, false)?;
            let h = b.linear(&name("to_out.0"), h, width)?;
            x = b.sum(layer, h, x)?;
        }
        let b = &mut self.b;
        let h = b.layer_norm(&format!("{layer}.norm3"), x, TRANSFORMER_LAYER_EPS)?;
        let proj = format!("{layer}.ff.net.0.proj");
        let h = b.linear_with(&proj, h, 4 * width, true, Activation::Geglu)?;
        let h = b.linear(&format!("{layer}.ff.net.2"), h, width)?;
        b.sum(layer, h, x)
    }
}

/// The embedding of the timestep, and of the guidance scale if the model knows it, after the SiLU that every block begins
/// with: `[1, 4 * the finest width]`.
fn time_embedding(b: &mut Builder<'_>, config: &UnetConfig, timestep: ValueId) -> Built {
    let width = config.block_out_channels[0];
    let frequencies = Weight::new(Frequencies {
        shape: [width / 2],
        freq_shift: config.freq_shift,
    });
    let frequencies = b.graph.add_weight("time_proj.frequencies", frequencies);
    let op = Op::TimestepEmbedding {
        cos_first: config.flip_sin_to_cos,
    };
    let mut x = b.add(op, &[Some(timestep), Some(frequencies)], "time_proj")?;
    if let Some(columns) = config.time_cond_proj_dim {
        let layer = "time_embedding.cond_proj";
        let cond = b.graph.add_input("timestep_cond", &[1, 1, columns]);
        let cond = b.linear_without_bias(layer, cond, width)?;
        let cond = b.reshape(layer, cond, &[1, width])?;
        x = b.sum("time_embedding", x, cond)?;
    }
    x = b.linear("time_embedding.linear_1", x, 4 * width)?;
    x = b.unary("time_embedding.act", x, Activation::Silu)?;
    x = b.linear("time_embedding.linear_2", x, 4 * width)?;
    b.unary("time_embedding", x, Activation::Silu)
}

/// `10000 ^ (-i / (n - shift))` for each `i` below `n`.
struct Frequencies {
    shape: [usize; 1],
    freq_shift: f64,
}

impl WeightData for Frequencies {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    // In `f32` step by step, as PyTorch computes them.
    fn read(&self) -> Cow<'_, [f32]> {
        let [n] = self.shape;
        let frequency = |i: usize| {
            let exponent = -libm::log(MAX_PERIOD) as f32 * i as f32;
            libm::expf(exponent / (n as f64 - self.freq_shift) as f32)
        };
        (0..n).map(frequency).collect::<Vec<f32>>().into()
    }
}

fn check(b: &Builder<'_>, config: &UnetConfig, latent: [usize; 2], tokens: usize) -> Built<()> {
    let widths = &config.block_out_channels;
    b.check_sizes("block_out_channels", widths)?;
    let levels = widths.len();
    b.check(levels <= 8, || format!("{levels} levels are too many"))?;
    for (name, sizes) in [
        ("the layers on the way down", &config.down_layers),
        ("the layers on the way up", &config.up_layers),
        ("the heads of the attentions", &config.heads),
    ] {
        b.check_sizes(name, sizes)?;
        b.check(sizes.len() == levels, || {
            format!("{name} are {sizes:?}, the model has {levels} levels")
        })?;
    }
    for attention in [&config.down_attention, &config.up_attention] {
        let fits = attention.len() == levels && attention.iter().all(|n| *n <= 64);
        b.check(fits, || {
            format!("the transformers' layers are {attention:?}, the model has {levels} levels")
        })?;
    }
    for (name, size) in [
        ("in_channels", config.in_channels),
        ("out_channels", config.out_channels),
        ("cross_attention_dim", config.cross_attention_dim),
        ("norm_num_groups", config.norm_num_groups),
        ("time_cond_proj_dim", config.time_cond_proj_dim.unwrap_or(1)),
        ("the number of tokens", tokens),
    ] {
        b.check_sizes(name, &[size])?;
    }
    b.check_sizes("the latent's size", &latent)?;
    let most = config.down_layers.iter().chain(&config.up_layers).max();
    b.check(most.is_none_or(|n| *n <= 64), || {
        "more than 64 layers in a block".into()
    })?;
    let down = config.down_layers.iter().sum::<usize>() + levels;
    let up: usize = config.up_layers.iter().sum();
    b.check(down == up, || {
        format!("the way down leaves {down} pictures, the way up takes {up}")
    })?;
    b.check(widths[0] % 2 == 0, || {
        format!("an embedding of {} columns has no halves", widths[0])
    })?;
    b.check(
        config.freq_shift.is_finite() && config.freq_shift < (widths[0] / 2) as f64,
        || format!("freq_shift is {}", config.freq_shift),
    )?;
    let multiple = 1 << (levels - 1);
    b.check(latent.iter().all(|n| n.is_multiple_of(multiple)), || {
        format!(
            "the latent's size {}x{} must be a multiple of {multiple}",
            latent[0], latent[1]
        )
    })
}
