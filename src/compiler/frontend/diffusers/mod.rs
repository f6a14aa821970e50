//! The known architectures, built from tensors under the names that diffusers and transformers give them.
//!
//! - `config`: what tells two models of one architecture apart.
//! - `parameters`: where a builder gets its weights.

pub mod config;
pub mod parameters;
