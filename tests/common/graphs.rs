//! Graphs of kiln operators, with weights from a hash.

use std::borrow::Cow;

use kiln_compiler::graph::{Activation, Graph, Op, ValueId, Weight, WeightData};

/// Numbers between -1 and 1, times a scale.
pub fn numbers(seed: u64, count: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    (0..count).map(|_| next()).collect()
}

struct Uniform {
    seed: u64,
    shape: Vec<usize>,
    offset: f32,
}

impl WeightData for Uniform {
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn read(&self) -> Cow<'_, [f32]> {
        let terms: usize = self.shape.iter().skip(1).product();
        let scale = 1.5 / (terms as f32).sqrt();
        let numbers = numbers(self.seed, self.shape.iter().product(), scale);
        Cow::Owned(numbers.into_iter().map(|x| x + self.offset).collect())
    }
}

/// A graph in the making.
pub struct Build {
    pub graph: Graph,
    /// Whether products are of integers.
    pub int8: bool,
}

impl Build {
    pub fn add(&mut self, op: Op, inputs: &[Option<ValueId>]) -> ValueId {
        let name = format!("layer{}", self.graph.node_count());
        self.graph.add(op, inputs, name).expect("a valid node")
    }

    pub fn weight(&mut self, shape: &[usize], offset: f32) -> ValueId {
        let seed = self.graph.value_count() as u64;
        let shape = shape.to_vec();
        let name = format!("weight{seed}");
        let data = Uniform {
            seed,
            shape,
            offset,
        };
        self.graph.add_weight(name, Weight::new(data))
    }

    pub fn channels(&self, x: ValueId) -> usize {
        self.graph.shape(x)[2]
    }

    pub fn quantized(&mut self, x: ValueId, per_row: bool) -> ValueId {
        if !self.int8 || self.graph.codes(x).is_some() {
            return x;
        }
        self.add(Op::Quantize { per_row }, &[Some(x), None])
    }

    pub fn conv(
        &mut self,
        x: ValueId,
        out: usize,
        double: bool,
        residual: Option<ValueId>,
    ) -> ValueId {
        let (shape, channels) = (self.graph.shape(x).to_vec(), self.channels(x));
        let x = self.quantized(x, false);
        let weight = self.weight(&[out, channels, 3, 3], 0.0);
        let bias = self.weight(&[out], 0.0);
        let op = Op::Conv2d {
            stride: 1,
            pad: [1; 4],
            up: double.then(|| [2 * shape[0], 2 * shape[1]]),
            activation: Activation::None,
        };
        self.add(op, &[Some(x), Some(weight), Some(bias), None, residual])
    }

    /// A picture of half the size.
    pub fn halve(&mut self, x: ValueId, out: usize) -> ValueId {
        let channels = self.channels(x);
        let x = self.quantized(x, false);
        let weight = self.weight(&[out, channels, 3, 3], 0.0);
        let bias = self.weight(&[out], 0.0);
        let op = Op::Conv2d {
            stride: 2,
            pad: [1; 4],
            up: None,
            activation: Activation::None,
        };
        self.add(op, &[Some(x), Some(weight), Some(bias), None, None])
    }

    pub fn linear(
        &mut self,
        x: ValueId,
        out: usize,
        activation: Activation,
        residual: Option<ValueId>,
    ) -> ValueId {
        let channels = self.channels(x);
        let x = self.quantized(x, true);
        let rows = if activation == Activation::Geglu {
            2 * out
        } else {
            out
        };
        let weight = self.weight(&[rows, channels], 0.0);
        let bias = self.weight(&[rows], 0.0);
        let op = Op::Linear { activation };
        self.add(
            op,
            &[Some(x), None, Some(weight), Some(bias), None, residual],
        )
    }

    pub fn norm(&mut self, x: ValueId) -> ValueId {
        let channels = [self.channels(x)];
        let (gamma, beta) = (self.weight(&channels, 1.0), self.weight(&channels, 0.2));
        let op = Op::GroupNorm {
            groups: 4,
            eps: 1e-6,
            activation: Activation::Silu,
            quantized: self.int8,
        };
        self.add(op, &[Some(x), None, Some(gamma), Some(beta)])
    }

    pub fn resnet(&mut self, x: ValueId, out: usize) -> ValueId {
        let h = self.norm(x);
        let h = self.conv(h, out, false, None);
        let h = self.norm(h);
        let x = match self.channels(x) == out {
            true => x,
            false => self.linear(x, out, Activation::None, None),
        };
        self.conv(h, out, false, Some(x))
    }

    /// The widest layers of a transformer, around which what comes in is added.
    pub fn feed(&mut self, x: ValueId, wide: usize) -> ValueId {
        let channels = self.channels(x);
        let (gamma, beta) = (self.weight(&[channels], 1.0), self.weight(&[channels], 0.0));
        let op = Op::LayerNorm {
            eps: 1e-5,
            quantized: self.int8,
        };
        let normed = self.add(op, &[Some(x), Some(gamma), Some(beta)]);
        let wide = self.linear(normed, wide, Activation::Geglu, None);
        self.linear(wide, channels, Activation::None, Some(x))
    }

    /// The graph with its output.
    pub fn finish(mut self, output: ValueId, name: &str) -> Graph {
        self.graph.value_mut(output).name = name.to_owned();
        self.graph.outputs.push(output);
        self.graph.tidy();
        self.graph.verify().expect("a valid graph");
        self.graph
    }
}
