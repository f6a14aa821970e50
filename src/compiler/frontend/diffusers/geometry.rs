//! Known models by name, with random weights: for benchmarks, and for trying a board without a checkpoint.

use super::config::{HiddenAct, MidBlock, TextEncoderConfig, TinyVaeConfig, UnetConfig, VaeConfig};
use super::random::RandomParameters;
use super::{ArchitectureError, taesd, text_encoder, unet, vae};
use crate::frontend::tokenizer::SpecialTokens;
use crate::frontend::{Card, Checkpoint, TextSettings};
use serde_json::{Map, Value, json};

/// A model's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// What it is called after `random:`.
    pub name: &'static str,
    /// What it is, in words.
    pub description: &'static str,
    /// The text encoder.
    pub text_encoder: TextEncoderConfig,
    /// The UNet.
    pub unet: UnetConfig,
    /// The autoencoder.
    pub vae: Autoencoder,
    /// How it is drawn with.
    pub schedule: Schedule,
}

/// How a model is drawn with: its `scheduler_config.json` and the card's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// The UNet predicts the noise.
    Noise,
    /// The UNet predicts the velocity.
    Velocity,
    /// A latent consistency model: four steps, with an embedded guidance scale.
    Consistency,
    /// One step, no guidance.
    Turbo,
}

/// An autoencoder's shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Autoencoder {
    /// `AutoencoderKL`
    Kl(VaeConfig),
    /// `AutoencoderTiny`
    Tiny(TinyVaeConfig),
}

/// The names of all geometries.
pub fn names() -> Vec<&'static str> {
    all().iter().map(|geometry| geometry.name).collect()
}

/// The geometry of that name.
pub fn named(name: &str) -> Option<Geometry> {
    all().into_iter().find(|geometry| geometry.name == name)
}

/// Every geometry, as changes of Stable Diffusion 1.5.
fn all() -> Vec<Geometry> {
    let sd15 = Geometry {
        name: "sd15",
        description: "Stable Diffusion 1.5",
        text_encoder: clip_l(),
        unet: sd15_unet(),
        vae: Autoencoder::Kl(kl()),
        schedule: Schedule::Noise,
    };
    let unet = |name, description, unet| Geometry {
        name,
        description,
        unet,
        ..sd15.clone()
    };
    let sd21 = |name, description, latent| Geometry {
        text_encoder: open_clip_h(),
        ..unet(name, description, sd21_unet(latent))
    };
    vec![
        Geometry {
            schedule: Schedule::Velocity,
            ..sd21("sd21", "Stable Diffusion 2.1", 96)
        },
        Geometry {
            schedule: Schedule::Turbo,
            ..sd21("sd-turbo", "SD-Turbo", 64)
        },
        Geometry {
            schedule: Schedule::Consistency,
            ..unet(
                "lcm",
                "Stable Diffusion 1.5 as a latent consistency model with an embedded guidance scale",
                UnetConfig {
                    time_cond_proj_dim: Some(256),
                    ..sd15_unet()
                },
            )
        },
        unet("bk-sdm-small", "BK-SDM-Small", bk_sdm(4, false)),
        unet("bk-sdm-tiny", "BK-SDM-Tiny", bk_sdm(3, false)),
        unet("small-sd", "small-sd", bk_sdm(4, true)),
        unet(
            "inpaint",
            "Stable Diffusion 1.5 for inpainting",
            UnetConfig {
                in_channels: 9,
                ..sd15_unet()
            },
        ),
        Geometry {
            vae: Autoencoder::Tiny(tiny()),
            ..unet("taesd", "Stable Diffusion 1.5 with TAESD", sd15_unet())
        },
        sd15,
    ]
}

/// The text encoder of OpenAI's CLIP ViT-L/14.
fn clip_l() -> TextEncoderConfig {
    TextEncoderConfig {
        vocab_size: 49408,
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        max_position_embeddings: 77,
        hidden_act: HiddenAct::QuickGelu,
        layer_norm_eps: 1e-5,
    }
}

/// The text encoder of OpenCLIP's ViT-H/14 without its last layer.
fn open_clip_h() -> TextEncoderConfig {
    TextEncoderConfig {
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 23,
        num_attention_heads: 16,
        hidden_act: HiddenAct::Gelu,
        ..clip_l()
    }
}

fn sd15_unet() -> UnetConfig {
    UnetConfig {
        in_channels: 4,
        out_channels: 4,
        block_out_channels: vec![320, 640, 1280, 1280],
        down_layers: vec![2; 4],
        up_layers: vec![3; 4],
        down_attention: vec![1, 1, 1, 0],
        up_attention: vec![1, 1, 1, 0],
        mid: Some(MidBlock {
            attention: 1,
            heads: 8,
        }),
        heads: vec![8; 4],
        cross_attention_dim: 768,
        norm_num_groups: 32,
        norm_eps: 1e-5,
        use_linear_projection: false,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
        time_cond_proj_dim: None,
        sample_size: [64, 64],
    }
}

fn sd21_unet(latent: usize) -> UnetConfig {
    UnetConfig {
        heads: vec![5, 10, 20, 20],
        mid: Some(MidBlock {
            attention: 1,
            heads: 20,
        }),
        cross_attention_dim: 1024,
        use_linear_projection: true,
        sample_size: [latent; 2],
        ..sd15_unet()
    }
}

/// One layer less in every block, no middle unless `mid`, of the finest `levels` levels.
fn bk_sdm(levels: usize, mid: bool) -> UnetConfig {
    let sd15 = sd15_unet();
    let finest = |sizes: &[usize]| sizes[..levels].to_vec();
    UnetConfig {
        block_out_channels: finest(&sd15.block_out_channels),
        down_layers: vec![1; levels],
        up_layers: vec![2; levels],
        down_attention: finest(&sd15.down_attention),
        up_attention: finest(&sd15.up_attention),
        heads: finest(&sd15.heads),
        mid: sd15.mid.clone().filter(|_| mid),
        ..sd15
    }
}

fn kl() -> VaeConfig {
    VaeConfig {
        latent_channels: 4,
        block_out_channels: vec![128, 256, 512, 512],
        layers_per_block: 2,
        norm_num_groups: 32,
        use_quant_conv: true,
        use_post_quant_conv: true,
        mid_block_add_attention: true,
        scaling_factor: 0.18215,
    }
}

fn tiny() -> TinyVaeConfig {
    TinyVaeConfig {
        latent_channels: 4,
        encoder_block_out_channels: vec![64; 4],
        decoder_block_out_channels: vec![64; 4],
        num_encoder_blocks: vec![1, 3, 3, 3],
        num_decoder_blocks: vec![3, 3, 3, 1],
        scaling_factor: 1.0,
    }
}

impl Geometry {
    /// The token that fills a prompt, if it is not the one that ends it.
    pub fn padding(&self) -> Option<&'static str> {
        (self.text_encoder.hidden_act == HiddenAct::Gelu).then_some("!")
    }

    /// The model with random weights and that `tokenizer.json`, which has the text encoder's vocabulary.
    pub fn checkpoint(
        &self,
        (tokenizer, special): (Vec<u8>, SpecialTokens),
    ) -> Result<Checkpoint, ArchitectureError> {
        let parameters = &mut RandomParameters;
        let (text, latent) = (&self.text_encoder, self.unet.sample_size);
        let tokens = text.max_position_embeddings;
        let (vae_decoder, vae_encoder, levels, latent_channels, vae_scaling_factor) =
            match &self.vae {
                Autoencoder::Kl(config) => (
                    vae::decoder(config, latent, parameters)?,
                    vae::encoder(config, latent, parameters)?,
                    config.block_out_channels.len(),
                    config.latent_channels,
                    config.scaling_factor,
                ),
                Autoencoder::Tiny(config) => (
                    taesd::decoder(config, latent, parameters)?,
                    taesd::encoder(config, latent, parameters)?,
                    config.decoder_block_out_channels.len(),
                    config.latent_channels,
                    config.scaling_factor,
                ),
            };
        Ok(Checkpoint {
            text_encoder: text_encoder::build(text, parameters)?,
            unet: unet::build(&self.unet, latent, tokens, parameters)?,
            vae_decoder,
            vae_encoder: Some(vae_encoder),
            taesd_decoder: None,
            vae_factor: 1 << (levels - 1),
            latent,
            card: Card {
                own: self.card(),
                folder: self.name.into(),
                text: TextSettings {
                    max_length: tokens,
                    bos: special.bos,
                    eos: special.eos,
                    pad: special.pad,
                    dim: text.hidden_size,
                },
                vae_scaling_factor,
                tiny_vae: matches!(self.vae, Autoencoder::Tiny(_)),
                taesd_scaling_factor: None,
                latent_channels,
                files: Vec::new(),
            },
            tokenizer,
            scheduler: self.scheduler().to_string(),
        })
    }

    fn card(&self) -> Map<String, Value> {
        let mut card = Map::new();
        card.insert("name".into(), format!("random:{}", self.name).into());
        let description = format!("The geometry of {}, random weights", self.description);
        card.insert("description".into(), description.into());
        let (steps, guidance_scale, sampler) = match self.schedule {
            Schedule::Noise | Schedule::Velocity => (20, 7.5, "ddim"),
            Schedule::Consistency => (4, 8.5, "lcm"),
            Schedule::Turbo => (1, 1.0, "euler"),
        };
        let defaults =
            json!({"steps": steps, "guidance_scale": guidance_scale, "sampler": sampler});
        card.insert("defaults".into(), defaults);
        card
    }

    /// `scheduler_config.json`: the noise that all of Stable Diffusion was trained with.
    fn scheduler(&self) -> Value {
        let (class, spacing, one) = match self.schedule {
            Schedule::Noise | Schedule::Velocity => ("DDIMScheduler", "leading", false),
            Schedule::Consistency => ("LCMScheduler", "leading", true),
            Schedule::Turbo => ("EulerDiscreteScheduler", "trailing", false),
        };
        let prediction = match self.schedule {
            Schedule::Velocity => "v_prediction",
            _ => "epsilon",
        };
        json!({
            "_class_name": class,
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "clip_sample": false,
            "set_alpha_to_one": one,
            "steps_offset": if one { 0 } else { 1 },
            "prediction_type": prediction,
            "timestep_spacing": spacing,
        })
    }
}
