//! Writes a model in the layouts that people download.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};

use super::common;
use super::model::{Part, Tensor, TinyModel};
use super::torch_file;

/// The type that weights are stored in. The models' are exact in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F32,
    F16,
    Bf16,
}

impl Element {
    /// Values as they lie in a file.
    pub fn bytes(self, values: &[f32]) -> Vec<u8> {
        let bytes = |x: &f32| match self {
            Element::F32 => x.to_le_bytes().to_vec(),
            Element::F16 => half::f16::from_f32(*x).to_le_bytes().to_vec(),
            Element::Bf16 => half::bf16::from_f32(*x).to_le_bytes().to_vec(),
        };
        values.iter().flat_map(bytes).collect()
    }

    fn dtype(self) -> Dtype {
        match self {
            Element::F32 => Dtype::F32,
            Element::F16 => Dtype::F16,
            Element::Bf16 => Dtype::BF16,
        }
    }
}

/// Writes a safetensors file.
pub fn safetensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = &'a Tensor>,
    element: Element,
    metadata: &[(&str, &str)],
) {
    let stored: Vec<_> = tensors
        .into_iter()
        .map(|tensor| (tensor, element.bytes(&tensor.values)))
        .collect();
    let views = stored.iter().map(|(tensor, bytes)| {
        let view = TensorView::new(element.dtype(), tensor.shape.clone(), bytes);
        (&tensor.name, view.expect("bytes of the shape"))
    });
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    write(
        path,
        &safetensors::serialize(views, Some(metadata)).expect("tensors"),
    );
}

/// Writes a file and the folders above it.
pub fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder above")).expect("a folder");
    fs::write(path, bytes).expect("a file");
}

/// How a diffusers folder holds its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// One file for each part.
    Whole(Element),
    /// Files with `fp16` in their names.
    Fp16,
    /// Two files for each part, and an index.
    Sharded,
}

/// Writes the folder that `save_pretrained` writes.
pub fn diffusers(model: &TinyModel, folder: &Path, weights: Weights) {
    for (path, value) in &model.files {
        write(&folder.join(path), value.to_string().as_bytes());
    }
    tokenizer(model, &folder.join("tokenizer"));
    for part in model.parts() {
        let stem = match part.folder {
            "text_encoder" => "model",
            _ => "diffusion_pytorch_model",
        };
        part_weights(part, &folder.join(part.folder), stem, weights);
    }
}

fn part_weights(part: &Part, folder: &Path, stem: &str, weights: Weights) {
    let metadata = [("format", "pt")];
    match weights {
        Weights::Whole(element) => {
            let path = folder.join(format!("{stem}.safetensors"));
            safetensors(&path, &part.tensors, element, &metadata);
        }
        Weights::Fp16 => {
            let path = folder.join(format!("{stem}.fp16.safetensors"));
            safetensors(&path, &part.tensors, Element::F16, &metadata);
        }
        Weights::Sharded => {
            let mut map = Map::new();
            let middle = part.tensors.len() / 2;
            for (number, shard) in [&part.tensors[..middle], &part.tensors[middle..]]
                .into_iter()
                .enumerate()
            {
                let name = format!("{stem}-{:05}-of-00002.safetensors", number + 1);
                safetensors(&folder.join(&name), shard, Element::F32, &metadata);
                for tensor in shard {
                    map.insert(tensor.name.clone(), name.clone().into());
                }
            }
            let total: usize = part.tensors.iter().map(|t| 4 * t.values.len()).sum();
            let index = json!({"metadata": {"total_size": total}, "weight_map": map});
            let path = folder.join(format!("{stem}.safetensors.index.json"));
            write(&path, index.to_string().as_bytes());
        }
    }
}

/// Writes a tokenizer's folder. Stable Diffusion 2 fills prompts with `!`.
pub fn tokenizer(model: &TinyModel, folder: &Path) {
    for name in [
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ] {
        let source = common::fixture("tiny/tokenizer").join(name);
        let mut bytes = fs::read(source).expect("a tokenizer's file");
        if name.ends_with("config.json") || name.starts_with("special") {
            let mut value: Value = serde_json::from_slice(&bytes).expect("JSON");
            if model.text_encoder.key == "openclip" {
                value["pad_token"] = "!".into();
            }
            bytes = value.to_string().into_bytes();
        }
        write(&folder.join(name), &bytes);
    }
}

/// Writes a hub's cache: files under their hashes, and a revision of links to them.
#[cfg(unix)]
pub fn hub_cache(model: &TinyModel, folder: &Path) -> PathBuf {
    let plain = tempfile::tempdir().expect("a temporary folder");
    diffusers(model, plain.path(), Weights::Whole(Element::F32));
    let root = folder.join(format!("models--someone--{}", model.name));
    let revision = "0123456789abcdef0123456789abcdef01234567";
    write(&root.join("refs/main"), revision.as_bytes());
    let mut left = vec![PathBuf::new()];
    let mut number = 0;
    while let Some(inner) = left.pop() {
        for entry in fs::read_dir(plain.path().join(&inner)).expect("a folder") {
            let entry = entry.expect("an entry");
            let inner = inner.join(entry.file_name());
            if entry.path().is_dir() {
                left.push(inner);
                continue;
            }
            number += 1;
            let blob = format!("{number:064x}");
            write(
                &root.join("blobs").join(&blob),
                &fs::read(entry.path()).expect("a file"),
            );
            let link = root.join("snapshots").join(revision).join(&inner);
            fs::create_dir_all(link.parent().expect("a folder above")).expect("a folder");
            let up = "../".repeat(inner.components().count() + 1);
            std::os::unix::fs::symlink(format!("{up}blobs/{blob}"), link).expect("a link");
        }
    }
    root
}

/// The tensors of a single-file checkpoint, and what such files hold besides: a last layer that SD 2 does not use, and
/// tensors that no evaluation needs.
pub fn single_file_tensors(model: &TinyModel) -> Vec<Tensor> {
    let mut tensors: Vec<Tensor> = model
        .parts()
        .into_iter()
        .flat_map(|part| part.original.clone())
        .collect();
    let mut more = |name: &str, shape: &[usize]| {
        tensors.push(Tensor {
            name: name.into(),
            shape: shape.to_vec(),
            values: super::weights::example(name, shape),
        });
    };
    more("alphas_cumprod", &[1000]);
    more("model_ema.decay", &[]);
    more("model_ema.num_updates", &[]);
    if model.text_encoder.key == "openclip" {
        more("cond_stage_model.model.logit_scale", &[]);
        more("cond_stage_model.model.text_projection", &[128, 128]);
        let block = "cond_stage_model.model.transformer.resblocks.";
        let first = format!("{block}0.");
        let last: Vec<_> = tensors
            .iter()
            .filter_map(|tensor| {
                let rest = tensor.name.strip_prefix(&first)?;
                Some(Tensor {
                    name: format!("{block}2.{rest}"),
                    values: vec![0.25; tensor.values.len()],
                    ..tensor.clone()
                })
            })
            .collect();
        tensors.extend(last);
    } else {
        let ids = "cond_stage_model.transformer.text_model.embeddings.position_ids";
        tensors.push(Tensor {
            name: ids.into(),
            shape: vec![1, 77],
            values: (0..77).map(|n| n as f32).collect(),
        });
    }
    tensors
}

/// Writes a single-file checkpoint in the original layout.
pub fn single_file(model: &TinyModel, path: &Path, element: Element) {
    safetensors(path, &single_file_tensors(model), element, &[]);
}

/// Writes a single-file checkpoint as `torch.save` does, below `state_dict`.
pub fn ckpt(model: &TinyModel, path: &Path, element: Element) {
    let file = torch_file::save(&single_file_tensors(model), element);
    write(path, &file);
}
