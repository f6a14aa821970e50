//! Where a builder gets its weights.

use crate::graph::Weight;

/// The parameters of one model part, by the names of diffusers or transformers, such as
/// `down_blocks.0.resnets.0.conv1.weight`.
pub trait Parameters {
    /// The parameter of that name. `shape` is what the architecture needs; another one is an error, but for a 1x1
    /// convolution where a Linear is meant and the reverse, which are given in the shape that is asked for.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weight, ParameterError>;
}

/// A parameter that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// There is none of that name.
    #[error("tensor {0} is missing")]
    Missing(String),
    /// It has another shape.
    #[error("tensor {name} is {found:?}, the model needs {expected:?}")]
    Shape {
        /// The parameter.
        name: String,
        /// What the architecture needs.
        expected: Vec<usize>,
        /// What the checkpoint holds.
        found: Vec<usize>,
    },
}
