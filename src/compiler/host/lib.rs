//! The compiler with its ONNX frontend, as `build.rs` uses it on the host.
//!
//! A name of its own, because Cargo gives one optional dependency one switch: under its own name the compiler could not be a build-dependency
//! (with tract) without being linked into the command, nor in the command (without tract) without building tract for the host.

#![forbid(unsafe_code)]

pub use kiln_compiler::*;
