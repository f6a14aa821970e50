//! The files of the folder: found, read, and noted for the card.

use super::super::SourceFile;
use super::OnnxError;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

const LAYOUT: &str = "an ONNX folder holds text_encoder/, unet/, vae_decoder/ with model.onnx and config.json, tokenizer/ \
                      and scheduler/, and may hold vae_encoder/";

pub(super) struct Folder {
    path: PathBuf,
    files: BTreeSet<PathBuf>,
}

impl Folder {
    pub fn open(path: &Path) -> Result<Self, OnnxError> {
        match path.metadata() {
            Ok(found) if found.is_dir() => Ok(Folder {
                path: path.to_owned(),
                files: BTreeSet::new(),
            }),
            Ok(_) => Err(OnnxError::Malformed {
                path: path.to_owned(),
                reason: format!("is no folder; {LAYOUT}"),
            }),
            Err(source) => Err(OnnxError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// The folder's own name.
    pub fn name(&self) -> String {
        let full = self
            .path
            .canonicalize()
            .unwrap_or_else(|_| self.path.clone());
        full.file_name()
            .map_or_else(String::new, |n| n.to_string_lossy().into_owned())
    }

    /// Notes that a file was read.
    pub fn note(&mut self, path: &Path) {
        self.files.insert(path.to_owned());
    }

    /// The model file of a part.
    pub fn model(&self, part: &str) -> Result<PathBuf, OnnxError> {
        let path = self.path.join(part).join("model.onnx");
        match path.metadata() {
            Ok(_) => Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(OnnxError::Missing {
                path,
                layout: LAYOUT,
            }),
            Err(source) => Err(OnnxError::Read { path, source }),
        }
    }

    pub fn optional_text(&mut self, name: &str) -> Result<Option<(PathBuf, String)>, OnnxError> {
        let path = self.path.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                self.note(&path);
                Ok(Some((path, text)))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(OnnxError::Read { path, source }),
        }
    }

    pub fn text(&mut self, name: &str) -> Result<(PathBuf, String), OnnxError> {
        let missing = OnnxError::Missing {
            path: self.path.join(name),
            layout: LAYOUT,
        };
        self.optional_text(name)?.ok_or(missing)
    }

    /// A configuration file; an empty one when it is not there.
    pub fn config(&mut self, name: &str) -> Result<Config, OnnxError> {
        match self.optional_text(name)? {
            Some((path, text)) => Config::parse(&path, &text),
            None => Ok(Config {
                path: self.path.join(name),
                values: Map::new(),
            }),
        }
    }

    /// Every file noted, with its hash.
    pub fn into_files(self) -> Result<Vec<SourceFile>, OnnxError> {
        let file = |path: &PathBuf| {
            File::open(path)
                .and_then(|contents| SourceFile::of(&self.path, path, contents))
                .map_err(|source| OnnxError::Read {
                    path: path.clone(),
                    source,
                })
        };
        self.files.iter().map(file).collect()
    }
}

/// A configuration file's values.
pub(super) struct Config {
    path: PathBuf,
    values: Map<String, Value>,
}

impl Config {
    pub fn parse(path: &Path, text: &str) -> Result<Self, OnnxError> {
        let malformed = |reason: String| OnnxError::Malformed {
            path: path.to_owned(),
            reason,
        };
        match serde_json::from_str(text) {
            Ok(Value::Object(values)) => Ok(Config {
                path: path.to_owned(),
                values,
            }),
            Ok(_) => Err(malformed("is no JSON object".into())),
            Err(e) => Err(malformed(e.to_string())),
        }
    }

    fn get<T>(
        &self,
        key: &str,
        kind: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, OnnxError> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| OnnxError::Malformed {
                path: self.path.clone(),
                reason: format!("{key} is {value}, expected {kind}"),
            }),
        }
    }

    pub fn size(&self, key: &str) -> Result<Option<usize>, OnnxError> {
        self.get(key, "a size", size)
    }

    /// One size for both directions, or height and width.
    pub fn picture(&self, key: &str) -> Result<Option<[usize; 2]>, OnnxError> {
        self.get(key, "a size", |v| match v.as_array().map(Vec::as_slice) {
            Some([h, w]) => Some([size(h)?, size(w)?]),
            Some(_) => None,
            None => size(v).map(|n| [n, n]),
        })
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, OnnxError> {
        self.get(key, "a number", |v| v.as_f64().filter(|n| *n > 0.0))
    }
}

fn size(value: &Value) -> Option<usize> {
    value
        .as_u64()
        .filter(|n| (1..=1 << 16).contains(n))
        .and_then(|n| usize::try_from(n).ok())
}
