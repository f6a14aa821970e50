//! Names, configurations and recognition, on tensors that have a shape and no contents.

mod original;

use super::ldm::Named;
use super::parameters::absent;
use super::recognise::{Contents, recognise};
use super::*;
use crate::frontend::diffusers::config::{MidBlock, TinyVaeConfig};
use crate::frontend::tokenizer;

fn named<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Named {
    let tensors = tensors.into_iter();
    tensors
        .map(|(name, shape)| (name.to_owned(), absent(shape)))
        .collect()
}

fn config(text: &str) -> Config {
    Config::parse(Path::new("config.json"), text).unwrap()
}

#[test]
fn models_of_other_kinds_are_told_by_their_tensors() {
    let one = |name: &str| recognise(&named([(name, &[8, 8, 3, 3][..])]));
    for (name, what) in [
        (
            "conditioner.embedders.1.model.ln_final.weight",
            "a Stable Diffusion XL model",
        ),
        (
            "conditioner.embedders.0.model.ln_final.weight",
            "a Stable Diffusion XL refiner",
        ),
        (
            "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
            "a Stable Diffusion 3 model",
        ),
        (
            "transformer_blocks.0.attn.add_q_proj.weight",
            "a Stable Diffusion 3 model",
        ),
        (
            "double_blocks.0.img_attn.norm.key_norm.scale",
            "a Flux model",
        ),
        (
            "single_transformer_blocks.0.attn.to_q.weight",
            "a Flux model",
        ),
        (
            "down_blocks.1.0.channelwise.0.weight",
            "a Stable Cascade model",
        ),
        ("adaln_single.linear.weight", "a PixArt model"),
        (
            "model.diffusion_model.input_blocks.1.1.time_stack.0.ff_in.net.0.proj.weight",
            "a Stable Video Diffusion model",
        ),
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
        ("controlnet_cond_embedding.conv_in.weight", "a ControlNet"),
        (
            "add_embedding.linear_1.weight",
            "the UNet of a Stable Diffusion XL model",
        ),
    ] {
        assert_eq!(one(name), Contents::Other(what), "{name}");
    }
    let label = named([("label_emb.0.0.weight", &[1280, 2560][..])]);
    assert_eq!(
        recognise(&label),
        Contents::Other("the UNet of a Stable Diffusion XL refiner")
    );
    for (name, contents) in [
        (
            "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
            Contents::Lora,
        ),
        (
            "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight",
            Contents::Lora,
        ),
        ("model.diffusion_model.out.2.weight", Contents::Checkpoint),
        ("input_blocks.0.0.weight", Contents::Unet),
        ("first_stage_model.decoder.conv_in.weight", Contents::Vae),
        ("decoder.up_blocks.0.resnets.0.conv1.weight", Contents::Vae),
        (
            "cond_stage_model.model.ln_final.weight",
            Contents::TextEncoder,
        ),
        (
            "text_model.embeddings.token_embedding.weight",
            Contents::TextEncoder,
        ),
        ("taesd_decoder.1.weight", Contents::TinyVae),
        ("string_to_param.*", Contents::Embedding),
        ("something.else", Contents::Unknown),
    ] {
        assert_eq!(one(name), contents, "{name}");
    }
    assert_eq!(
        recognise(&named([("emb", &[2, 768][..])])),
        Contents::Embedding
    );
}

const UNET: &str = r#"{"_class_name": "UNet2DConditionModel", "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": [2, 4], "sample_size": [8, 16] CHANGE}"#;

#[test]
fn a_unets_configuration_means_what_diffusers_means() {
    let of = |change: &str| config::unet(&config(&UNET.replace("CHANGE", change)));
    let unet = of("").unwrap();
    assert_eq!(
        (&unet.down_layers, &unet.up_layers),
        (&vec![1, 1], &vec![2, 2])
    );
    assert_eq!(
        (&unet.down_attention, &unet.up_attention),
        (&vec![1, 0], &vec![1, 0])
    );
    assert_eq!(
        (unet.heads.clone(), unet.sample_size),
        (vec![2, 4], [8, 16])
    );
    assert_eq!(
        unet.mid,
        Some(MidBlock {
            attention: 1,
            heads: 4
        })
    );
    assert_eq!(
        (unet.in_channels, unet.norm_num_groups, unet.freq_shift),
        (4, 32, 0.0)
    );
    assert!(unet.flip_sin_to_cos && !unet.use_linear_projection);
    assert_eq!(of(r#", "mid_block_type": null"#).unwrap().mid, None);
    let plain = of(r#", "mid_block_type": "UNetMidBlock2D""#).unwrap().mid;
    assert_eq!(
        plain,
        Some(MidBlock {
            attention: 0,
            heads: 4
        })
    );
    let layers = of(r#", "transformer_layers_per_block": [1, 2]"#).unwrap();
    assert_eq!(
        (layers.down_attention, layers.mid.unwrap().attention),
        (vec![1, 0], 2)
    );
    assert_eq!(
        of(r#", "time_cond_proj_dim": 256"#)
            .unwrap()
            .time_cond_proj_dim,
        Some(256)
    );
    for (change, expected) in [
        (
            r#", "class_embed_type": "timestep""#,
            "class_embed_type is \"timestep\"",
        ),
        (
            r#", "addition_embed_type": "text_time""#,
            "addition_embed_type",
        ),
        (
            r#", "resnet_time_scale_shift": "scale_shift""#,
            "resnet_time_scale_shift",
        ),
        (
            r#", "only_cross_attention": [true, false]"#,
            "only_cross_attention",
        ),
        (r#", "act_fn": "gelu""#, "act_fn"),
        (r#", "layers_per_block": 1000000"#, "layers_per_block"),
        (r#", "layers_per_block": [1]"#, "layers_per_block"),
        (r#", "block_out_channels": []"#, "block_out_channels"),
        (r#", "block_out_channels": [32]"#, "down_block_types"),
        (
            r#", "cross_attention_dim": [16, 32]"#,
            "cross_attention_dim",
        ),
        (r#", "sample_size": 1e9"#, "sample_size"),
        (
            r#", "mid_block_type": "UNetMidBlock2DSimpleCrossAttn""#,
            "mid_block_type",
        ),
        (
            r#", "down_block_types": ["CrossAttnDownBlock2D", "AttnDownBlock2D"]"#,
            "block type AttnDownBlock2D is not known",
        ),
        (r#", "_class_name": "UNet2DModel""#, "UNet2DModel"),
    ] {
        let error = of(change).unwrap_err().to_string();
        assert!(
            error.starts_with("config.json: ") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn an_autoencoder_is_of_either_kind() {
    let kl = |change: &str| {
        let text = r#"{"block_out_channels": [32, 64], "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"], "layers_per_block": 2 CHANGE}"#;
        config::autoencoder(&config(&text.replace("CHANGE", change)))
    };
    let Autoencoder::Kl(vae) = kl("").unwrap() else {
        panic!("another kind")
    };
    assert_eq!((vae.scaling_factor, vae.latent_channels), (0.18215, 4));
    assert!(vae.use_quant_conv && vae.mid_block_add_attention);
    for change in [
        r#", "latents_mean": [0.0]"#,
        r#", "scaling_factor": 0"#,
        r#", "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]"#,
        r#", "_class_name": "AutoencoderDC""#,
    ] {
        assert!(kl(change).is_err(), "{change}");
    }
    let tiny = config::autoencoder(&config(r#"{"_class_name": "AutoencoderTiny"}"#)).unwrap();
    let expected = TinyVaeConfig {
        latent_channels: 4,
        encoder_block_out_channels: vec![64; 4],
        decoder_block_out_channels: vec![64; 4],
        num_encoder_blocks: vec![1, 3, 3, 3],
        num_decoder_blocks: vec![3, 3, 3, 1],
        scaling_factor: 1.0,
    };
    assert_eq!(tiny, Autoencoder::Tiny(expected));
}

#[test]
fn missing_and_surplus_tensors_are_listed_and_shapes_told() {
    use crate::frontend::diffusers::parameters::Parameters;
    let mut tensors = named([
        ("a.weight", &[4, 2, 1, 1][..]),
        ("b.weight", &[4, 2]),
        ("text_model.embeddings.position_ids", &[1, 77]),
        ("x.num_batches_tracked", &[]),
    ]);
    let mut parameters = NamedParameters::new(&tensors);
    assert_eq!(
        parameters.take("a.weight", &[4, 2]).unwrap().shape(),
        [4, 2]
    );
    assert_eq!(
        parameters.take("b.weight", &[4, 2, 1, 1]).unwrap().shape(),
        [4, 2, 1, 1]
    );
    let error = parameters
        .take("b.weight", &[2, 4])
        .unwrap_err()
        .to_string();
    assert_eq!(error, "tensor b.weight is [4, 2], the model needs [2, 4]");
    assert!(parameters.take("a.weight", &[8]).is_err());
    parameters.finish("here", "UNet").unwrap();

    tensors.extend(named([("c.bias", &[1][..])]));
    let mut parameters = NamedParameters::new(&tensors);
    for i in 0..12 {
        parameters.take(&format!("m{i}"), &[1]).unwrap();
    }
    let error = parameters.finish("here", "UNet").unwrap_err().to_string();
    let first: Vec<String> = (0..10).map(|i| format!("m{i}")).collect();
    let expected = format!(
        "here: UNet: 12 tensor(s) missing: {} and 2 more; 3 tensor(s) that the model has no place for: a.weight, b.weight, c.bias",
        first.join(", ")
    );
    assert_eq!(error, expected);
}

#[test]
fn tiny_autoencoders_have_two_layouts() {
    let decoder = named([
        ("1.weight", &[64, 4, 3, 3][..]),
        ("1.bias", &[64]),
        ("3.conv.0.weight", &[64, 64, 3, 3]),
        ("5.weight", &[64, 64, 3, 3]),
        ("6.conv.0.weight", &[64, 64, 3, 3]),
        ("7.weight", &[3, 64, 3, 3]),
    ]);
    let encoder = named([
        ("0.weight", &[64, 3, 3, 3][..]),
        ("1.conv.0.weight", &[64, 64, 3, 3]),
        ("2.weight", &[64, 64, 3, 3]),
        ("3.conv.0.weight", &[64, 64, 3, 3]),
        ("4.weight", &[4, 64, 3, 3]),
    ]);
    let mut both = tiny::tensors(&decoder).unwrap();
    assert!(both.contains_key("decoder.layers.2.conv.0.weight"));
    let half = infer::tiny(&both).unwrap();
    assert_eq!(
        (
            half.num_decoder_blocks.as_slice(),
            half.num_encoder_blocks.len()
        ),
        (&[1, 1][..], 0)
    );
    both.append(&mut tiny::tensors(&encoder).unwrap());
    assert!(both.contains_key("encoder.layers.0.weight"));
    let whole = infer::tiny(&both).unwrap();
    assert_eq!(
        (whole.latent_channels, whole.num_encoder_blocks),
        (4, vec![1, 1])
    );
    assert!(tiny::tensors(&named([("0.weight", &[3][..])])).is_none());
}

#[test]
fn the_vocabulary_is_clips() {
    let (json, special) = vocabulary::clip(None).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let vocabulary = json["model"]["vocab"].as_object().unwrap();
    assert_eq!(vocabulary.len(), vocabulary::CLIP_TOKENS);
    // From OpenAI's vocab.json.
    for (token, id) in [
        ("!", 0),
        ("a</w>", 320),
        ("photo</w>", 1125),
        ("of</w>", 539),
        ("cat</w>", 2368),
        ("\u{143}", 255),
        ("\u{143}</w>", 511),
        ("jeky", 49404),
        ("jekyll</w>", 49405),
    ] {
        if token != "jeky" {
            assert_eq!(
                vocabulary.get(token).and_then(Value::as_u64),
                Some(id),
                "{token}"
            );
        }
    }
    let expected = tokenizer::SpecialTokens {
        bos: 49406,
        eos: 49407,
        pad: 49407,
    };
    assert_eq!(special, expected);
    assert_eq!(vocabulary::clip(Some("!")).unwrap().1.pad, 0);
}

#[test]
fn defaults_follow_the_scheduler() {
    let of = |scheduler: &str, embedded| {
        let mut own = serde_json::Map::new();
        defaults::settings(&mut own, &config(scheduler), embedded);
        own["defaults"].clone()
    };
    let settings = |steps: u64, guidance: f64, sampler: &str| serde_json::json!({"steps": steps, "guidance_scale": guidance, "sampler": sampler});
    assert_eq!(of("{}", false), settings(20, 7.5, "ddim"));
    let trailing = r#"{"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}"#;
    assert_eq!(of(trailing, false), settings(1, 1.0, "euler"));
    assert_eq!(
        of(r#"{"_class_name": "EulerDiscreteScheduler"}"#, false),
        settings(20, 7.5, "euler")
    );
    assert_eq!(
        of(r#"{"_class_name": "LCMScheduler"}"#, true),
        settings(4, 8.5, "lcm")
    );
    assert_eq!(
        of(r#"{"_class_name": "LCMScheduler"}"#, false),
        settings(4, 1.0, "lcm")
    );

    let metadata =
        |field: &str, value: &str| [(format!("modelspec.{field}"), value.to_owned())].into();
    let told = |field, value| defaults::told(&metadata(field, value));
    assert_eq!(told("prediction_type", "v"), Some(Prediction::Velocity));
    assert_eq!(
        told("architecture", "stable-diffusion-v2-512"),
        Some(Prediction::Epsilon)
    );
    assert_eq!(told("architecture", "stable-diffusion-v2"), None);
}
