//! Which products compute in 8-bit integers, measured on the model itself.
//!
//! - `calibrate.rs`: the inputs that it is measured on.
//! - `evaluate.rs`: runs graphs on the kernels; codes as the numbers that they stand for.
//! - `measure.rs`: each product's error given exact inputs, and the whole graph's.
//! - `choose.rs`: the rule.
//! - `insert.rs`: `quantize` nodes before the chosen ones, fused into norms; integers in attention.

mod calibrate;
mod choose;
pub(crate) mod evaluate;
mod insert;
mod measure;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashSet;

use crate::frontend::Checkpoint;
use crate::graph::{Activation, BuildError, Graph, InterpretError, Node, Op, ResizeError, Tensor};

pub use calibrate::TIMESTEPS;
pub use choose::{LEAST_DECIBELS, Reason};
pub(crate) use insert::integer_attention;

use evaluate::Evaluator;

/// Latents are no larger than this on a side while they are measured.
const LARGEST_LATENT: usize = 16;

/// A product and its precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The layer's name.
    pub name: String,
    /// `conv2d` or `linear`.
    pub op: &'static str,
    /// Inputs of an output element: kernel rows by kernel columns by channels.
    pub inputs: usize,
    /// Outputs; under GEGLU values and gates.
    pub outputs: usize,
    /// Why it has its precision.
    pub reason: Reason,
    /// Signal-to-noise, in decibels, of its integer form at each calibration input; empty if it cannot have one.
    pub decibels: Vec<f64>,
    /// Bytes of its weights in the package, scales and sums included.
    pub bytes: u64,
    /// Multiplications of an evaluation at the size that the graph is shaped for.
    pub macs: u64,
}

impl Layer {
    /// `int8` or `f16`.
    pub fn precision(&self) -> &'static str {
        if self.reason == Reason::Accurate {
            "int8"
        } else {
            "f16"
        }
    }
}

/// A graph's products, and what comes of all together.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// The graph's name.
    pub graph: String,
    /// What it was measured on, such as `timestep 901`.
    pub inputs: Vec<String>,
    /// Its products, in order.
    pub layers: Vec<Layer>,
    /// Signal-to-noise, in decibels, of the graph's outputs at each calibration input, against `f32`.
    pub decibels: Vec<f64>,
}

/// Why a model could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// The graph has no form at the size to measure at.
    #[error(transparent)]
    Resize(#[from] ResizeError),
    /// Codes do not fit in the graph.
    #[error("compiler bug: {0}")]
    Build(#[from] BuildError),
    /// The graph could not be run.
    #[error("cannot measure the model: {0}")]
    Run(#[from] InterpretError),
}

/// How far measuring is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The part that is measured.
    pub part: String,
    /// Bytes of weights, as `f32`, that were read of those that will be.
    pub done: u64,
    /// Those that will be.
    pub total: u64,
}

/// Makes the products of every graph of a fused model compute in integers where that is good enough. `hear` is told how far
/// it is, and says whether to go on.
pub fn quantize(
    model: &mut Checkpoint,
    hear: &mut dyn FnMut(&Measured) -> bool,
) -> Result<Vec<Quantized>, QuantizeError> {
    let measured = RefCell::new((Measured::default(), hear));
    let read = |elements: u64| {
        let (measured, hear) = &mut *measured.borrow_mut();
        measured.done += 4 * elements;
        hear(measured)
    };
    // A graph is run twice for each of its inputs, and `more` times for another's sake.
    let begin = |graph: &Graph, inputs: usize, more: usize| {
        let elements = graph.iter_nodes().map(|(_, n)| evaluate::constants(graph, n));
        let (measured, hear) = &mut *measured.borrow_mut();
        *measured = Measured {
            part: graph.name.clone(),
            done: 0,
            total: 4 * elements.sum::<u64>() * (2 * inputs + more) as u64,
        };
        // An answer of no is heard again at the first node.
        hear(measured);
    };
    let evaluator = Evaluator::new().heard_by(&read);
    let alphas = calibrate::alphas_cumprod(&model.scheduler);
    let latent = model.latent.map(|n| n.min(LARGEST_LATENT));
    let picture = latent.map(|n| n * model.vae_factor);
    let scale = model.card.vae_scaling_factor as f32;
    let mut reports = Vec::new();

    let prompts = calibrate::prompts(&model.card.text, &model.text_encoder);
    begin(&model.text_encoder, prompts.len(), prompts.len());
    let contexts = calibrate::contexts(model, &evaluator)?;
    let names = |what: &str, count: usize| {
        (1..=count)
            .map(|i| format!("{what} {i}"))
            .collect::<Vec<_>>()
    };
    let inputs = (names("prompt", prompts.len()), prompts);
    reports.push(graph(
        &mut model.text_encoder,
        None,
        &|_| inputs.clone(),
        &evaluator,
    )?);

    begin(&model.unet, TIMESTEPS.len(), 0);
    let unet = |graph: &Graph| {
        let inputs = calibrate::latents(graph, &contexts, &TIMESTEPS, &alphas);
        (
            TIMESTEPS.iter().map(|t| format!("timestep {t}")).collect(),
            inputs,
        )
    };
    reports.push(graph(&mut model.unet, Some(latent), &unet, &evaluator)?);

    begin(&model.vae_decoder, 2, 0);
    let decoder = |graph: &Graph| {
        (
            names("latent", 2),
            calibrate::pictures(graph, 1.0 / scale, f32::MAX, 2),
        )
    };
    reports.push(graph(
        &mut model.vae_decoder,
        Some(latent),
        &decoder,
        &evaluator,
    )?);

    if let Some(encoder) = &mut model.vae_encoder {
        begin(encoder, 1, 0);
        let inputs = |graph: &Graph| (names("picture", 1), calibrate::pictures(graph, 0.6, 1.0, 1));
        reports.push(graph(encoder, Some(picture), &inputs, &evaluator)?);
    }
    Ok(reports)
}

/// What a fused graph gives, in `f32`.
pub(crate) fn exact(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, InterpretError> {
    Evaluator::new().run(graph, inputs, evaluate::Numbers::Exact)
}

/// What a graph is measured on, named.
type Inputs<'a> = &'a dyn Fn(&Graph) -> (Vec<String>, Vec<Vec<Tensor>>);

/// One graph, measured at `size`.
fn graph(
    graph: &mut Graph,
    size: Option<[usize; 2]>,
    inputs: Inputs<'_>,
    evaluator: &Evaluator<'_>,
) -> Result<Quantized, QuantizeError> {
    let small = match size {
        Some(size) => graph.resized(size)?,
        None => graph.clone(),
    };
    let (names, inputs) = inputs(&small);
    let (products, exact) = measure::measure(&small, &inputs, evaluator)?;
    let chosen: HashSet<_> = products
        .iter()
        .filter(|p| p.reason == Reason::Accurate)
        .map(|p| p.node)
        .collect();
    let decibels = measure::whole(
        &insert::insert(&small, &chosen)?,
        &inputs,
        &exact,
        evaluator,
    )?;
    let layers = products
        .into_iter()
        .map(|p| layer(graph, graph.node(p.node), p.reason, p.decibels))
        .collect();
    let report = Quantized {
        graph: graph.name.clone(),
        inputs: names,
        layers,
        decibels,
    };
    // A graph of another size has the same nodes.
    *graph = insert::insert(graph, &chosen)?;
    Ok(report)
}

fn layer(graph: &Graph, node: &Node, reason: Reason, decibels: Vec<f64>) -> Layer {
    let shape = node
        .input("weight")
        .map_or(&[][..], |weight| graph.shape(weight));
    let outputs = shape.first().copied().unwrap_or(0);
    let inputs: usize = shape.iter().skip(1).product();
    let out = graph.shape(node.output);
    let rows: usize = out.iter().rev().skip(1).product();
    // Columns come in panels of 16; values and gates have panels of their own.
    let halves = if node.op
        == (Op::Linear {
            activation: Activation::Geglu,
        }) {
        2
    } else {
        1
    };
    let columns = (outputs / halves).next_multiple_of(kiln_kernels::PANEL) * halves;
    let bytes = match reason {
        Reason::Accurate => columns * inputs.next_multiple_of(8) + 8 * outputs,
        _ => 2 * columns * inputs,
    };
    Layer {
        name: node.name.clone(),
        op: node.op.name(),
        inputs,
        outputs,
        reason,
        decibels,
        bytes: bytes as u64,
        macs: (rows * inputs * outputs) as u64,
    }
}
