//! Checkpoints as people download them: what lies between a path and a [`Checkpoint`].
//!
//! - `recognise`: what the tensors of a file are; nothing is known by its name alone.
//! - `folder`: folders of diffusers, and a hub's cache.
//! - `parts`: the parts of a model, from there, from a whole checkpoint, and from files of their own.
//! - `ldm`, `tiny`: names of the original layouts to those of diffusers and transformers.
//! - `config`, `infer`: configurations, as written and as told by tensors.
//! - `parameters`: tensors as the builders take them; what is missing, what is left.
//! - `prediction`, `defaults`, `vocabulary`: what a file alone does not say.
//! - `files`: what is read is noted.

mod config;
mod defaults;
mod error;
mod files;
mod folder;
mod infer;
mod ldm;
mod parameters;
mod parts;
mod prediction;
mod recognise;
#[cfg(test)]
mod tests;
mod tiny;
mod vocabulary;

pub use error::SourceError;

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::diffusers::config::{HiddenAct, TextEncoderConfig, UnetConfig};
use super::diffusers::geometry::{self, Autoencoder};
use super::diffusers::{ArchitectureError, taesd, text_encoder, unet, vae};
use super::embedding::{self, EmbeddingArgument, EmbeddingError};
use super::lora::{self, LoraArgument, LoraError};
use super::tensors::{OpenFile, Tensors};
use super::tokenizer::SpecialTokens;
use super::{Card, Checkpoint, TextSettings};
use crate::graph::Graph;
use config::Config;
use files::{Files, file_name};
use kiln_package::GraphKind;
use parameters::NamedParameters;
use parts::{Part, Parts};
use recognise::Contents;

/// What a model is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or a folder, recognised by what is in it.
    Path(PathBuf),
    /// A known geometry with weights from a fixed sequence of random numbers.
    Random(String),
    /// Nothing but the parts of [`Changes`].
    Parts,
}

impl<P: Into<PathBuf>> From<P> for Source {
    fn from(path: P) -> Self {
        Source::Path(path.into())
    }
}

/// What a UNet's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity, `v_prediction`.
    Velocity,
}

impl Prediction {
    /// diffusers' name.
    pub fn name(self) -> &'static str {
        match self {
            Prediction::Epsilon => "epsilon",
            Prediction::Velocity => "v_prediction",
        }
    }
}

/// What is to be other than in the source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// A UNet in place of the source's.
    pub unet: Option<PathBuf>,
    /// A text encoder in place of the source's.
    pub text_encoder: Option<PathBuf>,
    /// An autoencoder of either kind in place of the source's.
    pub vae: Option<PathBuf>,
    /// A tiny autoencoder, whose decoder comes beside the VAE's; the VAE itself where there is no KL autoencoder.
    pub taesd: Option<PathBuf>,
    /// A folder or a `tokenizer.json` in place of the source's.
    pub tokenizer: Option<PathBuf>,
    /// What the UNet predicts, whatever the source says.
    pub prediction: Option<Prediction>,
    /// LoRAs that are merged into the UNet and the text encoder, in this order.
    pub loras: Vec<LoraArgument>,
    /// Words of a prompt that stand for vectors of their own (textual inversion).
    pub embeddings: Vec<EmbeddingArgument>,
}

impl Changes {
    /// The options that ask for a change.
    pub fn named(&self) -> Vec<&'static str> {
        let asked = [
            (self.unet.is_some(), "--unet"),
            (self.text_encoder.is_some(), "--text-encoder"),
            (self.vae.is_some(), "--vae"),
            (self.taesd.is_some(), "--taesd"),
            (self.tokenizer.is_some(), "--tokenizer"),
            (self.prediction.is_some(), "--prediction"),
            (!self.loras.is_empty(), "--lora"),
            (!self.embeddings.is_empty(), "--embedding"),
        ];
        let named = asked.into_iter().filter(|(asked, _)| *asked);
        named.map(|(_, option)| option).collect()
    }
}

/// Whether a path is that of a folder as optimum exports ONNX.
pub fn is_onnx(path: &Path) -> bool {
    folder::is_onnx(path)
}

/// CLIP's tokenizer, which comes with Kiln: `tokenizer.json` and its special tokens.
pub fn clip_tokenizer() -> Result<(Vec<u8>, SpecialTokens), SourceError> {
    vocabulary::clip(None)
}

/// How far the reading is.
pub enum Reading<'a> {
    /// A part is being read.
    Part(&'a str),
    /// So many bytes of so many have been hashed.
    Hashed(u64, u64),
    /// Something that whoever compiles should know.
    Warning(&'a str),
}

/// Told how far the reading is; says whether to go on.
pub type Hear<'a> = &'a mut dyn FnMut(Reading<'_>) -> bool;

/// Reads a model.
pub fn open(
    source: &Source,
    changes: &Changes,
    open_file: OpenFile,
    hear: Hear<'_>,
) -> Result<Checkpoint, SourceError> {
    let (mut parts, mut files) = match source {
        Source::Path(path) => gather(path, open_file, hear)?,
        Source::Random(name) => return random(name, changes),
        Source::Parts => {
            let place = Path::new("the command line");
            (Parts::new(place, String::new()), Files::new("", open_file))
        }
    };
    replace(&mut parts, changes, &mut files, hear)?;
    settle_tokenizer(&mut parts)?;
    for argument in &changes.loras {
        merge_lora(&mut parts, argument, &mut files, hear)?;
    }
    for argument in &changes.embeddings {
        hear(Reading::Part(&argument.word));
        add_embedding(&mut parts, argument, &mut files)?;
    }
    build(parts, changes, files, hear)
}

/// A known geometry with random weights and CLIP's vocabulary.
fn random(name: &str, changes: &Changes) -> Result<Checkpoint, SourceError> {
    let named = changes.named();
    if !named.is_empty() {
        return Err(SourceError::Options(format!(
            "random:{name} is a whole model: {} cannot be used with it",
            named.join(", ")
        )));
    }
    let geometry = geometry::named(name).ok_or_else(|| {
        let known = geometry::names().join(", ");
        SourceError::Options(format!("random:{name}: no such model; there are {known}"))
    })?;
    let tokenizer = vocabulary::clip(geometry.padding())?;
    geometry
        .checkpoint(tokenizer)
        .map_err(|error| SourceError::Build {
            place: format!("random:{name}"),
            error,
        })
}

/// Fails for sources that are not read here.
fn gather(path: &Path, open_file: OpenFile, hear: Hear<'_>) -> Result<(Parts, Files), SourceError> {
    let found = path.metadata().map_err(|e| SourceError::read(path, e))?;
    if found.is_dir() {
        let folder = folder::followed(path)?;
        let mut files = Files::new(&folder, open_file);
        let parts = folder::open(&folder, &mut files, &mut |part| {
            hear(Reading::Part(part));
        })?;
        return Ok((parts, files));
    }
    let mut files = Files::new(path.parent().unwrap_or(Path::new("")), open_file);
    let read = files.tensors(path)?;
    match parts::contents(&read)? {
        Contents::Checkpoint => {}
        other => return Err(parts::misplaced(path, other, "a model")),
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut parts = Parts::new(path, stem.into_owned());
    let tensors = read.by_name;
    let below = |prefix: &str| ldm::below(&tensors, prefix);
    parts.unet = Some(parts::unet_of(path, below(ldm::UNET), None)?);
    if ldm::any(&tensors, ldm::VAE) {
        parts.vae = Some(parts::vae_of(path, below(ldm::VAE), None)?);
    }
    if ldm::any(&tensors, ldm::CLIP) || ldm::any(&tensors, ldm::OPEN_CLIP) {
        parts.text_encoder = Some(parts::text_encoder_of(path, &tensors, None)?);
    }
    parts.metadata = read.metadata;
    Ok((parts, files))
}

/// Puts the parts that have files of their own in the place of the source's.
fn replace(
    parts: &mut Parts,
    changes: &Changes,
    files: &mut Files,
    hear: Hear<'_>,
) -> Result<(), SourceError> {
    if let Some(path) = &changes.unet {
        hear(Reading::Part("unet"));
        parts.unet = Some(parts::unet(path, files)?);
        if parts.name.is_empty() {
            parts.name = file_name(path.with_extension("").as_path());
        }
    }
    if let Some(path) = &changes.text_encoder {
        hear(Reading::Part("text_encoder"));
        parts.text_encoder = Some(parts::text_encoder(path, files)?);
    }
    if let Some(path) = &changes.vae {
        hear(Reading::Part("vae"));
        parts.vae = Some(parts::vae(path, files)?);
    }
    if let Some(path) = &changes.taesd {
        hear(Reading::Part("taesd"));
        let taesd = Some(parts::taesd(path, files)?);
        let has_kl = parts
            .vae
            .as_ref()
            .is_some_and(|vae| matches!(vae.config, Autoencoder::Kl(_)));
        match has_kl {
            true => parts.taesd = taesd,
            false => parts.vae = taesd,
        }
    }
    if let Some(path) = &changes.tokenizer {
        parts.tokenizer = Some(vocabulary::read(path, files)?);
    }
    Ok(())
}

/// Gives a text encoder of CLIP's vocabulary CLIP's tokenizer, if the source has none.
fn settle_tokenizer(parts: &mut Parts) -> Result<(), SourceError> {
    let Some(text) = &parts.text_encoder else {
        return Ok(());
    };
    if parts.tokenizer.is_none() && text.config.vocab_size >= vocabulary::CLIP_TOKENS {
        // Stable Diffusion 2's text encoder is OpenCLIP's, which was trained with another padding.
        let second = text.config.hidden_act == HiddenAct::Gelu;
        parts.tokenizer = Some(vocabulary::clip(second.then_some("!"))?);
    }
    Ok(())
}

/// Merges a LoRA into the UNet and the text encoder, and warns of what it changes nothing with.
fn merge_lora(
    parts: &mut Parts,
    argument: &LoraArgument,
    files: &mut Files,
    hear: Hear<'_>,
) -> Result<(), SourceError> {
    let LoraArgument { file, weight } = argument;
    let (Some(unet), Some(text)) = (&mut parts.unet, &mut parts.text_encoder) else {
        // What is missing is told when the model is built.
        return Ok(());
    };
    hear(Reading::Part(&file_name(file)));
    let error = |error: LoraError| SourceError::malformed(file, error.to_string());
    let mut read = files.tensors(file)?;
    match parts::contents(&read)? {
        Contents::Lora | Contents::Unknown => {}
        other => return Err(parts::misplaced(file, other, "a LoRA")),
    }
    if let Some(json) = files.optional_text(&file.with_file_name("adapter_config.json"))? {
        lora::with_adapter_config(&mut read, &json).map_err(error)?;
    }
    let lent = |tensors: &mut ldm::Named| Tensors {
        by_name: std::mem::take(tensors),
        ..Tensors::default()
    };
    let (mut changed, mut changed_text) = (lent(&mut unet.tensors), lent(&mut text.tensors));
    let applied = lora::apply(&mut changed, &mut changed_text, &read, *weight);
    (unet.tensors, text.tensors) = (changed.by_name, changed_text.by_name);
    let unmatched = applied.map_err(error)?.unmatched;
    if !unmatched.is_empty() {
        hear(Reading::Warning(&format!(
            "{}: {} tensor(s) are for nothing in the model: {}",
            file.display(),
            unmatched.len(),
            unmatched.join(", ")
        )));
    }
    Ok(())
}

/// Gives the text encoder and the tokenizer a word of its own.
fn add_embedding(
    parts: &mut Parts,
    argument: &EmbeddingArgument,
    files: &mut Files,
) -> Result<(), SourceError> {
    let (Some(text), Some((tokenizer, _))) = (&mut parts.text_encoder, &mut parts.tokenizer) else {
        return Ok(());
    };
    let file = &argument.file;
    let error = |error: EmbeddingError| SourceError::malformed(file, error.to_string());
    let read = files.tensors(file)?;
    match parts::contents(&read)? {
        Contents::Embedding | Contents::Unknown => {}
        other => {
            let wanted = "an embedding (textual inversion)";
            return Err(parts::misplaced(file, other, wanted));
        }
    }
    let vectors = embedding::read(&argument.word, &read).map_err(error)?;
    let mut tensors = Tensors {
        by_name: std::mem::take(&mut text.tensors),
        ..Tensors::default()
    };
    let extended = vectors.add_to(&mut tensors, tokenizer);
    text.tensors = tensors.by_name;
    let extended = extended.map_err(error)?;
    *tokenizer = extended.tokenizer;
    text.config.vocab_size = extended.rows;
    Ok(())
}

/// Latents' channels of Stable Diffusion's inpainting UNets: the latent, a mask and the masked latent.
fn inpainting(latent: usize) -> usize {
    2 * latent + 1
}

/// Builds the graphs of a model whose parts are known.
fn build(
    parts: Parts,
    changes: &Changes,
    files: Files,
    hear: Hear<'_>,
) -> Result<Checkpoint, SourceError> {
    let missing = |part, option| SourceError::Part {
        place: parts.place.clone(),
        part,
        option,
    };
    let text = parts
        .text_encoder
        .as_ref()
        .ok_or_else(|| missing("text encoder", "--text-encoder"))?;
    let unet = parts
        .unet
        .as_ref()
        .ok_or_else(|| missing("UNet", "--unet"))?;
    let vae = parts
        .vae
        .as_ref()
        .ok_or_else(|| missing("VAE", "--vae or --taesd"))?;
    let geometry = Geometry::of(vae);
    fits(text, unet, vae, &geometry)?;
    let beside = parts
        .taesd
        .as_ref()
        .map(|taesd| (taesd, Geometry::of(taesd)));
    if let Some((taesd, tiny)) = &beside {
        decodes_alike(taesd, tiny, &geometry)?;
    }
    let tokenizer = parts
        .tokenizer
        .ok_or_else(|| missing("tokenizer of its vocabulary", "--tokenizer"))?;
    let special = tokenizer.1;
    if let Some(token) = [special.bos, special.eos, special.pad]
        .into_iter()
        .find(|token| *token as usize >= text.config.vocab_size)
    {
        let reason = format!(
            "the tokenizer has a token {token}, the text encoder knows {}",
            text.config.vocab_size
        );
        return Err(SourceError::malformed(&parts.place, reason));
    }

    hear(Reading::Part("text_encoder"));
    let text_encoder = built(text, "text encoder", |parameters| {
        text_encoder::build(&text.config, parameters)
    })?;
    hear(Reading::Part("unet"));
    let tokens = text.config.max_position_embeddings;
    let unet_at = |latent| {
        built(unet, "UNet", |parameters| {
            unet::build(&unet.config, latent, tokens, parameters)
        })
    };
    let mut latent = unet.config.sample_size;
    let mut unet_graph = unet_at(latent)?;

    let embedded = unet.config.time_cond_proj_dim.is_some();
    let asked = changes
        .prediction
        .or_else(|| defaults::told(&parts.metadata));
    let mut scheduler = match parts.scheduler {
        Some(mut scheduler) => {
            if let Some(prediction) = changes.prediction {
                defaults::predict(&mut scheduler.values, prediction);
            }
            scheduler
        }
        None => {
            let mut scheduler = defaults::scheduler(embedded);
            // Only Stable Diffusion 2 comes in both kinds.
            let prediction = match asked {
                Some(prediction) => prediction,
                None if unet.config.use_linear_projection && !embedded => {
                    hear(Reading::Part("unet, what it predicts"));
                    prediction::of(&unet_graph).map_err(|reason| {
                        let reason = format!(
                            "what its UNet predicts cannot be found out ({reason}): say it with --prediction"
                        );
                        SourceError::malformed(&parts.place, reason)
                    })?
                }
                None => Prediction::Epsilon,
            };
            defaults::predict(&mut scheduler, prediction);
            if unet.inferred && prediction == Prediction::Velocity {
                latent = VELOCITY_LATENT;
                unet_graph = unet_at(latent)?;
            }
            Config::of(scheduler)
        }
    };

    hear(Reading::Part("vae"));
    let (vae_decoder, vae_encoder) = autoencoder(vae, latent)?;
    let taesd_decoder = match &beside {
        Some((taesd, _)) => Some(tiny_decoder(taesd, latent)?),
        None => None,
    };
    let mut own = parts.own;
    defaults::modelspec(&mut own, &parts.metadata);
    defaults::settings(&mut own, &scheduler, embedded);
    let card = Card {
        own,
        folder: parts.name,
        text: TextSettings {
            max_length: tokens,
            bos: special.bos,
            eos: special.eos,
            pad: special.pad,
            dim: text.config.hidden_size,
        },
        vae_scaling_factor: geometry.scaling_factor,
        tiny_vae: matches!(vae.config, Autoencoder::Tiny(_)),
        taesd_scaling_factor: beside.map(|(_, tiny)| tiny.scaling_factor),
        latent_channels: geometry.latent_channels,
        files: files.hashed(&mut |done, total| hear(Reading::Hashed(done, total)))?,
    };
    Ok(Checkpoint {
        text_encoder,
        unet: unet_graph,
        vae_decoder,
        vae_encoder,
        taesd_decoder,
        vae_factor: geometry.factor,
        latent,
        card,
        tokenizer: tokenizer.0,
        scheduler: Value::Object(std::mem::take(&mut scheduler.values)).to_string(),
    })
}

/// Height and width of the latents of Stable Diffusion 2's velocity models.
const VELOCITY_LATENT: [usize; 2] = [96, 96];

/// What a model needs to know of its autoencoder.
struct Geometry {
    latent_channels: usize,
    factor: usize,
    scaling_factor: f64,
}

impl Geometry {
    fn of(vae: &Part<Autoencoder>) -> Self {
        let (latent_channels, levels, scaling_factor) = match &vae.config {
            Autoencoder::Kl(c) => (
                c.latent_channels,
                c.block_out_channels.len(),
                c.scaling_factor,
            ),
            Autoencoder::Tiny(c) => (
                c.latent_channels,
                c.decoder_block_out_channels.len(),
                c.scaling_factor,
            ),
        };
        Geometry {
            latent_channels,
            // Configurations have at least one level and at most 32.
            factor: 1 << (levels - 1),
            scaling_factor,
        }
    }
}

/// Fails if the parts are not of one model, or the model is of a kind that is not drawn with.
fn fits(
    text: &Part<TextEncoderConfig>,
    unet: &Part<UnetConfig>,
    vae: &Part<Autoencoder>,
    geometry: &Geometry,
) -> Result<(), SourceError> {
    let config = &unet.config;
    let kind = match config.in_channels {
        5 => Some("a depth-to-image model"),
        7 => Some("a Stable Diffusion upscaler"),
        8 if config.out_channels == 4 => Some("an InstructPix2Pix model"),
        _ => None,
    };
    if let Some(what) = kind {
        return Err(SourceError::Refused {
            path: (&unet.place).into(),
            what: what.into(),
        });
    }
    let (width, context) = (text.config.hidden_size, config.cross_attention_dim);
    if width != context {
        let reason = format!(
            "its text encoder gives {width} columns, its UNet takes {context}: they are not of one model"
        );
        return Err(SourceError::malformed(&text.place, reason));
    }
    let latent = geometry.latent_channels;
    if config.out_channels != latent {
        let reason = format!(
            "its latents have {latent} channels, those of the UNet {}: they are not of one model",
            config.out_channels
        );
        return Err(SourceError::malformed(&vae.place, reason));
    }
    if ![latent, inpainting(latent)].contains(&config.in_channels) {
        let reason = format!(
            "its UNet takes {} channels, expected {latent}, or {} for inpainting",
            config.in_channels,
            inpainting(latent)
        );
        return Err(SourceError::malformed(&unet.place, reason));
    }
    Ok(())
}

/// Fails if a tiny autoencoder takes other latents than the VAE beside it, or gives pictures of another size.
fn decodes_alike(
    taesd: &Part<Autoencoder>,
    tiny: &Geometry,
    vae: &Geometry,
) -> Result<(), SourceError> {
    for (what, found, expected) in [
        ("channels", tiny.latent_channels, vae.latent_channels),
        ("pixels each way", tiny.factor, vae.factor),
    ] {
        if found != expected {
            let reason = format!(
                "its latents have {found} {what}, those of the VAE {expected}: they are not of one model"
            );
            return Err(SourceError::malformed(&taesd.place, reason));
        }
    }
    Ok(())
}

/// Has a part built and tells what of its tensors was missing or is left.
fn built<C, T>(
    part: &Part<C>,
    name: &'static str,
    build: impl FnOnce(&mut NamedParameters<'_>) -> Result<T, ArchitectureError>,
) -> Result<T, SourceError> {
    let mut parameters = NamedParameters::new(&part.tensors);
    let built = build(&mut parameters).map_err(|error| SourceError::Build {
        place: part.place.clone(),
        error,
    })?;
    parameters.finish(&part.place, name)?;
    Ok(built)
}

/// The decoder of a tiny autoencoder that comes beside the VAE.
fn tiny_decoder(part: &Part<Autoencoder>, latent: [usize; 2]) -> Result<Graph, SourceError> {
    let decoder = "decoder.";
    let tensors = part.tensors.iter();
    let part = Part {
        place: part.place.clone(),
        // Pictures are encoded by the VAE.
        tensors: tensors
            .filter(|(name, _)| name.starts_with(decoder))
            .map(|(name, weight)| (name.clone(), weight.clone()))
            .collect(),
        config: part.config.clone(),
        inferred: part.inferred,
    };
    let (mut graph, _) = autoencoder(&part, latent)?;
    graph.name = GraphKind::TaesdDecoder.name().into();
    Ok(graph)
}

/// The autoencoder's decoder, and its encoder if the source has one.
fn autoencoder(
    part: &Part<Autoencoder>,
    latent: [usize; 2],
) -> Result<(Graph, Option<Graph>), SourceError> {
    let has_encoder = ldm::any(&part.tensors, "encoder.");
    built(part, "VAE", |parameters| {
        Ok(match &part.config {
            Autoencoder::Kl(config) => (
                vae::decoder(config, latent, parameters)?,
                match has_encoder {
                    true => Some(vae::encoder(config, latent, parameters)?),
                    false => None,
                },
            ),
            Autoencoder::Tiny(config) => (
                taesd::decoder(config, latent, parameters)?,
                match has_encoder {
                    true => Some(taesd::encoder(config, latent, parameters)?),
                    false => None,
                },
            ),
        })
    })
}
