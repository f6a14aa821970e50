//! Sources of models. Each gives a [`Checkpoint`]: one graph of source operators per model part, and what the package says
//! about the model.

pub(crate) mod card;
pub mod diffusers;
pub mod embedding;
pub mod lora;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod source;
pub mod tensors;
#[cfg(test)]
mod tests;
pub mod tokenizer;
/// The weights of fixtures that hold none.
#[cfg(test)]
#[path = "../../../tests/common/uniform.rs"]
mod uniform;

pub use card::{Card, CardError, SourceFile, TextSettings, sha256};

use crate::graph::Graph;

/// A model as a source gives it, at its own picture size.
#[derive(Debug)]
pub struct Checkpoint {
    /// Token ids to embeddings.
    pub text_encoder: Graph,
    /// A latent, a timestep and embeddings to the predicted noise.
    pub unet: Graph,
    /// A latent to a picture.
    pub vae_decoder: Graph,
    /// A picture to the moments of its latent, if the source has one.
    pub vae_encoder: Option<Graph>,
    /// A latent to a picture by a tiny autoencoder (TAESD), if there is one beside the VAE.
    pub taesd_decoder: Option<Graph>,
    /// Picture pixels per latent pixel, in both directions.
    pub vae_factor: usize,
    /// Height and width of the latent that the graphs are shaped for.
    pub latent: [usize; 2],
    /// What the package says about the model.
    pub card: Card,
    /// `tokenizer.json`
    pub tokenizer: Vec<u8>,
    /// `scheduler_config.json`
    pub scheduler: String,
}
