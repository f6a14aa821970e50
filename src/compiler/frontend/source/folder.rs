//! Folders as diffusers saves them, and the cache of a hub that holds them.

use std::path::{Path, PathBuf};

use super::config::Config;
use super::error::SourceError;
use super::files::{Files, file_name};
use super::parts::{self, Parts};
use super::vocabulary;
use crate::frontend::Card;

/// The file that says what a folder's parts are.
const INDEX: &str = "model_index.json";

/// Pipelines that are not compiled, by the beginning of their class's name.
const OTHERS: [(&str, &str); 16] = [
    ("StableDiffusionXLImg2Img", "a Stable Diffusion XL refiner"),
    ("StableDiffusionXL", "a Stable Diffusion XL model"),
    ("StableDiffusion3", "a Stable Diffusion 3 model"),
    ("StableVideoDiffusion", "a Stable Video Diffusion model"),
    ("StableCascade", "a Stable Cascade model"),
    ("StableUnCLIP", "a Stable unCLIP model"),
    (
        "StableDiffusionControlNet",
        "a Stable Diffusion model with a ControlNet",
    ),
    ("StableDiffusionUpscale", "a Stable Diffusion upscaler"),
    (
        "StableDiffusionLatentUpscale",
        "a Stable Diffusion upscaler",
    ),
    ("StableDiffusionDepth2Img", "a depth-to-image model"),
    ("StableDiffusionInstructPix2Pix", "an InstructPix2Pix model"),
    ("Flux", "a Flux model"),
    ("PixArt", "a PixArt model"),
    ("Wuerstchen", "a Wuerstchen model"),
    ("Kandinsky", "a Kandinsky model"),
    ("AnimateDiff", "an AnimateDiff model"),
];

/// Parts of a pipeline that Kiln does not have.
const OTHER_PARTS: [(&str, &str); 6] = [
    (
        "text_encoder_2",
        "a model with two text encoders, as Stable Diffusion XL is",
    ),
    (
        "transformer",
        "a diffusion transformer, as Stable Diffusion 3, Flux and PixArt are",
    ),
    ("prior", "a model with a prior, as Stable Cascade is"),
    ("controlnet", "a model with a ControlNet"),
    ("motion_adapter", "an AnimateDiff model"),
    ("vqvae", "a model with a VQ-VAE"),
];

/// The folder meant by a hub's cache (`models--OWNER--NAME`): the revision `main`, or the only one.
pub(super) fn followed(path: &Path) -> Result<PathBuf, SourceError> {
    let snapshots = path.join("snapshots");
    if path.join(INDEX).exists() || !snapshots.is_dir() {
        return Ok(path.to_owned());
    }
    let main = path.join("refs/main");
    if let Ok(revision) = std::fs::read_to_string(&main) {
        let revision = revision.trim();
        let plain = !revision.is_empty() && revision.chars().all(|c| c.is_ascii_alphanumeric());
        let folder = snapshots.join(revision);
        if plain && folder.is_dir() {
            return Ok(folder);
        }
    }
    let entries = std::fs::read_dir(&snapshots).map_err(|e| SourceError::read(&snapshots, e))?;
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    match folders.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(SourceError::malformed(
            path,
            "the hub's cache holds no revision",
        )),
        more => {
            let names: Vec<String> = more.iter().map(|path| file_name(path)).collect();
            let reason = format!(
                "the hub's cache holds several revisions, give one of them: snapshots/{}",
                names.join(", snapshots/")
            );
            Err(SourceError::malformed(path, reason))
        }
    }
}

/// Whether a folder is laid out as optimum exports ONNX. Some hold weights for both: those of diffusers are taken then.
pub(super) fn is_onnx(path: &Path) -> bool {
    let parts = ["unet", "text_encoder", "vae_decoder"];
    let onnx = |part: &&str| path.join(part).join("model.onnx").exists();
    let weights = || {
        let entries = std::fs::read_dir(path.join("unet")).into_iter().flatten();
        let mut names = entries.filter_map(|entry| Some(file_name(&entry.ok()?.path())));
        names.any(|name| name.ends_with(".safetensors") || name.ends_with(".bin"))
    };
    parts.iter().any(onnx) && !weights()
}

/// The name of the model in a folder: that of a hub, or the folder's own.
fn name(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let hub = full.ancestors().find_map(|folder| {
        let name = file_name(folder);
        Some(name.strip_prefix("models--")?.replace("--", "/"))
    });
    hub.unwrap_or_else(|| file_name(&full))
}

/// Reads a folder as diffusers saves it: as many of the parts as there are.
pub(super) fn open(
    path: &Path,
    files: &mut Files,
    hear: &mut dyn FnMut(&str),
) -> Result<Parts, SourceError> {
    let index = files.config(&path.join(INDEX))?;
    match &index {
        Some(index) => refuse(path, index)?,
        None if path.join("unet").is_dir() => {}
        None => return Err(no_model(path)),
    }
    let part = |name: &str| path.join(name);
    let mut parts = Parts::new(path, name(path));
    if let Some(text) = files.optional_text(&part("card.json"))? {
        let own = Card::own(&text);
        parts.own = own.map_err(|e| SourceError::malformed(path, e.to_string()))?;
    }
    if part("text_encoder").is_dir() {
        hear("text_encoder");
        parts.text_encoder = Some(parts::text_encoder(&part("text_encoder"), files)?);
    }
    if part("unet").is_dir() {
        hear("unet");
        parts.unet = Some(parts::unet(&part("unet"), files)?);
    }
    if part("vae").is_dir() {
        hear("vae");
        parts.vae = Some(parts::vae(&part("vae"), files)?);
    }
    if part("tokenizer").is_dir() {
        parts.tokenizer = Some(vocabulary::read(&part("tokenizer"), files)?);
    }
    let scheduler = part("scheduler").join("scheduler_config.json");
    if let Some(text) = files.optional_text(&scheduler)? {
        parts.scheduler = Some(Config::parse(&scheduler, &text)?);
    }
    Ok(parts)
}

fn refuse(path: &Path, index: &Config) -> Result<(), SourceError> {
    let refused = |what: &str| {
        Err(SourceError::Refused {
            path: path.to_owned(),
            what: what.to_owned(),
        })
    };
    let class = index.text("_class_name").unwrap_or_default();
    if let Some((_, what)) = OTHERS.iter().find(|(start, _)| class.starts_with(start)) {
        return refused(what);
    }
    // A part that a pipeline does not have is listed as two nulls.
    let listed = |part: &str| {
        let value = index.get(part)?.as_array()?;
        value.iter().any(|v| !v.is_null()).then_some(())
    };
    if let Some((_, what)) = OTHER_PARTS.iter().find(|(part, _)| listed(part).is_some()) {
        return refused(what);
    }
    Ok(())
}

/// What to say of a folder that is none of diffusers.
fn no_model(path: &Path) -> SourceError {
    if path.join("config.json").is_file() {
        return SourceError::malformed(
            path,
            format!(
                "holds a config.json and no {INDEX}: a part of a model; give the folder above it"
            ),
        );
    }
    let entries = std::fs::read_dir(path).into_iter().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(file_name(&entry.ok()?.path())))
        .filter(|name| {
            let ends = [".safetensors", ".ckpt", ".pt", ".bin"];
            ends.iter().any(|end| name.ends_with(end))
        })
        .collect();
    names.sort();
    let hint = match names.first() {
        Some(name) => format!("; is {name} in it meant?"),
        None => String::new(),
    };
    SourceError::malformed(
        path,
        format!(
            "is no model's folder: it holds neither {INDEX} nor unet/ (diffusers), nor unet/model.onnx (ONNX){hint}"
        ),
    )
}

/// The tensors of a part's folder: in one file or in several, the full precision before the half, safetensors before
/// pickles.
pub(super) fn weights(
    path: &Path,
    files: &mut Files,
) -> Result<crate::frontend::tensors::Tensors, SourceError> {
    const BASES: [&str; 3] = ["diffusion_pytorch_model", "model", "pytorch_model"];
    for ending in ["safetensors", "bin"] {
        for variant in ["", ".fp16", ".non_ema"] {
            for base in BASES {
                let file = path.join(format!("{base}{variant}.{ending}"));
                if file.exists() {
                    return files.tensors(&file);
                }
                // Both orders have been in use.
                for index in [
                    format!("{base}.{ending}.index{variant}.json"),
                    format!("{base}{variant}.{ending}.index.json"),
                ] {
                    if path.join(&index).exists() {
                        return files.indexed(&path.join(index));
                    }
                }
            }
        }
    }
    let names: Vec<String> = BASES[..2]
        .iter()
        .map(|b| format!("{b}.safetensors"))
        .collect();
    Err(SourceError::malformed(
        path,
        format!(
            "holds no weights: none of {}, their .fp16 and .bin forms, or an index of them",
            names.join(", ")
        ),
    ))
}
