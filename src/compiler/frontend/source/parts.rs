//! The parts of a model as sources give them, and parts that files of their own give.

use std::path::Path;

use serde_json::{Map, Value};
use std::collections::BTreeMap;

use super::config::{self, Config};
use super::error::SourceError;
use super::files::{Files, file_name};
use super::folder;
use super::ldm::{self, Named};
use super::parameters::{absent, harmless};
use super::recognise::{Contents, recognise};
use super::{infer, tiny};
use crate::frontend::diffusers::config::{TextEncoderConfig, UnetConfig};
use crate::frontend::diffusers::geometry::Autoencoder;
use crate::frontend::tensors::Tensors;
use crate::frontend::tokenizer::SpecialTokens;

/// The tensors of a part, by the names of diffusers or transformers, and its configuration.
pub(super) struct Part<C> {
    /// Where it is from, for messages.
    pub place: String,
    pub tensors: Named,
    pub config: C,
    /// Whether the configuration was told by the tensors alone.
    pub inferred: bool,
}

/// A tokenizer: `tokenizer.json` and its special tokens.
pub(super) type Tokenizer = (Vec<u8>, SpecialTokens);

/// A model, as far as it is known.
pub(super) struct Parts {
    /// Where it is from, for messages.
    pub place: String,
    /// What it is called if its card does not say.
    pub name: String,
    pub text_encoder: Option<Part<TextEncoderConfig>>,
    pub unet: Option<Part<UnetConfig>>,
    pub vae: Option<Part<Autoencoder>>,
    /// A tiny autoencoder beside the VAE.
    pub taesd: Option<Part<Autoencoder>>,
    pub tokenizer: Option<Tokenizer>,
    pub scheduler: Option<Config>,
    /// What the source says about itself.
    pub own: Map<String, Value>,
    /// Free text of the file, `modelspec.` among it.
    pub metadata: BTreeMap<String, String>,
}

impl Parts {
    pub fn new(place: &Path, name: String) -> Self {
        Parts {
            place: place.display().to_string(),
            name,
            text_encoder: None,
            unet: None,
            vae: None,
            taesd: None,
            tokenizer: None,
            scheduler: None,
            own: Map::new(),
            metadata: BTreeMap::new(),
        }
    }
}

/// A part's tensors as they lie in its folder or its file, and the configuration beside them if it is of one of the
/// `classes`.
fn open(
    path: &Path,
    classes: &[&str],
    files: &mut Files,
) -> Result<(Tensors, Option<Config>), SourceError> {
    let found = path.metadata().map_err(|e| SourceError::read(path, e))?;
    if found.is_dir() {
        let config = files.config(&path.join("config.json"))?;
        return Ok((folder::weights(path, files)?, config));
    }
    let read = files.tensors(path)?;
    let beside = path.with_file_name("config.json");
    let own = |config: &Config| {
        let class = config.text("_class_name").or(config.text("model_type"));
        class.is_some_and(|class| classes.contains(&class))
    };
    // A file of another model, or of none, may lie there too.
    let text = std::fs::read_to_string(&beside).unwrap_or_default();
    let config = Config::parse(&beside, &text).ok().filter(own);
    if config.is_some() {
        files.note(&beside);
    }
    Ok((read, config))
}

/// What tensors are, those among them that cannot be read. If Kiln has a use for them, all that matter must be readable.
pub(super) fn contents(read: &Tensors) -> Result<Contents, SourceError> {
    if read.unread.is_empty() {
        return Ok(recognise(&read.by_name));
    }
    let nameless = |name: &String| (name.clone(), absent(&[]));
    let mut all: Named = read.unread.keys().map(nameless).collect();
    all.extend(
        read.by_name
            .iter()
            .map(|(name, weight)| (name.clone(), weight.clone())),
    );
    let contents = recognise(&all);
    if !matches!(contents, Contents::Other(_)) {
        read.check_read(|name| !harmless(name))?;
    }
    Ok(contents)
}

/// What a file with the wrong contents is.
pub(super) fn misplaced(path: &Path, contents: Contents, wanted: &'static str) -> SourceError {
    let (what, instead) = match contents {
        Contents::Other(what) => {
            return SourceError::Refused {
                path: path.to_owned(),
                what: what.to_owned(),
            };
        }
        Contents::Lora => ("a LoRA", "give it with --lora"),
        Contents::Embedding => (
            "an embedding (textual inversion)",
            "give it with --embedding NAME=FILE",
        ),
        Contents::Unet => (
            "a UNet alone",
            "give it with --unet, beside a model or with --text-encoder and --vae",
        ),
        Contents::TextEncoder => ("a text encoder alone", "give it with --text-encoder"),
        Contents::Vae => ("a VAE alone", "give it with --vae"),
        Contents::TinyVae => ("a tiny autoencoder (TAESD)", "give it with --taesd"),
        Contents::Checkpoint => ("a whole model", "give it as the source"),
        Contents::Unknown => {
            return SourceError::malformed(
                path,
                format!("its tensors are not those of {wanted} that Kiln knows"),
            );
        }
    };
    SourceError::Misplaced {
        path: path.to_owned(),
        what,
        wanted,
        instead,
    }
}

/// The tensors of a loose part: those of the part alone, or those below `prefixes` in a whole model.
fn loose(read: &Tensors, prefixes: &[&str]) -> Named {
    let found = prefixes
        .iter()
        .find(|prefix| ldm::any(&read.by_name, prefix));
    match found {
        Some(prefix) => ldm::below(&read.by_name, prefix),
        None => read.by_name.clone(),
    }
}

/// A UNet from a folder or a file.
pub(super) fn unet(path: &Path, files: &mut Files) -> Result<Part<UnetConfig>, SourceError> {
    let (read, config) = open(path, &["UNet2DConditionModel"], files)?;
    match contents(&read)? {
        Contents::Unet | Contents::Checkpoint => {}
        other => return Err(misplaced(path, other, "a UNet")),
    }
    unet_of(path, loose(&read, &[ldm::UNET]), config.as_ref())
}

/// A UNet from tensors of either layout.
pub(super) fn unet_of(
    path: &Path,
    tensors: Named,
    config: Option<&Config>,
) -> Result<Part<UnetConfig>, SourceError> {
    let tensors = match ldm::any(&tensors, "input_blocks.") {
        true => ldm::unet(&tensors),
        false => tensors,
    };
    let inferred = config.is_none();
    let config = match config {
        Some(config) => config::unet(config)?,
        None => infer::unet(&tensors).ok_or_else(|| incomplete(path, "UNet"))?,
    };
    Ok(Part {
        place: path.display().to_string(),
        tensors,
        config,
        inferred,
    })
}

fn incomplete(path: &Path, part: &str) -> SourceError {
    SourceError::malformed(
        path,
        format!("its {part} lacks the tensors that tell its geometry"),
    )
}

/// A text encoder from a folder or a file.
pub(super) fn text_encoder(
    path: &Path,
    files: &mut Files,
) -> Result<Part<TextEncoderConfig>, SourceError> {
    let (read, config) = open(path, &["clip_text_model"], files)?;
    match contents(&read)? {
        Contents::TextEncoder | Contents::Checkpoint => {}
        other => return Err(misplaced(path, other, "a text encoder")),
    }
    text_encoder_of(path, &read.by_name, config.as_ref())
}

/// A text encoder from tensors of either layout, of a whole model or alone.
pub(super) fn text_encoder_of(
    path: &Path,
    tensors: &Named,
    config: Option<&Config>,
) -> Result<Part<TextEncoderConfig>, SourceError> {
    let inside = ldm::any(tensors, ldm::OPEN_CLIP);
    let open = inside || ldm::any(tensors, "transformer.resblocks.");
    let tensors = if inside {
        ldm::open_clip(&ldm::below(tensors, ldm::OPEN_CLIP))
    } else if ldm::any(tensors, ldm::CLIP) {
        ldm::clip(&ldm::below(tensors, ldm::CLIP))
    } else if open {
        ldm::open_clip(tensors)
    } else {
        ldm::clip(tensors)
    };
    let inferred = config.is_none();
    let config = match config {
        Some(config) => config::text_encoder(config)?,
        None => {
            infer::text_encoder(&tensors, open).ok_or_else(|| incomplete(path, "text encoder"))?
        }
    };
    Ok(Part {
        place: path.display().to_string(),
        tensors,
        config,
        inferred,
    })
}

/// An autoencoder of either kind from a folder or a file.
pub(super) fn vae(path: &Path, files: &mut Files) -> Result<Part<Autoencoder>, SourceError> {
    let (read, config) = open(path, &["AutoencoderKL", "AutoencoderTiny"], files)?;
    match contents(&read)? {
        Contents::Vae | Contents::Checkpoint => {
            vae_of(path, loose(&read, &[ldm::VAE]), config.as_ref())
        }
        Contents::TinyVae => taesd(path, files),
        other => Err(misplaced(path, other, "a VAE")),
    }
}

/// A KL autoencoder from tensors of either layout.
pub(super) fn vae_of(
    path: &Path,
    tensors: Named,
    config: Option<&Config>,
) -> Result<Part<Autoencoder>, SourceError> {
    let original = ldm::any(&tensors, "decoder.up.") || ldm::any(&tensors, "decoder.mid.");
    let tensors = match original {
        true => ldm::vae(&tensors),
        false => ldm::diffusers_vae(&tensors),
    };
    let inferred = config.is_none();
    let config = match config {
        Some(config) => config::autoencoder(config)?,
        None => Autoencoder::Kl(infer::vae(&tensors).ok_or_else(|| incomplete(path, "VAE"))?),
    };
    Ok(Part {
        place: path.display().to_string(),
        tensors,
        config,
        inferred,
    })
}

/// A tiny autoencoder from a folder or a file. The makers publish its halves as files of their own: the other one is
/// taken from beside it.
pub(super) fn taesd(path: &Path, files: &mut Files) -> Result<Part<Autoencoder>, SourceError> {
    const HALVES: [&str; 2] = ["encoder", "decoder"];
    let (mut read, config) = open(path, &["AutoencoderTiny"], files)?;
    match contents(&read)? {
        Contents::TinyVae => {}
        other => return Err(misplaced(path, other, "a tiny autoencoder (TAESD)")),
    }
    let mut part = tiny::tensors(&read.by_name).unwrap_or_default();
    let name = file_name(path);
    for [own, other] in [HALVES, [HALVES[1], HALVES[0]]] {
        let half = |name: &str| format!("{name}.layers.");
        let beside = path.with_file_name(name.replace(own, other));
        if ldm::any(&part, &half(own))
            && !ldm::any(&part, &half(other))
            && beside != path
            && beside.is_file()
        {
            let second = files.tensors(&beside)?;
            part.append(&mut tiny::tensors(&second.by_name).unwrap_or_default());
        }
    }
    read.by_name = part;
    tiny_of(path, &read.by_name, config.as_ref())
}

fn tiny_of(
    path: &Path,
    tensors: &Named,
    config: Option<&Config>,
) -> Result<Part<Autoencoder>, SourceError> {
    let tensors = tiny::tensors(tensors).unwrap_or_default();
    let inferred = config.is_none();
    let config = match config {
        Some(config) => config::autoencoder(config)?,
        None => Autoencoder::Tiny(infer::tiny(&tensors).ok_or_else(|| {
            SourceError::malformed(path, "is a tiny autoencoder without a decoder")
        })?),
    };
    Ok(Part {
        place: path.display().to_string(),
        tensors,
        config,
        inferred,
    })
}
