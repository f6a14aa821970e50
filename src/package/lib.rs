//! The `.kiln` file: everything that the runtime needs of a model, in one read-only file that is used in place.
//!
//! The format is little-endian and versioned. A file is a header, a section table and the sections, in this order
//! and at these alignments, with zeros between them ([`mod@format`] has the bytes):
//!
//! | section | holds |
//! |---|---|
//! | card | JSON: name, licence, source hashes, defaults |
//! | tokenizer | `tokenizer.json` |
//! | scheduler | `scheduler_config.json` |
//! | programs | a program for each graph, stage and picture size: steps with operators, attributes, operands, names |
//! | weights | page-aligned, packed as the kernels read them, in execution order |
//! | checksums | a CRC-32C for each MiB of the weights |
//!
//! The tree:
//!
//! - `types`: the words both sides share: element types, operands, graph kinds.
//! - `op`: the operators, `check`: what their operands must be.
//! - `format`: sizes and numbers of the file's records, `bytes`: reading them, `crc`: CRC-32C.
//! - `reader`: [`Package`], `program`: [`Program`], [`Step`] and [`Port`], `validate` and `stages`: what is checked before use.
//! - `turns`: what lanes share of an arena, and in which order they run.
//! - `buffers`: when which bytes of an arena are in use.
//! - `writer`: [`PackageWriter`], which writes what the reader accepts.
//!
//! [`Package::open`] checks everything but the contents of the weights, so what it returns can be trusted: every
//! operand lies inside its space and has the size and type that its operator takes. The reader borrows the bytes, does
//! not allocate and uses `core` alone.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
extern crate std;

mod buffers;
mod bytes;
mod check;
mod crc;
mod error;
pub mod format;
mod op;
mod program;
mod reader;
mod stages;
mod turns;
mod types;
mod validate;
mod writer;

#[cfg(test)]
mod tests;

pub use buffers::Buffer;
pub use check::{Holds, Requirement};
pub use crc::{Crc32c, crc32c};
pub use error::{PackageError, Place, What};
pub use op::*;
pub use program::{Operands, Port, Ports, Program, Programs, Step, Steps};
pub use reader::Package;
pub use turns::{Turn, Turns};
pub use types::{DType, GraphKind, Layout, Operand, Space, Stage};
pub use writer::{PackageWriter, PortRecord, ProgramRecord, StepRecord, WeightWriter, WriteError};
