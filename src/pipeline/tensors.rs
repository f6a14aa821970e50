//! One graph on given tensors.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kiln_package::GraphKind;
use ndarray::{ArrayD, IxDyn};

use crate::runtime::{Data, Model, RuntimeError, Session, SessionOptions, Silent};

/// An input of a graph.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// Real numbers.
    F32(ArrayD<f32>),
    /// Token ids.
    I32(ArrayD<i32>),
    /// Token ids.
    I64(ArrayD<i64>),
}

impl Tensor {
    /// The sizes of its dimensions.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(array) => array.shape(),
            Self::I32(array) => array.shape(),
            Self::I64(array) => array.shape(),
        }
    }
}

/// Runs a graph once and returns its outputs by name. The program is the one that takes these shapes; pictures and
/// latents are `[1, channels, height, width]`.
pub fn run_graph(
    model: &Model,
    graph: GraphKind,
    inputs: &BTreeMap<String, Tensor>,
    options: &SessionOptions,
) -> Result<BTreeMap<String, ArrayD<f32>>, RuntimeError> {
    let shapes: Vec<_> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.shape())).collect();
    let id = model.find_by_inputs(graph, &shapes)?;
    let mut session = Session::new(model, &[(id, 1)], options)?;
    let mut evaluation = session.prepare(id, 1)?;
    for (name, tensor) in inputs {
        match tensor {
            Tensor::F32(array) => {
                evaluation.input(0, name, array.shape(), Data::F32(&dense(array)))?;
            }
            Tensor::I32(array) => {
                evaluation.input(0, name, array.shape(), Data::I32(&dense(array)))?;
            }
            Tensor::I64(array) => {
                evaluation.input(0, name, array.shape(), Data::I64(&dense(array)))?;
            }
        }
    }
    let mut outputs = evaluation.run(&mut Silent)?;
    let mut results = BTreeMap::new();
    for port in model.program(id).outputs() {
        let shape: Vec<usize> = port.shape().iter().map(|&size| size as usize).collect();
        let mut array = ArrayD::zeros(IxDyn(&shape));
        if let Some(data) = array.as_slice_mut() {
            outputs.read(0, port.name, data)?;
        }
        results.insert(port.name.to_owned(), array);
    }
    Ok(results)
}

/// The elements in row-major order, copied if they do not lie so.
fn dense<T: Clone>(array: &ArrayD<T>) -> Cow<'_, [T]> {
    match array.as_slice() {
        Some(slice) => slice.into(),
        None => array.iter().cloned().collect::<Vec<_>>().into(),
    }
}
