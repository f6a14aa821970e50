//! The known architectures, built from tensors under the names that diffusers and transformers give them.
//!
//! - `config`: what tells two models of one architecture apart.
//! - `parameters`: where a builder gets its weights.
//! - `text_encoder`, `unet`, `vae`, `taesd`: a model part each, as a graph of source operators. Layers are called by their
//!   module paths, so a model gives the same graph here and through the ONNX import.
//! - `layers`: the layers that the parts share.
//! - `geometry`, `random`: known models by name, with weights that nobody trained.

pub mod config;
pub mod geometry;
mod layers;
pub mod parameters;
mod random;
pub mod taesd;
#[cfg(test)]
mod tests;
pub mod text_encoder;
pub mod unet;
pub mod vae;

pub use layers::ArchitectureError;
