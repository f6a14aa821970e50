//! What can go wrong while a package is opened or run.

use std::fmt;
use std::io;

use kiln_kernels::IsaError;
use kiln_package::{GraphKind, PackageError};

/// Why a package could not be opened or a program could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The package's file could not be opened or mapped.
    #[error("{origin}: {source}")]
    Open {
        /// The package.
        origin: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The package is damaged, truncated, of another version, or no package.
    #[error("{origin}: {source}")]
    Package {
        /// The package.
        origin: String,
        /// What is wrong with it, and where.
        source: Box<PackageError>,
    },
    /// A block of the weights was found damaged when a step first read it.
    #[error("{origin}: {source} (read by `{step}`)")]
    Weights {
        /// The package.
        origin: String,
        /// What is wrong, and where.
        source: Box<PackageError>,
        /// Name of the step.
        step: String,
    },
    /// Embedded bytes do not begin at a multiple of 64.
    #[error("the embedded package lies at an address that is not a multiple of 64")]
    Unaligned,
    /// The package was compiled with `--precision f32`, and the kernels for that were left out.
    #[error(
        "{origin}: computes in f32, and this program was built without that (the feature `f32`)"
    )]
    Precision {
        /// The package.
        origin: String,
    },
    /// The kernels asked for cannot run here.
    #[error(transparent)]
    Kernels(#[from] IsaError),
    /// The package has no program of that graph and size.
    #[error("no {graph} program of {width}x{height}; the package has {}", Sizes(.available))]
    NoProgram {
        /// The graph.
        graph: GraphKind,
        /// Picture width in pixels.
        width: u32,
        /// Picture height in pixels.
        height: u32,
        /// Widths and heights that the package has programs of the graph for.
        available: Vec<(u32, u32)>,
    },
    /// The package lacks a graph.
    #[error("the package has no {graph}")]
    NoGraph {
        /// The graph.
        graph: GraphKind,
    },
    /// No program of the graph takes an input of that shape.
    #[error("{graph}: `{name}` must be {}, found {found}", Alternatives(.expected))]
    NoMatch {
        /// The graph.
        graph: GraphKind,
        /// Name of the input.
        name: String,
        /// The shapes that programs of the graph take.
        expected: Vec<Shape>,
        /// The shape that was given.
        found: Shape,
    },
    /// A run would take more memory than it may.
    #[error("the run needs {bytes} bytes of memory, {limit} are allowed")]
    MemoryLimit {
        /// What it would take.
        bytes: u64,
        /// What it may take.
        limit: u64,
    },
    /// A run cannot keep within its budget.
    #[error(
        "{} MiB are too little: the run needs {} MiB ({} for activations, {} for the weights of a layer beside them, {} for the \
         program)",
        .ram >> 20, mebibytes(.arena + .layer + .besides), mebibytes(*.arena), mebibytes(*.layer), mebibytes(*.besides)
    )]
    Budget {
        /// The budget.
        ram: u64,
        /// Activations of the program that needs most.
        arena: u64,
        /// The weights of its layer that has the most of them.
        layer: u64,
        /// The threads' scratch, and what the process has besides.
        besides: u64,
    },
    /// The system does not give the memory.
    #[error("{bytes} bytes of memory could not be allocated")]
    OutOfMemory {
        /// What was asked for.
        bytes: u64,
    },
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Threads(#[source] io::Error),
    /// A session was asked for a program, or for more lanes of it, than it has memory for.
    #[error("the session has no memory for {graph} with {lanes} lanes")]
    NotPlanned {
        /// The graph.
        graph: GraphKind,
        /// Lanes asked for.
        lanes: usize,
    },
    /// The number of lanes is not one of those possible.
    #[error("lanes: 1 or 2 expected, found {0}")]
    Lanes(usize),
    /// A lane's number is not below the number of lanes.
    #[error("lane: below {lanes} expected, found {found}")]
    Lane {
        /// The evaluation's lanes.
        lanes: usize,
        /// The number given.
        found: usize,
    },
    /// The program has no input, or no output, of that name.
    #[error("{graph} has no {direction} `{name}`; it has {}", Names(.available))]
    UnknownTensor {
        /// The graph.
        graph: GraphKind,
        /// `input` or `output`.
        direction: &'static str,
        /// The name given.
        name: String,
        /// The names there are.
        available: Vec<String>,
    },
    /// An input was not given.
    #[error("{graph}: input `{name}` is missing")]
    MissingTensor {
        /// The graph.
        graph: GraphKind,
        /// Name of the input.
        name: String,
    },
    /// A tensor has the wrong shape.
    #[error("`{name}` must be {}, found {found}", Alternatives(.expected))]
    Shape {
        /// Name of the tensor.
        name: String,
        /// The shapes that it may have.
        expected: Vec<Shape>,
        /// The shape given.
        found: Shape,
    },
    /// A tensor's data does not have as many elements as its shape.
    #[error("`{name}` has {expected} elements, found {found}")]
    Length {
        /// Name of the tensor.
        name: String,
        /// Elements of its shape.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// A tensor's elements have the wrong type.
    #[error("`{name}` must be {expected}, found {found}")]
    Type {
        /// Name of the tensor.
        name: String,
        /// What it takes.
        expected: &'static str,
        /// What was given.
        found: &'static str,
    },
    /// A token id is outside the vocabulary.
    #[error("`{name}`: id {id} at {position} is outside the vocabulary of {vocabulary}")]
    TokenId {
        /// Name of the tensor.
        name: String,
        /// The id.
        id: i64,
        /// Its index.
        position: usize,
        /// Ids are below this.
        vocabulary: u32,
    },
    /// The run was asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A step or a port cannot be used although the package was found valid: it was made for other kernels than these, or by
    /// a compiler with a defect.
    #[error("{graph}, {part}: {reason}; compile the model again with this version of kiln")]
    Unusable {
        /// The graph.
        graph: GraphKind,
        /// The step or the port.
        part: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A tensor's shape, printed as `[1, 4, 64, 64]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape(pub Vec<usize>);

impl From<&[usize]> for Shape {
    fn from(sizes: &[usize]) -> Self {
        Shape(sizes.to_vec())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    last: &str,
    item: impl Fn(&T) -> String,
) -> fmt::Result {
    for (i, value) in items.iter().enumerate() {
        let separator = match i {
            0 => "",
            _ if i + 1 == items.len() => last,
            _ => ", ",
        };
        write!(f, "{separator}{}", item(value))?;
    }
    if items.is_empty() {
        f.write_str("none")
    } else {
        Ok(())
    }
}

struct Sizes<'a>(&'a [(u32, u32)]);

impl fmt::Display for Sizes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.0, " and ", |(width, height)| {
            format!("{width}x{height}")
        })
    }
}

struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.0, " and ", |name| format!("`{name}`"))
    }
}

struct Alternatives<'a>(&'a [Shape]);

impl fmt::Display for Alternatives<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.0, " or ", Shape::to_string)
    }
}

/// Bytes in MiB, rounded up.
fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
