//! Configurations from the `config.json` of diffusers and transformers. What a field means that is missing is what it means
//! there; a field that asks for something else than the builders build is refused by name.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::SourceError;
use crate::frontend::diffusers::config::{
    HiddenAct, MidBlock, TextEncoderConfig, TinyVaeConfig, UnetConfig, VaeConfig,
};
use crate::frontend::diffusers::geometry::Autoencoder;

/// Sizes and counts are at most this.
const MOST: usize = 1 << 17;
/// Levels and blocks of a level are at most this.
const MOST_LEVELS: usize = 32;

/// A configuration file's values.
pub(super) struct Config {
    path: PathBuf,
    pub values: Map<String, Value>,
}

impl Config {
    /// One that is in no file.
    pub fn of(values: Map<String, Value>) -> Self {
        Config {
            path: PathBuf::new(),
            values,
        }
    }

    pub fn parse(path: &Path, text: &str) -> Result<Self, SourceError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(values)) => Ok(Config {
                path: path.to_owned(),
                values,
            }),
            Ok(_) => Err(SourceError::malformed(path, "is no JSON object")),
            Err(e) => Err(SourceError::malformed(path, e.to_string())),
        }
    }

    /// The value of a key that is there and not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// The value of a key if it is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    fn wrong(&self, key: &str, expected: &str) -> SourceError {
        let found = self.values.get(key).unwrap_or(&Value::Null);
        let mut found = found.to_string();
        if found.chars().count() > 60 {
            found = found.chars().take(60).chain("...".chars()).collect();
        }
        SourceError::malformed(&self.path, format!("{key} is {found}, expected {expected}"))
    }

    fn size_or(&self, key: &str, otherwise: usize) -> Result<usize, SourceError> {
        match self.get(key) {
            None => Ok(otherwise),
            Some(value) => size(value).ok_or_else(|| self.wrong(key, "a size")),
        }
    }

    fn size(&self, key: &str) -> Result<usize, SourceError> {
        self.get(key)
            .and_then(size)
            .ok_or_else(|| self.wrong(key, "a size"))
    }

    fn number_or(&self, key: &str, otherwise: f64) -> Result<f64, SourceError> {
        match self.get(key) {
            None => Ok(otherwise),
            Some(value) => value
                .as_f64()
                .filter(|n| n.is_finite() && *n > 0.0)
                .ok_or_else(|| self.wrong(key, "a positive number")),
        }
    }

    fn flag_or(&self, key: &str, otherwise: bool) -> Result<bool, SourceError> {
        match self.get(key) {
            None => Ok(otherwise),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    /// A list of sizes, by level.
    fn sizes(&self, key: &str) -> Result<Vec<usize>, SourceError> {
        self.get(key)
            .and_then(Value::as_array)
            .filter(|list| (1..=MOST_LEVELS).contains(&list.len()))
            .and_then(|list| list.iter().map(size).collect())
            .ok_or_else(|| self.wrong(key, "a list of sizes, one for each level"))
    }

    /// A size for each level, or one for all.
    fn by_level(
        &self,
        key: &str,
        levels: usize,
        otherwise: usize,
    ) -> Result<Vec<usize>, SourceError> {
        match self.get(key) {
            None => Ok(vec![otherwise; levels]),
            Some(value) => match size(value) {
                Some(one) => Ok(vec![one; levels]),
                None => {
                    let list = self.sizes(key)?;
                    (list.len() == levels)
                        .then_some(list)
                        .ok_or_else(|| self.wrong(key, "a size, or one for each level"))
                }
            },
        }
    }

    /// Fails unless the key is missing, null, or one of `fine`.
    fn only(&self, key: &str, fine: &[Value]) -> Result<(), SourceError> {
        match self.get(key) {
            Some(value) if !fine.contains(value) && !same_number(value, fine) => {
                let fine: Vec<String> = fine.iter().map(Value::to_string).collect();
                let expected = match fine.is_empty() {
                    true => "null: Kiln does not compute it".to_owned(),
                    false => format!("{}: Kiln does not compute others", fine.join(" or ")),
                };
                Err(self.wrong(key, &expected))
            }
            _ => Ok(()),
        }
    }

    /// Fails if the file is of another class.
    fn class(&self, known: &[&str]) -> Result<(), SourceError> {
        match self.text("_class_name") {
            Some(class) if !known.contains(&class) => Err(SourceError::malformed(
                &self.path,
                format!("is of a {class}, expected {}", known.join(" or ")),
            )),
            _ => Ok(()),
        }
    }

    /// The block types of a list, each one of `known`.
    fn blocks<'a>(&'a self, key: &str, known: &[&str]) -> Result<Vec<&'a str>, SourceError> {
        let list = self.get(key).and_then(Value::as_array);
        let list = list
            .filter(|list| (1..=MOST_LEVELS).contains(&list.len()))
            .ok_or_else(|| self.wrong(key, "a list of block types"))?;
        let types: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
        let types = types.ok_or_else(|| self.wrong(key, "a list of block types"))?;
        match types.iter().find(|name| !known.contains(name)) {
            Some(name) => Err(SourceError::malformed(
                &self.path,
                format!(
                    "{key}: block type {name} is not known, only {}",
                    known.join(" and ")
                ),
            )),
            None => Ok(types),
        }
    }

    /// One size for both directions, or height and width.
    fn picture(&self, key: &str) -> Result<Option<[usize; 2]>, SourceError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let found = match value.as_array().map(Vec::as_slice) {
            Some([h, w]) => size(h).zip(size(w)).map(|(h, w)| [h, w]),
            Some(_) => None,
            None => size(value).map(|n| [n, n]),
        };
        found
            .filter(|sizes| sizes.iter().all(|n| *n <= 1 << 13))
            .map(Some)
            .ok_or_else(|| self.wrong(key, "a size"))
    }
}

fn size(value: &Value) -> Option<usize> {
    value
        .as_u64()
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| (1..=MOST).contains(n))
}

fn same_number(value: &Value, fine: &[Value]) -> bool {
    value
        .as_f64()
        .is_some_and(|n| fine.iter().any(|other| other.as_f64() == Some(n)))
}

/// A text encoder's configuration.
pub(super) fn text_encoder(config: &Config) -> Result<TextEncoderConfig, SourceError> {
    config.only("model_type", &["clip_text_model".into(), "clip".into()])?;
    let hidden_act = match config.text("hidden_act") {
        None | Some("quick_gelu") => HiddenAct::QuickGelu,
        Some("gelu") => HiddenAct::Gelu,
        Some(_) => return Err(config.wrong("hidden_act", "quick_gelu or gelu")),
    };
    Ok(TextEncoderConfig {
        vocab_size: config.size_or("vocab_size", 49408)?,
        hidden_size: config.size_or("hidden_size", 512)?,
        intermediate_size: config.size_or("intermediate_size", 2048)?,
        num_hidden_layers: config.size_or("num_hidden_layers", 12)?,
        num_attention_heads: config.size_or("num_attention_heads", 8)?,
        max_position_embeddings: config.size_or("max_position_embeddings", 77)?,
        hidden_act,
        layer_norm_eps: config.number_or("layer_norm_eps", 1e-5)? as f32,
    })
}

/// A UNet's configuration.
pub(super) fn unet(config: &Config) -> Result<UnetConfig, SourceError> {
    config.class(&["UNet2DConditionModel"])?;
    for key in [
        "class_embed_type",
        "addition_embed_type",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "num_class_embeds",
        "time_embedding_dim",
        "time_embedding_act_fn",
        "timestep_post_act",
        "cross_attention_norm",
        "mid_block_only_cross_attention",
        "reverse_transformer_layers_per_block",
    ] {
        config.only(key, &[])?;
    }
    let no = Value::Bool(false);
    for key in [
        "center_input_sample",
        "dual_cross_attention",
        "resnet_skip_time_act",
        "class_embeddings_concat",
    ] {
        config.only(key, std::slice::from_ref(&no))?;
    }
    for (key, fine) in [
        ("act_fn", Value::from("silu")),
        ("resnet_time_scale_shift", "default".into()),
        ("time_embedding_type", "positional".into()),
        ("attention_type", "default".into()),
        ("mid_block_scale_factor", 1.into()),
        ("resnet_out_scale_factor", 1.into()),
        ("downsample_padding", 1.into()),
        ("conv_in_kernel", 3.into()),
        ("conv_out_kernel", 3.into()),
    ] {
        config.only(key, &[fine])?;
    }
    let only_cross = config.get("only_cross_attention");
    let lists_no = |value: &Value| {
        let list = value.as_array();
        list.is_some_and(|list| list.iter().all(|each| *each == no))
    };
    if only_cross.is_some_and(|value| *value != no && !lists_no(value)) {
        return Err(config.wrong("only_cross_attention", "false"));
    }

    let block_out_channels = config.sizes("block_out_channels")?;
    let levels = block_out_channels.len();
    let down = config.blocks("down_block_types", &["CrossAttnDownBlock2D", "DownBlock2D"])?;
    let up = config.blocks("up_block_types", &["CrossAttnUpBlock2D", "UpBlock2D"])?;
    for (key, blocks) in [("down_block_types", &down), ("up_block_types", &up)] {
        if blocks.len() != levels {
            return Err(config.wrong(key, "a block for each of block_out_channels"));
        }
    }
    let layers = config.by_level("layers_per_block", levels, 2)?;
    if layers.iter().any(|n| *n > MOST_LEVELS) {
        return Err(config.wrong("layers_per_block", "fewer"));
    }
    let transformers = config.by_level("transformer_layers_per_block", levels, 1)?;
    let attention = |has: bool, level: usize| if has { transformers[level] } else { 0 };
    let heads = match config.get("num_attention_heads") {
        Some(_) => config.by_level("num_attention_heads", levels, 8)?,
        None => config.by_level("attention_head_dim", levels, 8)?,
    };
    // A missing type is the default; null says that there is no middle.
    let last = levels - 1;
    let mid = match config.values.get("mid_block_type") {
        None => Some(transformers[last]),
        Some(Value::Null) => None,
        Some(Value::String(name)) if name == "UNetMidBlock2DCrossAttn" => Some(transformers[last]),
        Some(Value::String(name)) if name == "UNetMidBlock2D" => Some(0),
        Some(_) => {
            return Err(config.wrong(
                "mid_block_type",
                "UNetMidBlock2DCrossAttn, UNetMidBlock2D or null",
            ));
        }
    };
    let cross_attention_dim = config.by_level("cross_attention_dim", levels, 1280)?;
    if cross_attention_dim
        .iter()
        .any(|n| *n != cross_attention_dim[0])
    {
        return Err(config.wrong("cross_attention_dim", "one for all levels"));
    }
    let freq_shift = match config.get("freq_shift") {
        None => 0.0,
        Some(value) => value
            .as_f64()
            .ok_or_else(|| config.wrong("freq_shift", "a number"))?,
    };
    Ok(UnetConfig {
        in_channels: config.size_or("in_channels", 4)?,
        out_channels: config.size_or("out_channels", 4)?,
        up_layers: layers.iter().map(|n| n + 1).collect(),
        down_layers: layers,
        down_attention: (0..levels)
            .map(|level| attention(down[level] == "CrossAttnDownBlock2D", level))
            .collect(),
        up_attention: (0..levels)
            .map(|level| attention(up[last - level] == "CrossAttnUpBlock2D", level))
            .collect(),
        mid: mid.map(|attention| MidBlock {
            attention,
            heads: heads[last],
        }),
        heads,
        cross_attention_dim: cross_attention_dim[0],
        norm_num_groups: config.size_or("norm_num_groups", 32)?,
        norm_eps: config.number_or("norm_eps", 1e-5)? as f32,
        use_linear_projection: config.flag_or("use_linear_projection", false)?,
        flip_sin_to_cos: config.flag_or("flip_sin_to_cos", true)?,
        freq_shift,
        time_cond_proj_dim: match config.get("time_cond_proj_dim") {
            None => None,
            Some(_) => Some(config.size("time_cond_proj_dim")?),
        },
        sample_size: config.picture("sample_size")?.unwrap_or([64, 64]),
        block_out_channels,
    })
}

/// The configuration of an autoencoder of either kind.
pub(super) fn autoencoder(config: &Config) -> Result<Autoencoder, SourceError> {
    config.class(&["AutoencoderKL", "AutoencoderTiny"])?;
    match config.text("_class_name") {
        Some("AutoencoderTiny") => tiny(config).map(Autoencoder::Tiny),
        _ => vae(config).map(Autoencoder::Kl),
    }
}

fn vae(config: &Config) -> Result<VaeConfig, SourceError> {
    for key in ["latents_mean", "latents_std", "shift_factor"] {
        config.only(key, &[])?;
    }
    for key in ["in_channels", "out_channels"] {
        config.only(key, &[3.into()])?;
    }
    config.only("act_fn", &["silu".into()])?;
    let block_out_channels = config.sizes("block_out_channels")?;
    for (key, name) in [
        ("down_block_types", "DownEncoderBlock2D"),
        ("up_block_types", "UpDecoderBlock2D"),
    ] {
        if config.blocks(key, &[name])?.len() != block_out_channels.len() {
            return Err(config.wrong(key, "a block for each of block_out_channels"));
        }
    }
    let layers_per_block = config.size_or("layers_per_block", 1)?;
    if layers_per_block > MOST_LEVELS {
        return Err(config.wrong("layers_per_block", "fewer"));
    }
    Ok(VaeConfig {
        latent_channels: config.size_or("latent_channels", 4)?,
        block_out_channels,
        layers_per_block,
        norm_num_groups: config.size_or("norm_num_groups", 32)?,
        use_quant_conv: config.flag_or("use_quant_conv", true)?,
        use_post_quant_conv: config.flag_or("use_post_quant_conv", true)?,
        mid_block_add_attention: config.flag_or("mid_block_add_attention", true)?,
        scaling_factor: config.number_or("scaling_factor", 0.18215)?,
    })
}

fn tiny(config: &Config) -> Result<TinyVaeConfig, SourceError> {
    for key in ["in_channels", "out_channels"] {
        config.only(key, &[3.into()])?;
    }
    config.only("act_fn", &["relu".into()])?;
    config.only("upsample_fn", &["nearest".into()])?;
    config.only("upsampling_scaling_factor", &[2.into()])?;
    config.only("shift_factor", &[0.into()])?;
    let list = |key: &str, otherwise: &[usize]| match config.get(key) {
        None => Ok(otherwise.to_vec()),
        Some(_) => config.sizes(key),
    };
    let tiny = TinyVaeConfig {
        latent_channels: config.size_or("latent_channels", 4)?,
        encoder_block_out_channels: list("encoder_block_out_channels", &[64; 4])?,
        decoder_block_out_channels: list("decoder_block_out_channels", &[64; 4])?,
        num_encoder_blocks: list("num_encoder_blocks", &[1, 3, 3, 3])?,
        num_decoder_blocks: list("num_decoder_blocks", &[3, 3, 3, 1])?,
        scaling_factor: config.number_or("scaling_factor", 1.0)?,
    };
    for (key, blocks, channels) in [
        (
            "num_encoder_blocks",
            &tiny.num_encoder_blocks,
            &tiny.encoder_block_out_channels,
        ),
        (
            "num_decoder_blocks",
            &tiny.num_decoder_blocks,
            &tiny.decoder_block_out_channels,
        ),
    ] {
        if blocks.len() != channels.len() || blocks.iter().any(|n| *n > MOST_LEVELS) {
            return Err(config.wrong(key, "a number of blocks for each level"));
        }
    }
    Ok(tiny)
}
