//! From graphs that hold only kiln operators to a package.
//!
//! - `steps`: a node becomes an operator with its sizes.
//! - `bands`: what is too large to be whole is computed in bands of rows.
//! - `buffers`: what values need a place in the arena, and when.
//! - `memory`: every value that is not a weight gets its place in the arena.
//! - `lanes`: what of the arena is there once for two lanes.
//! - `weights`: every weight gets its place in the package, packed as the kernels read it.
//! - `pinned`: what the stages of a graph give to each other gets its place in all their arenas.
//! - `program`: all together make the steps.
//! - `text`: a program as text.
//!
//! [`Plan::new`] does all but write; [`emit`] writes the package too. Weights are read twice, once to find equal ones and
//! once to write them, and no more than two at a time.

mod bands;
mod buffers;
mod lanes;
pub mod memory;
mod pinned;
mod program;
mod steps;
mod text;
mod weights;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{Seek, Write};

use kiln_package::{DType, GraphKind, PackageWriter, ProgramRecord, Stage, WriteError};

use crate::Cancel;
use crate::graph::{Graph, Node};
pub use bands::Bands;
pub use lanes::Lanes;
use pinned::Pinned;
pub use text::Listing;
pub use weights::{Form, PlacedWeight, Weights};

/// The numbers a package computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Weights and activations in `f32`: the way to check a frontend against its source.
    F32,
    /// Weights and activations stored as `f16`, computed in `f32`.
    F16,
    /// As `F16`, but for the products of 8-bit integers that the graphs have.
    Int8,
}

impl Precision {
    /// `f32`, `f16` or `int8`, as in the model card.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Int8 => "int8",
        }
    }

    /// The type of activations and of matrices that are not in 8 bits.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F16 | Precision::Int8 => DType::F16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A graph at one size, or a stage of one.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which graph of the model it is.
    pub kind: GraphKind,
    /// When it runs. The outputs of [`Stage::Prompt`] and [`Stage::Timestep`] are the inputs of the same names of
    /// [`Stage::Step`].
    pub stage: Stage,
    /// The chunks of context that the rows of the inputs of [`Stage::Prompt`] are for; 1 says that there are none.
    pub max_chunks: u32,
    /// Height in pixels of the picture it is for; 0 for the text encoder.
    pub height: u32,
    /// Width in pixels of the picture it is for; 0 for the text encoder.
    pub width: u32,
    /// Of a text encoder, one more than the last layers that are left out; 0 for all other graphs.
    pub clip_skip: u32,
    /// The graph, after all passes.
    pub graph: Graph,
}

/// What a package is made of.
#[derive(Clone, Debug, Default)]
pub struct PackageParts {
    /// The model card, JSON.
    pub card: String,
    /// The contents of `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// The contents of `scheduler_config.json`.
    pub scheduler: String,
    /// The graphs, each at every size.
    pub graphs: Vec<Part>,
    /// When large pictures are treated in bands.
    pub bands: Bands,
    /// When lanes share a part of an arena.
    pub lanes: Lanes,
    /// Ends planning and writing with an error, between two weights.
    pub cancel: Cancel,
}

/// Why graphs cannot become a package.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A node cannot be a step.
    #[error("graph {graph:?}, node {node:?} ({op}): {problem}")]
    Node {
        /// The graph's name.
        graph: String,
        /// The node's name.
        node: String,
        /// The node's operator.
        op: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An input or output cannot be one of a program.
    #[error("graph {graph:?}, port {port:?}: {problem}")]
    Port {
        /// The graph's name.
        graph: String,
        /// The port's name.
        port: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A weight cannot be stored.
    #[error("weight {name:?}: {problem}")]
    Weight {
        /// The weight's name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two buffers in use at the same time share bytes.
    #[error("compiler bug: graph {graph:?}: buffers {a} and {b} overlap in the arena")]
    Overlap {
        /// The graph's name.
        graph: String,
        /// A buffer.
        a: usize,
        /// Another.
        b: usize,
    },
    /// The package could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Someone asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl PlanError {
    fn node(graph: &Graph, node: &Node, problem: impl Into<String>) -> Self {
        PlanError::Node {
            graph: graph.name.clone(),
            node: node.name.clone(),
            op: node.op.name(),
            problem: problem.into(),
        }
    }
}

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A program is being planned.
    Program {
        /// Its graph.
        graph: GraphKind,
        /// Its height in pixels.
        height: u32,
        /// Its width in pixels.
        width: u32,
    },
    /// Weights are being written.
    Weights {
        /// Bytes written.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
}

/// Everything about a package but the bytes of its weights.
#[derive(Debug)]
pub struct Plan {
    /// The programs, in the order of graph, height, width and stage.
    pub programs: Vec<ProgramRecord>,
    /// The weights.
    pub weights: Weights,
    card: String,
    tokenizer: Vec<u8>,
    scheduler: String,
}

impl Plan {
    /// Plans the programs and gives each weight its place.
    pub fn new(
        mut parts: PackageParts,
        precision: Precision,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, PlanError> {
        let mut weights = Weights::new(parts.cancel.clone());
        let family = |part: &Part| (part.kind, part.height, part.width, part.clip_skip);
        parts.graphs.sort_by_key(|part| {
            (
                part.kind,
                part.height,
                part.width,
                part.clip_skip,
                part.stage,
            )
        });
        let mut programs = Vec::with_capacity(parts.graphs.len());
        for family in parts.graphs.chunk_by(|a, b| family(a) == family(b)) {
            let pinned = Pinned::of(family, precision.dtype())?;
            for part in family {
                progress(Progress::Program {
                    graph: part.kind,
                    height: part.height,
                    width: part.width,
                });
                programs.push(program::plan(
                    part,
                    precision.dtype(),
                    &pinned,
                    (parts.bands, parts.lanes),
                    &mut weights,
                )?);
            }
        }
        let PackageParts {
            card,
            tokenizer,
            scheduler,
            ..
        } = parts;
        Ok(Plan {
            programs,
            weights,
            card,
            tokenizer,
            scheduler,
        })
    }

    /// Writes the package at the beginning of `out`.
    pub fn write<W: Write + Seek>(
        self,
        out: &mut W,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), PlanError> {
        let Plan {
            programs,
            weights,
            card,
            tokenizer,
            scheduler,
        } = self;
        let writer = PackageWriter {
            card,
            tokenizer,
            scheduler,
            programs,
            optional: Vec::new(),
        };
        let total = weights.bytes();
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(32));
        writer.write(out, total, |out| {
            weights.write(out, threads, |done| {
                progress(Progress::Weights { done, total })
            })
        })?;
        Ok(())
    }
}

/// Bytes of the arena that the program of a part will have; not of one of several stages.
pub fn arena_bytes(part: &Part, precision: Precision) -> Result<u64, PlanError> {
    program::arena_bytes(part, precision.dtype())
}

/// Writes the package of `parts` at the beginning of `out`, the same bytes for the same parts.
pub fn emit<W: Write + Seek>(
    parts: PackageParts,
    precision: Precision,
    out: &mut W,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), PlanError> {
    Plan::new(parts, precision, progress)?.write(out, progress)
}
