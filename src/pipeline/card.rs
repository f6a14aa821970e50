//! The model card: what the package says about its model, in JSON.

use serde::Deserialize;

use super::error::SectionError;
use super::picture::ModelName;

/// What the pipeline reads of a package's model card. The card may say more.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Card {
    /// The model's name.
    pub name: String,
    /// What it is and what it draws.
    #[serde(default)]
    pub description: String,
    /// The licence of its weights.
    #[serde(default)]
    pub license: String,
    /// What the package was compiled with: `f32`, `f16` or `int8`.
    #[serde(default)]
    pub precision: String,
    /// What a request that does not say takes.
    pub defaults: Defaults,
    /// Latents are divided by it before they are decoded.
    pub vae_scaling_factor: f32,
    /// `taesd` if the VAE is a tiny autoencoder itself.
    #[serde(default)]
    pub vae: Option<String>,
    /// Latents are divided by it before the tiny autoencoder beside the VAE decodes them.
    #[serde(default)]
    pub taesd_scaling_factor: Option<f32>,
    /// The side of the VAE's tiles, in pixels, unless another is asked for.
    #[serde(default)]
    pub tile: Option<u32>,
    /// The text encoder's input.
    pub text: TextCard,
    /// Red, green and blue of each channel of a latent, then what is added: -1 is black, 1 is white.
    #[serde(default)]
    pub preview: Option<Vec<[f32; 3]>>,
    /// The files that it was compiled from.
    #[serde(default)]
    pub sources: Vec<SourceCard>,
}

/// A file that a model was compiled from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SourceCard {
    /// Its path in the source's folder.
    pub path: String,
    /// SHA-256 of its contents, in hexadecimal.
    pub sha256: String,
}

/// The settings that the model's makers recommend.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Defaults {
    /// Steps of the sampler.
    pub steps: usize,
    /// Guidance scale.
    pub guidance_scale: f32,
    /// Name of the sampler.
    pub sampler: String,
    /// Picture width in pixels.
    pub width: u32,
    /// Picture height in pixels.
    pub height: u32,
    /// As in [`Settings`](super::Settings).
    #[serde(default = "one")]
    pub clip_skip: u32,
}

fn one() -> u32 {
    1
}

/// The text encoder's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct TextCard {
    /// Tokens, begin and end included.
    pub max_length: usize,
    /// The token that begins a prompt.
    pub bos: i32,
    /// The token that ends a prompt.
    pub eos: i32,
    /// The token that fills the rest.
    pub pad: i32,
}

impl Card {
    /// Reads a card and checks its numbers.
    pub fn from_json(json: &str) -> Result<Self, SectionError> {
        let card: Card = serde_json::from_str(json).map_err(|e| error(e.to_string()))?;
        for (name, scale) in [
            ("vae_scaling_factor", Some(card.vae_scaling_factor)),
            ("taesd_scaling_factor", card.taesd_scaling_factor),
        ] {
            if let Some(scale) = scale.filter(|scale| !(scale.is_finite() && *scale > 0.0)) {
                return Err(error(format!(
                    "{name} is {scale}, expected a positive number"
                )));
            }
        }
        if !(2..=1 << 16).contains(&card.text.max_length) {
            return Err(error(format!(
                "text.max_length is {}, expected 2 to 65536",
                card.text.max_length
            )));
        }
        Ok(card)
    }
}

impl Card {
    /// Whether the VAE is a tiny autoencoder.
    pub(super) fn has_tiny_vae(&self) -> bool {
        self.vae.as_deref() == Some("taesd")
    }

    /// What pictures say of the model.
    pub fn model_name(&self) -> ModelName {
        let is_checkpoint = |source: &&SourceCard| {
            [".safetensors", ".ckpt"]
                .iter()
                .any(|end| source.path.ends_with(end))
        };
        let mut checkpoints = self.sources.iter().filter(is_checkpoint);
        let only = checkpoints.next().filter(|_| checkpoints.next().is_none());
        ModelName {
            name: self.name.clone(),
            hash: only.and_then(|source| Some(source.sha256.get(..10)?.to_owned())),
        }
    }
}

fn error(reason: String) -> SectionError {
    SectionError {
        section: "card",
        reason,
    }
}
