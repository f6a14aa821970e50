//! A package small enough to be written by a test: every graph has a step or three, the numbers come from a hash.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_package::{
    Activation, Attention, Conv2d, DType, Embed, GraphKind, Layout, Linear, Op, Operand,
    PackageWriter, PortRecord, ProgramRecord, Stage, StepRecord, TimestepEmbedding,
};
use serde_json::{Value, json};

const TOKENS: u32 = 77;
const DIM: u32 = 8;
const CHANNELS: u32 = 4;
const VOCABULARY: u32 = 8;

/// Widths and heights that the package draws.
pub const SIZES: [(u32, u32); 2] = [(64, 64), (96, 64)];

/// The package's bytes, with a card and a scheduler changed by the keys of `card` and `scheduler`.
pub fn package(card: &Value, scheduler: &Value) -> Vec<u8> {
    package_of(&SIZES, card, scheduler)
}

/// The same for other widths and heights.
pub fn package_of(sizes: &[(u32, u32)], card: &Value, scheduler: &Value) -> Vec<u8> {
    written(Parts::default(), sizes, card, scheduler, [&[], &[]])
}

/// A package that draws the same pictures, whose UNet shares a part of its arena among lanes.
pub fn package_in_turns(card: &Value, scheduler: &Value) -> Vec<u8> {
    let parts = Parts {
        in_turns: true,
        ..Parts::default()
    };
    written(parts, &SIZES, card, scheduler, [&[], &[]])
}

/// The same, with the UNet alone, and with the VAE alone, at more widths and heights.
pub fn package_with(card: &Value, scheduler: &Value, more: [&[(u32, u32)]; 2]) -> Vec<u8> {
    written(Parts::default(), &SIZES, card, scheduler, more)
}

fn written(
    mut parts: Parts,
    sizes: &[(u32, u32)],
    card: &Value,
    scheduler: &Value,
    [unets, vaes]: [&[(u32, u32)]; 2],
) -> Vec<u8> {
    parts.text_encoder(1);
    for (width, height) in unets {
        parts.unet(*height, *width);
    }
    for (width, height) in vaes {
        parts.vae_decoder(*height, *width);
        parts.vae_encoder(*height, *width);
    }
    for &(width, height) in sizes {
        parts.unet(height, width);
        parts.vae_decoder(height, width);
        parts.vae_encoder(height, width);
    }
    parts.text_encoder(2);
    let writer = PackageWriter {
        card: merged(
            json!({
                "name": "toy", "description": "draws noise", "license": "MIT OR Apache-2.0", "precision": "f32",
                "defaults": { "steps": 4, "guidance_scale": 3.0, "sampler": "ddim", "width": 64, "height": 64 },
                "vae_scaling_factor": 2.0, "text": { "max_length": TOKENS, "bos": 1, "eos": 2, "pad": 2, "dim": DIM },
                "latent_channels": CHANNELS, "sources": [],
            }),
            card,
        ),
        tokenizer: json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": { "type": "Lowercase" },
            "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
            "model": {
                "type": "WordLevel", "unk_token": "?",
                "vocab": { "?": 0, "<": 1, ">": 2, "a": 3, "red": 4, "apple": 5, "blue": 6 },
            },
        })
        .to_string()
        .into_bytes(),
        scheduler: merged(
            json!({
                "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
                "timestep_spacing": "leading", "steps_offset": 1, "clip_sample": false, "set_alpha_to_one": false,
            }),
            scheduler,
        ),
        programs: parts.programs,
        optional: Vec::new(),
    };
    writer
        .to_vec(&parts.weights)
        .expect("the toy package is right")
}

/// Writes the package to `toy.kiln` in a folder.
pub fn write(folder: &Path) -> PathBuf {
    write_with(folder, &json!({}), &json!({}))
}

/// Writes the package, changed, to `toy.kiln` in a folder.
pub fn write_with(folder: &Path, card: &Value, scheduler: &Value) -> PathBuf {
    let path = folder.join("toy.kiln");
    fs::write(&path, package(card, scheduler)).expect("the folder can be written to");
    path
}

/// Writes [`package_in_turns`] to `turns.kiln` in a folder.
pub fn write_in_turns(folder: &Path) -> PathBuf {
    let path = folder.join("turns.kiln");
    let package = package_in_turns(&json!({}), &json!({}));
    fs::write(&path, package).expect("the folder can be written to");
    path
}

fn merged(mut object: Value, changes: &Value) -> String {
    for (key, value) in changes.as_object().expect("an object") {
        object[key] = value.clone();
    }
    object.to_string()
}

#[derive(Default)]
struct Parts {
    weights: Vec<u8>,
    programs: Vec<ProgramRecord>,
    /// Whether the UNet's lanes take turns.
    in_turns: bool,
}

/// The arena of a program: buffers one after another.
#[derive(Default)]
struct Arena(u64);

impl Arena {
    fn take(&mut self, dtype: DType, elements: u32) -> Operand {
        let operand = Operand::arena(dtype, self.0, u64::from(elements) * dtype.size() as u64);
        self.0 = (self.0 + operand.bytes).next_multiple_of(64);
        operand
    }
}

impl Parts {
    /// `count` numbers within `scale` of 0.
    fn weight(&mut self, count: u32, scale: f32) -> Operand {
        let offset = self.weights.len() as u64;
        for i in 0..count {
            let hash = (i + 1)
                .wrapping_mul(2_654_435_761)
                .rotate_left(13)
                .wrapping_mul(2_246_822_519)
                >> 8;
            let value = (hash as f32 / 8_388_608.0 - 1.0) * scale;
            self.weights.extend(value.to_le_bytes());
        }
        self.weights
            .resize(self.weights.len().next_multiple_of(64), 0);
        Operand::weights(DType::F32, offset, u64::from(count) * 4)
    }

    fn program(
        &mut self,
        (graph, height, width): (GraphKind, u32, u32),
        arena: &Arena,
        (inputs, outputs): (Vec<PortRecord>, Vec<PortRecord>),
        steps: Vec<StepRecord>,
    ) {
        self.programs.push(ProgramRecord {
            graph,
            stage: Stage::Whole,
            height,
            width,
            clip_skip: u32::from(graph == GraphKind::TextEncoder),
            arena_bytes: arena.0,
            thread_scratch_bytes: 1 << 18,
            pinned_bytes: 0,
            shared_bytes: 0,
            max_chunks: 1,
            inputs,
            outputs,
            steps,
        });
    }

    /// Each form has a table of its own scale, so what comes of it differs.
    fn text_encoder(&mut self, clip_skip: u32) {
        let mut arena = Arena::default();
        let ids = arena.take(DType::I32, TOKENS);
        let out = arena.take(DType::F32, TOKENS * DIM);
        let table = self.weight(VOCABULARY * DIM, clip_skip as f32);
        let positions = self.weight(TOKENS * DIM, 0.1);
        let op = Op::Embed(Embed {
            rows: TOKENS,
            dim: DIM,
            vocab: VOCABULARY,
            quantized: false,
        });
        self.program(
            (GraphKind::TextEncoder, 0, 0),
            &arena,
            (
                vec![port("input_ids", ids, &[1, TOKENS])],
                vec![port("last_hidden_state", out, &[1, TOKENS, DIM])],
            ),
            vec![step(
                op,
                "embeddings",
                &[ids, table, Operand::EMPTY, positions, out],
            )],
        );
        let last = self.programs.last_mut().expect("just pushed");
        last.clip_skip = clip_skip;
    }

    fn unet(&mut self, height: u32, width: u32) {
        let (h, w) = (height / 8, width / 8);
        let pixels = h * w;
        let mut arena = Arena::default();
        let sample = arena.take(DType::F32, pixels * CHANNELS);
        let timestep = arena.take(DType::F32, 1);
        let context = arena.take(DType::F32, TOKENS * DIM);
        // In turns what is shared comes last.
        let first = self
            .in_turns
            .then(|| arena.take(DType::F32, pixels * CHANNELS));
        let own = arena.0;
        let time = arena.take(DType::F32, CHANNELS);
        let attended = arena.take(DType::F32, pixels * CHANNELS);
        let out = first.unwrap_or_else(|| arena.take(DType::F32, pixels * CHANNELS));
        let frequencies = self.weight(CHANNELS / 2, 0.01);
        let weight = self.weight(CHANNELS * 16, 0.5);
        let keys = Operand {
            bytes: u64::from((TOKENS - 1) * DIM + CHANNELS) * 4,
            ..context
        };
        let steps = vec![
            step(
                Op::TimestepEmbedding(TimestepEmbedding {
                    half: CHANNELS / 2,
                    cos_first: true,
                }),
                "time_proj",
                &[timestep, frequencies, time],
            ),
            step(
                Op::Attention(Attention {
                    q_rows: pixels,
                    kv_rows: TOKENS,
                    heads: 1,
                    head_dim: CHANNELS,
                    q_stride: CHANNELS,
                    k_stride: DIM,
                    v_stride: DIM,
                    scale: 0.5,
                    causal: false,
                    integers: false,
                }),
                "attention",
                &[sample, keys, keys, EMPTY, EMPTY, attended],
            ),
            step(
                Op::Linear(Linear {
                    rows: pixels,
                    k: CHANNELS,
                    k2: 0,
                    n: CHANNELS,
                    activation: Activation::None,
                }),
                "to_out",
                &[
                    attended, EMPTY, weight, EMPTY, EMPTY, EMPTY, time, sample, out,
                ],
            ),
        ];
        let inputs = vec![
            picture("sample", sample, CHANNELS, h, w),
            port("timestep", timestep, &[1]),
            port("encoder_hidden_states", context, &[1, TOKENS, DIM]),
        ];
        let outputs = vec![picture("out_sample", out, CHANNELS, h, w)];
        self.program(
            (GraphKind::Unet, height, width),
            &arena,
            (inputs, outputs),
            steps,
        );
        if self.in_turns {
            let unet = self.programs.last_mut().expect("just pushed");
            unet.shared_bytes = arena.0 - own;
            unet.steps[..2]
                .iter_mut()
                .for_each(|step| step.joined = true);
        }
    }

    fn vae_decoder(&mut self, height: u32, width: u32) {
        let (h, w) = (height / 8, width / 8);
        let mut arena = Arena::default();
        let latents = arena.take(DType::F32, h * w * CHANNELS);
        let out = arena.take(DType::F32, height * width * 3);
        let op = Conv2d {
            in_h: h,
            in_w: w,
            in_c: CHANNELS,
            up_h: height,
            up_w: width,
            out_h: height,
            out_w: width,
            out_c: 3,
            kernel_h: 3,
            kernel_w: 3,
            stride: 1,
            pad_top: 1,
            pad_left: 1,
            activation: Activation::None,
        };
        self.conv(
            (GraphKind::VaeDecoder, height, width),
            op,
            &arena,
            (latents, "latents"),
            (out, "sample"),
        );
    }

    fn vae_encoder(&mut self, height: u32, width: u32) {
        let (h, w) = (height / 8, width / 8);
        let mut arena = Arena::default();
        let image = arena.take(DType::F32, height * width * 3);
        let out = arena.take(DType::F32, h * w * 2 * CHANNELS);
        let op = Conv2d {
            in_h: height,
            in_w: width,
            in_c: 3,
            up_h: height,
            up_w: width,
            out_h: h,
            out_w: w,
            out_c: 2 * CHANNELS,
            kernel_h: 8,
            kernel_w: 8,
            stride: 8,
            pad_top: 0,
            pad_left: 0,
            activation: Activation::None,
        };
        self.conv(
            (GraphKind::VaeEncoder, height, width),
            op,
            &arena,
            (image, "image"),
            (out, "moments"),
        );
    }

    fn conv(
        &mut self,
        place: (GraphKind, u32, u32),
        op: Conv2d,
        arena: &Arena,
        (x, input): (Operand, &str),
        (out, output): (Operand, &str),
    ) {
        let k = op.kernel_h * op.kernel_w * op.in_c;
        let weight = self.weight(k * 16, 1.0 / k as f32);
        let ports = (
            vec![picture(input, x, op.in_c, op.in_h, op.in_w)],
            vec![picture(output, out, op.out_c, op.out_h, op.out_w)],
        );
        let operands = [x, weight, EMPTY, EMPTY, EMPTY, EMPTY, EMPTY, out];
        self.program(
            place,
            arena,
            ports,
            vec![step(Op::Conv2d(op), "conv", &operands)],
        );
    }
}

const EMPTY: Operand = Operand::EMPTY;

fn step(op: Op, name: &str, operands: &[Operand]) -> StepRecord {
    StepRecord {
        op,
        operands: operands.to_vec(),
        name: name.into(),
        per_chunk: false,
        joined: false,
    }
}

fn port(name: &str, operand: Operand, shape: &[u32]) -> PortRecord {
    PortRecord {
        name: name.into(),
        dtype: operand.dtype,
        layout: Layout::RowMajor,
        shape: shape.to_vec(),
        offset: operand.offset,
        bytes: operand.bytes,
        per_chunk: false,
    }
}

fn picture(name: &str, operand: Operand, channels: u32, height: u32, width: u32) -> PortRecord {
    PortRecord {
        layout: Layout::ChannelsLast,
        ..port(name, operand, &[1, channels, height, width])
    }
}
