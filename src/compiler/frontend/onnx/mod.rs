//! Stable-Diffusion-shaped ONNX folders, as optimum exports them: `text_encoder/`, `unet/`, `vae_decoder/` and, if there,
//! `vae_encoder/`, each with a `model.onnx` and its `config.json`; `tokenizer/` and `scheduler/`; `card.json` if the
//! makers wrote one.

mod error;
mod folder;
mod hook;
mod import;
mod proto;
mod refuse;
#[cfg(test)]
pub(super) mod tests;
mod translate;

pub use error::OnnxError;

use super::{Card, Checkpoint, TextSettings, tokenizer};
use crate::graph::Graph;
use folder::{Config, Folder};
use proto::Model;
use std::path::Path;
#[cfg(test)]
use tract_onnx::prelude::TypedModel;

/// A part of the model, imported.
struct Imported {
    graph: Graph,
    /// The importer's own graph, which the tests run beside ours.
    #[cfg(test)]
    typed: TypedModel,
}

/// Which input of a part is which, in the order of the final graph, and what its output is called there.
struct Ports {
    inputs: &'static [(&'static [&'static str], &'static str)],
    output: &'static str,
}

const TEXT_ENCODER: Ports = Ports {
    inputs: &[(&["input_ids"], "input_ids")],
    output: "last_hidden_state",
};
const UNET: Ports = Ports {
    inputs: &[
        (&["sample", "latent_model_input"], "sample"),
        (&["timestep", "t"], "timestep"),
        (&["encoder_hidden_states"], "encoder_hidden_states"),
    ],
    output: "out_sample",
};
const VAE_DECODER: Ports = Ports {
    inputs: &[(&["latent_sample", "latents"], "latents")],
    output: "sample",
};
const VAE_ENCODER: Ports = Ports {
    inputs: &[(&["sample", "image"], "image")],
    output: "moments",
};

/// Reads an ONNX folder. `progress` hears the name of each part before it is imported.
pub fn open(path: &Path, progress: &mut dyn FnMut(&str)) -> Result<Checkpoint, OnnxError> {
    let mut folder = Folder::open(path)?;
    let text_config = folder.config("text_encoder/config.json")?;
    let unet_config = folder.config("unet/config.json")?;
    let vae_config = folder.config("vae_decoder/config.json")?;
    let tokenizer = read_tokenizer(&mut folder)?;
    let scheduler = folder.text("scheduler/scheduler_config.json")?;
    Config::parse(&scheduler.0, &scheduler.1)?;

    progress("text_encoder");
    let tokens = text_config.size("max_position_embeddings")?.unwrap_or(77);
    let text_encoder = part(&mut folder, "text_encoder", &TEXT_ENCODER, &|_, _, _| {
        Ok(vec![1, tokens])
    })?
    .graph;
    let dim = text_encoder
        .shape(text_encoder.outputs[0])
        .last()
        .copied()
        .unwrap_or(0);

    progress("unet");
    let channels = vae_config.size("latent_channels")?.unwrap_or(4);
    let taken = unet_config.size("in_channels")?.unwrap_or(channels);
    if taken != channels {
        let reason = format!(
            "takes {taken} channels, a latent has {channels}: only text-to-image models are supported"
        );
        return Err(OnnxError::Malformed {
            path: path.join("unet/config.json"),
            reason,
        });
    }
    let latent = unet_config.picture("sample_size")?.unwrap_or([64, 64]);
    let unet = part(&mut folder, "unet", &UNET, &|i, _, rank| {
        Ok(match (i, rank) {
            (0, _) => vec![1, channels, latent[0], latent[1]],
            (1, Some(0)) => vec![],
            (1, _) => vec![1],
            _ => vec![1, tokens, dim],
        })
    })?
    .graph;

    progress("vae_decoder");
    let latent_shape =
        |_: usize, _: &str, _: Option<usize>| Ok(vec![1, channels, latent[0], latent[1]]);
    let vae_decoder = part(&mut folder, "vae_decoder", &VAE_DECODER, &latent_shape)?.graph;
    let picture = vae_decoder.shape(vae_decoder.outputs[0]);
    let vae_factor = match picture {
        [1, 3, h, w] if h % latent[0] == 0 && h / latent[0] * latent[1] == *w => h / latent[0],
        _ => {
            let reason = format!(
                "makes {picture:?} of a latent of {latent:?}, expected a picture of three channels"
            );
            return Err(OnnxError::Malformed {
                path: path.join("vae_decoder/model.onnx"),
                reason,
            });
        }
    };

    let vae_encoder = if path.join("vae_encoder").exists() {
        progress("vae_encoder");
        let size = [latent[0] * vae_factor, latent[1] * vae_factor];
        let shape = |_: usize, _: &str, _: Option<usize>| Ok(vec![1, 3, size[0], size[1]]);
        let graph = part(&mut folder, "vae_encoder", &VAE_ENCODER, &shape)?.graph;
        let moments = graph.shape(graph.outputs[0]);
        if moments != [1, 2 * channels, latent[0], latent[1]] {
            let reason = format!(
                "gives {moments:?}, expected mean and log-variance, {} channels",
                2 * channels
            );
            return Err(OnnxError::Malformed {
                path: path.join("vae_encoder/model.onnx"),
                reason,
            });
        }
        Some(graph)
    } else {
        None
    };

    let own = match folder.optional_text("card.json")? {
        Some((path, text)) => Card::own(&text).map_err(|e| OnnxError::Malformed {
            path,
            reason: e.to_string(),
        })?,
        None => serde_json::Map::new(),
    };
    let special = tokenizer.1;
    let card = Card {
        own,
        folder: folder.name(),
        text: TextSettings {
            max_length: tokens,
            bos: special.bos,
            eos: special.eos,
            pad: special.pad,
            dim,
        },
        vae_scaling_factor: vae_config.number("scaling_factor")?.unwrap_or(0.18215),
        tiny_vae: false,
        taesd_scaling_factor: None,
        latent_channels: channels,
        files: folder.into_files()?,
    };
    Ok(Checkpoint {
        text_encoder,
        unet,
        vae_decoder,
        vae_encoder,
        taesd_decoder: None,
        vae_factor,
        latent,
        card,
        tokenizer: tokenizer.0,
        scheduler: scheduler.1,
    })
}

fn read_tokenizer(folder: &mut Folder) -> Result<(Vec<u8>, tokenizer::SpecialTokens), OnnxError> {
    let malformed = |e: tokenizer::TokenizerError| OnnxError::Malformed {
        path: Path::new("tokenizer").join(e.file),
        reason: e.reason,
    };
    let json = match folder.optional_text("tokenizer/tokenizer.json")? {
        Some((_, json)) => json.into_bytes(),
        None => {
            let (vocabulary, merges) = (
                folder.text("tokenizer/vocab.json")?,
                folder.text("tokenizer/merges.txt")?,
            );
            tokenizer::from_vocabulary(&vocabulary.1, &merges.1).map_err(malformed)?
        }
    };
    let map = folder.optional_text("tokenizer/special_tokens_map.json")?;
    let special =
        tokenizer::special_tokens(&json, map.as_ref().map(|m| m.1.as_str())).map_err(malformed)?;
    Ok((json, special))
}

/// Imports one part and gives its ports their names.
fn part(
    folder: &mut Folder,
    name: &str,
    ports: &Ports,
    shape: import::ShapeOf<'_>,
) -> Result<Imported, OnnxError> {
    let path = folder.model(name)?;
    let mut model = Model::load(&path)?;
    let wanted = match name {
        "vae_encoder" => model.moments()?,
        _ => {
            let outputs = &model.graph().output;
            let output = outputs
                .iter()
                .find(|o| o.name == ports.output)
                .or(outputs.first());
            let missing = || OnnxError::Malformed {
                path: path.clone(),
                reason: "the graph has no output".into(),
            };
            output.ok_or_else(missing)?.name.clone()
        }
    };
    model.keep(&wanted);
    for file in &model.files {
        folder.note(file);
    }
    let order = ports_of(&model, &path, ports)?;
    let typed = import::import(&model, &|i, name, rank| shape(order[i], name, rank))?;
    let layers = model.layer_names();
    // The file's own copy of the weights is not needed any more.
    drop(model);
    let mut graph = translate::translate(&typed, name, &path, &layers)?;
    let sorted = (0..order.len()).map(|port| order.iter().position(|o| *o == port));
    graph.inputs = sorted.flatten().map(|i| graph.inputs[i]).collect();
    for (id, (_, name)) in graph.inputs.clone().into_iter().zip(ports.inputs) {
        graph.value_mut(id).name = (*name).into();
    }
    for id in graph.outputs.clone() {
        graph.value_mut(id).name = ports.output.into();
    }
    Ok(Imported {
        graph,
        #[cfg(test)]
        typed,
    })
}

/// For each input of the file, which of the part's inputs it is: by name, else by position.
fn ports_of(model: &Model, path: &Path, ports: &Ports) -> Result<Vec<usize>, OnnxError> {
    let initializers: Vec<&str> = model
        .graph()
        .initializer
        .iter()
        .map(|t| t.name.as_str())
        .collect();
    let names = model
        .graph()
        .input
        .iter()
        .map(|i| i.name.as_str())
        .filter(|n| !initializers.contains(n));
    let names: Vec<&str> = names.collect();
    if names.len() != ports.inputs.len() {
        let expected: Vec<&str> = ports.inputs.iter().map(|p| p.1).collect();
        let reason = format!("has the inputs {names:?}, expected {expected:?}");
        return Err(OnnxError::Malformed {
            path: path.to_owned(),
            reason,
        });
    }
    let by_name: Option<Vec<usize>> = names
        .iter()
        .map(|n| ports.inputs.iter().position(|p| p.0.contains(n)))
        .collect();
    Ok(by_name.unwrap_or_else(|| (0..names.len()).collect()))
}
