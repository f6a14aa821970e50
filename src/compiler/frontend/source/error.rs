//! What can be wrong with a source.

use std::path::PathBuf;

use crate::frontend::diffusers::ArchitectureError;
use crate::frontend::tensors::ReadError;

/// Why a source could not become a model. Every message names the file, the option or the part.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The operating system could not read a file.
    #[error("{path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file's tensors cannot be read.
    #[error(transparent)]
    Tensors(#[from] ReadError),
    /// A file is not what it should be.
    #[error("{path}: {reason}", path = .path.display())]
    Malformed {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that Kiln knows and does not compile.
    #[error("{path}: {what}: Kiln compiles Stable Diffusion 1 and 2 and models of their shape", path = .path.display())]
    Refused {
        /// The file or folder.
        path: PathBuf,
        /// What it is, such as `a Stable Diffusion XL model`.
        what: String,
    },
    /// Something that belongs to a model, but is none.
    #[error("{path}: {what}, not {wanted}: {instead}", path = .path.display())]
    Misplaced {
        /// The file or folder.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What was wanted.
        wanted: &'static str,
        /// What to do with it.
        instead: &'static str,
    },
    /// A part of the model is nowhere.
    #[error("{place}: there is no {part}: give one with {option}")]
    Part {
        /// The source, or what the command line says.
        place: String,
        /// The part, such as `VAE`.
        part: &'static str,
        /// The option that supplies it.
        option: &'static str,
    },
    /// A part's tensors are too few or too many.
    #[error("{place}: {part}: {}", counts(missing, surplus))]
    Names {
        /// The source.
        place: String,
        /// The part.
        part: &'static str,
        /// Tensors that are needed and not there.
        missing: Vec<String>,
        /// Tensors that are there and not needed.
        surplus: Vec<String>,
    },
    /// A part cannot be built.
    #[error("{place}: {error}")]
    Build {
        /// The source.
        place: String,
        /// The part, and why.
        error: ArchitectureError,
    },
    /// Options that contradict each other or name nothing.
    #[error("{0}")]
    Options(String),
    /// Someone asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl SourceError {
    pub(super) fn malformed(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        SourceError::Malformed {
            path: path.into(),
            reason: reason.into(),
        }
    }

    pub(super) fn read(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        SourceError::Read {
            path: path.into(),
            source,
        }
    }
}

/// So many names are listed.
const LISTED: usize = 10;

fn counts(missing: &[String], surplus: &[String]) -> String {
    let list = |names: &[String], what: &str| {
        let more = match names.len().saturating_sub(LISTED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let first = &names[..names.len().min(LISTED)];
        format!(
            "{} tensor(s) {what}: {}{more}",
            names.len(),
            first.join(", ")
        )
    };
    let mut told = Vec::new();
    if !missing.is_empty() {
        told.push(list(missing, "missing"));
    }
    if !surplus.is_empty() {
        told.push(list(surplus, "that the model has no place for"));
    }
    told.join("; ")
}
