//! What can be wrong with an ONNX folder.

use std::path::PathBuf;

/// Why an ONNX model could not become a graph. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// A file or folder of the layout is not there.
    #[error("{path}: not found; {layout}", path = path.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What the folder should hold.
        layout: &'static str,
    },
    /// The operating system could not read a file.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// The model is of a kind that would be computed wrongly or not at all.
    #[error("{path}: node {node:?} ({op}): {reason}", path = path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The node that shows it.
        node: String,
        /// Its operator.
        op: String,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// An operator that the compiler does not know.
    #[error("{path}: node {node:?} ({op}): {reason}", path = path.display())]
    Operator {
        /// The file.
        path: PathBuf,
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// What about it is not supported.
        reason: String,
    },
    /// The importer could not type the graph.
    #[error("{path}: cannot be imported: {reason}", path = path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// The importer's own words.
        reason: String,
    },
}
