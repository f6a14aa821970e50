//! What a model is measured on: inputs like those that it will see, made from its own configuration and text encoder.
//!
//! - Prompts: `bos`, 2, 9 or 24 tokens drawn at random, `eos`, padding; the text encoder makes their contexts.
//! - The UNet: at timesteps 901, 501 and 21, each with another prompt, a smooth random latent mixed with noise as the
//!   scheduler's `alphas_cumprod` says; where it takes an embedding of the guidance scale, that of 8.
//! - The VAE: the decoder two smooth random latents over the scaling factor, the encoder a synthetic picture.
//!
//! Everything random is a fixed sequence, of additions and multiplications alone: the same on every machine.

use kiln_kernels::math;

use crate::frontend::TextSettings;
use crate::graph::{Graph, Op, Tensor};

/// The timesteps that a UNet is measured at.
pub const TIMESTEPS: [usize; 3] = [901, 501, 21];
/// Tokens of the prompts.
const PROMPTS: [usize; 3] = [2, 9, 24];

/// Pseudo-random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Nearly normal: the sum of twelve uniform numbers.
    fn normal(&mut self) -> f32 {
        let sum: u64 = (0..12).map(|_| self.next() >> 40).sum();
        (sum as f64 / f64::from(1 << 24) - 6.0) as f32
    }

    /// `[h, w, c]` of normals that change slowly: bilinear between knots four pixels apart, about unit variance.
    fn smooth(&mut self, [h, w, c]: [usize; 3]) -> Vec<f32> {
        const STEP: usize = 4;
        let (rows, columns) = (h / STEP + 2, w / STEP + 2);
        let knots: Vec<f32> = (0..rows * columns * c)
            .map(|_| 1.4 * self.normal())
            .collect();
        let knot = |i: usize, j: usize, k: usize| knots[(i * columns + j) * c + k];
        let mut out = Vec::with_capacity(h * w * c);
        for (i, j, k) in (0..h * w * c).map(|n| (n / (w * c), n / c % w, n % c)) {
            let (y, x) = (i / STEP, j / STEP);
            let (v, u) = (
                (i % STEP) as f32 / STEP as f32,
                (j % STEP) as f32 / STEP as f32,
            );
            let top = knot(y, x, k) * (1.0 - u) + knot(y, x + 1, k) * u;
            let bottom = knot(y + 1, x, k) * (1.0 - u) + knot(y + 1, x + 1, k) * u;
            out.push(top * (1.0 - v) + bottom * v);
        }
        out
    }
}

/// The ids of a prompt of `words` random tokens.
fn ids(text: &TextSettings, vocabulary: usize, len: usize, words: usize) -> Vec<f32> {
    let mut random = Random(words as u64);
    // The special tokens stand at a vocabulary's end.
    let last = (text.bos.min(text.eos) as usize).clamp(1, vocabulary.max(1));
    let mut ids = vec![text.bos as f32];
    ids.extend((0..words.min(len.saturating_sub(2))).map(|_| (random.next() % last as u64) as f32));
    ids.push(text.eos as f32);
    ids.resize(len, text.pad as f32);
    ids
}

/// The inputs that a text encoder is measured on.
pub(super) fn prompts(text: &TextSettings, graph: &Graph) -> Vec<Vec<Tensor>> {
    let tables = graph
        .iter_nodes()
        .filter(|(_, node)| matches!(node.op, Op::Embed { .. }));
    let rows = tables.filter_map(|(_, node)| Some(graph.shape(node.input("table")?)[0]));
    let vocabulary = rows.min().unwrap_or(1);
    PROMPTS
        .map(|words| {
            named(graph, &|_, shape| {
                ids(text, vocabulary, shape.iter().product(), words)
            })
        })
        .to_vec()
}

/// The inputs that a UNet is measured on, one set for each of the contexts in turn.
pub(super) fn latents(
    graph: &Graph,
    contexts: &[Tensor],
    timesteps: &[usize],
    alphas: &[f64],
) -> Vec<Vec<Tensor>> {
    let at = |index: usize, timestep: usize| {
        let alpha = alphas
            .get(timestep)
            .or(alphas.last())
            .copied()
            .unwrap_or(0.5);
        named(graph, &|name, shape| {
            let mut random = Random(1000 + index as u64);
            match (name, shape) {
                ("timestep", _) => vec![timestep as f32; shape.iter().product()],
                ("timestep_cond", _) => guidance(shape.iter().product()),
                ("encoder_hidden_states", _) => {
                    let context = contexts
                        .get(index % contexts.len().max(1))
                        .map_or(&[][..], |c| &c.data);
                    (0..shape.iter().product())
                        .map(|i| context.get(i).copied().unwrap_or(0.0))
                        .collect()
                }
                (_, [h, w, c]) => {
                    let picture = random.smooth([*h, *w, *c]);
                    let (signal, noise) = (alpha.sqrt() as f32, (1.0 - alpha).sqrt() as f32);
                    picture
                        .into_iter()
                        .map(|x| signal * x + noise * random.normal())
                        .collect()
                }
                _ => vec![0.0; shape.iter().product()],
            }
        })
    };
    timesteps
        .iter()
        .enumerate()
        .map(|(index, timestep)| at(index, *timestep))
        .collect()
}

/// The embedding of a guidance scale of 8, as diffusers' `get_guidance_scale_embedding` has it: of a thousand times the
/// scale less one, sines and then cosines.
fn guidance(len: usize) -> Vec<f32> {
    let half = len / 2;
    let angle = |i: usize| {
        let rate = libm::log(10_000.0) / half.saturating_sub(1).max(1) as f64;
        (7000.0 * libm::exp(-rate * i as f64)) as f32
    };
    let waves = |i: usize| math::sin_cos(angle(i));
    let mut embedding: Vec<f32> = (0..half).map(|i| waves(i).0).collect();
    embedding.extend((0..half).map(|i| waves(i).1));
    embedding.resize(len, 0.0);
    embedding
}

/// The inputs that a VAE's half is measured on: smooth, of `scale`, within `limit`.
pub(crate) fn pictures(graph: &Graph, scale: f32, limit: f32, count: u64) -> Vec<Vec<Tensor>> {
    let one = |seed| {
        named(graph, &|_, shape| match shape {
            [h, w, c] => {
                let mut random = Random(seed);
                let smooth = random.smooth([*h, *w, *c]);
                smooth
                    .into_iter()
                    .map(|x| (x * scale).clamp(-limit, limit))
                    .collect()
            }
            _ => vec![0.0; shape.iter().product()],
        })
    };
    (0..count).map(|i| one(2000 + i)).collect()
}

/// Pictures for a VAE's encoder whose colours change from one of its latent's pixels to the next but little within them:
/// smooth at the latent's size, then each pixel a square of `factor` by `factor`.
pub(crate) fn paintings(graph: &Graph, factor: usize, count: u64) -> Vec<Vec<Tensor>> {
    let one = |seed| {
        named(graph, &|_, shape| match shape {
            [h, w, c] => {
                let (rows, columns) = (h / factor, w / factor);
                let small = Random(seed).smooth([rows, columns, *c]);
                let at = |i: usize, j: usize, k: usize| {
                    small[((i / factor) * columns + j / factor) * c + k]
                };
                (0..h * w * c)
                    .map(|n| (0.6 * at(n / (w * c), n / c % w, n % c)).clamp(-1.0, 1.0))
                    .collect()
            }
            _ => vec![0.0; shape.iter().product()],
        })
    };
    (0..count).map(|i| one(3000 + i)).collect()
}

/// Rows and columns of a UNet's latent.
pub(super) fn latent(graph: &Graph) -> [usize; 2] {
    let mut shapes = graph.inputs.iter().map(|id| &graph.value(*id).shape[..]);
    let latent = shapes.find_map(|shape| match shape {
        [h, w, _] => Some([*h, *w]),
        _ => None,
    });
    latent.unwrap_or([1, 1])
}

fn named(graph: &Graph, make: &dyn Fn(&str, &[usize]) -> Vec<f32>) -> Vec<Tensor> {
    let input = |id: &crate::graph::ValueId| {
        let value = graph.value(*id);
        Tensor {
            shape: value.shape.clone(),
            data: make(&value.name, &value.shape),
        }
    };
    graph.inputs.iter().map(input).collect()
}

/// The products of `1 - beta` over the training timesteps, from a scheduler's configuration; Stable Diffusion's own where
/// it does not say.
pub(super) fn alphas_cumprod(scheduler: &str) -> Vec<f64> {
    let config: serde_json::Value = serde_json::from_str(scheduler).unwrap_or_default();
    let number = |key: &str, otherwise: f64| {
        config
            .get(key)
            .and_then(serde_json::Value::as_f64)
            .unwrap_or(otherwise)
    };
    let (start, end) = (number("beta_start", 0.00085), number("beta_end", 0.012));
    let steps = number("num_train_timesteps", 1000.0).clamp(1.0, 100_000.0) as usize;
    let linear = config
        .get("beta_schedule")
        .and_then(serde_json::Value::as_str)
        == Some("linear");
    let mut product = 1.0;
    (0..steps)
        .map(|i| {
            let t = i as f64 / (steps.max(2) - 1) as f64;
            let root = start.sqrt() + (end.sqrt() - start.sqrt()) * t;
            product *= 1.0
                - if linear {
                    start + (end - start) * t
                } else {
                    root * root
                };
            product
        })
        .collect()
}
