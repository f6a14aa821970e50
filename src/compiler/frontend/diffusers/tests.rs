//! What is built is what the ONNX import gives, and computes what PyTorch computes.

mod architectures;
mod geometries;

use super::config::{HiddenAct, MidBlock, TextEncoderConfig, UnetConfig, VaeConfig};
use super::parameters::{ParameterError, Parameters};
use super::{ArchitectureError, taesd, text_encoder, unet, vae};
use crate::frontend::onnx::tests::{assert_reference, fixtures, fused, imported, inside, stored};
use crate::graph::{Graph, Tensor, Weight, WeightData};
use crate::quantize::evaluate::{Evaluator, Numbers};
use safetensors::SafeTensors;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// A weight in memory.
struct Values(Vec<usize>, Vec<f32>);

impl WeightData for Values {
    fn shape(&self) -> &[usize] {
        &self.0
    }
    fn read(&self) -> Cow<'_, [f32]> {
        self.1.as_slice().into()
    }
}

/// Tensors by name, and which of them were taken.
#[derive(Default)]
struct Named {
    tensors: BTreeMap<String, Weight>,
    taken: BTreeSet<String>,
}

impl Named {
    /// A part of the tiny model, a folder as diffusers writes it.
    fn of_file(part: &str, file: &str) -> Self {
        let path = fixtures().join("tiny/weights").join(part).join(file);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut named = Named::default();
        for name in file.names() {
            let Tensor { shape, data } = stored(&file, name);
            named
                .tensors
                .insert(name.into(), Weight::new(Values(shape, data)));
        }
        named
    }

    /// The weights of an imported graph: where only the graphs are to be compared, not the files.
    fn of_graph(graph: &Graph) -> Self {
        let mut named = Named::default();
        for (_, value) in graph.iter_values() {
            let Some(weight) = value.weight() else {
                continue;
            };
            let name = match value.name.strip_suffix("token_embedding.positions") {
                Some(layer) => format!("{layer}position_embedding.weight"),
                None => value.name.clone(),
            };
            let name = match graph.name.as_str() {
                "text_encoder" => format!("text_model.{name}"),
                _ => name,
            };
            named.tensors.insert(name, weight.clone());
        }
        named
    }
}

impl Parameters for Named {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weight, ParameterError> {
        let missing = || ParameterError::Missing(name.into());
        let weight = self.tensors.get(name).ok_or_else(missing)?;
        self.taken.insert(name.into());
        if weight.shape() == shape {
            return Ok(weight.clone());
        }
        // The import holds convolutions of one pixel as matrices.
        let pixel = [weight.shape(), &[1, 1]].concat() == shape;
        if !pixel {
            return Err(ParameterError::Shape {
                name: name.into(),
                expected: shape.to_vec(),
                found: weight.shape().to_vec(),
            });
        }
        Ok(Weight::new(Values(
            shape.to_vec(),
            weight.read().into_owned(),
        )))
    }
}

fn tiny_text(hidden_act: HiddenAct) -> TextEncoderConfig {
    TextEncoderConfig {
        vocab_size: 600,
        hidden_size: 32,
        intermediate_size: 128,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        max_position_embeddings: 77,
        hidden_act,
        layer_norm_eps: 1e-5,
    }
}

fn tiny_unet() -> UnetConfig {
    UnetConfig {
        in_channels: 4,
        out_channels: 4,
        block_out_channels: vec![16, 24],
        down_layers: vec![1; 2],
        up_layers: vec![2; 2],
        down_attention: vec![1, 0],
        up_attention: vec![1, 0],
        mid: Some(MidBlock {
            attention: 1,
            heads: 2,
        }),
        heads: vec![2; 2],
        cross_attention_dim: 32,
        norm_num_groups: 8,
        norm_eps: 1e-5,
        use_linear_projection: false,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
        time_cond_proj_dim: None,
        sample_size: [16, 16],
    }
}

fn tiny_unet_linear() -> UnetConfig {
    UnetConfig {
        block_out_channels: vec![8, 16, 24],
        down_layers: vec![1; 3],
        up_layers: vec![2; 3],
        down_attention: vec![1, 1, 0],
        up_attention: vec![1, 1, 0],
        mid: Some(MidBlock {
            attention: 1,
            heads: 3,
        }),
        heads: vec![1, 2, 3],
        use_linear_projection: true,
        ..tiny_unet()
    }
}

fn tiny_vae() -> VaeConfig {
    VaeConfig {
        latent_channels: 4,
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        use_quant_conv: true,
        use_post_quant_conv: true,
        mid_block_add_attention: true,
        scaling_factor: 0.18215,
    }
}

fn run(graph: &Graph, inputs: &[Tensor]) -> Tensor {
    let outputs = Evaluator::new().run(graph, inputs, Numbers::Exact);
    outputs.unwrap_or_else(|e| panic!("{e}")).remove(0)
}

/// The same text, the same bits, and what PyTorch computed, at every recorded size.
fn assert_same(built: Graph, imported: &Graph, key: &str) {
    let built = fused(&built);
    let (text, expected) = (built.to_string(), imported.to_string());
    let difference = text.lines().zip(expected.lines()).find(|(a, b)| a != b);
    assert!(text == expected, "{key}: {difference:?}");

    let part = imported.name.as_str();
    let names: &[&str] = match part {
        "text_encoder" => &["input_ids"],
        "unet" => &["sample", "timestep", "encoder_hidden_states"],
        "vae_decoder" => &["latents"],
        _ => &["image"],
    };
    let sizes: &[[usize; 2]] = match part {
        "text_encoder" => &[[16, 16]],
        _ => &[[16, 16], [10, 14], [9, 13]],
    };
    let bytes = std::fs::read(fixtures().join("tiny/reference.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for [h, w] in sizes {
        let key = match [h, w] {
            [16, 16] => key.to_owned(),
            _ => format!("{key}@{h}x{w}"),
        };
        let factor = if part == "vae_encoder" { 2 } else { 1 };
        let at = |graph: &Graph| match part {
            "text_encoder" => graph.clone(),
            _ => graph.resized([h * factor, w * factor]).unwrap(),
        };
        let inputs: Vec<Tensor> = names
            .iter()
            .map(|name| inside(&stored(&file, &format!("{key}.{name}"))))
            .collect();
        let bits = |graph: &Graph| -> Vec<u32> {
            let output = run(graph, &inputs);
            output.data.iter().map(|v| v.to_bits()).collect()
        };
        assert!(bits(&at(&built)) == bits(&at(imported)), "{key}");
        assert_reference(&at(&built), part, &key);
    }
}

#[test]
fn text_encoders_are_those_of_the_import() {
    let mut file = Named::of_file("text_encoder", "model.safetensors");
    let built = text_encoder::build(&tiny_text(HiddenAct::QuickGelu), &mut file).unwrap();
    assert_same(built, &imported("ts17", "text_encoder"), "text_encoder");
    assert!(file.taken.iter().eq(file.tensors.keys()));

    let gelu = imported("ts17gelu", "text_encoder");
    let built = text_encoder::build(&tiny_text(HiddenAct::Gelu), &mut Named::of_graph(&gelu));
    assert_same(built.unwrap(), &gelu, "text_encoder_gelu");
}

#[test]
fn unets_are_those_of_the_import() {
    let mut file = Named::of_file("unet", "diffusion_pytorch_model.safetensors");
    let built = unet::build(&tiny_unet(), [16, 16], 77, &mut file).unwrap();
    assert_same(built, &imported("ts17", "unet"), "unet");
    assert!(file.taken.iter().eq(file.tensors.keys()));

    let linear = imported("ts17linear", "unet");
    let mut weights = Named::of_graph(&linear);
    let built = unet::build(&tiny_unet_linear(), [16, 16], 77, &mut weights).unwrap();
    assert_same(built, &linear, "unet_linear");
}

#[test]
fn autoencoders_are_those_of_the_import() {
    let mut file = Named::of_file("vae", "diffusion_pytorch_model.safetensors");
    let built = vae::decoder(&tiny_vae(), [16, 16], &mut file).unwrap();
    assert_same(built, &imported("ts17", "vae_decoder"), "vae_decoder");
    let built = vae::encoder(&tiny_vae(), [16, 16], &mut file).unwrap();
    assert_same(built, &imported("ts17", "vae_encoder"), "vae_encoder");
    assert!(file.taken.iter().eq(file.tensors.keys()));
}

#[test]
fn a_tensor_that_does_not_fit_is_named() {
    let mut file = Named::of_file("unet", "diffusion_pytorch_model.safetensors");
    let inpainting = UnetConfig {
        in_channels: 9,
        ..tiny_unet()
    };
    let error = unet::build(&inpainting, [16, 16], 77, &mut file).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unet: tensor conv_in.weight is [16, 4, 3, 3], the model needs [16, 9, 3, 3]"
    );
    file.tensors.remove("conv_norm_out.bias");
    let error = unet::build(&tiny_unet(), [16, 16], 77, &mut file).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unet: tensor conv_norm_out.bias is missing"
    );
}

/// Any tensor of any shape.
struct Anything;

impl Parameters for Anything {
    fn take(&mut self, _: &str, shape: &[usize]) -> Result<Weight, ParameterError> {
        struct Empty(Vec<usize>);
        impl WeightData for Empty {
            fn shape(&self) -> &[usize] {
                &self.0
            }
            fn read(&self) -> Cow<'_, [f32]> {
                vec![0.0; self.0.iter().product()].into()
            }
        }
        Ok(Weight::new(Empty(shape.to_vec())))
    }
}

#[test]
fn configurations_that_no_model_has_are_refused() {
    let unet = |change: fn(&mut UnetConfig)| {
        let mut config = tiny_unet();
        change(&mut config);
        unet::build(&config, [16, 16], 77, &mut Anything).map(|_| ())
    };
    let changes: [(fn(&mut UnetConfig), &str); 13] = [
        (|c| c.block_out_channels.clear(), "block_out_channels"),
        (|c| c.block_out_channels[1] = 0, "block_out_channels"),
        (|c| c.block_out_channels = vec![8; 9], "9 levels"),
        (|c| c.down_layers[0] = 1 << 40, "way down"),
        (|c| c.down_layers[0] = 65, "64 layers"),
        (|c| c.up_layers[0] = 3, "leaves 4 pictures"),
        (|c| c.up_attention.push(1), "transformers"),
        (|c| c.heads[0] = 3, "3 heads of 16"),
        (|c| c.heads = vec![2], "the model has 2 levels"),
        (|c| c.norm_num_groups = 7, "7 groups of 16"),
        (|c| c.block_out_channels[0] = 15, "15 columns"),
        (|c| c.freq_shift = 8.0, "freq_shift"),
        (|c| c.time_cond_proj_dim = Some(0), "time_cond_proj_dim"),
    ];
    for (change, expected) in changes {
        let error = unet(change).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} ({expected})");
    }
    let odd = super::unet::build(&tiny_unet(), [16, 15], 77, &mut Anything).unwrap_err();
    assert!(odd.to_string().contains("multiple of 2"), "{odd}");
    let mut text = tiny_text(HiddenAct::Gelu);
    text.num_attention_heads = 5;
    let error = text_encoder::build(&text, &mut Anything).unwrap_err();
    assert!(matches!(error, ArchitectureError::Config { .. }), "{error}");
    let mut autoencoder = tiny_vae();
    autoencoder.layers_per_block = 0;
    assert!(vae::decoder(&autoencoder, [16, 16], &mut Anything).is_err());
    assert!(vae::encoder(&tiny_vae(), [usize::MAX, 16], &mut Anything).is_err());
    let mut tiny = architectures::taesd();
    tiny.num_decoder_blocks.pop();
    assert!(taesd::decoder(&tiny, [16, 16], &mut Anything).is_err());
}
