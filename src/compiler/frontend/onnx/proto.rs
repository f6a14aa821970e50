//! The ONNX file before it is imported: where its weights lie, which part of it is wanted, what its layers are called.

use super::OnnxError;
use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto};
use tract_onnx::prelude::Framework;

/// A model file, its external weights found.
pub(super) struct Model {
    pub path: PathBuf,
    pub proto: ModelProto,
    /// The folder that the locations of external weights are relative to.
    pub root: String,
    /// Every file read or to be read: the model, then its external weights.
    pub files: Vec<PathBuf>,
}

impl Model {
    pub fn load(path: &Path) -> Result<Self, OnnxError> {
        let read = |source| OnnxError::Read {
            path: path.to_owned(),
            source,
        };
        let target = path.canonicalize().map_err(read)?;
        let proto = tract_onnx::onnx()
            .proto_model_for_path(&target)
            .map_err(|e| OnnxError::Malformed {
                path: path.to_owned(),
                reason: format!("is no ONNX model ({e})"),
            })?;
        Self::new(path, &target, proto)
    }

    /// The model in the file `path`, which may be a link to `target`.
    pub fn new(path: &Path, target: &Path, proto: ModelProto) -> Result<Self, OnnxError> {
        let root = target
            .ancestors()
            .last()
            .unwrap_or(Path::new("/"))
            .to_string_lossy()
            .into_owned();
        let mut model = Model {
            path: path.to_owned(),
            proto,
            root,
            files: vec![path.to_owned()],
        };
        super::refuse::check(&model.proto, path)?;
        model.find_weights(target)?;
        Ok(model)
    }

    pub fn graph(&self) -> &GraphProto {
        // `refuse::check` has seen that there is one.
        static EMPTY: std::sync::LazyLock<GraphProto> =
            std::sync::LazyLock::new(GraphProto::default);
        self.proto.graph.as_ref().unwrap_or(&EMPTY)
    }

    fn malformed(&self, reason: String) -> OnnxError {
        OnnxError::Malformed {
            path: self.path.clone(),
            reason,
        }
    }

    /// Makes every external weight's location one below `root`. A model file in a hub's cache is a link, and so is each
    /// data file beside it: a location is looked up beside the link, then beside the link's target.
    fn find_weights(&mut self, target: &Path) -> Result<(), OnnxError> {
        let mut proto = std::mem::take(&mut self.proto);
        let folders =
            [self.path.parent(), target.parent()].map(|p| p.unwrap_or(Path::new("")).to_owned());
        let mut found: HashMap<String, PathBuf> = HashMap::new();
        for tensor in proto.graph.iter_mut().flat_map(|g| &mut g.initializer) {
            if tensor.data_location != Some(DataLocation::External as i32) {
                if tensor.data_type == DataType::Bfloat16 as i32 {
                    let words: Vec<u16> = if tensor.raw_data.is_empty() {
                        tensor.int32_data.iter().map(|w| *w as u16).collect()
                    } else {
                        tensor
                            .raw_data
                            .chunks_exact(2)
                            .map(|b| u16::from_le_bytes([b[0], b[1]]))
                            .collect()
                    };
                    widen(tensor, words);
                }
                continue;
            }
            let entry = |key: &str| {
                tensor
                    .external_data
                    .iter()
                    .find(|e| e.key == key)
                    .map(|e| e.value.clone())
            };
            let location = entry("location").ok_or_else(|| {
                self.malformed(format!(
                    "weight {:?} is external but has no location",
                    tensor.name
                ))
            })?;
            let inside = Path::new(&location)
                .components()
                .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
            if !inside {
                let name = &tensor.name;
                return Err(self.malformed(format!(
                    "weight {name:?} lies at {location:?}, outside the model's folder"
                )));
            }
            let file = match found.get(&location) {
                Some(file) => file.clone(),
                None => {
                    let beside = folders
                        .iter()
                        .map(|f| f.join(&location))
                        .find(|p| p.exists());
                    let beside = beside.ok_or_else(|| OnnxError::Missing {
                        path: folders[0].join(&location),
                        layout: "the model's weights are in this file",
                    })?;
                    let read = |source| OnnxError::Read {
                        path: beside.clone(),
                        source,
                    };
                    let file = beside.canonicalize().map_err(read)?;
                    self.files.push(beside);
                    found.insert(location.clone(), file.clone());
                    file
                }
            };
            let number = |key: &str| match entry(key) {
                Some(text) => {
                    let wrong =
                        || self.malformed(format!("weight {:?}: {key} is {text:?}", tensor.name));
                    text.parse::<u64>().map(Some).map_err(|_| wrong())
                }
                None => Ok(None),
            };
            let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
            let size = file
                .metadata()
                .map_err(|source| OnnxError::Read {
                    path: file.clone(),
                    source,
                })?
                .len();
            let end = offset.checked_add(length.unwrap_or(size.saturating_sub(offset)));
            if end.is_none_or(|end| end > size || offset > size) {
                let reason = format!(
                    "weight {:?} should lie at byte {offset} of {size}",
                    tensor.name
                );
                return Err(OnnxError::Malformed { path: file, reason });
            }
            if tensor.data_type == DataType::Bfloat16 as i32 {
                let end = end.unwrap_or(size);
                let bytes = read_range(&file, offset, end)
                    .map_err(|source| OnnxError::Read { path: file, source })?;
                widen(
                    tensor,
                    bytes
                        .chunks_exact(2)
                        .map(|b| u16::from_le_bytes([b[0], b[1]]))
                        .collect(),
                );
                continue;
            }
            let relative = file
                .strip_prefix(&self.root)
                .unwrap_or(&file)
                .to_string_lossy()
                .into_owned();
            tensor.external_data.retain(|e| e.key != "location");
            tensor.external_data.push(StringStringEntryProto {
                key: "location".into(),
                value: relative,
            });
        }
        self.proto = proto;
        Ok(())
    }

    /// Keeps what computes one value and makes it the only output. Inputs that it does not read go too.
    pub fn keep(&mut self, output: &str) {
        let Some(graph) = self.proto.graph.as_mut() else {
            return;
        };
        let mut wanted: HashSet<String> = HashSet::from([output.to_owned()]);
        let mut kept: Vec<NodeProto> = Vec::new();
        for node in std::mem::take(&mut graph.node).into_iter().rev() {
            if node.output.iter().any(|o| wanted.contains(o)) {
                wanted.extend(node.input.iter().cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        graph.node = kept;
        graph.initializer.retain(|t| wanted.contains(&t.name));
        graph.input.retain(|i| wanted.contains(&i.name));
        let info = graph.output.iter().find(|o| o.name == output).cloned();
        let info = info.unwrap_or_else(|| tract_onnx::pb::ValueInfoProto {
            name: output.into(),
            ..Default::default()
        });
        graph.output = vec![info];
    }

    /// Where a variational encoder's graph holds the moments: its output, or, if it goes on to draw a sample, what
    /// is split into mean and log-variance before that.
    pub fn moments(&self) -> Result<String, OnnxError> {
        let graph = self.graph();
        let output = graph
            .output
            .first()
            .ok_or_else(|| self.malformed("the graph has no output".into()))?
            .name
            .clone();
        let producers: HashMap<&str, &NodeProto> = graph
            .node
            .iter()
            .flat_map(|n| n.output.iter().map(move |o| (o.as_str(), n)))
            .collect();
        let draws = |n: &&NodeProto| {
            matches!(
                n.op_type.as_str(),
                "RandomNormalLike" | "RandomNormal" | "Exp"
            )
        };
        if !graph.node.iter().any(|n| draws(&n)) {
            return Ok(output);
        }
        let (mut pending, mut seen, mut split) = (vec![output], HashSet::new(), HashSet::new());
        while let Some(value) = pending.pop() {
            let Some(node) = producers
                .get(value.as_str())
                .filter(|n| seen.insert(n.output[0].clone()))
            else {
                continue;
            };
            match node.op_type.as_str() {
                "Split" | "Slice" => split.extend(node.input.first().cloned()),
                _ => pending.extend(node.input.iter().cloned()),
            }
        }
        match (split.len(), split.into_iter().next()) {
            (1, Some(value)) => Ok(value),
            _ => Err(self.malformed(
                "draws a sample, but not from one value split into mean and log-variance".into(),
            )),
        }
    }

    /// Layer names by node name, as far as the weights of a node tell: `node_conv2d_8` reads
    /// `down_blocks.1.resnets.0.conv_shortcut.weight`.
    pub fn layer_names(&self) -> HashMap<String, String> {
        let graph = self.graph();
        let initializers: HashSet<&str> =
            graph.initializer.iter().map(|t| t.name.as_str()).collect();
        let producers: HashMap<&str, &NodeProto> = graph
            .node
            .iter()
            .flat_map(|n| n.output.iter().map(move |o| (o.as_str(), n)))
            .collect();
        let layer = |value: &str| {
            let mut value = value;
            for _ in 0..8 {
                if initializers.contains(value) {
                    let layer = value
                        .strip_suffix(".weight")
                        .or(value.strip_suffix(".bias"))?;
                    return layer
                        .contains(|c: char| c.is_ascii_alphabetic())
                        .then(|| layer.to_owned());
                }
                let node = producers.get(value)?;
                if !["Cast", "Transpose", "Identity", "Reshape", "Unsqueeze"]
                    .contains(&node.op_type.as_str())
                {
                    return None;
                }
                value = node.input.first()?;
            }
            None
        };
        let mut names = HashMap::new();
        for node in &graph.node {
            if let Some(layer) = node.input.iter().find_map(|i| layer(i)) {
                names.insert(node.name.clone(), layer.clone());
                // A product's bias is added by the node after it, and the exporter gives the layer's name to one of both.
                for input in &node.input {
                    if let Some(product) = producers
                        .get(input.as_str())
                        .filter(|p| p.op_type == "MatMul")
                    {
                        names
                            .entry(product.name.clone())
                            .or_insert_with(|| layer.clone());
                    }
                }
            }
        }
        names
    }
}

fn widen(tensor: &mut TensorProto, words: Vec<u16>) {
    tensor.raw_data = words
        .iter()
        .flat_map(|w| (u32::from(*w) << 16).to_le_bytes())
        .collect();
    tensor.int32_data.clear();
    tensor.external_data.clear();
    tensor.data_location = None;
    tensor.data_type = DataType::Float as i32;
}

fn read_range(path: &Path, start: u64, end: u64) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(end - start).read_to_end(&mut bytes)?;
    Ok(bytes)
}
