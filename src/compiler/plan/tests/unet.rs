//! Graphs with the shape of Stable Diffusion's, at a tenth of its channels.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Cursor;

use kiln_package::{Activation, GraphKind, Package, Stage};

use super::{check_dataflow, parts};
use crate::graph::{Graph, Op, ValueId, Weight, WeightData};
use crate::plan::memory::{self, Lifetime};
use crate::plan::{Part, Plan, Precision};

struct Zeros(Vec<usize>);

impl WeightData for Zeros {
    fn shape(&self) -> &[usize] {
        &self.0
    }
    fn read(&self) -> Cow<'_, [f32]> {
        Cow::Owned(vec![0.0; self.0.iter().product()])
    }
}

/// A graph in the making, and a weight for each shape.
struct Builder(Graph, HashMap<Vec<usize>, Weight>);

impl Builder {
    fn weight(&mut self, shape: &[usize]) -> Option<ValueId> {
        let weight = self
            .1
            .entry(shape.to_vec())
            .or_insert_with(|| Weight::new(Zeros(shape.to_vec())));
        Some(self.0.add_weight("w", weight.clone()))
    }

    fn channels(&self, x: ValueId) -> usize {
        *self.0.shape(x).last().unwrap()
    }

    fn add(&mut self, op: Op, inputs: &[Option<ValueId>]) -> ValueId {
        let name = op.name();
        self.0.add(op, inputs, name).unwrap()
    }

    fn norm(&mut self, x: ValueId, x2: Option<ValueId>) -> ValueId {
        let c = self.channels(x) + x2.map_or(0, |x2| self.channels(x2));
        let (gamma, beta) = (self.weight(&[c]), self.weight(&[c]));
        self.add(
            Op::GroupNorm {
                groups: 8,
                eps: 1e-5,
                activation: Activation::Silu,
                quantized: false,
            },
            &[Some(x), x2, gamma, beta],
        )
    }

    fn conv(
        &mut self,
        x: ValueId,
        out: usize,
        shift: Option<ValueId>,
        residual: Option<ValueId>,
    ) -> ValueId {
        let c = self.channels(x);
        let (weight, bias) = (self.weight(&[out, c, 3, 3]), self.weight(&[out]));
        let op = Op::Conv2d {
            stride: 1,
            pad: [1; 4],
            up: None,
            activation: Activation::None,
        };
        self.add(op, &[Some(x), weight, bias, shift, residual])
    }

    fn linear(
        &mut self,
        x: ValueId,
        x2: Option<ValueId>,
        n: usize,
        activation: Activation,
        residual: Option<ValueId>,
    ) -> ValueId {
        let k = self.channels(x) + x2.map_or(0, |x2| self.channels(x2));
        let rows = if activation == Activation::Geglu {
            2 * n
        } else {
            n
        };
        let weight = self.weight(&[rows, k]);
        self.add(
            Op::Linear { activation },
            &[Some(x), x2, weight, None, None, residual],
        )
    }

    fn resnet(
        &mut self,
        x: ValueId,
        x2: Option<ValueId>,
        out: usize,
        time: Option<ValueId>,
    ) -> ValueId {
        let shift = time.map(|time| self.linear(time, None, out, Activation::None, None));
        let normed = self.norm(x, x2);
        let hidden = self.conv(normed, out, shift, None);
        let hidden = self.norm(hidden, None);
        let same = x2.is_none() && self.channels(x) == out;
        let shortcut = if same {
            x
        } else {
            self.linear(x, x2, out, Activation::None, None)
        };
        self.conv(hidden, out, None, Some(shortcut))
    }

    fn attention(&mut self, x: ValueId, context: Option<ValueId>) -> ValueId {
        let c = self.channels(x);
        let (gamma, beta) = (self.weight(&[c]), self.weight(&[c]));
        let normed = self.add(
            Op::LayerNorm {
                eps: 1e-5,
                quantized: false,
            },
            &[Some(x), gamma, beta],
        );
        let source = context.unwrap_or(normed);
        let q = self.linear(normed, None, c, Activation::None, None);
        let k = self.linear(source, None, c, Activation::None, None);
        let v = self.linear(source, None, c, Activation::None, None);
        let op = Op::Attention {
            heads: 8,
            scale: 0.5,
            causal: false,
            integers: false,
        };
        let attended = self.add(op, &[Some(q), Some(k), Some(v), None]);
        self.linear(attended, None, c, Activation::None, Some(x))
    }

    fn transformer(&mut self, x: ValueId, context: ValueId) -> ValueId {
        let c = self.channels(x);
        let hidden = self.norm(x, None);
        let hidden = self.linear(hidden, None, c, Activation::None, None);
        let hidden = self.attention(hidden, None);
        let hidden = self.attention(hidden, Some(context));
        let wide = self.linear(hidden, None, 4 * c, Activation::Geglu, None);
        let hidden = self.linear(wide, None, c, Activation::None, Some(hidden));
        self.linear(hidden, None, c, Activation::None, Some(x))
    }

    fn resample(&mut self, x: ValueId, up: bool) -> ValueId {
        let [h, w, c] = self.0.shape(x).try_into().unwrap();
        let (weight, bias) = (self.weight(&[c, c, 3, 3]), self.weight(&[c]));
        let (stride, up) = if up {
            (1, Some([2 * h, 2 * w]))
        } else {
            (2, None)
        };
        let op = Op::Conv2d {
            stride,
            pad: [1; 4],
            up,
            activation: Activation::None,
        };
        self.add(op, &[Some(x), weight, bias])
    }
}

/// The UNet of Stable Diffusion 1 for latents of `size` by `size`.
fn unet(size: usize) -> Graph {
    let mut b = Builder(Graph::new("unet"), HashMap::new());
    let channels = [32, 64, 128, 128];
    let sample = b.0.add_input("sample", &[size, size, 4]);
    let timestep = b.0.add_input("timestep", &[1]);
    let context = b.0.add_input("encoder_hidden_states", &[77, 80]);
    let frequencies = b.weight(&[16]);
    let time = b.add(
        Op::TimestepEmbedding { cos_first: true },
        &[Some(timestep), frequencies],
    );
    let time = Some(b.linear(time, None, 128, Activation::Silu, None));
    let mut x = b.conv(sample, channels[0], None, None);
    let mut skips = vec![x];
    for (level, c) in channels.into_iter().enumerate() {
        for _ in 0..2 {
            x = b.resnet(x, None, c, time);
            if level < 3 {
                x = b.transformer(x, context);
            }
            skips.push(x);
        }
        if level < 3 {
            x = b.resample(x, false);
            skips.push(x);
        }
    }
    x = b.resnet(x, None, 128, time);
    x = b.transformer(x, context);
    x = b.resnet(x, None, 128, time);
    for (level, c) in channels.into_iter().enumerate().rev() {
        for _ in 0..3 {
            x = b.resnet(x, skips.pop(), c, time);
            if level < 3 {
                x = b.transformer(x, context);
            }
        }
        if level > 0 {
            x = b.resample(x, true);
        }
    }
    let x = b.norm(x, None);
    let out = b.conv(x, 4, None, None);
    b.0.outputs.push(out);
    b.0
}

/// The decoder of the autoencoder, for latents of `size` by `size`.
fn decoder(size: usize) -> Graph {
    let mut b = Builder(Graph::new("vae_decoder"), HashMap::new());
    let latents = b.0.add_input("latents", &[size, size, 4]);
    let mut x = b.conv(latents, 64, None, None);
    x = b.resnet(x, None, 64, None);
    x = b.attention(x, None);
    x = b.resnet(x, None, 64, None);
    for (level, c) in [64, 64, 32, 16].into_iter().enumerate() {
        for _ in 0..3 {
            x = b.resnet(x, None, c, None);
        }
        if level < 3 {
            x = b.resample(x, true);
        }
    }
    let x = b.norm(x, None);
    let out = b.conv(x, 3, None, None);
    b.0.outputs.push(out);
    b.0
}

#[test]
fn arenas_are_within_a_twentieth_of_the_bound() {
    let part = |kind, size: usize, graph: Graph| {
        graph.verify().unwrap();
        let pixels = 8 * size as u32;
        Part {
            kind,
            stage: Stage::Whole,
            max_chunks: 1,
            height: pixels,
            width: pixels,
            clip_skip: u32::from(kind == GraphKind::TextEncoder),
            graph,
        }
    };
    let mut graphs = Vec::from([8, 24, 64].map(|size| part(GraphKind::Unet, size, unet(size))));
    graphs.extend([8, 32].map(|size| part(GraphKind::VaeDecoder, size, decoder(size))));
    let plan = Plan::new(parts(graphs.clone()), Precision::F16, &mut |_| ()).unwrap();
    for (part, program) in graphs.iter().zip(&plan.programs) {
        check_dataflow(&part.graph, program);
    }

    let mut file = Cursor::new(Vec::new());
    plan.write(&mut file, &mut |_| ()).unwrap();
    let package = Package::open(file.get_ref()).unwrap();
    for program in package.programs() {
        let buffers = program.buffers();
        let lifetimes: Vec<Lifetime> = buffers
            .iter()
            .map(|b| Lifetime {
                bytes: b.bytes,
                first: b.first,
                last: b.last,
            })
            .collect();
        let offsets = buffers.iter().map(|b| b.offset).collect();
        let (bytes, bound) = (program.arena_bytes(), memory::bound(&lifetimes));
        assert_eq!(
            memory::conflict(
                &lifetimes,
                &memory::Arena {
                    offsets,
                    bytes,
                    bound
                }
            ),
            None
        );
        let name = format!("{} {}", program.graph(), program.height());
        assert!(
            bytes >= bound && bytes * 20 <= bound * 21,
            "{name}: {bytes} bytes for a bound of {bound}"
        );
    }
}
