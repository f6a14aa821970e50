//! What can be wrong with a checkpoint file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file that cannot be read, and why.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {fault}", path = path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The operating system could not read it.
    #[error("{0}")]
    Io(io::Error),
    /// It is a file of another kind.
    #[error("is {what}, not a checkpoint that kiln reads; {advice}")]
    Foreign {
        /// What it is.
        what: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// It breaks a rule of its own format.
    #[error("{place}: {reason}")]
    Damaged {
        /// Where.
        place: Place,
        /// The rule, what was expected and what was found.
        reason: String,
    },
    /// It has more of something than any real checkpoint.
    #[error("{place}: {what}: {found}, the limit is {limit}")]
    Limit {
        /// Where.
        place: Place,
        /// What there is too much of.
        what: &'static str,
        /// How much of it.
        found: u64,
        /// How much is read.
        limit: u64,
    },
    /// Its pickle names code that a checkpoint has no need of.
    #[error(
        "byte {offset}: the pickle names {name:?}, which kiln does not know to be harmless; nothing in it was run, and the \
         file is not read"
    )]
    Refused {
        /// Where in the file.
        offset: u64,
        /// Module and name.
        name: String,
    },
    /// A tensor that is asked for is of a type that is not read.
    #[error(
        "tensor {tensor:?} is of type {element}, which kiln does not read; convert the checkpoint to fp16 or fp32"
    )]
    Unsupported {
        /// The tensor.
        tensor: String,
        /// Its type, in the file's words.
        element: String,
    },
}

/// Where in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a byte.
    Byte(u64),
    /// In what is said about a tensor.
    Tensor(String),
    /// In an entry of an archive.
    Entry(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Byte(offset) => write!(f, "byte {offset}"),
            Place::Tensor(name) => write!(f, "tensor {name:?}"),
            Place::Entry(name) => write!(f, "entry {name:?}"),
        }
    }
}

impl Place {
    /// The tensor called `name`; a name of any length in a message would be an attack on the terminal.
    pub(super) fn tensor(name: &str) -> Self {
        Place::Tensor(shortened(name))
    }

    /// The entry called `name`.
    pub(super) fn entry(name: &str) -> Self {
        Place::Entry(shortened(name))
    }
}

/// A name for a message: at most 120 characters of it.
pub(super) fn shortened(name: &str) -> String {
    match name.char_indices().nth(120) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

impl Fault {
    pub(super) fn damaged(place: Place, reason: impl Into<String>) -> Self {
        Fault::Damaged {
            place,
            reason: reason.into(),
        }
    }

    pub(super) fn at(offset: usize, reason: impl Into<String>) -> Self {
        Fault::damaged(Place::Byte(offset as u64), reason)
    }

    /// `found` if it is at most `limit`.
    pub(super) fn limit(
        place: impl FnOnce() -> Place,
        what: &'static str,
        found: u64,
        limit: u64,
    ) -> Result<u64, Self> {
        if found <= limit {
            return Ok(found);
        }
        Err(Fault::Limit {
            place: place(),
            what,
            found,
            limit,
        })
    }

    /// The fault as one of the file `path`.
    pub(super) fn of(self, path: &Path) -> ReadError {
        ReadError {
            path: path.to_owned(),
            fault: self,
        }
    }
}
