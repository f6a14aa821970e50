//! Which products compute in 8-bit integers, measured on the model itself.
//!
//! - `calibrate.rs`: the inputs that it is measured on.
//! - `evaluate.rs`: runs graphs on the kernels; codes as the numbers that they stand for.
//! - `measure.rs`: each product's error given exact inputs, and the whole graph's.
//! - `apart.rs`: runs in which one product alone has codes.
//! - `share.rs`: each product's part of the noise in the graph's result, and for which it is worth sixteen bits.
//! - `choose.rs`: the rule.
//! - `insert.rs`: `quantize` nodes before the chosen ones, fused into norms; integers in attention.

mod apart;
pub(crate) mod calibrate;
mod choose;
pub(crate) mod evaluate;
mod insert;
mod measure;
mod share;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use crate::Cancel;
use crate::frontend::Checkpoint;
use crate::graph::{Activation, BuildError, Graph, InterpretError, Node, Op, ResizeError, Tensor};

pub use calibrate::TIMESTEPS;
pub use choose::{LEAST_DECIBELS, LEAST_OF_STREAM, Reason};
pub(crate) use insert::integer_attention;
pub use share::LEAST_GAIN;

use evaluate::Evaluator;
use measure::Product;

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
    /// Its part of the noise in the graph's result, 0 to 1, at each calibration input, were all that are accurate of
    /// integers; empty if it was not measured: of UNets it is.
    pub noise: Vec<f64>,
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
    /// Bytes of matrices that were read, as `f32`; each is read twice, a UNet's three times.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Makes the products of every graph of a fused model compute in integers where that is good enough; in the UNet, whose noise
/// adds up from step to step, a layer stays in sixteen bits, too, if its part of the noise in the result is `least_gain` times
/// as large as its part of the multiplications and weights. `hear` is told of
/// each part as it begins and after each of its layers; `cancel` ends the work with an error.
pub fn quantize(
    model: &mut Checkpoint,
    least_gain: f64,
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
        None,
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
        Some(least_gain),
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
        None,
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
            None,
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
            None,
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

    /// A graph is to be read so many times.
    fn begin(&mut self, graph: &Graph, times: u64) {
        let weights = graph
            .iter_nodes()
            .filter_map(|(_, node)| evaluate::product_weight(graph, node));
        self.measured.total = weights.map(|weight| times * 4 * weight.len() as u64).sum();
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

/// One graph, measured at `size`; with `least_gain` by what part of the noise each layer has, too. Gives its exact outputs as
/// well.
fn graph(
    graph: &mut Graph,
    size: Option<[usize; 2]>,
    make: Inputs<'_>,
    least_gain: Option<f64>,
    evaluator: &Evaluator,
    hear: &mut Hear<'_>,
) -> Result<(Quantized, Vec<Vec<Tensor>>), QuantizeError> {
    let small = match size {
        Some(size) => graph.resized(size)?,
        None => graph.clone(),
    };
    let (names, inputs) = make(&small);
    hear.begin(&small, if least_gain.is_some() { 3 } else { 2 });
    let mut read = |elements| hear.read(elements);
    let (products, exact) = measure::measure(&small, &inputs, evaluator, &mut read)?;
    let mut layers: Vec<Layer> = products
        .iter()
        .map(|product| layer(graph, product))
        .collect();
    if let Some(least) = least_gain {
        let both = (&products[..], &mut layers[..]);
        keep_worth(graph, &small, make, least, evaluator, both, &mut read)?;
    }
    let chosen: HashSet<_> = products
        .iter()
        .zip(&layers)
        .filter(|(_, layer)| layer.reason == Reason::Accurate)
        .map(|(product, _)| product.node)
        .collect();
    let decibels = measure::whole(
        &insert::insert(&small, &chosen)?,
        &inputs,
        &exact,
        evaluator,
        &mut read,
    )?;
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

/// Measures what part of the noise comes of each layer of integers, and leaves those in sixteen bits whose part is `least`
/// times that of the cost.
fn keep_worth(
    graph: &Graph,
    small: &Graph,
    make: Inputs<'_>,
    least: f64,
    evaluator: &Evaluator,
    (products, layers): (&[Product], &mut [Layer]),
    read: &mut dyn FnMut(usize),
) -> Result<(), QuantizeError> {
    let integers: Vec<usize> = (0..products.len())
        .filter(|index| layers[*index].reason == Reason::Accurate && layers[*index].macs > 0)
        .collect();
    let macs = |graph: &Graph| -> Vec<u64> {
        let layers = integers.iter().map(|index| layer(graph, &products[*index]));
        layers.map(|layer| layer.macs).collect()
    };
    // Latents of half the size where otherwise few products would be reached.
    let half;
    let (mut small, (_, mut inputs)) = (small, make(small));
    if share::reached(&macs(small), inputs.len()) < integers.len() {
        half = graph.resized(calibrate::latent(small).map(|n| n.div_ceil(2)))?;
        small = &half;
        inputs = make(small).1;
    }
    let first = integers.len() - share::reached(&macs(small), inputs.len());
    let chosen = integers.iter().map(|index| products[*index].node).collect();
    let coded = insert::insert(small, &chosen)?;
    // Products keep their order, so the numbers of one graph lead to those of the other.
    let nodes = choose::products(&coded);
    let reached = &integers[first..];
    let lanes: Vec<_> = reached.iter().map(|index| nodes[*index]).collect();
    let shares = share::shares(&coded, &lanes, &inputs, evaluator, read)?;
    for (index, share) in reached.iter().zip(shares) {
        layers[*index].noise = share;
    }
    let nodes = products.iter().map(|product| graph.node(product.node));
    for index in worth(layers, nodes, least) {
        let product = Product {
            reason: Reason::Noisy,
            ..products[index].clone()
        };
        layers[index] = Layer {
            noise: layers[index].noise.clone(),
            ..layer(graph, &product)
        };
    }
    Ok(())
}

/// The layers that are worth sixteen bits for their part of the noise.
fn worth<'n>(layers: &[Layer], nodes: impl Iterator<Item = &'n Node>, least: f64) -> Vec<usize> {
    let sum = |part: &dyn Fn(&Layer) -> u64| layers.iter().map(part).sum::<u64>().max(1) as f64;
    let (macs, bytes) = (sum(&|layer| layer.macs), sum(&|layer| layer.bytes));
    let cost = |layer: &Layer| layer.macs as f64 / macs + layer.bytes as f64 / bytes;
    let integers = nodes
        .enumerate()
        .filter(|(index, _)| layers[*index].reason == Reason::Accurate);
    let groups: Vec<_> = share::groups(integers)
        .into_iter()
        .map(|products| {
            let mut group = share::Group::default();
            for layer in products.iter().map(|index| &layers[*index]) {
                group
                    .noise
                    .resize(layer.noise.len().max(group.noise.len()), 0.0);
                let parts = group.noise.iter_mut().zip(&layer.noise);
                parts.for_each(|(sum, noise)| *sum += noise);
                group.cost += cost(layer);
            }
            share::Group { products, ..group }
        })
        .collect();
    share::worth(&groups, least)
}

fn layer(graph: &Graph, product: &Product) -> Layer {
    let node = graph.node(product.node);
    let (reason, decibels) = (product.reason, product.decibels.clone());
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
            noise: Vec::new(),
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
        noise: Vec::new(),
        bytes: bytes as u64,
        macs: (rows * inputs * outputs) as u64,
    }
}
