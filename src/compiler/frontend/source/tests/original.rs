//! The original layout at the geometries of Stable Diffusion 1.5, 2.1 and inpainting.
//!
//! The names that come out were compared with those of `diffusers.loaders.single_file_utils` (diffusers 0.42.1), whose hash
//! is kept here: SHA-256 of the sorted names, each followed by a newline.

use super::super::ldm::Named;
use super::super::parameters::absent;
use super::super::*;
use crate::frontend::diffusers::geometry;
use crate::graph::{Literal, Weight};
use sha2::{Digest, Sha256};

/// A state dict in the making.
#[derive(Default)]
struct State(Named);

impl State {
    fn add(&mut self, name: &str, shape: &[usize]) {
        self.0.insert(format!("{name}.weight"), absent(shape));
        self.0.insert(format!("{name}.bias"), absent(&shape[..1]));
    }

    fn plain(&mut self, name: &str, shape: &[usize]) {
        self.0.insert(name.into(), absent(shape));
    }

    fn unet_resnet(&mut self, place: &str, from: usize, to: usize) {
        self.add(&format!("{place}.in_layers.0"), &[from]);
        self.add(&format!("{place}.in_layers.2"), &[to, from, 3, 3]);
        self.add(&format!("{place}.emb_layers.1"), &[to, 1280]);
        self.add(&format!("{place}.out_layers.0"), &[to]);
        self.add(&format!("{place}.out_layers.3"), &[to, to, 3, 3]);
        if from != to {
            self.add(&format!("{place}.skip_connection"), &[to, from, 1, 1]);
        }
    }

    fn transformer(&mut self, place: &str, width: usize, context: usize, linear: bool) {
        let projection = [width, width, 1, 1];
        let projection = if linear {
            &projection[..2]
        } else {
            &projection
        };
        self.add(&format!("{place}.norm"), &[width]);
        self.add(&format!("{place}.proj_in"), projection);
        self.add(&format!("{place}.proj_out"), projection);
        let block = format!("{place}.transformer_blocks.0");
        for (attention, inputs) in [("attn1", width), ("attn2", context)] {
            self.plain(&format!("{block}.{attention}.to_q.weight"), &[width, width]);
            self.plain(
                &format!("{block}.{attention}.to_k.weight"),
                &[width, inputs],
            );
            self.plain(
                &format!("{block}.{attention}.to_v.weight"),
                &[width, inputs],
            );
            self.add(&format!("{block}.{attention}.to_out.0"), &[width, width]);
        }
        self.add(&format!("{block}.ff.net.0.proj"), &[8 * width, width]);
        self.add(&format!("{block}.ff.net.2"), &[width, 4 * width]);
        for norm in ["norm1", "norm2", "norm3"] {
            self.add(&format!("{block}.{norm}"), &[width]);
        }
    }
}

/// As `openaimodel.UNetModel` names and numbers it. Distilled models have one layer less in each block.
fn unet(inputs: usize, context: usize, linear: bool, layers: usize) -> Named {
    const WIDTHS: [usize; 4] = [320, 640, 1280, 1280];
    let mut state = State::default();
    state.add("time_embed.0", &[1280, 320]);
    state.add("time_embed.2", &[1280, 1280]);
    state.add("input_blocks.0.0", &[320, inputs, 3, 3]);
    let (mut width, mut skips, mut block) = (320, vec![320], 1);
    for (level, to) in WIDTHS.into_iter().enumerate() {
        for _ in 0..layers {
            state.unet_resnet(&format!("input_blocks.{block}.0"), width, to);
            width = to;
            if level < 3 {
                state.transformer(&format!("input_blocks.{block}.1"), width, context, linear);
            }
            skips.push(width);
            block += 1;
        }
        if level < 3 {
            state.add(&format!("input_blocks.{block}.0.op"), &[width, width, 3, 3]);
            skips.push(width);
            block += 1;
        }
    }
    state.unet_resnet("middle_block.0", width, width);
    state.transformer("middle_block.1", width, context, linear);
    state.unet_resnet("middle_block.2", width, width);
    block = 0;
    for (level, to) in WIDTHS.into_iter().enumerate().rev() {
        for layer in 0..=layers {
            let from = width + skips.pop().unwrap();
            state.unet_resnet(&format!("output_blocks.{block}.0"), from, to);
            width = to;
            let mut place = 1;
            if level < 3 {
                state.transformer(&format!("output_blocks.{block}.1"), width, context, linear);
                place = 2;
            }
            if level > 0 && layer == layers {
                state.add(
                    &format!("output_blocks.{block}.{place}.conv"),
                    &[width, width, 3, 3],
                );
            }
            block += 1;
        }
    }
    state.add("out.0", &[320]);
    state.add("out.2", &[4, 320, 3, 3]);
    state.0
}

fn vae() -> Named {
    const WIDTHS: [usize; 4] = [128, 256, 512, 512];
    let mut state = State::default();
    let resnet = |state: &mut State, place: String, from: usize, to: usize| {
        state.add(&format!("{place}.norm1"), &[from]);
        state.add(&format!("{place}.conv1"), &[to, from, 3, 3]);
        state.add(&format!("{place}.norm2"), &[to]);
        state.add(&format!("{place}.conv2"), &[to, to, 3, 3]);
        if from != to {
            state.add(&format!("{place}.nin_shortcut"), &[to, from, 1, 1]);
        }
    };
    for half in ["encoder", "decoder"] {
        resnet(&mut state, format!("{half}.mid.block_1"), 512, 512);
        resnet(&mut state, format!("{half}.mid.block_2"), 512, 512);
        state.add(&format!("{half}.mid.attn_1.norm"), &[512]);
        for layer in ["q", "k", "v", "proj_out"] {
            state.add(&format!("{half}.mid.attn_1.{layer}"), &[512, 512, 1, 1]);
        }
    }
    state.add("encoder.conv_in", &[128, 3, 3, 3]);
    state.add("decoder.conv_in", &[512, 4, 3, 3]);
    let mut width = 128;
    for (level, to) in WIDTHS.into_iter().enumerate() {
        for layer in 0..2 {
            resnet(
                &mut state,
                format!("encoder.down.{level}.block.{layer}"),
                width,
                to,
            );
            width = to;
        }
        if level < 3 {
            state.add(
                &format!("encoder.down.{level}.downsample.conv"),
                &[to, to, 3, 3],
            );
        }
    }
    for (level, to) in WIDTHS.into_iter().enumerate().rev() {
        for layer in 0..3 {
            resnet(
                &mut state,
                format!("decoder.up.{level}.block.{layer}"),
                width,
                to,
            );
            width = to;
        }
        if level > 0 {
            state.add(
                &format!("decoder.up.{level}.upsample.conv"),
                &[to, to, 3, 3],
            );
        }
    }
    state.add("encoder.norm_out", &[512]);
    state.add("encoder.conv_out", &[8, 512, 3, 3]);
    state.add("decoder.norm_out", &[128]);
    state.add("decoder.conv_out", &[3, 128, 3, 3]);
    state.add("quant_conv", &[8, 8, 1, 1]);
    state.add("post_quant_conv", &[4, 4, 1, 1]);
    state.0
}

/// OpenCLIP's ViT-H/14, its text half.
fn open_clip() -> Named {
    let mut state = State::default();
    state.plain("positional_embedding", &[77, 1024]);
    state.plain("token_embedding.weight", &[49408, 1024]);
    state.plain("text_projection", &[1024, 1024]);
    state.plain("logit_scale", &[]);
    state.add("ln_final", &[1024]);
    for layer in 0..24 {
        let place = format!("transformer.resblocks.{layer}");
        state.plain(&format!("{place}.attn.in_proj_weight"), &[3072, 1024]);
        state.plain(&format!("{place}.attn.in_proj_bias"), &[3072]);
        state.add(&format!("{place}.attn.out_proj"), &[1024, 1024]);
        state.add(&format!("{place}.mlp.c_fc"), &[4096, 1024]);
        state.add(&format!("{place}.mlp.c_proj"), &[1024, 4096]);
        state.add(&format!("{place}.ln_1"), &[1024]);
        state.add(&format!("{place}.ln_2"), &[1024]);
    }
    state.0
}

fn hash(names: &Named) -> String {
    let harmless = |name: &&String| !parameters::harmless(name);
    let text: String = names
        .keys()
        .filter(harmless)
        .map(|name| format!("{name}\n"))
        .collect();
    Sha256::digest(text)[..8]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[test]
fn names_are_those_of_diffusers_and_shapes_tell_the_geometry() {
    let path = Path::new("model");
    for (name, inputs, context, linear) in [
        ("sd15", 4, 768, false),
        ("sd21", 4, 1024, true),
        ("inpaint", 9, 768, false),
    ] {
        let part = parts::unet_of(path, unet(inputs, context, linear, 2), None).unwrap();
        assert_eq!(
            (hash(&part.tensors).as_str(), part.tensors.len()),
            (UNET, 686),
            "{name}"
        );
        let mut expected = geometry::named(name).unwrap().unet;
        expected.sample_size = [64, 64];
        assert_eq!(part.config, expected, "{name}");
        built(&part, "UNet", |parameters| {
            super::super::unet::build(&part.config, [64, 64], 77, parameters)
        })
        .unwrap();
    }
    let part = parts::vae_of(path, vae(), None).unwrap();
    assert_eq!(
        (hash(&part.tensors).as_str(), part.tensors.len()),
        (VAE, 248)
    );
    assert_eq!(part.config, geometry::named("sd15").unwrap().vae);
    autoencoder(&part, [64, 64]).unwrap();

    let part = parts::text_encoder_of(path, &open_clip(), None).unwrap();
    assert_eq!(hash(&part.tensors), OPEN_CLIP);
    assert_eq!(part.config, geometry::named("sd21").unwrap().text_encoder);
    built(&part, "text encoder", |parameters| {
        super::super::text_encoder::build(&part.config, parameters)
    })
    .unwrap();
}

const UNET: &str = "3ed325b8f2ba0d25";
const VAE: &str = "38f6ca9e9aeacc48";
const OPEN_CLIP: &str = "b968ac2d1024e3cf";

/// Distilled models are numbered without gaps, or as the full ones with gaps where a layer was taken out.
#[test]
fn numbers_may_have_gaps() {
    let dense = unet(4, 768, false, 1);
    let expected = ldm::unet(&dense);
    assert!(ldm::any(&expected, "up_blocks.3.attentions.1."));
    // As diffusers' own conversion to the original layout numbers it: three places for each level.
    let spread = dense.iter().map(|(name, weight)| {
        let renumber = |prefix: &str, number: &dyn Fn(usize) -> usize| {
            let (block, rest) = name.strip_prefix(prefix)?.split_once('.')?;
            Some(format!("{prefix}{}.{rest}", number(block.parse().ok()?)))
        };
        let input = renumber("input_blocks.", &|n| match n {
            0 => 0,
            n => 3 * ((n - 1) / 2) + if n % 2 == 1 { 1 } else { 3 },
        });
        // The upsampler of a level has the last of its places for itself.
        let output = renumber("output_blocks.", &|n| {
            let sampler = name.contains(".conv.");
            3 * (n / 2) + if sampler { 2 } else { n % 2 }
        });
        (
            input.or(output).unwrap_or_else(|| name.clone()),
            weight.clone(),
        )
    });
    let spread: Named = spread.collect();
    assert_ne!(
        spread.keys().collect::<Vec<_>>(),
        dense.keys().collect::<Vec<_>>()
    );
    let found = ldm::unet(&spread);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    let config = infer::unet(&found).unwrap();
    assert_eq!(
        (config.down_layers, config.up_layers),
        (vec![1; 4], vec![2; 4])
    );
}

#[test]
fn fused_projections_are_cut_in_three() {
    let weight = |shape: &[usize]| {
        let len: usize = shape.iter().product();
        Weight::new(Literal {
            shape: shape.to_vec(),
            values: (0..len).map(|i| i as f32).collect(),
        })
    };
    let layer = "transformer.resblocks.0.attn.in_proj_";
    let mut tensors = Named::new();
    tensors.insert(format!("{layer}weight"), weight(&[6, 2]));
    tensors.insert(format!("{layer}bias"), weight(&[6]));
    // The last layer is not used.
    tensors.insert("transformer.resblocks.1.ln_1.weight".into(), weight(&[2]));
    let found = ldm::open_clip(&tensors);
    let part = |name: &str| {
        let weight = &found[&format!("text_model.encoder.layers.0.self_attn.{name}")];
        (weight.shape().to_vec(), weight.read().to_vec())
    };
    assert_eq!(found.len(), 6);
    assert_eq!(
        part("q_proj.weight"),
        (vec![2, 2], vec![0.0, 1.0, 2.0, 3.0])
    );
    assert_eq!(
        part("v_proj.weight"),
        (vec![2, 2], vec![8.0, 9.0, 10.0, 11.0])
    );
    assert_eq!(part("k_proj.bias"), (vec![2], vec![2.0, 3.0]));
}

/// The first versions of diffusers and of transformers named some things otherwise.
#[test]
fn old_names_become_new_ones() {
    let old = [
        "decoder.mid_block.attentions.0.query.weight",
        "decoder.mid_block.attentions.0.proj_attn.bias",
        "decoder.conv_in.weight",
    ];
    let tensors: Named = old
        .iter()
        .map(|name| (name.to_string(), absent(&[4, 4])))
        .collect();
    let new = [
        "decoder.conv_in.weight",
        "decoder.mid_block.attentions.0.to_out.0.bias",
        "decoder.mid_block.attentions.0.to_q.weight",
    ];
    assert!(ldm::diffusers_vae(&tensors).keys().eq(new));
    let bare: Named = [(
        "encoder.layers.0.layer_norm1.weight".to_owned(),
        absent(&[4]),
    )]
    .into();
    assert!(
        ldm::clip(&bare)
            .keys()
            .eq(["text_model.encoder.layers.0.layer_norm1.weight"])
    );
}
