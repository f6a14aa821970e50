//! Configurations from tensors alone, by diffusers' names: what names and shapes tell is counted, the rest is what the
//! family has.

use super::ldm::{Named, any};
use crate::frontend::diffusers::config::{
    HiddenAct, MidBlock, TextEncoderConfig, TinyVaeConfig, UnetConfig, VaeConfig,
};

/// Heads of every attention of Stable Diffusion 1.
const HEADS: usize = 8;
/// Channels of a head in Stable Diffusion 2, and in every CLIP.
const HEAD_CHANNELS: usize = 64;
/// Groups of every norm.
const GROUPS: usize = 32;
/// Width of the text encoder of Stable Diffusion 2.
const OPEN_CLIP_WIDTH: usize = 1024;

fn size(tensors: &Named, name: &str, axis: usize) -> Option<usize> {
    tensors.get(name)?.shape().get(axis).copied()
}

/// How many numbers from 0 on stand between `prefix` and `suffix`.
fn count(tensors: &Named, prefix: &str, suffix: &str) -> usize {
    (0..)
        .take_while(|n| any(tensors, &format!("{prefix}{n}{suffix}")))
        .count()
}

/// A UNet's configuration; `None` if its first layers are not there.
pub(super) fn unet(tensors: &Named) -> Option<UnetConfig> {
    let levels = count(tensors, "down_blocks.", ".");
    let layers = |block: &str| count(tensors, &format!("{block}.resnets."), ".");
    // Blocks of a level may have attentions in all layers or in none.
    let attention = |block: &str| {
        count(
            tensors,
            &format!("{block}.attentions.0.transformer_blocks."),
            ".",
        )
    };
    let downs: Vec<String> = (0..levels).map(|i| format!("down_blocks.{i}")).collect();
    let ups: Vec<String> = (0..levels)
        .rev()
        .map(|i| format!("up_blocks.{i}"))
        .collect();
    let block_out_channels: Vec<usize> = downs
        .iter()
        .map(|block| size(tensors, &format!("{block}.resnets.0.conv1.weight"), 0))
        .collect::<Option<_>>()?;
    if block_out_channels.is_empty() {
        return None;
    }
    let first = tensors
        .keys()
        .find(|name| name.ends_with(".attn2.to_k.weight"))?;
    let linear = tensors
        .iter()
        .find(|(name, _)| name.ends_with(".proj_in.weight"))
        .is_some_and(|(_, weight)| weight.shape().len() == 2);
    // Stable Diffusion 2 came with linear projections and with heads of one width.
    let heads: Vec<usize> = block_out_channels
        .iter()
        .map(|channels| {
            if linear {
                (channels / HEAD_CHANNELS).max(1)
            } else {
                HEADS
            }
        })
        .collect();
    let mid = any(tensors, "mid_block.resnets.0.").then(|| MidBlock {
        attention: attention("mid_block"),
        heads: heads[levels - 1],
    });
    Some(UnetConfig {
        in_channels: size(tensors, "conv_in.weight", 1)?,
        out_channels: size(tensors, "conv_out.weight", 0)?,
        down_layers: downs.iter().map(|block| layers(block)).collect(),
        up_layers: ups.iter().map(|block| layers(block)).collect(),
        down_attention: downs.iter().map(|block| attention(block)).collect(),
        up_attention: ups.iter().map(|block| attention(block)).collect(),
        mid,
        heads,
        cross_attention_dim: size(tensors, first, 1)?,
        norm_num_groups: GROUPS,
        norm_eps: 1e-5,
        use_linear_projection: linear,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
        time_cond_proj_dim: size(tensors, "time_embedding.cond_proj.weight", 1),
        sample_size: [64, 64],
        block_out_channels,
    })
}

/// An autoencoder's configuration; `None` if its decoder is not there.
pub(super) fn vae(tensors: &Named) -> Option<VaeConfig> {
    let levels = count(tensors, "decoder.up_blocks.", ".");
    let block_out_channels: Vec<usize> = (0..levels)
        .rev()
        .map(|i| {
            let layer = format!("decoder.up_blocks.{i}.resnets.0.conv1.weight");
            size(tensors, &layer, 0)
        })
        .collect::<Option<_>>()?;
    if block_out_channels.is_empty() {
        return None;
    }
    Some(VaeConfig {
        latent_channels: size(tensors, "decoder.conv_in.weight", 1)?,
        block_out_channels,
        layers_per_block: count(tensors, "decoder.up_blocks.0.resnets.", ".").checked_sub(1)?,
        norm_num_groups: GROUPS,
        use_quant_conv: any(tensors, "quant_conv."),
        use_post_quant_conv: any(tensors, "post_quant_conv."),
        mid_block_add_attention: any(tensors, "decoder.mid_block.attentions.0."),
        scaling_factor: 0.18215,
    })
}

/// A text encoder's configuration; `None` if its tables are not there. `open` says that it was in OpenCLIP's layout.
pub(super) fn text_encoder(tensors: &Named, open: bool) -> Option<TextEncoderConfig> {
    const TOKENS: &str = "text_model.embeddings.token_embedding.weight";
    const POSITIONS: &str = "text_model.embeddings.position_embedding.weight";
    const LAYERS: &str = "text_model.encoder.layers.";
    let hidden_size = size(tensors, TOKENS, 1)?;
    Some(TextEncoderConfig {
        vocab_size: size(tensors, TOKENS, 0)?,
        hidden_size,
        intermediate_size: size(tensors, &format!("{LAYERS}0.mlp.fc1.weight"), 0)?,
        num_hidden_layers: count(tensors, LAYERS, "."),
        num_attention_heads: (hidden_size / HEAD_CHANNELS).max(1),
        max_position_embeddings: size(tensors, POSITIONS, 0)?,
        hidden_act: if open || hidden_size == OPEN_CLIP_WIDTH {
            HiddenAct::Gelu
        } else {
            HiddenAct::QuickGelu
        },
        layer_norm_eps: 1e-5,
    })
}

/// A tiny autoencoder's configuration; `None` if its decoder is not there. Without an encoder, the encoder's lists are
/// empty.
pub(super) fn tiny(tensors: &Named) -> Option<TinyVaeConfig> {
    let (decoder_block_out_channels, num_decoder_blocks) = tiny_levels(tensors, "decoder")?;
    let (encoder_block_out_channels, num_encoder_blocks) =
        tiny_levels(tensors, "encoder").unwrap_or_default();
    Some(TinyVaeConfig {
        latent_channels: size(tensors, "decoder.layers.0.weight", 1)?,
        encoder_block_out_channels,
        decoder_block_out_channels,
        num_encoder_blocks,
        num_decoder_blocks,
        scaling_factor: 1.0,
    })
}

/// Channels and blocks of each level of one half: its layers are a convolution before each level, and one at the end.
fn tiny_levels(tensors: &Named, half: &str) -> Option<(Vec<usize>, Vec<usize>)> {
    let prefix = format!("{half}.layers.");
    let numbers = tensors.keys().filter_map(|name| {
        let (number, rest) = name.strip_prefix(&prefix)?.split_once('.')?;
        Some((number.parse::<usize>().ok()?, rest.starts_with("conv.")))
    });
    let layers: std::collections::BTreeMap<usize, bool> = numbers.collect();
    let mut levels: Vec<(usize, usize)> = Vec::new();
    for (number, block) in layers {
        match (block, levels.last_mut()) {
            (true, Some((_, blocks))) => *blocks += 1,
            (true, None) => return None,
            (false, _) => levels.push((size(tensors, &format!("{prefix}{number}.weight"), 0)?, 0)),
        }
    }
    // The last convolution begins no level.
    levels.pop()?;
    (!levels.is_empty()).then(|| levels.into_iter().unzip())
}
