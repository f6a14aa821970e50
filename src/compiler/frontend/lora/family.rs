//! Which models a LoRA was made for, as far as its tensors tell.

use std::fmt;

use super::names::{Role, split};
use crate::frontend::tensors::Tensors;

/// Models that share their shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Family {
    StableDiffusion1,
    StableDiffusion2,
    StableDiffusionXl,
    StableDiffusion3,
    Flux,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::StableDiffusion1 => "Stable Diffusion 1",
            Family::StableDiffusion2 => "Stable Diffusion 2",
            Family::StableDiffusionXl => "Stable Diffusion XL",
            Family::StableDiffusion3 => "Stable Diffusion 3",
            Family::Flux => "Flux",
        })
    }
}

/// Names that only one family has.
const NAMES: &[(&str, Family)] = &[
    ("lora_te3_", Family::StableDiffusion3),
    ("joint_blocks", Family::StableDiffusion3),
    ("add_k_proj", Family::StableDiffusion3),
    ("lora_te2_", Family::StableDiffusionXl),
    ("text_encoder_2.", Family::StableDiffusionXl),
    ("label_emb", Family::StableDiffusionXl),
    ("add_embedding", Family::StableDiffusionXl),
    ("double_blocks", Family::Flux),
    ("single_blocks", Family::Flux),
    ("single_transformer_blocks", Family::Flux),
    // Trainers of Stable Diffusion 1 number no text encoder.
    ("lora_te1_", Family::StableDiffusionXl),
];

impl Family {
    /// Whether `name` belongs to a second or third text encoder, which no model that can be compiled has.
    pub(super) fn is_foreign(name: &str) -> bool {
        let parts = [
            "lora_te2_",
            "lora_te3_",
            "text_encoder_2.",
            "text_encoder_3.",
        ];
        parts.iter().any(|part| name.starts_with(part))
    }

    /// The family of a LoRA.
    pub(super) fn of(lora: &Tensors) -> Option<Family> {
        let named = NAMES.iter().find_map(|(part, family)| {
            let mut names = lora.by_name.keys();
            names.any(|name| name.contains(part)).then_some(*family)
        });
        named.or_else(|| {
            lora.by_name.iter().find_map(|(name, weight)| {
                let (module, role) = split(name)?;
                let width = *weight.shape().get(1)?;
                matches!(role, Role::Down | Role::HadaB(_)).then_some(())?;
                by_width(module, width)
            })
        })
    }

    /// The family of a UNet, in diffusers' names.
    pub(super) fn of_model(unet: &Tensors) -> Option<Family> {
        unet.by_name.iter().find_map(|(name, weight)| {
            by_width(name.strip_suffix(".weight")?, *weight.shape().get(1)?)
        })
    }
}

/// By the width of the context that a cross-attention reads.
fn by_width(module: &str, width: usize) -> Option<Family> {
    let reads_context = ["attn2.to_k", "attn2.to_v", "attn2_to_k", "attn2_to_v"];
    let old = ["attn2.processor.to_k", "attn2.processor.to_v"];
    let mut ends = reads_context.iter().chain(&old);
    ends.any(|end| module.ends_with(end)).then_some(())?;
    match width {
        768 => Some(Family::StableDiffusion1),
        1024 => Some(Family::StableDiffusion2),
        2048 => Some(Family::StableDiffusionXl),
        _ => None,
    }
}
