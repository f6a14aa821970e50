//! The tiny models: configuration files and tensors, in the names of diffusers and in those of the original layout.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::common;
use super::weights::values;

/// A dense tensor.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A part of a model.
#[derive(Clone)]
pub struct Part {
    /// Its folder in diffusers' layout.
    pub folder: &'static str,
    /// What the fixtures call it.
    pub key: String,
    /// Under the names of diffusers or transformers.
    pub tensors: Vec<Tensor>,
    /// As a single-file checkpoint has them, prefix included.
    pub original: Vec<Tensor>,
}

/// A model of the fixtures.
#[derive(Clone)]
pub struct TinyModel {
    pub name: String,
    /// The configuration files of a diffusers folder, by path.
    pub files: BTreeMap<String, Value>,
    pub text_encoder: Part,
    pub unet: Part,
    pub vae: Part,
}

#[derive(Deserialize)]
struct ModelFile {
    files: BTreeMap<String, Value>,
    parts: PartNames,
}

#[derive(Deserialize)]
struct PartNames {
    text_encoder: String,
    unet: String,
    vae: String,
}

#[derive(Deserialize)]
struct PartFile {
    base: Option<String>,
    modules: Vec<Module>,
    original: Vec<Joined>,
}

/// A module, the shape of its weight, whether it has a bias, its name in the original layout, the weight's shape there.
#[derive(Clone)]
struct Module {
    name: String,
    shape: Vec<usize>,
    bias: bool,
    original: Option<String>,
    original_shape: Option<Vec<usize>>,
}

impl<'de> Deserialize<'de> for Module {
    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let row = Vec::<Value>::deserialize(source)?;
        let field = |i: usize| row.get(i).cloned().unwrap_or(Value::Null);
        let wrong = serde::de::Error::custom;
        Ok(Module {
            name: serde_json::from_value(field(0)).map_err(wrong)?,
            shape: serde_json::from_value(field(1)).map_err(wrong)?,
            bias: serde_json::from_value(field(2)).map_err(wrong)?,
            original: serde_json::from_value(field(3)).map_err(wrong)?,
            original_shape: serde_json::from_value(field(4)).map_err(wrong)?,
        })
    }
}

/// A tensor of the original layout that several of ours are put together in.
#[derive(Deserialize)]
struct Joined(String, Vec<usize>, Vec<String>);

fn modules(key: &str) -> (Vec<Module>, Vec<Joined>) {
    let file: PartFile = common::json(&format!("checkpoints/parts/{key}.json"));
    let mut modules = file.modules;
    if let Some(base) = file.base {
        for module in self::modules(&base).0 {
            if modules.iter().all(|own| own.name != module.name) {
                modules.push(module);
            }
        }
    }
    (modules, file.original)
}

/// The prefix of a part in a single file.
fn prefix(folder: &str, key: &str) -> &'static str {
    match (folder, key) {
        ("unet", _) => "model.diffusion_model.",
        ("vae", "taesd") => "",
        ("vae", _) => "first_stage_model.",
        (_, "openclip") => "cond_stage_model.model.",
        _ => "cond_stage_model.transformer.",
    }
}

impl Part {
    fn read(folder: &'static str, key: &str) -> Self {
        let (modules, joined) = modules(key);
        let prefix = prefix(folder, key);
        let (mut tensors, mut original) = (Vec::new(), Vec::new());
        let tensor = |name: String, shape: Vec<usize>| Tensor {
            values: values(&format!("{folder}.{name}"), &shape),
            name,
            shape,
        };
        for module in &modules {
            let rename = |kind: &str, shape: &[usize], tensor: &Tensor| {
                module.original.as_ref().map(|name| Tensor {
                    name: format!("{prefix}{name}.{kind}"),
                    shape: shape.to_vec(),
                    ..tensor.clone()
                })
            };
            let weight = tensor(format!("{}.weight", module.name), module.shape.clone());
            let shape = module.original_shape.as_ref().unwrap_or(&module.shape);
            original.extend(rename("weight", shape, &weight));
            tensors.push(weight);
            if module.bias {
                let bias = tensor(format!("{}.bias", module.name), vec![module.shape[0]]);
                original.extend(rename("bias", &bias.shape, &bias));
                tensors.push(bias);
            }
        }
        for Joined(name, shape, parts) in joined {
            let part = |name: &String| {
                let found = tensors.iter().find(|tensor| tensor.name == *name);
                &found.expect("a tensor of the part").values
            };
            original.push(Tensor {
                name: format!("{prefix}{name}"),
                shape,
                values: parts.iter().flat_map(part).copied().collect(),
            });
        }
        Part {
            folder,
            key: key.to_owned(),
            tensors,
            original,
        }
    }

    /// A tensor of the part.
    pub fn tensor_mut(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        found.expect("a tensor of the part")
    }
}

impl TinyModel {
    /// The model of that name among the fixtures.
    pub fn read(name: &str) -> Self {
        let file: ModelFile = common::json(&format!("checkpoints/{name}.json"));
        TinyModel {
            name: name.to_owned(),
            files: file.files,
            text_encoder: Part::read("text_encoder", &file.parts.text_encoder),
            unet: Part::read("unet", &file.parts.unet),
            vae: Part::read("vae", &file.parts.vae),
        }
    }

    /// Its parts.
    pub fn parts(&self) -> [&Part; 3] {
        [&self.text_encoder, &self.unet, &self.vae]
    }
}
