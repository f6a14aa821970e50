//! Which products compute in 8-bit integers, measured on the model itself.
//!
//! - `calibrate.rs`: the inputs that it is measured on.
//! - `evaluate.rs`: runs graphs on the kernels; codes as the numbers that they stand for.
//! - `measure.rs`: each product's error given exact inputs, and the whole graph's.
//! - `choose.rs`: the rule.
//! - `insert.rs`: `quantize` nodes before the chosen ones, fused into norms; integers in attention.

pub(crate) mod calibrate;
mod choose;
pub(crate) mod evaluate;
mod insert;
mod measure;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use crate::Cancel;
use crate::frontend::Checkpoint;
use crate::graph::{Activation, BuildError, Graph, InterpretError, Node, Op, ResizeError, Tensor};

pub use calibrate::TIMESTEPS;
pub use choose::{LEAST_DECIBELS, LEAST_OF_STREAM, Reason};
pub(crate) use insert::integer_attention;

use evaluate::Evaluator;

/// Latents are no larger than this on a side while they are measured.
pub(crate) const LARGEST_LATENT: usize = 16;

/// A product or a token table, and its precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The layer's name.
    pub name: String,
    /// `conv2d`, `linear` or `embed`.
    pub op: &'static str,
    /// Inputs of an output element: kernel rows by kernel columns by channels; a table's rows.
    pub inputs: usize,
    /// Outputs; under GEGLU values and gates.
    pub outputs: usize,
    /// Why it has its precision.
    pub reason: Reason,
    /// Signal-to-noise, in decibels, of its integer form at each calibration input, or of all of a table; empty if it cannot
    /// have one.
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

/// How far the measuring of a part of the model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured<'a> {
    /// The part, such as `unet`.
    pub part: &'a str,
    /// Bytes of matrices that were read, as `f32`; each is read twice.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Makes the products of every graph of a fused model compute in integers where that is good enough. `hear` is told of
/// each part as it begins and after each of its layers; `cancel` ends the work with an error.
pub fn quantize(
    model: &mut Checkpoint,
    cancel: &Cancel,
    hear: &mut dyn FnMut(Measured<'_>),
) -> Result<Vec<Quantized>, QuantizeError> {
    let evaluator = Evaluator::new().cancelled_by(cancel);
    let alphas = calibrate::alphas_cumprod(&model.scheduler);
    let latent = model.latent.map(|n| n.min(LARGEST_LATENT));
    let picture = latent.map(|n| n * model.vae_factor);
    let scale = model.card.vae_scaling_factor as f32;
    let mut reports = Vec::new();

    let prompts = calibrate::prompts(&model.card.text, &model.text_encoder);
    let names = |what: &str, count: usize| {
        (1..=count)
            .map(|i| format!("{what} {i}"))
            .collect::<Vec<_>>()
    };
    let inputs = (names("prompt", prompts.len()), prompts);
    let (report, outputs) = graph(
        &mut model.text_encoder,
        None,
        &|_| inputs.clone(),
        &evaluator,
        &mut Hear::new("text_encoder", hear),
    )?;
    reports.push(report);
    let contexts: Vec<Tensor> = outputs
        .into_iter()
        .filter_map(|outputs| outputs.into_iter().next())
        .collect();

    let unet = |graph: &Graph| {
        let inputs = calibrate::latents(graph, &contexts, &TIMESTEPS, &alphas);
        (
            TIMESTEPS.iter().map(|t| format!("timestep {t}")).collect(),
            inputs,
        )
    };
    let mut measuring = Hear::new("unet", hear);
    let (report, _) = graph(
        &mut model.unet,
        Some(latent),
        &unet,
        &evaluator,
        &mut measuring,
    )?;
    reports.push(report);

    let decoder = |graph: &Graph| {
        (
            names("latent", 2),
            calibrate::pictures(graph, 1.0 / scale, f32::MAX, 2),
        )
    };
    let (report, _) = graph(
        &mut model.vae_decoder,
        Some(latent),
        &decoder,
        &evaluator,
        &mut Hear::new("vae_decoder", hear),
    )?;
    reports.push(report);

    if let (Some(decoder), Some(scale)) =
        (&mut model.taesd_decoder, model.card.taesd_scaling_factor)
    {
        let scale = scale as f32;
        let inputs = |graph: &Graph| {
            (
                names("latent", 2),
                calibrate::pictures(graph, 1.0 / scale, f32::MAX, 2),
            )
        };
        let (report, _) = self::graph(
            decoder,
            Some(latent),
            &inputs,
            &evaluator,
            &mut Hear::new("taesd_decoder", hear),
        )?;
        reports.push(report);
    }

    if let Some(encoder) = &mut model.vae_encoder {
        let inputs = |graph: &Graph| (names("picture", 1), calibrate::pictures(graph, 0.6, 1.0, 1));
        let (report, _) = graph(
            encoder,
            Some(picture),
            &inputs,
            &evaluator,
            &mut Hear::new("vae_encoder", hear),
        )?;
        reports.push(report);
    }
    Ok(reports)
}

/// Counts the bytes of a part.
struct Hear<'h> {
    measured: Measured<'h>,
    hear: &'h mut dyn FnMut(Measured<'_>),
}

impl<'h> Hear<'h> {
    fn new(part: &'h str, hear: &'h mut dyn FnMut(Measured<'_>)) -> Self {
        let measured = Measured {
            part,
            done: 0,
            total: 0,
        };
        Hear { measured, hear }
    }

    fn begin(&mut self, graph: &Graph) {
        let weights = graph
            .iter_nodes()
            .filter_map(|(_, node)| evaluate::product_weight(graph, node));
        self.measured.total = weights.map(|weight| 2 * 4 * weight.len() as u64).sum();
        (self.hear)(self.measured);
    }

    fn read(&mut self, elements: usize) {
        self.measured.done += 4 * elements as u64;
        (self.hear)(self.measured);
    }
}

/// What a fused graph gives, in `f32`.
pub(crate) fn exact(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, InterpretError> {
    let inputs = [inputs.to_vec()];
    let outputs =
        Evaluator::new().run_all(graph, &inputs, evaluate::Numbers::Exact, &mut |_| ())?;
    Ok(outputs.into_iter().next().unwrap_or_default())
}

/// What a graph is measured on, named.
type Inputs<'a> = &'a dyn Fn(&Graph) -> (Vec<String>, Vec<Vec<Tensor>>);

/// One graph, measured at `size`. Gives its exact outputs as well.
fn graph(
    graph: &mut Graph,
    size: Option<[usize; 2]>,
    inputs: Inputs<'_>,
    evaluator: &Evaluator,
    hear: &mut Hear<'_>,
) -> Result<(Quantized, Vec<Vec<Tensor>>), QuantizeError> {
    let small = match size {
        Some(size) => graph.resized(size)?,
        None => graph.clone(),
    };
    let (names, inputs) = inputs(&small);
    hear.begin(&small);
    let mut read = |elements| hear.read(elements);
    let (products, exact) = measure::measure(&small, &inputs, evaluator, &mut read)?;
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
        &mut read,
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
    Ok((report, exact))
}

fn layer(graph: &Graph, node: &Node, reason: Reason, decibels: Vec<f64>) -> Layer {
    if let Some(table) = node.input("table") {
        let (rows, columns) = (graph.shape(table)[0], graph.shape(table)[1]);
        let bytes = match reason {
            Reason::Accurate => rows * columns + 4 * rows,
            _ => 2 * rows * columns,
        };
        return Layer {
            name: node.name.clone(),
            op: node.op.name(),
            inputs: rows,
            outputs: columns,
            reason,
            decibels,
            bytes: bytes as u64,
            macs: 0,
        };
    }
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
