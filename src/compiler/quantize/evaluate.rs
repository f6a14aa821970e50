//! A fused graph on the kernels, in `f32`: as fast as a program, and the same bits on every machine and with any number of
//! threads, so that what is measured here, and what is chosen by it, is too.
//!
//! Codes stand as the numbers that they mean. A sum of products of those differs from the exact integer sum by `f32`
//! rounding alone, a hundred decibels below what is measured.

use std::rc::Rc;

use kiln_kernels::{self as kernels, Element, F16, Job, Kernels, Launch, math, pack};

use super::apart::Lane;
use crate::Cancel;
use crate::graph::interpret::{beside, group_norm, represent_weight};
use crate::graph::{
    Activation, Graph, InterpretError, Node, NodeId, Op, Tensor, ValueId, Weight, codes,
};

/// How far a result is from what it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Error {
    /// Sum of the squares of what it should be.
    pub signal: f64,
    /// Sum of the squares of the differences.
    pub noise: f64,
}

impl Error {
    pub fn between(expected: &[f32], found: &[f32]) -> Error {
        expected
            .iter()
            .zip(found)
            .fold(Error::default(), |sum, (e, f)| {
                let (e, f) = (f64::from(*e), f64::from(*f));
                Error {
                    signal: sum.signal + e * e,
                    noise: sum.noise + (f - e) * (f - e),
                }
            })
    }

    /// Of both together.
    pub fn with(self, other: Error) -> Error {
        Error {
            signal: self.signal + other.signal,
            noise: self.noise + other.noise,
        }
    }

    /// Signal to noise in decibels, from 0 to 200, to a thousandth; 0 if anything is not finite.
    pub fn decibels(self) -> f64 {
        if !self.signal.is_finite() || !self.noise.is_finite() {
            return 0.0;
        }
        if self.noise <= self.signal * 1e-20 {
            return 200.0;
        }
        ((10.0 * libm::log10(self.signal / self.noise)).clamp(0.0, 200.0) * 1e3).round() / 1e3
    }
}

/// What codes and storage do to the numbers.
pub(crate) enum Numbers<'a> {
    /// Nothing: everything is `f32`.
    Exact,
    /// Nothing, but each product of codes is also computed from the codes, and this hears for each set of inputs how far that
    /// is from the exact one. Of a table in 8 bits it hears once, how far its rows are from themselves.
    Compared(&'a mut dyn FnMut(NodeId, Error)),
    /// Products of codes are computed from the codes; all else is stored in sixteen bits.
    Stored,
    /// Sets of inputs are groups of equals: the first is exact, and in each other one only what its lane says is computed
    /// from codes (`apart.rs`).
    Apart(&'a [Lane]),
}

/// A value: its numbers, and what its codes stand for if it has codes and somebody needs them.
#[derive(Clone)]
pub(super) struct Held {
    pub exact: Rc<Tensor>,
    pub coded: Option<Rc<Tensor>>,
}

/// A node with the operands of each set of inputs.
pub(super) struct Layer<'g> {
    pub graph: &'g Graph,
    pub id: NodeId,
    /// In the order of the slots; none in that of `matrix`.
    pub operands: Vec<Vec<Option<Held>>>,
    /// A product's constant weight.
    pub matrix: Option<&'g Weight>,
}

/// Runs fused graphs.
pub(crate) struct Evaluator {
    kernels: Kernels,
    threads: usize,
    /// Asked before each layer.
    cancel: Cancel,
}

impl Evaluator {
    /// On this machine's fastest kernels and all its processors.
    pub fn new() -> Self {
        Evaluator::with(
            Kernels::detect(),
            std::thread::available_parallelism().map_or(1, |n| n.get().min(32)),
        )
    }

    pub fn with(kernels: Kernels, threads: usize) -> Self {
        Evaluator {
            kernels,
            threads,
            cancel: Cancel::default(),
        }
    }

    /// Ends with an error when `cancel` asks to stop.
    pub fn cancelled_by(self, cancel: &Cancel) -> Self {
        Evaluator {
            cancel: cancel.clone(),
            ..self
        }
    }

    /// As [`Evaluator::run_all`], on one set of inputs.
    #[cfg(test)]
    pub fn run(
        &self,
        graph: &Graph,
        inputs: &[Tensor],
        numbers: Numbers<'_>,
    ) -> Result<Vec<Tensor>, InterpretError> {
        let outputs = self.run_all(graph, &[inputs.to_vec()], numbers, &mut |_| ())?;
        Ok(outputs.into_iter().flatten().collect())
    }

    /// Runs a graph of kiln operators that verifies on several sets of inputs, each in the order of the graph's; gives the
    /// outputs of each. All go through a layer together, so each weight is read and packed once and then dropped; `read` is
    /// told the elements of each matrix.
    pub fn run_all(
        &self,
        graph: &Graph,
        inputs: &[Vec<Tensor>],
        mut numbers: Numbers<'_>,
        read: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<Tensor>>, InterpretError> {
        let stored = matches!(numbers, Numbers::Stored);
        inputs
            .iter()
            .try_for_each(|inputs| graph.check_inputs(inputs))?;
        // By value, for each set of inputs; empty where there is none, or none any more.
        let mut values: Vec<Vec<Held>> = vec![Vec::new(); graph.value_count()];
        // Equals share their numbers.
        let group = match numbers {
            Numbers::Apart(lanes) => 1 + lanes.len(),
            _ => 1,
        };
        for (index, id) in graph.inputs.iter().enumerate() {
            let held = inputs.iter().step_by(group).map(|inputs| {
                let mut input = inputs[index].clone();
                // Ids and timesteps are vectors; they stay as they are.
                if stored && input.shape.len() > 1 {
                    halve(&mut input.data);
                }
                Held {
                    exact: Rc::new(input),
                    coded: None,
                }
            });
            values[id.index()] = held
                .flat_map(|held| std::iter::repeat_n(held, group))
                .collect();
        }
        let mut uses = graph.use_counts();
        for (id, node) in graph.iter_nodes() {
            if self.cancel.asked() {
                return Err(InterpretError::Cancelled);
            }
            let layer = self.layer(graph, id, &values, inputs.len(), stored);
            let held = self.node(&layer, &mut numbers, read)?;
            values[node.output.index()] = held;
            for operand in node.operands() {
                uses[operand.index()] -= 1;
                if uses[operand.index()] == 0 {
                    values[operand.index()] = Vec::new();
                }
            }
        }
        let output = |set: usize| {
            let one = |id: &ValueId| {
                let computed = || {
                    values[id.index()]
                        .get(set)
                        .map(|held| (*held.exact).clone())
                };
                graph.constant(*id).or_else(computed)
            };
            graph.outputs.iter().filter_map(one).collect()
        };
        Ok((0..inputs.len()).map(output).collect())
    }

    /// A node's operands, constants but for a product's matrix read.
    fn layer<'g>(
        &self,
        graph: &'g Graph,
        id: NodeId,
        values: &[Vec<Held>],
        sets: usize,
        stored: bool,
    ) -> Layer<'g> {
        let node = graph.node(id);
        let matrix = product_weight(graph, node);
        let mut operands = vec![Vec::with_capacity(node.inputs.len()); sets];
        for (slot, operand) in node.op.slots().iter().zip(&node.inputs) {
            let constant = operand
                .filter(|_| *slot != "weight" || matrix.is_none())
                .and_then(|operand| graph.constant(operand));
            let constant = constant.map(|mut tensor| {
                let sixteen = match *slot {
                    "weight" | "table" => !graph.has_integers(node),
                    slot => matches!(slot, "positions" | "b"),
                };
                if stored && sixteen {
                    halve(&mut tensor.data);
                }
                Held {
                    exact: Rc::new(tensor),
                    coded: None,
                }
            });
            for (set, operands) in operands.iter_mut().enumerate() {
                let computed = || values[(*operand)?.index()].get(set).cloned();
                operands.push(constant.clone().or_else(computed));
            }
        }
        Layer {
            graph,
            id,
            operands,
            matrix,
        }
    }

    fn node(
        &self,
        layer: &Layer<'_>,
        numbers: &mut Numbers<'_>,
        read: &mut dyn FnMut(usize),
    ) -> Result<Vec<Held>, InterpretError> {
        if let Numbers::Apart(lanes) = numbers {
            return self.apart(layer, lanes, read);
        }
        let (graph, node) = (layer.graph, layer.graph.node(layer.id));
        let tensor = |data| {
            Rc::new(Tensor {
                shape: graph.shape(node.output).to_vec(),
                data,
            })
        };
        if graph.codes(node.output).is_some() {
            let one = |operands: &Vec<Option<Held>>| {
                let [exact, coded] = self.codes(graph, node, &exact(operands))?;
                let coded = (!matches!(numbers, Numbers::Exact)).then(|| tensor(coded));
                Ok(Held {
                    exact: tensor(exact),
                    coded,
                })
            };
            return layer.operands.iter().map(one).collect();
        }
        let integers = graph.has_integers(node);
        let table = node.op == Op::Embed { quantized: true };
        let mut matrix = layer.matrix.map(|weight| weight.read().into_owned());
        if let Some(matrix) = &matrix {
            read(matrix.len());
        }
        let plain = |matrix: Option<&Vec<f32>>| -> Result<Vec<Vec<f32>>, InterpretError> {
            let panels = matrix.map(|matrix| self.panels(graph, node, matrix));
            let one = |operands: &Vec<Option<Held>>| {
                self.compute(graph, node, &exact(operands), panels.as_deref())
            };
            layer.operands.iter().map(one).collect()
        };
        let mut results = match numbers {
            Numbers::Stored if integers => self
                .coded_results(layer, matrix.take())
                .collect::<Result<_, _>>()?,
            Numbers::Stored => {
                matrix.iter_mut().for_each(|matrix| halve(matrix));
                plain(matrix.as_ref())?
            }
            Numbers::Exact | Numbers::Compared(_) | Numbers::Apart(_) => plain(matrix.as_ref())?,
        };
        match numbers {
            Numbers::Compared(hear) if table => {
                let table = layer
                    .operands
                    .first()
                    .and_then(|operands| operands[1].as_ref());
                if let Some(table) = table {
                    hear(layer.id, table_error(&table.exact));
                }
            }
            Numbers::Compared(hear) if integers => {
                for (exact, coded) in results.iter().zip(self.coded_results(layer, matrix.take())) {
                    hear(layer.id, Error::between(exact, &coded?));
                }
            }
            Numbers::Stored => results.iter_mut().for_each(|result| halve(result)),
            _ => {}
        }
        let held = results.into_iter().map(|result| Held {
            exact: tensor(result),
            coded: None,
        });
        Ok(held.collect())
    }

    /// The results of a layer of integers, one after another.
    fn coded_results<'s>(
        &'s self,
        layer: &'s Layer<'_>,
        matrix: Option<Vec<f32>>,
    ) -> impl Iterator<Item = Result<Vec<f32>, InterpretError>> + 's {
        let (graph, node) = (layer.graph, layer.graph.node(layer.id));
        let panels = matrix.map(|matrix| self.integer_panels(layer, matrix));
        // Constants that are no product's matrix are one and the same for all.
        let mut integers: Option<Vec<Option<Rc<Tensor>>>> = None;
        layer.operands.iter().map(move |operands| {
            let mut own = coded(operands);
            if panels.is_none() {
                let constants = integers.get_or_insert_with(|| {
                    let mut constants = own.clone();
                    represent_weight(node, &mut constants);
                    constants
                });
                for (slot, operand) in node.op.slots().iter().enumerate() {
                    if matches!(*operand, "weight" | "table") {
                        own[slot] = constants[slot].clone();
                    }
                }
            }
            self.compute(graph, node, &own, panels.as_deref())
        })
    }

    /// What a product's integer matrix stands for, as its kernel reads it.
    pub(super) fn integer_panels(&self, layer: &Layer<'_>, mut matrix: Vec<f32>) -> Vec<f32> {
        let rows = layer.matrix.map_or(1, |weight| weight.shape()[0]);
        pack::represent_weights(self.threads, matrix.len() / rows.max(1), &mut matrix);
        self.panels(layer.graph, layer.graph.node(layer.id), &matrix)
    }

    /// A product's matrix as its kernel reads it.
    pub(super) fn panels(&self, graph: &Graph, node: &Node, matrix: &[f32]) -> Vec<f32> {
        let shape = node
            .input("weight")
            .map_or(&[][..], |weight| graph.shape(weight));
        let form = match (&node.op, shape) {
            (Op::Conv2d { .. }, &[out_c, in_c, h, w]) => pack::Matrix::Conv {
                out_c,
                in_c,
                taps: h * w,
            },
            (
                Op::Linear {
                    activation: Activation::Geglu,
                },
                &[n, k],
            ) => pack::Matrix::Geglu { n: n / 2, k },
            (_, &[n, k]) => pack::Matrix::Linear { n, k },
            _ => return Vec::new(),
        };
        form.pack(matrix, self.threads)
    }

    /// The numbers behind codes, and what the codes stand for.
    pub(super) fn codes(
        &self,
        graph: &Graph,
        node: &Node,
        operands: &[Option<Rc<Tensor>>],
    ) -> Result<[Vec<f32>; 2], InterpretError> {
        let c = graph.shape(node.output).last().copied().unwrap_or(1);
        match &node.op {
            Op::GroupNorm {
                groups,
                eps,
                activation,
                ..
            } => {
                let plain = Op::GroupNorm {
                    groups: *groups,
                    eps: *eps,
                    activation: Activation::None,
                    quantized: false,
                };
                let mut exact = self.compute(
                    graph,
                    &Node {
                        op: plain,
                        ..node.clone()
                    },
                    operands,
                    None,
                )?;
                let mut coded = exact.clone();
                codes::represent_norm(&mut coded, c, |v| {
                    math::activate(kernel_activation(*activation), v)
                });
                self.activate(*activation, &mut exact, node)?;
                Ok([exact, coded])
            }
            Op::LayerNorm { eps, .. } => {
                let plain = Op::LayerNorm {
                    eps: *eps,
                    quantized: false,
                };
                let exact = self.compute(
                    graph,
                    &Node {
                        op: plain,
                        ..node.clone()
                    },
                    operands,
                    None,
                )?;
                let mut coded = exact.clone();
                codes::represent_rows(&mut coded, c);
                Ok([exact, coded])
            }
            op => {
                let first = operands[0].as_deref().cloned().unwrap_or(Tensor {
                    shape: vec![1, 1],
                    data: vec![0.0],
                });
                let exact = beside(&first, operands.get(1).and_then(|o| o.as_deref())).data;
                let mut coded = exact.clone();
                let set = if matches!(op, Op::Quantize { per_row: true }) {
                    c
                } else {
                    coded.len()
                };
                codes::represent_rows(&mut coded, set);
                Ok([exact, coded])
            }
        }
    }

    /// The node's result in `f32`; `panels` is a product's matrix, if that is a constant. Products and what needs
    /// transcendental functions by the kernels, the rest as the graph's own meaning has it.
    pub(super) fn compute(
        &self,
        graph: &Graph,
        node: &Node,
        operands: &[Option<Rc<Tensor>>],
        panels: Option<&[f32]>,
    ) -> Result<Vec<f32>, InterpretError> {
        let out = graph.shape(node.output);
        let slots = node.op.slots();
        let get = |slot: &str| {
            let index = slots.iter().position(|s| *s == slot)?;
            operands.get(index)?.as_deref()
        };
        let data = |slot: &str| get(slot).map(|t| t.data.as_slice());
        let (x, shape) = match operands.first().and_then(|o| o.as_deref()) {
            Some(first) => (first.data.as_slice(), first.shape.as_slice()),
            None => (&[][..], &[][..]),
        };
        let c = shape.last().copied().unwrap_or(1);
        let packed;
        let panels = match (panels, data("weight")) {
            (Some(panels), _) => panels,
            (None, Some(weight)) => {
                packed = self.panels(graph, node, weight);
                &packed
            }
            (None, None) => &[],
        };
        match &node.op {
            Op::Conv2d {
                stride,
                pad,
                up,
                activation,
            } => {
                let [in_h, in_w] = [shape[0], shape[1]];
                let kernel = node.input("weight").map_or([0; 4], |weight| {
                    [0, 1, 2, 3].map(|i| graph.shape(weight)[i])
                });
                let [up_h, up_w] = up.unwrap_or([in_h, in_w]);
                let params = kernels::Conv2dParams {
                    in_h,
                    in_w,
                    in_c: c,
                    up_h,
                    up_w,
                    out_h: out[0],
                    out_w: out[1],
                    out_c: out[2],
                    kernel_h: kernel[2],
                    kernel_w: kernel[3],
                    stride: *stride,
                    pad_top: pad[0],
                    pad_left: pad[1],
                    activation: kernel_activation(*activation),
                };
                let mut result = vec![0.0; out.iter().product()];
                let operands = kernels::Conv2dOperands {
                    x,
                    weight: panels,
                    bias: data("bias"),
                    shift: data("shift"),
                    residual: data("residual")
                        .map_or(kernels::Residual::None, kernels::Residual::Other),
                    out: &mut result,
                };
                self.launch(kernels::Conv2d::new(self.kernels, params, operands), node)?;
                Ok(result)
            }
            Op::Linear { activation } => {
                let n = out.last().copied().unwrap_or(1);
                let x2 = get("x2");
                let k2 = x2.map_or(0, |x2| x2.shape.last().copied().unwrap_or(1));
                let mut result = vec![0.0; out.iter().product()];
                let params = kernels::LinearParams {
                    rows: x.len() / c,
                    k: c,
                    k2,
                    n,
                    activation: kernel_activation(*activation),
                };
                let operands = kernels::LinearOperands {
                    x,
                    x2: x2.map(|x2| x2.data.as_slice()),
                    weight: panels,
                    bias: data("bias"),
                    shift: data("shift"),
                    residual: data("residual")
                        .map_or(kernels::Residual::None, kernels::Residual::Other),
                    out: &mut result,
                };
                self.launch(kernels::Linear::new(self.kernels, params, operands), node)?;
                Ok(result)
            }
            Op::Attention {
                heads,
                scale,
                causal,
                integers: false,
            } => {
                let (k, v) = (data("k").unwrap_or(&[]), data("v").unwrap_or(&[]));
                let params = kernels::AttentionParams {
                    q_rows: x.len() / c,
                    kv_rows: k.len() / c,
                    heads: *heads,
                    head_dim: c / heads,
                    q_stride: c,
                    k_stride: c,
                    v_stride: c,
                    scale: *scale,
                    causal: *causal,
                };
                let mut result = vec![0.0; x.len()];
                let operands = kernels::AttentionOperands {
                    q: x,
                    k,
                    v,
                    mask: data("mask"),
                    out: &mut result,
                };
                self.launch(
                    kernels::Attention::new(self.kernels, params, operands),
                    node,
                )?;
                Ok(result)
            }
            Op::GroupNorm {
                groups,
                eps,
                activation,
                ..
            } => {
                let both = get("x2").and_then(|x2| Some(beside(operands[0].as_deref()?, Some(x2))));
                let x = both.as_ref().map_or(x, |both| &both.data);
                let channels = out.last().copied().unwrap_or(1);
                let rows = (x.len() / channels, channels);
                let mut result = group_norm(
                    x,
                    rows,
                    *groups,
                    *eps,
                    data("gamma"),
                    data("beta"),
                    Activation::None,
                );
                self.activate(*activation, &mut result, node)?;
                Ok(result)
            }
            Op::Unary { activation } => {
                let mut result = x.to_vec();
                self.activate(*activation, &mut result, node)?;
                Ok(result)
            }
            Op::Softmax => {
                let mut result = vec![0.0; x.len()];
                let params = kernels::SoftmaxParams {
                    rows: x.len() / c,
                    cols: c,
                };
                let job = kernels::Softmax::new(
                    self.kernels,
                    params,
                    kernels::Source::Other(x),
                    &mut result,
                );
                self.launch(job, node)?;
                Ok(result)
            }
            Op::TimestepEmbedding { cos_first } => {
                let frequencies = data("frequencies").unwrap_or(&[]);
                let mut result = vec![0.0; 2 * frequencies.len()];
                let params = kernels::TimestepEmbeddingParams {
                    half: frequencies.len(),
                    cos_first: *cos_first,
                };
                let job = kernels::TimestepEmbedding::new(
                    self.kernels,
                    params,
                    x[0],
                    frequencies,
                    &mut result,
                );
                self.launch(job, node)?;
                Ok(result)
            }
            _ => Ok(graph.compute(node, operands)?.data),
        }
    }

    fn activate(
        &self,
        activation: Activation,
        values: &mut [f32],
        node: &Node,
    ) -> Result<(), InterpretError> {
        if activation == Activation::None {
            return Ok(());
        }
        let params = kernels::UnaryParams {
            len: values.len(),
            activation: kernel_activation(activation),
        };
        self.launch(
            kernels::Unary::new(self.kernels, params, kernels::Source::InPlace, values),
            node,
        )
    }

    /// Runs a job on every thread.
    fn launch(
        &self,
        job: Result<impl Job, kernels::ArgumentError>,
        node: &Node,
    ) -> Result<(), InterpretError> {
        let mut job = job.map_err(|e| InterpretError::Kernel {
            node: node.name.clone(),
            reason: e.to_string(),
        })?;
        let bytes = job.scratch_bytes();
        let launch = Launch::new(&mut job);
        let help = || launch.help(&mut vec![0; bytes]);
        std::thread::scope(|scope| {
            (1..self.threads).for_each(|_| drop(scope.spawn(help)));
            help();
        });
        Ok(())
    }
}

/// Rounds to sixteen bits.
fn halve(values: &mut [f32]) {
    values.iter_mut().for_each(|v| *v = F16::store(*v).load());
}

/// A product's weight, if that is a constant.
pub(super) fn product_weight<'g>(graph: &'g Graph, node: &Node) -> Option<&'g Weight> {
    graph.value(node.input("weight")?).weight()
}

/// The operands' numbers.
pub(super) fn exact(operands: &[Option<Held>]) -> Vec<Option<Rc<Tensor>>> {
    let one = |operand: &Option<Held>| operand.as_ref().map(|held| held.exact.clone());
    operands.iter().map(one).collect()
}

/// The operands' numbers, of the first what its codes stand for.
pub(super) fn coded(operands: &[Option<Held>]) -> Vec<Option<Rc<Tensor>>> {
    let mut own = exact(operands);
    if let Some(coded) = operands.first().and_then(|x| x.as_ref()?.coded.clone()) {
        own[0] = Some(coded);
    }
    own
}

/// What 8 bits do to the rows of a table.
fn table_error(table: &Tensor) -> Error {
    let dim = table.shape.last().copied().unwrap_or(1).max(1);
    let rows = table.data.chunks(dim).map(|row| {
        let mut coded = row.to_vec();
        pack::represent_row(&mut coded);
        Error::between(row, &coded)
    });
    rows.fold(Error::default(), Error::with)
}

fn kernel_activation(activation: Activation) -> kernels::Activation {
    match activation {
        Activation::None => kernels::Activation::None,
        Activation::Silu => kernels::Activation::Silu,
        Activation::Gelu => kernels::Activation::Gelu,
        Activation::QuickGelu => kernels::Activation::QuickGelu,
        Activation::Relu => kernels::Activation::Relu,
        Activation::Tanh => kernels::Activation::Tanh,
        Activation::Geglu => kernels::Activation::Geglu,
    }
}
