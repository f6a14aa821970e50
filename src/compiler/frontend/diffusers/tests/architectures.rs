//! Every architecture as a tiny model, against PyTorch: `fixtures/make_checkpoints.py`, where the formulas of its weights
//! are.

use super::*;
use crate::frontend::diffusers::config::TinyVaeConfig;
use crate::frontend::onnx::tests::assert_close;

/// SplitMix64 from the FNV-1a hash of a name.
fn hashes(name: &str) -> impl Iterator<Item = u64> + use<> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (1..).map(move |i: u64| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

fn integers(name: &str) -> impl Iterator<Item = i8> + use<> {
    hashes(name).map(|hash| (hash >> 56) as i8)
}

/// The parameters of a part: functions of its name and theirs.
struct Formula(&'static str);

impl Parameters for Formula {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weight, ParameterError> {
        let numbers = integers(&format!("{}.{name}", self.0)).take(shape.iter().product());
        let values = match shape {
            _ if name.ends_with(".bias") => numbers.map(|n| f32::from(n) / 1024.0).collect(),
            [_] => numbers.map(|n| 1.0 + f32::from(n >> 3) / 128.0).collect(),
            [_, terms @ ..] => {
                let terms: usize = terms.iter().product();
                let mut scale = 128.0;
                let mut power = 3;
                while power < terms {
                    (scale, power) = (scale * 2.0, power * 4);
                }
                numbers.map(|n| f32::from(n) / scale).collect()
            }
            [] => return Err(ParameterError::Missing(name.into())),
        };
        Ok(Weight::new(Values(shape.to_vec(), values)))
    }
}

fn example(name: &str, shape: &[usize], scale: f32) -> Tensor {
    let numbers = integers(name).take(shape.iter().product());
    Tensor {
        shape: shape.to_vec(),
        data: numbers.map(|n| f32::from(n) / scale).collect(),
    }
}

fn ids() -> Tensor {
    let mut data: Vec<f32> = hashes("input_ids")
        .take(77)
        .map(|hash| (hash % 598) as f32)
        .collect();
    data[0] = 598.0;
    data[60..].fill(599.0);
    Tensor {
        shape: vec![77],
        data,
    }
}

fn clip(hidden_act: HiddenAct) -> TextEncoderConfig {
    TextEncoderConfig {
        hidden_size: 128,
        intermediate_size: 512,
        num_attention_heads: 2,
        ..tiny_text(hidden_act)
    }
}

fn sd1() -> UnetConfig {
    UnetConfig {
        block_out_channels: vec![32, 64, 96, 96],
        down_layers: vec![2; 4],
        up_layers: vec![3; 4],
        down_attention: vec![1, 1, 1, 0],
        up_attention: vec![1, 1, 1, 0],
        mid: Some(MidBlock {
            attention: 1,
            heads: 8,
        }),
        heads: vec![8; 4],
        cross_attention_dim: 128,
        norm_num_groups: 32,
        sample_size: [8, 8],
        ..tiny_unet()
    }
}

fn unets() -> [(&'static str, UnetConfig); 6] {
    let sd1 = sd1();
    let sd2 = UnetConfig {
        block_out_channels: vec![64, 128, 128, 128],
        heads: vec![1, 2, 2, 2],
        mid: Some(MidBlock {
            attention: 1,
            heads: 2,
        }),
        use_linear_projection: true,
        ..sd1.clone()
    };
    let lcm = UnetConfig {
        time_cond_proj_dim: Some(256),
        ..sd1.clone()
    };
    let small = UnetConfig {
        down_layers: vec![1; 4],
        up_layers: vec![2; 4],
        mid: None,
        ..sd1.clone()
    };
    let tiny = UnetConfig {
        block_out_channels: vec![32, 64, 96],
        down_layers: vec![1; 3],
        up_layers: vec![2; 3],
        down_attention: vec![1; 3],
        up_attention: vec![1; 3],
        heads: vec![8; 3],
        ..small.clone()
    };
    let inpaint = UnetConfig {
        in_channels: 9,
        ..sd1.clone()
    };
    [
        ("sd1", sd1),
        ("sd2", sd2),
        ("lcm", lcm),
        ("bk-sdm-small", small),
        ("bk-sdm-tiny", tiny),
        ("inpaint", inpaint),
    ]
}

fn kl() -> VaeConfig {
    VaeConfig {
        block_out_channels: vec![64, 64, 96, 96],
        layers_per_block: 2,
        norm_num_groups: 32,
        ..tiny_vae()
    }
}

pub(super) fn taesd() -> TinyVaeConfig {
    TinyVaeConfig {
        latent_channels: 4,
        encoder_block_out_channels: vec![32; 4],
        decoder_block_out_channels: vec![32; 4],
        num_encoder_blocks: vec![1, 3, 3, 3],
        num_decoder_blocks: vec![3, 3, 3, 1],
        scaling_factor: 1.0,
    }
}

/// What PyTorch gave.
fn expected(key: &str) -> Tensor {
    let path = fixtures().join("checkpoints/reference.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    inside(&stored(&file, key))
}

/// Height and width of a latent, and the timestep.
const SIZES: [([usize; 2], f32); 2] = [([8, 8], 981.0), ([9, 13], 21.0)];

#[test]
fn text_encoders_compute_what_pytorch_does() {
    for (key, act) in [
        ("clip", HiddenAct::QuickGelu),
        ("openclip", HiddenAct::Gelu),
    ] {
        let graph = text_encoder::build(&clip(act), &mut Formula("text_encoder")).unwrap();
        let all = run(&fused(&graph), &[ids()]);
        let rows = [&all.data[..8 * 128], &all.data[69 * 128..]].concat();
        let found = Tensor {
            shape: vec![16, 128],
            data: rows,
        };
        assert_close(&found, &expected(&format!("text_encoder.{key}")), key);
    }
}

#[test]
fn unets_compute_what_pytorch_does() {
    for (key, config) in unets() {
        let graph = unet::build(&config, [8, 8], 77, &mut Formula("unet")).unwrap();
        let graph = fused(&graph);
        for ([h, w], timestep) in SIZES {
            let graph = graph.resized([h, w]).unwrap();
            let shape = [1, config.in_channels, h, w];
            let mut inputs = vec![
                inside(&example(&format!("sample@{h}x{w}"), &shape, 64.0)),
                Tensor {
                    shape: vec![1],
                    data: vec![timestep],
                },
                example("encoder_hidden_states", &[77, 128], 64.0),
            ];
            if let Some(columns) = config.time_cond_proj_dim {
                inputs.push(example("timestep_cond", &[1, columns], 64.0));
            }
            let key = format!("unet.{key}@{h}x{w}");
            assert_close(&run(&graph, &inputs), &expected(&key), &key);
        }
    }
}

/// Every third row and column of a picture `[height, width, channels]`.
fn thirds(picture: &Tensor) -> Tensor {
    let [h, w, c] = [0, 1, 2].map(|axis| picture.shape[axis]);
    let mut data = Vec::new();
    for y in (0..h).step_by(3) {
        for x in (0..w).step_by(3) {
            data.extend_from_slice(&picture.data[(y * w + x) * c..][..c]);
        }
    }
    Tensor {
        shape: vec![h.div_ceil(3), w.div_ceil(3), c],
        data,
    }
}

#[test]
fn autoencoders_compute_what_pytorch_does() {
    let parameters = &mut Formula("vae");
    let (kl, taesd) = (kl(), taesd());
    for (key, decoder, encoder) in [
        (
            "kl",
            vae::decoder(&kl, [8, 8], parameters).unwrap(),
            vae::encoder(&kl, [8, 8], parameters).unwrap(),
        ),
        (
            "taesd",
            taesd::decoder(&taesd, [8, 8], parameters).unwrap(),
            taesd::encoder(&taesd, [8, 8], parameters).unwrap(),
        ),
    ] {
        let (decoder, encoder) = (fused(&decoder), fused(&encoder));
        for ([h, w], _) in SIZES {
            let at = format!("{key}@{h}x{w}");
            let latents = inside(&example(&format!("latents@{h}x{w}"), &[1, 4, h, w], 64.0));
            let found = run(&decoder.resized([h, w]).unwrap(), &[latents]);
            assert_close(
                &thirds(&found),
                &expected(&format!("vae_decoder.{at}")),
                &at,
            );
            let shape = [1, 3, 8 * h, 8 * w];
            let image = inside(&example(&format!("image@{h}x{w}"), &shape, 128.0));
            let found = run(&encoder.resized([8 * h, 8 * w]).unwrap(), &[image]);
            assert_close(&found, &expected(&format!("vae_encoder.{at}")), &at);
        }
    }
}
