//! The layers that the parts share. Pictures are `[1, channels, height, width]`, rows are `[1, rows, columns]`.

use super::parameters::{ParameterError, Parameters};
use crate::graph::{Activation, BinaryKind, BuildError, Graph, Op, ValueId};

/// Why a part cannot be built.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ArchitectureError {
    /// A tensor is missing or has another shape.
    #[error("{part}: {source}")]
    Parameter {
        /// The model part.
        part: String,
        /// What about which tensor.
        source: ParameterError,
    },
    /// The configuration is none that a model can have.
    #[error("{part}: {reason}")]
    Config {
        /// The model part.
        part: String,
        /// What does not fit.
        reason: String,
    },
    /// Layers do not fit each other.
    #[error("{part}: {source}")]
    Layer {
        /// The model part.
        part: String,
        /// The layer and the rule that it breaks.
        source: BuildError,
    },
}

/// The largest number in a configuration; none of a known model comes near.
const LARGEST: usize = 1 << 20;

/// The form of a convolution.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    pub size: usize,
    pub stride: usize,
    /// Top, left, bottom, right.
    pub pad: [usize; 4],
    pub bias: bool,
}

impl Kernel {
    /// One pixel.
    pub const ONE: Kernel = Kernel {
        size: 1,
        stride: 1,
        pad: [0; 4],
        bias: true,
    };
    /// Three by three pixels; the picture keeps its size.
    pub const THREE: Kernel = Kernel {
        size: 3,
        stride: 1,
        pad: [1; 4],
        bias: true,
    };
}

/// What residual blocks of one model have in common.
#[derive(Clone, Copy)]
pub(super) struct Norms {
    pub groups: usize,
    pub eps: f32,
}

/// A graph in the making.
pub(super) struct Builder<'p> {
    pub graph: Graph,
    parameters: &'p mut dyn Parameters,
    /// What stands before a layer's name in the names of its parameters.
    prefix: &'static str,
}

pub(super) type Built<T = ValueId> = Result<T, ArchitectureError>;

impl<'p> Builder<'p> {
    pub fn new(part: &str, prefix: &'static str, parameters: &'p mut dyn Parameters) -> Self {
        Builder {
            graph: Graph::new(part),
            parameters,
            prefix,
        }
    }

    /// The graph with this one output.
    pub fn finish(mut self, output: ValueId, name: &str) -> Graph {
        self.graph.value_mut(output).name = name.into();
        self.graph.outputs.push(output);
        self.graph.tidy();
        self.graph
    }

    /// Refuses a configuration unless `holds`.
    pub fn check(&self, holds: bool, reason: impl FnOnce() -> String) -> Built<()> {
        if holds {
            return Ok(());
        }
        Err(ArchitectureError::Config {
            part: self.graph.name.clone(),
            reason: reason(),
        })
    }

    /// Refuses a configuration in which a number is 0 or absurd.
    pub fn check_sizes(&self, name: &str, sizes: &[usize]) -> Built<()> {
        let wrong = sizes.iter().find(|n| !(1..=LARGEST).contains(*n));
        self.check(!sizes.is_empty() && wrong.is_none(), || {
            format!("{name} is {sizes:?}: must be numbers from 1 to {LARGEST}")
        })
    }

    pub fn channels(&self, picture: ValueId) -> usize {
        self.graph.shape(picture).get(1).copied().unwrap_or(0)
    }

    fn columns(&self, rows: ValueId) -> usize {
        self.graph.shape(rows).last().copied().unwrap_or(0)
    }

    /// The parameter of a layer.
    pub fn parameter(&mut self, layer: &str, name: &str, shape: &[usize]) -> Built {
        let own = format!("{layer}.{name}");
        let taken = self
            .parameters
            .take(&format!("{}{own}", self.prefix), shape);
        let weight = taken.map_err(|source| ArchitectureError::Parameter {
            part: self.graph.name.clone(),
            source,
        })?;
        Ok(self.graph.add_weight(own, weight))
    }

    pub fn add(&mut self, op: Op, inputs: &[Option<ValueId>], layer: &str) -> Built {
        self.graph
            .add(op, inputs, layer)
            .map_err(|source| ArchitectureError::Layer {
                part: self.graph.name.clone(),
                source,
            })
    }

    pub fn conv(&mut self, layer: &str, x: ValueId, out: usize, kernel: Kernel) -> Built {
        let Kernel {
            size,
            stride,
            pad,
            bias,
        } = kernel;
        let shape = [out, self.channels(x), size, size];
        let weight = self.parameter(layer, "weight", &shape)?;
        let bias = match bias {
            true => Some(self.parameter(layer, "bias", &[out])?),
            false => None,
        };
        let op = Op::SourceConv { stride, pad };
        self.add(op, &[Some(x), Some(weight), bias], layer)
    }

    /// A Linear to `out` columns. Geglu takes twice as many rows of weights.
    pub fn linear_with(
        &mut self,
        layer: &str,
        x: ValueId,
        out: usize,
        bias: bool,
        activation: Activation,
    ) -> Built {
        let rows = if activation == Activation::Geglu {
            2 * out
        } else {
            out
        };
        let weight = self.parameter(layer, "weight", &[rows, self.columns(x)])?;
        let bias = match bias {
            true => Some(self.parameter(layer, "bias", &[rows])?),
            false => None,
        };
        let op = Op::Linear { activation };
        self.add(op, &[Some(x), None, Some(weight), bias], layer)
    }

    pub fn linear(&mut self, layer: &str, x: ValueId, out: usize) -> Built {
        self.linear_with(layer, x, out, true, Activation::None)
    }

    pub fn linear_without_bias(&mut self, layer: &str, x: ValueId, out: usize) -> Built {
        self.linear_with(layer, x, out, false, Activation::None)
    }

    pub fn group_norm(&mut self, layer: &str, x: ValueId, norms: Norms, silu: bool) -> Built {
        let channels = [self.channels(x)];
        let gamma = self.parameter(layer, "weight", &channels)?;
        let beta = self.parameter(layer, "bias", &channels)?;
        let op = Op::SourceGroupNorm {
            groups: norms.groups,
            eps: norms.eps,
            activation: if silu {
                Activation::Silu
            } else {
                Activation::None
            },
        };
        self.add(op, &[Some(x), Some(gamma), Some(beta)], layer)
    }

    pub fn layer_norm(&mut self, layer: &str, x: ValueId, eps: f32) -> Built {
        let columns = [self.columns(x)];
        let gamma = self.parameter(layer, "weight", &columns)?;
        let beta = self.parameter(layer, "bias", &columns)?;
        let op = Op::LayerNorm {
            eps,
            quantized: false,
        };
        self.add(op, &[Some(x), Some(gamma), Some(beta)], layer)
    }

    pub fn unary(&mut self, layer: &str, x: ValueId, activation: Activation) -> Built {
        self.add(Op::Unary { activation }, &[Some(x)], layer)
    }

    pub fn sum(&mut self, layer: &str, a: ValueId, b: ValueId) -> Built {
        let kind = BinaryKind::Add;
        self.add(Op::SourceBinary { kind }, &[Some(a), Some(b)], layer)
    }

    pub fn reshape(&mut self, layer: &str, x: ValueId, shape: &[usize]) -> Built {
        let shape = shape.to_vec();
        self.add(Op::Reshape { shape }, &[Some(x)], layer)
    }

    fn transpose(&mut self, layer: &str, x: ValueId, perm: [usize; 4]) -> Built {
        let perm = perm.to_vec();
        self.add(Op::Transpose { perm }, &[Some(x)], layer)
    }

    /// A picture's pixels as rows.
    pub fn pixels(&mut self, layer: &str, picture: ValueId) -> Built {
        let last = self.transpose(layer, picture, [0, 2, 3, 1])?;
        let [h, w, c] = [1, 2, 3].map(|axis| self.graph.shape(last)[axis]);
        self.reshape(layer, last, &[1, h * w, c])
    }

    /// Rows as the pixels of a picture of the size of `like`.
    pub fn picture(&mut self, layer: &str, rows: ValueId, like: ValueId) -> Built {
        let [h, w] = [2, 3].map(|axis| self.graph.shape(like)[axis]);
        let shape = [1, h, w, self.columns(rows)];
        let last = self.reshape(layer, rows, &shape)?;
        self.transpose(layer, last, [0, 3, 1, 2])
    }

    /// Twice the height and width, then a convolution: diffusers' `Upsample2D`.
    pub fn enlarge(&mut self, layer: &str, x: ValueId, out: usize, kernel: Kernel) -> Built {
        let op = Op::SourceUpsample { scale: [2, 2] };
        let x = self.add(op, &[Some(x)], layer)?;
        self.conv(layer, x, out, kernel)
    }

    /// The product of rows with themselves or with a context, heads side by side.
    pub fn attend(
        &mut self,
        layer: &str,
        [q, k, v]: [ValueId; 3],
        heads: usize,
        causal: bool,
    ) -> Built {
        let columns = self.columns(q);
        self.check(heads > 0 && columns.is_multiple_of(heads), || {
            format!("{layer}: {heads} heads of {columns} columns")
        })?;
        let op = Op::Attention {
            heads,
            scale: 1.0 / ((columns / heads) as f32).sqrt(),
            causal,
            integers: false,
        };
        self.add(op, &[Some(q), Some(k), Some(v)], layer)
    }

    /// diffusers' `ResnetBlock2D`. `shift` is the timestep's embedding after its SiLU, `[1, columns]`.
    pub fn resnet(
        &mut self,
        layer: &str,
        x: ValueId,
        out: usize,
        norms: Norms,
        shift: Option<ValueId>,
    ) -> Built {
        let name = |part: &str| format!("{layer}.{part}");
        let mut h = self.group_norm(&name("norm1"), x, norms, true)?;
        h = self.conv(&name("conv1"), h, out, Kernel::THREE)?;
        if let Some(shift) = shift {
            let own = name("time_emb_proj");
            let shift = self.linear(&own, shift, out)?;
            let shift = self.reshape(&own, shift, &[1, out, 1, 1])?;
            h = self.sum(layer, h, shift)?;
        }
        h = self.group_norm(&name("norm2"), h, norms, true)?;
        h = self.conv(&name("conv2"), h, out, Kernel::THREE)?;
        let x = if self.channels(x) == out {
            x
        } else {
            self.conv(&name("conv_shortcut"), x, out, Kernel::ONE)?
        };
        self.sum(layer, x, h)
    }
}
