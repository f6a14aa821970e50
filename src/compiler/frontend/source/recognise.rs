//! What the tensors of a file are, told by their names and shapes.

use super::ldm::{self, Named, any};

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// A whole model, or most of one, in the original layout.
    Checkpoint,
    /// A UNet alone.
    Unet,
    /// A text encoder alone.
    TextEncoder,
    /// A KL autoencoder alone.
    Vae,
    /// A tiny autoencoder.
    TinyVae,
    /// Changes to a model's layers.
    Lora,
    /// Vectors of new words.
    Embedding,
    /// A model of another kind, named.
    Other(&'static str),
    /// Nothing that is known.
    Unknown,
}

/// Marks of models that are not compiled: a part of a name, and the model that has it.
const OTHERS: [(&str, &str); 26] = [
    ("time_stack.", "a Stable Video Diffusion model"),
    (
        "temporal_transformer_blocks.",
        "a Stable Video Diffusion model",
    ),
    ("conditioner.embedders.1.", "a Stable Diffusion XL model"),
    (
        "conditioner.embedders.0.model.",
        "a Stable Diffusion XL refiner",
    ),
    ("add_embedding.", "the UNet of a Stable Diffusion XL model"),
    ("joint_blocks.", "a Stable Diffusion 3 model"),
    ("single_transformer_blocks.", "a Flux model"),
    ("double_blocks.", "a Flux model"),
    ("attn.add_q_proj.", "a Stable Diffusion 3 model"),
    ("clip_txt_mapper.", "a Stable Cascade model"),
    ("clip_txt_pooled_mapper.", "a Stable Cascade model"),
    ("effnet_mapper.", "a Stable Cascade model"),
    (".channelwise.", "a Stable Cascade model"),
    ("adaln_single.", "a PixArt model"),
    ("y_embedder.y_embedding", "a PixArt model"),
    ("controlnet_cond_embedding.", "a ControlNet"),
    ("control_model.", "a ControlNet"),
    ("input_hint_block.", "a ControlNet"),
    ("controlnet_blocks.", "a ControlNet"),
    ("motion_modules.", "an AnimateDiff motion module"),
    ("image_proj.", "an IP-Adapter"),
    ("ip_adapter.", "an IP-Adapter"),
    ("adapter.body.", "a T2I-Adapter"),
    ("patchify_proj.", "an LTX-Video model"),
    ("cond_seq_linear.", "an AuraFlow model"),
    ("embedder.model.visual.", "a Stable unCLIP model"),
];

/// Marks of a LoRA of any make.
const LORA: [&str; 10] = [
    ".lora_down.",
    ".lora_up.",
    ".lora_A.",
    ".lora_B.",
    ".lora.down.",
    ".lora.up.",
    "_lora.down.",
    ".hada_w1_a",
    ".lokr_w1",
    ".oft_blocks",
];

/// What these tensors are.
pub(super) fn recognise(tensors: &Named) -> Contents {
    let has = |mark: &str| tensors.keys().any(|name| name.contains(mark));
    if LORA.iter().any(|mark| has(mark)) {
        return Contents::Lora;
    }
    if let Some((_, other)) = OTHERS.iter().find(|(mark, _)| has(mark)) {
        return Contents::Other(other);
    }
    if let Some(other) = labelled(tensors) {
        return Contents::Other(other);
    }
    if any(tensors, ldm::UNET) {
        return Contents::Checkpoint;
    }
    if any(tensors, "input_blocks.") || (any(tensors, "down_blocks.") && any(tensors, "conv_in.")) {
        return Contents::Unet;
    }
    if super::tiny::tensors(tensors).is_some() {
        return Contents::TinyVae;
    }
    if any(tensors, ldm::VAE) || any(tensors, "decoder.up") {
        return Contents::Vae;
    }
    let clip = [
        ldm::CLIP,
        ldm::OPEN_CLIP,
        "text_model.embeddings.",
        "embeddings.token_embedding.",
        "transformer.resblocks.",
    ];
    if clip.iter().any(|prefix| any(tensors, prefix)) {
        return Contents::TextEncoder;
    }
    let words = tensors
        .values()
        .all(|weight| weight.shape().len() <= 2 && !weight.is_empty());
    if has("string_to_param") || has("emb_params") || (tensors.len() == 1 && words) {
        return Contents::Embedding;
    }
    Contents::Unknown
}

/// A UNet that is told more than a timestep.
fn labelled(tensors: &Named) -> Option<&'static str> {
    let (_, weight) = tensors
        .iter()
        .find(|(name, _)| name.ends_with("label_emb.0.0.weight"))?;
    Some(match weight.shape() {
        [_, 2816] => "the UNet of a Stable Diffusion XL model",
        [_, 2560] => "the UNet of a Stable Diffusion XL refiner",
        _ => "a UNet that is told more than a timestep, as Stable Diffusion XL's is",
    })
}
