//! From a checkpoint to a `.kiln` file.

pub mod frontend;
pub mod graph;
pub mod passes;
