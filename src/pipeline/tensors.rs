//! One graph on given tensors.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kiln_package::GraphKind;
use ndarray::{ArrayD, IxDyn};

use crate::runtime::{Data, Model, RuntimeError, Session, SessionOptions, Shape, Silent};

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

/// Runs a graph once, all its stages, and returns its outputs by name. The program is the one that takes these shapes;
/// pictures and latents are `[1, channels, height, width]`, and a context may have as many chunks of 77 rows as the
/// package allows.
pub fn run_graph(
    model: &Model,
    graph: GraphKind,
    inputs: &BTreeMap<String, Tensor>,
    options: &SessionOptions,
) -> Result<BTreeMap<String, ArrayD<f32>>, RuntimeError> {
    let shapes: Vec<_> = inputs
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.shape()))
        .collect();
    let id = model.find_by_inputs(graph, &shapes)?;
    let dense: Vec<_> = inputs
        .iter()
        .map(|(name, tensor)| (name, tensor.shape(), Dense::of(tensor)))
        .collect();
    let mut session = Session::new(model, &[(id, 1)], options)?;
    let mut evaluation = session.prepare(id, 1)?;
    for (name, shape, data) in &dense {
        evaluation.input(0, name, shape, data.data())?;
    }
    let mut outputs = evaluation.run(&mut Silent)?;
    let mut results = BTreeMap::new();
    for port in model.program(id).outputs() {
        let Shape(shape) = outputs.shape(port.name)?;
        let mut array = ArrayD::zeros(IxDyn(&shape));
        if let Some(data) = array.as_slice_mut() {
            outputs.read(0, port.name, data)?;
        }
        results.insert(port.name.to_owned(), array);
    }
    Ok(results)
}

/// A tensor's elements in row-major order.
enum Dense<'a> {
    F32(Cow<'a, [f32]>),
    I32(Cow<'a, [i32]>),
    I64(Cow<'a, [i64]>),
}

impl<'a> Dense<'a> {
    fn of(tensor: &'a Tensor) -> Self {
        match tensor {
            Tensor::F32(array) => Self::F32(dense(array)),
            Tensor::I32(array) => Self::I32(dense(array)),
            Tensor::I64(array) => Self::I64(dense(array)),
        }
    }

    fn data(&self) -> Data<'_> {
        match self {
            Self::F32(values) => Data::F32(values),
            Self::I32(values) => Data::I32(values),
            Self::I64(values) => Data::I64(values),
        }
    }
}

/// The elements in row-major order, copied if they do not lie so.
fn dense<T: Clone>(array: &ArrayD<T>) -> Cow<'_, [T]> {
    match array.as_slice() {
        Some(slice) => slice.into(),
        None => array.iter().cloned().collect::<Vec<_>>().into(),
    }
}
