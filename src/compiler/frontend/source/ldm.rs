//! From the original latent-diffusion layout's names to those of diffusers and transformers.
//!
//! A name that is not known stays as it is: it is surplus then, and told.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::graph::{Weight, WeightData};

/// Tensors by name.
pub(super) type Named = BTreeMap<String, Weight>;

/// What the tensors of a part may begin with in the original layout.
pub(super) const UNET: &str = "model.diffusion_model.";
/// The same of the autoencoder.
pub(super) const VAE: &str = "first_stage_model.";
/// The same of the text encoder: CLIP as transformers names it.
pub(super) const CLIP: &str = "cond_stage_model.transformer.";
/// The same of OpenCLIP.
pub(super) const OPEN_CLIP: &str = "cond_stage_model.model.";

/// Those whose name begins with `prefix`, without it.
pub(super) fn below(tensors: &Named, prefix: &str) -> Named {
    let found = tensors
        .range(prefix.to_owned()..)
        .take_while(|(name, _)| name.starts_with(prefix));
    found
        .map(|(name, weight)| (name[prefix.len()..].to_owned(), weight.clone()))
        .collect()
}

/// Whether any name begins with `prefix`.
pub(super) fn any(tensors: &Named, prefix: &str) -> bool {
    tensors
        .range(prefix.to_owned()..)
        .next()
        .is_some_and(|(name, _)| name.starts_with(prefix))
}

/// What stands in a place of a UNet's numbered blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Resnet,
    Attention,
    Downsample,
    Upsample,
}

impl Place {
    fn of(rest: &str) -> Option<Self> {
        let layer = rest.split('.').next().unwrap_or_default();
        match layer {
            "in_layers" | "out_layers" | "emb_layers" | "skip_connection" => Some(Self::Resnet),
            "norm" | "proj_in" | "proj_out" | "transformer_blocks" => Some(Self::Attention),
            "op" => Some(Self::Downsample),
            "conv" => Some(Self::Upsample),
            _ => None,
        }
    }
}

/// `BLOCK.PLACE.REST` after `prefix`.
fn numbered<'a>(name: &'a str, prefix: &str) -> Option<(usize, usize, &'a str)> {
    let mut parts = name.strip_prefix(prefix)?.splitn(3, '.');
    let block = parts.next()?.parse().ok()?;
    let place = parts.next()?.parse().ok()?;
    Some((block, place, parts.next()?))
}

/// What stands where in the blocks of one direction, in order.
fn places(tensors: &Named, prefix: &str) -> BTreeMap<(usize, usize), Place> {
    tensors
        .keys()
        .filter_map(|name| {
            let (block, place, rest) = numbered(name, prefix)?;
            Some(((block, place), Place::of(rest)?))
        })
        .collect()
}

/// Where each place of the numbered blocks is in diffusers, such as `down_blocks.0.resnets.1`. A level ends with its
/// sampler. The numbers may have gaps, as they have in distilled models that kept the numbers of the full one.
fn targets(
    places: &BTreeMap<(usize, usize), Place>,
    blocks: &str,
) -> BTreeMap<(usize, usize), String> {
    let mut targets = BTreeMap::new();
    let (mut level, mut layer) = (0, 0);
    let numbers: Vec<usize> = places.keys().map(|(block, _)| *block).collect();
    let mut seen = None;
    for number in numbers {
        if seen.replace(number) == Some(number) {
            continue;
        }
        let (mut ends, mut resnet) = (false, false);
        for (key, place) in places.range((number, 0)..=(number, usize::MAX)) {
            let target = match place {
                Place::Resnet => {
                    resnet = true;
                    format!("{blocks}.{level}.resnets.{layer}")
                }
                Place::Attention => format!("{blocks}.{level}.attentions.{layer}"),
                Place::Downsample => {
                    ends = true;
                    format!("{blocks}.{level}.downsamplers.0")
                }
                Place::Upsample => {
                    ends = true;
                    format!("{blocks}.{level}.upsamplers.0")
                }
            };
            targets.insert(*key, target);
        }
        layer += usize::from(resnet);
        if ends {
            (level, layer) = (level + 1, 0);
        }
    }
    targets
}

/// A layer within a residual block, a transformer or a sampler of a UNet.
fn unet_layer(rest: &str) -> Cow<'_, str> {
    const LAYERS: [(&str, &str); 7] = [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("emb_layers.1.", "time_emb_proj."),
        ("skip_connection.", "conv_shortcut."),
        ("op.", "conv."),
    ];
    for (old, new) in LAYERS {
        if let Some(end) = rest.strip_prefix(old) {
            return format!("{new}{end}").into();
        }
    }
    rest.into()
}

/// A UNet's tensors, without [`UNET`], under diffusers' names.
pub(super) fn unet(tensors: &Named) -> Named {
    const WHOLE: [(&str, &str); 6] = [
        ("time_embed.0.", "time_embedding.linear_1."),
        ("time_embed.2.", "time_embedding.linear_2."),
        ("time_embed.cond_proj.", "time_embedding.cond_proj."),
        ("input_blocks.0.0.", "conv_in."),
        ("out.0.", "conv_norm_out."),
        ("out.2.", "conv_out."),
    ];
    let down = targets(&places(tensors, "input_blocks."), "down_blocks");
    let up = targets(&places(tensors, "output_blocks."), "up_blocks");
    let rename = |name: &str| -> Option<String> {
        for (old, new) in WHOLE {
            if let Some(end) = name.strip_prefix(old) {
                return Some(format!("{new}{end}"));
            }
        }
        for (prefix, targets) in [("input_blocks.", &down), ("output_blocks.", &up)] {
            if let Some((block, place, rest)) = numbered(name, prefix) {
                let target = targets.get(&(block, place))?;
                return Some(format!("{target}.{}", unet_layer(rest)));
            }
        }
        let (place, rest) = name.strip_prefix("middle_block.")?.split_once('.')?;
        let place: usize = place.parse().ok()?;
        let target = match place % 2 {
            0 => format!("mid_block.resnets.{}", place / 2),
            _ => format!("mid_block.attentions.{}", place / 2),
        };
        Some(format!("{target}.{}", unet_layer(rest)))
    };
    renamed(tensors, rename)
}

fn renamed(tensors: &Named, rename: impl Fn(&str) -> Option<String>) -> Named {
    let pairs = tensors
        .iter()
        .map(|(name, weight)| (rename(name).unwrap_or_else(|| name.clone()), weight.clone()));
    pairs.collect()
}

/// An autoencoder's tensors, without [`VAE`], under diffusers' names. Attention's 1x1 convolutions stay what they are;
/// whoever takes them asks for Linear layers.
pub(super) fn vae(tensors: &Named) -> Named {
    let level = |name: &str| -> Option<usize> {
        let rest = name.strip_prefix("decoder.up.")?;
        rest.split('.').next()?.parse().ok()
    };
    let last = tensors
        .keys()
        .filter_map(|name| level(name))
        .max()
        .unwrap_or(0);
    renamed(tensors, |name| {
        let (half, rest) = name.split_once('.')?;
        if !["encoder", "decoder"].contains(&half) {
            return None;
        }
        Some(format!("{half}.{}", vae_layer(half, rest, last)?))
    })
}

/// A layer within one half of an autoencoder, whose coarsest level is `last`.
fn vae_layer(half: &str, rest: &str, last: usize) -> Option<String> {
    if let Some(end) = rest.strip_prefix("norm_out.") {
        return Some(format!("conv_norm_out.{end}"));
    }
    if let Some(rest) = rest.strip_prefix("mid.") {
        let (layer, rest) = rest.split_once('.')?;
        return Some(match layer {
            "block_1" => format!("mid_block.resnets.0.{}", vae_resnet(rest)),
            "block_2" => format!("mid_block.resnets.1.{}", vae_resnet(rest)),
            "attn_1" => format!("mid_block.attentions.0.{}", vae_attention(rest)),
            _ => return None,
        });
    }
    let (blocks, rest) = match half {
        "encoder" => ("down_blocks", rest.strip_prefix("down.")?),
        _ => ("up_blocks", rest.strip_prefix("up.")?),
    };
    let (level, rest) = rest.split_once('.')?;
    let level: usize = level.parse().ok()?;
    let level = if half == "encoder" {
        level
    } else {
        last - level
    };
    if let Some(rest) = rest.strip_prefix("block.") {
        let (layer, rest) = rest.split_once('.')?;
        return Some(format!(
            "{blocks}.{level}.resnets.{layer}.{}",
            vae_resnet(rest)
        ));
    }
    for (old, new) in [
        ("downsample.", "downsamplers.0."),
        ("upsample.", "upsamplers.0."),
    ] {
        if let Some(end) = rest.strip_prefix(old) {
            return Some(format!("{blocks}.{level}.{new}{end}"));
        }
    }
    None
}

fn vae_resnet(rest: &str) -> Cow<'_, str> {
    match rest.strip_prefix("nin_shortcut.") {
        Some(end) => format!("conv_shortcut.{end}").into(),
        None => rest.into(),
    }
}

/// Of the original layout and of diffusers' own first one.
fn vae_attention(rest: &str) -> Cow<'_, str> {
    const LAYERS: [(&str, &str); 9] = [
        ("norm.", "group_norm."),
        ("q.", "to_q."),
        ("k.", "to_k."),
        ("v.", "to_v."),
        ("proj_out.", "to_out.0."),
        ("query.", "to_q."),
        ("key.", "to_k."),
        ("value.", "to_v."),
        ("proj_attn.", "to_out.0."),
    ];
    for (old, new) in LAYERS {
        if let Some(end) = rest.strip_prefix(old) {
            return format!("{new}{end}").into();
        }
    }
    rest.into()
}

/// An autoencoder's tensors under diffusers' names of today, from its own names of any age.
pub(super) fn diffusers_vae(tensors: &Named) -> Named {
    const ATTENTION: &str = ".mid_block.attentions.0.";
    renamed(tensors, |name| {
        let (half, rest) = name.split_once(ATTENTION)?;
        Some(format!("{half}{ATTENTION}{}", vae_attention(rest)))
    })
}

/// A text encoder's tensors under transformers' names, which have `text_model.` before them in most files.
pub(super) fn clip(tensors: &Named) -> Named {
    renamed(tensors, |name| {
        let parts = ["embeddings.", "encoder.", "final_layer_norm."];
        parts
            .iter()
            .any(|part| name.starts_with(part))
            .then(|| format!("text_model.{name}"))
    })
}

/// An OpenCLIP text encoder's tensors, without [`OPEN_CLIP`], under transformers' names. The last of its layers is left
/// out: Stable Diffusion 2 was trained on what comes out of the one before it.
pub(super) fn open_clip(tensors: &Named) -> Named {
    const WHOLE: [(&str, &str); 3] = [
        (
            "positional_embedding",
            "text_model.embeddings.position_embedding.weight",
        ),
        ("token_embedding.", "text_model.embeddings.token_embedding."),
        ("ln_final.", "text_model.final_layer_norm."),
    ];
    const LAYERS: [(&str, &str); 5] = [
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
        ("attn.out_proj.", "self_attn.out_proj."),
    ];
    let layer = |name: &str| -> Option<(usize, String)> {
        let (layer, rest) = name
            .strip_prefix("transformer.resblocks.")?
            .split_once('.')?;
        Some((layer.parse().ok()?, rest.to_owned()))
    };
    let last = tensors
        .keys()
        .filter_map(|name| layer(name))
        .map(|(n, _)| n)
        .max();
    let mut named = Named::new();
    for (name, weight) in tensors {
        let Some((number, rest)) = layer(name) else {
            let known = WHOLE
                .iter()
                .find_map(|(old, new)| Some(format!("{new}{}", name.strip_prefix(old)?)));
            named.insert(known.unwrap_or_else(|| name.clone()), weight.clone());
            continue;
        };
        if Some(number) == last {
            continue;
        }
        let target = format!("text_model.encoder.layers.{number}");
        if let Some(kind) = rest.strip_prefix("attn.in_proj_") {
            for (part, projection) in ["q_proj", "k_proj", "v_proj"].iter().enumerate() {
                let third = Third::of(weight, part).map_or_else(|| weight.clone(), Weight::new);
                named.insert(format!("{target}.self_attn.{projection}.{kind}"), third);
            }
            continue;
        }
        let known = LAYERS
            .iter()
            .find_map(|(old, new)| Some(format!("{new}{}", rest.strip_prefix(old)?)));
        named.insert(
            known.map_or_else(|| name.clone(), |rest| format!("{target}.{rest}")),
            weight.clone(),
        );
    }
    named
}

/// One of the three equal parts of a tensor, along its first axis, cut when it is read.
struct Third {
    whole: Weight,
    part: usize,
    shape: Vec<usize>,
}

impl Third {
    fn of(whole: &Weight, part: usize) -> Option<Self> {
        let mut shape = whole.shape().to_vec();
        let rows = shape.first_mut().filter(|rows| rows.is_multiple_of(3))?;
        *rows /= 3;
        Some(Third {
            whole: whole.clone(),
            part,
            shape,
        })
    }
}

impl WeightData for Third {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn read(&self) -> Cow<'_, [f32]> {
        let len: usize = self.shape.iter().product();
        let range = self.part * len..(self.part + 1) * len;
        match self.whole.read() {
            Cow::Borrowed(values) => Cow::Borrowed(&values[range]),
            Cow::Owned(values) => Cow::Owned(values[range].to_vec()),
        }
    }
}
