//! The known geometries, and the weights that nobody trained.

use super::*;
use crate::frontend::diffusers::geometry::{self, Autoencoder, Geometry};
use crate::frontend::diffusers::random::RandomParameters;
use crate::frontend::tokenizer::{SpecialTokens, from_vocabulary};
use crate::passes::staging;

/// Notes what is asked for.
#[derive(Default)]
struct Noted(BTreeMap<String, Vec<usize>>);

impl Parameters for Noted {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weight, ParameterError> {
        let before = self.0.insert(name.into(), shape.to_vec());
        assert!(before.is_none(), "{name} is taken twice");
        Anything.take(name, shape)
    }
}

impl Noted {
    /// As `fixtures/make_geometries.py` sums them up.
    fn summary(&self) -> serde_json::Value {
        let lines: String = self
            .0
            .iter()
            .map(|(name, shape)| format!("{name} {shape:?}\n"))
            .collect();
        let hash = lines.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let elements: usize = self.0.values().map(|s| s.iter().product::<usize>()).sum();
        serde_json::json!({
            "tensors": self.0.len(),
            "elements": elements,
            "hash": format!("{hash:016x}"),
        })
    }
}

#[test]
fn geometries_have_the_parameters_of_diffusers() {
    let text = std::fs::read_to_string(fixtures().join("geometries.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut names = geometry::names();
    names.sort_unstable();
    let known: Vec<&str> = expected
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(names, known);
    for name in names {
        let geometry = geometry::named(name).unwrap();
        let mut parts = [const { Noted(BTreeMap::new()) }; 3];
        text_encoder::build(&geometry.text_encoder, &mut parts[0]).unwrap();
        unet::build(&geometry.unet, [64, 64], 77, &mut parts[1]).unwrap();
        match &geometry.vae {
            Autoencoder::Kl(config) => {
                vae::decoder(config, [64, 64], &mut parts[2]).unwrap();
                vae::encoder(config, [64, 64], &mut parts[2]).unwrap();
            }
            Autoencoder::Tiny(config) => {
                taesd::decoder(config, [64, 64], &mut parts[2]).unwrap();
                taesd::encoder(config, [64, 64], &mut parts[2]).unwrap();
            }
        }
        for (part, noted) in ["text_encoder", "unet", "vae"].into_iter().zip(parts) {
            assert_eq!(noted.summary(), expected[name][part], "{name} {part}");
        }
    }
    assert!(geometry::named("sdxl").is_none());
}

/// A tokenizer of two letters.
fn tokenizer() -> (Vec<u8>, SpecialTokens) {
    let vocabulary = r#"{"a": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}"#;
    let special = SpecialTokens {
        bos: 2,
        eos: 3,
        pad: 3,
    };
    (from_vocabulary(vocabulary, "").unwrap(), special)
}

/// As deep as the named one, but narrow and of small pictures.
fn narrow(name: &str) -> Geometry {
    let mut geometry = geometry::named(name).unwrap();
    let text = &mut geometry.text_encoder;
    (text.vocab_size, text.hidden_size, text.intermediate_size) = (64, 96, 384);
    text.num_attention_heads = 4;
    let unet = &mut geometry.unet;
    (unet.sample_size, unet.cross_attention_dim) = ([8, 8], 96);
    unet.block_out_channels.iter_mut().for_each(|n| *n /= 5);
    unet.heads.fill(4);
    if let Some(mid) = &mut unet.mid {
        mid.heads = 4;
    }
    if let Autoencoder::Kl(vae) = &mut geometry.vae {
        vae.block_out_channels.iter_mut().for_each(|n| *n /= 4);
    }
    geometry
}

fn deviation(tensor: &Tensor) -> f64 {
    let n = tensor.data.len() as f64;
    let mean = tensor.data.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let squares = tensor.data.iter().map(|v| (f64::from(*v) - mean).powi(2));
    (squares.sum::<f64>() / n).sqrt()
}

/// Noise of variance 1 as far as it matters.
fn noise(shape: &[usize]) -> Tensor {
    let weight = RandomParameters.take("noise", &[&[3], shape].concat());
    let weight = weight.unwrap();
    let scale = (shape.iter().product::<usize>() as f32).sqrt();
    Tensor {
        shape: shape.to_vec(),
        data: weight.read()[..shape.iter().product()]
            .iter()
            .map(|v| v * scale)
            .collect(),
    }
}

#[test]
fn random_models_keep_their_scale() {
    for name in geometry::names() {
        let checkpoint = narrow(name).checkpoint(tokenizer()).unwrap();
        let expect_sane = |graph: Graph, inputs: &[Tensor]| {
            let graph = fused(&graph);
            let output = run(&graph, inputs);
            let found = deviation(&output);
            assert!(
                (0.1..4.0).contains(&found),
                "{name} {}: {found}",
                graph.name
            );
            output
        };
        let ids = Tensor {
            shape: vec![77],
            data: (0..77).map(|i| (i % 64) as f32).collect(),
        };
        let context = expect_sane(checkpoint.text_encoder, &[ids]);
        let channels = narrow(name).unet.in_channels;
        let timestep = Tensor {
            shape: vec![1],
            data: vec![501.0],
        };
        let mut inputs = vec![noise(&[8, 8, channels]), timestep, context];
        if name == "lcm" {
            inputs.push(noise(&[1, 256]));
        }
        expect_sane(checkpoint.unet, &inputs);
        expect_sane(checkpoint.vae_decoder, &[noise(&[8, 8, 4])]);
        expect_sane(checkpoint.vae_encoder.unwrap(), &[noise(&[64, 64, 3])]);
    }
}

#[test]
fn random_weights_are_the_same_everywhere() {
    let values = |name: &str, shape: &[usize]| {
        let weight = RandomParameters.take(name, shape).unwrap();
        weight.read().into_owned()
    };
    let first = values("conv_in.weight", &[320, 4, 3, 3]);
    assert_eq!(first, values("conv_in.weight", &[320, 4, 3, 3]));
    assert_ne!(first, values("conv_out.weight", &[320, 4, 3, 3]));
    let bits: Vec<u32> = first[..4].iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, [0xbe0c_b79e, 0xbe2b_a80d, 0x3d94_913d, 0xbd8d_acfb]);
    let norm = values("conv_norm_out.weight", &[320]);
    assert!(norm.iter().all(|v| (0.9..=1.1).contains(v)));
    let large = values("x.weight", &[1000, 300]);
    let tensor = Tensor {
        shape: vec![300_000],
        data: large,
    };
    let deviation = deviation(&tensor) * f64::sqrt(300.0);
    assert!((deviation - 1.0).abs() < 0.01, "{deviation}");
}

/// What depends on the timestep and the guidance scale is computed once for a step, for both.
#[test]
fn an_embedded_guidance_scale_belongs_to_the_timestep() {
    let checkpoint = narrow("lcm").checkpoint(tokenizer()).unwrap();
    let stages = staging::split(&fused(&checkpoint.unet));
    let names = |graph: &Graph| -> Vec<String> {
        let inputs = graph.inputs.iter();
        inputs.map(|id| graph.value(*id).name.clone()).collect()
    };
    let timestep = stages.timestep.as_ref().unwrap();
    assert_eq!(names(timestep), ["timestep", "timestep_cond"]);
    let cond = timestep
        .iter_nodes()
        .find(|(_, node)| node.name == "time_embedding.cond_proj");
    let (_, cond) = cond.unwrap();
    assert!(cond.input("residual").is_some());
    let step = names(&stages.step);
    assert!(
        !step.iter().any(|name| name.starts_with("timestep")),
        "{step:?}"
    );
    assert_eq!(
        names(stages.prompt.as_ref().unwrap()),
        ["encoder_hidden_states"]
    );
    assert!(stages.follows_context());
}

#[test]
fn a_geometry_says_how_it_is_drawn_with() {
    let checkpoint = |name| narrow(name).checkpoint(tokenizer()).unwrap();
    let sd21 = checkpoint("sd21");
    assert_eq!(sd21.vae_factor, 8);
    assert!(
        sd21.scheduler
            .contains(r#""prediction_type":"v_prediction""#)
    );
    assert_eq!(geometry::named("sd21").unwrap().padding(), Some("!"));
    let lcm = checkpoint("lcm");
    assert!(lcm.scheduler.contains("LCMScheduler"));
    let card: serde_json::Value =
        serde_json::from_str(&lcm.card.to_json("int8", (64, 64))).unwrap();
    assert_eq!(card["name"], "random:lcm");
    assert_eq!(card["defaults"]["steps"], 4);
    assert_eq!(card["text"]["dim"], 96);
    let taesd = checkpoint("taesd");
    assert_eq!(taesd.card.vae_scaling_factor, 1.0);
    assert_eq!(taesd.vae_factor, 8);
}
