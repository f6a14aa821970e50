//! A fused graph on the kernels, in `f32`: as fast as a program, and the same bits on every machine and with any number of
//! threads, so that what is measured here, and what is chosen by it, is too.
//!
//! Codes stand as the numbers that they mean. A sum of products of those differs from the exact integer sum by `f32`
//! rounding alone, a hundred decibels below what is measured.

use std::rc::Rc;

use kiln_kernels::{self as kernels, Element, F16, Job, Kernels, Launch, math, pack};

use crate::graph::interpret::{beside, group_norm, represent_weight};
use crate::graph::{Activation, Graph, InterpretError, Node, NodeId, Op, Tensor, codes};

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
    /// Nothing, but each product of codes is also computed from the codes, and this hears how far that is from the exact
    /// one.
    Compared(&'a mut dyn FnMut(NodeId, Error)),
    /// Products of codes are computed from the codes; all else is stored in sixteen bits.
    Stored,
}

/// Elements of the constants that a node reads.
pub(crate) fn constants(graph: &Graph, node: &Node) -> u64 {
    let weights = node.operands().filter_map(|id| graph.value(id).weight());
    weights.map(|weight| weight.len() as u64).sum()
}

/// A value: its numbers, and what its codes stand for if it has codes and somebody needs them.
#[derive(Clone)]
struct Held {
    exact: Rc<Tensor>,
    coded: Option<Rc<Tensor>>,
}

/// Runs fused graphs.
pub(crate) struct Evaluator<'a> {
    kernels: Kernels,
    threads: usize,
    hear: Option<&'a dyn Fn(u64) -> bool>,
}

impl<'a> Evaluator<'a> {
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
            hear: None,
        }
    }

    /// Tells `hear` how many elements of constants each node has read; it says whether to go on.
    pub fn heard_by(self, hear: &'a dyn Fn(u64) -> bool) -> Self {
        Evaluator {
            hear: Some(hear),
            ..self
        }
    }

    /// Runs a graph of kiln operators that verifies. `inputs` stand in the order of the graph's.
    pub fn run(
        &self,
        graph: &Graph,
        inputs: &[Tensor],
        mut numbers: Numbers<'_>,
    ) -> Result<Vec<Tensor>, InterpretError> {
        let stored = matches!(numbers, Numbers::Stored);
        let mut values: Vec<Option<Held>> = vec![None; graph.value_count()];
        graph.check_inputs(inputs)?;
        for (id, input) in graph.inputs.iter().zip(inputs) {
            let mut input = input.clone();
            // Ids and timesteps are vectors; they stay as they are.
            if stored && input.shape.len() > 1 {
                self.halve(&mut input.data);
            }
            values[id.index()] = Some(Held {
                exact: Rc::new(input),
                coded: None,
            });
        }
        let mut uses = graph.use_counts();
        for (id, node) in graph.iter_nodes() {
            if self.hear.is_some_and(|hear| !hear(constants(graph, node))) {
                return Err(InterpretError::Cancelled);
            }
            let mut operands: Vec<Option<Held>> = Vec::with_capacity(node.inputs.len());
            for (slot, operand) in node.op.slots().iter().zip(&node.inputs) {
                operands.push(match operand {
                    Some(operand) => match graph.constant(*operand) {
                        Some(mut tensor) => {
                            let integers = *slot == "weight" && graph.multiplies_codes(node);
                            if stored
                                && matches!(*slot, "weight" | "table" | "positions" | "b")
                                && !integers
                            {
                                self.halve(&mut tensor.data);
                            }
                            Some(Held {
                                exact: Rc::new(tensor),
                                coded: None,
                            })
                        }
                        None => values[operand.index()].clone(),
                    },
                    None => None,
                });
            }
            let held = self.node(graph, id, operands, &mut numbers)?;
            values[node.output.index()] = Some(held);
            for operand in node.operands() {
                uses[operand.index()] -= 1;
                if uses[operand.index()] == 0 {
                    values[operand.index()] = None;
                }
            }
        }
        let mut outputs = Vec::with_capacity(graph.outputs.len());
        for id in &graph.outputs {
            let computed = || {
                values[id.index()]
                    .as_ref()
                    .map(|held| (*held.exact).clone())
            };
            outputs.extend(graph.constant(*id).or_else(computed));
        }
        Ok(outputs)
    }

    fn node(
        &self,
        graph: &Graph,
        id: NodeId,
        operands: Vec<Option<Held>>,
        numbers: &mut Numbers<'_>,
    ) -> Result<Held, InterpretError> {
        let node = graph.node(id);
        let tensor = |data| {
            Rc::new(Tensor {
                shape: graph.shape(node.output).to_vec(),
                data,
            })
        };
        let coded = operands
            .first()
            .and_then(|first| first.as_ref()?.coded.clone());
        let mut operands: Vec<_> = operands.into_iter().map(|o| o.map(|o| o.exact)).collect();
        if graph.codes(node.output).is_some() {
            let [exact, coded] = self.codes(graph, node, &operands)?;
            let coded = (!matches!(numbers, Numbers::Exact)).then(|| tensor(coded));
            return Ok(Held {
                exact: tensor(exact),
                coded,
            });
        }
        let from_codes = |operands: &mut Vec<Option<Rc<Tensor>>>, coded| {
            operands[0] = Some(coded);
            represent_weight(node, operands);
            self.compute(graph, node, operands)
        };
        let result = match (coded, numbers) {
            (Some(coded), Numbers::Compared(hear)) => {
                let exact = self.compute(graph, node, &operands)?;
                hear(
                    id,
                    Error::between(&exact, &from_codes(&mut operands, coded)?),
                );
                exact
            }
            (coded, Numbers::Stored) => {
                let mut result = match coded {
                    Some(coded) => from_codes(&mut operands, coded)?,
                    None => self.compute(graph, node, &operands)?,
                };
                self.halve(&mut result);
                result
            }
            _ => self.compute(graph, node, &operands)?,
        };
        Ok(Held {
            exact: tensor(result),
            coded: None,
        })
    }

    /// The numbers behind codes, and what the codes stand for.
    fn codes(
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

    /// The node's result in `f32`: products and what needs transcendental functions by the kernels, the rest as the graph's
    /// own meaning has it.
    fn compute(
        &self,
        graph: &Graph,
        node: &Node,
        operands: &[Option<Rc<Tensor>>],
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
        match &node.op {
            Op::Conv2d {
                stride,
                pad,
                up,
                activation,
            } => {
                let (weight, [in_h, in_w, _]) = (get("weight"), [shape[0], shape[1], c]);
                let (weight, kernel) = weight.map_or((&[][..], [0; 4]), |w| {
                    (&w.data, [0, 1, 2, 3].map(|i| w.shape[i]))
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
                let panels =
                    pack::pack_conv_panels::<f32>(out[2], c, (kernel[2], kernel[3]), weight);
                let mut result = vec![0.0; out.iter().product()];
                let operands = kernels::Conv2dOperands {
                    x,
                    weight: &panels,
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
                let weight = data("weight").unwrap_or(&[]);
                let panels = match activation {
                    Activation::Geglu => pack::pack_geglu_panels::<f32>(n, c + k2, weight),
                    _ => pack::pack_panels::<f32>(n, c + k2, weight),
                };
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
                    weight: &panels,
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

    /// Rounds to sixteen bits.
    fn halve(&self, values: &mut [f32]) {
        values.iter_mut().for_each(|v| *v = F16::store(*v).load());
    }
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
