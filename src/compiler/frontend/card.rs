//! The model card: what a package says about its model, gathered from the source's configuration files.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::path::Path;

/// A file that the model was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Path relative to the source's folder, with `/`.
    pub path: String,
    /// SHA-256 of its contents, in lower-case hexadecimal.
    pub sha256: String,
}

impl SourceFile {
    /// The file `path` in or below `folder`, or anywhere else, whose bytes `contents` gives.
    pub fn of(folder: &Path, path: &Path, contents: impl Read) -> io::Result<Self> {
        let relative = path.strip_prefix(folder).unwrap_or(path);
        let parts: Vec<_> = relative
            .components()
            .map(|c| c.as_os_str().to_string_lossy())
            .collect();
        Ok(SourceFile {
            path: parts.join("/"),
            sha256: sha256(contents, &mut |_| {})?,
        })
    }
}

/// SHA-256 of what `contents` gives, in lower-case hexadecimal. Of mapped bytes too only a MiB is held at a time; `progress`
/// is told of each part's bytes.
pub fn sha256(mut contents: impl Read, progress: &mut dyn FnMut(usize)) -> io::Result<String> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match contents.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            Ok(n) => {
                hash.update(&buffer[..n]);
                progress(n);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What the text encoder takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextSettings {
    /// Tokens of a prompt, begin and end included.
    pub max_length: usize,
    /// The token that begins a prompt.
    pub bos: u32,
    /// The token that ends it.
    pub eos: u32,
    /// The token that fills the rest.
    pub pad: u32,
    /// Columns of the embeddings.
    pub dim: usize,
}

/// The card before the sizes and the precision of a package are known.
#[derive(Clone, Debug)]
pub struct Card {
    /// The contents of the source's own `card.json`, if it has one: name, description, license, defaults and whatever
    /// else its makers say.
    pub own: Map<String, Value>,
    /// The name of a source that does not say its own.
    pub folder: String,
    /// The text encoder's numbers.
    pub text: TextSettings,
    /// Latents are divided by it before they are decoded.
    pub vae_scaling_factor: f64,
    /// Whether the VAE is a tiny autoencoder (TAESD) itself.
    pub tiny_vae: bool,
    /// Latents are divided by it before the tiny autoencoder beside the VAE decodes them.
    pub taesd_scaling_factor: Option<f64>,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Every file read, sorted by path.
    pub files: Vec<SourceFile>,
}

/// A `card.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("card.json: {0}")]
pub struct CardError(String);

/// The key of what [`Card::f16_gain`] gives.
pub(crate) const F16_GAIN: &str = "f16_gain";

impl Card {
    /// How many times as large a UNet layer's part of the noise has to be as its part of the cost if it is to stay in f16,
    /// where the model's makers say it.
    pub fn f16_gain(&self) -> Option<f64> {
        self.own.get(F16_GAIN).and_then(Value::as_f64)
    }

    /// Reads a source's own card. It must be an object, and what the compiler goes by in it what it ought to be.
    pub fn own(text: &str) -> Result<Map<String, Value>, CardError> {
        match serde_json::from_str(text) {
            Ok(Value::Object(own)) => match own.get(F16_GAIN) {
                Some(gain) if !gain.as_f64().is_some_and(|gain| gain >= 0.0) => Err(CardError(
                    format!("{F16_GAIN} is {gain}, not a number from 0"),
                )),
                _ => Ok(own),
            },
            Ok(_) => Err(CardError("is no JSON object".into())),
            Err(e) => Err(CardError(e.to_string())),
        }
    }

    /// The card as JSON. `size` is the package's default picture size, width first.
    pub fn to_json(&self, precision: &str, size: (usize, usize)) -> String {
        let mut card = self.own.clone();
        let text = |card: &Map<String, Value>, key: &str, otherwise: &str| {
            card.get(key)
                .and_then(Value::as_str)
                .unwrap_or(otherwise)
                .to_owned()
        };
        for (key, otherwise) in [
            ("name", self.folder.as_str()),
            ("description", ""),
            ("license", ""),
        ] {
            let value = text(&card, key, otherwise);
            card.insert(key.into(), value.into());
        }
        if let Some(made_from) = card.remove("sources") {
            card.insert("made_from".into(), made_from);
        }
        let mut defaults = match card.remove("defaults") {
            Some(Value::Object(defaults)) => defaults,
            _ => Map::new(),
        };
        for (key, otherwise) in [
            ("steps", json!(20)),
            ("guidance_scale", json!(7.5)),
            ("sampler", json!("ddim")),
        ] {
            defaults.entry(key).or_insert(otherwise);
        }
        defaults.insert("width".into(), size.0.into());
        defaults.insert("height".into(), size.1.into());
        let files: Vec<Value> = self
            .files
            .iter()
            .map(|f| json!({"path": f.path, "sha256": f.sha256}))
            .collect();
        let TextSettings {
            max_length,
            bos,
            eos,
            pad,
            dim,
        } = self.text;
        card.insert("defaults".into(), defaults.into());
        card.insert("precision".into(), precision.into());
        card.insert("sources".into(), files.into());
        card.insert("vae_scaling_factor".into(), self.vae_scaling_factor.into());
        for key in ["vae", "taesd_scaling_factor"] {
            card.remove(key);
        }
        if self.tiny_vae {
            card.insert("vae".into(), "taesd".into());
        }
        if let Some(factor) = self.taesd_scaling_factor {
            card.insert("taesd_scaling_factor".into(), factor.into());
        }
        card.insert("latent_channels".into(), self.latent_channels.into());
        let text =
            json!({"max_length": max_length, "bos": bos, "eos": eos, "pad": pad, "dim": dim});
        card.insert("text".into(), text);
        Value::Object(card).to_string()
    }
}
