//! PyTorch's files since 1.6: a zip archive with a pickle, `data.pkl`, and an entry `data/<key>` for each storage.
//! Source: `torch/serialization.py`, `_save`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use super::error::{Fault, Place, shortened};
use super::pickle::{self, Id, Tensor, Value, Values};
use super::strided::Strided;
use super::zip::{self, Entry};
use super::{Bytes, ElementType, FileTensor, Tensors, Unread};
use crate::graph::Weight;

/// Tensors of a file.
const MAX_TENSORS: u64 = 1 << 16;
/// Values looked at in search of tensors; one may be reached in several ways.
const MAX_VISITS: u64 = 1 << 20;
/// How deep tensors may lie in containers.
const MAX_DEPTH: usize = 32;
/// Bytes of a tensor's name.
const MAX_NAME: u64 = 1024;
/// Bytes of a text that is kept as metadata; longer ones are left out, as is what exceeds the sum.
const MAX_TEXT: usize = 64 << 10;
const MAX_TEXTS: usize = 1 << 20;
/// Elements of a tensor that repeats those of its storage.
const MAX_REPEATED: u64 = 1 << 20;

/// The tensors of the file `path`, whose contents are `bytes`.
pub(super) fn read(path: &Path, bytes: &Bytes) -> Result<Tensors, Fault> {
    let all = (**bytes).as_ref();
    let archive = Archive::open(all)?;
    let pickle = archive.pickle.clone();
    let values = pickle::read(&all[pickle.clone()], pickle.start)?;
    let found = Search::run(&values)?;

    let mut tensors = Tensors {
        metadata: found.texts,
        ..Tensors::default()
    };
    for (name, kind) in found.tensors {
        let read = match kind {
            Found::Tensor(tensor) => archive.tensor(bytes, &name, tensor)?,
            Found::Unread(kind) => Err(kind),
        };
        match read {
            Ok(weight) => drop(tensors.by_name.insert(name, weight)),
            Err(kind) => {
                let unread = Unread {
                    path: path.to_owned(),
                    element: kind.to_owned(),
                };
                tensors.unread.insert(name, unread);
            }
        }
    }
    Ok(tensors)
}

/// The entries of a file, by what they are for.
struct Archive<'a> {
    pickle: Range<usize>,
    /// By key.
    storages: HashMap<&'a str, Range<usize>>,
}

impl<'a> Archive<'a> {
    fn open(all: &'a [u8]) -> Result<Self, Fault> {
        let entries = zip::entries(all)?;
        let pickles: Vec<&Entry> = entries
            .iter()
            .filter(|entry| matches!(entry.name.split_once('/'), Some((_, "data.pkl"))))
            .collect();
        let [pickle] = pickles[..] else {
            if let Some(second) = pickles.get(1) {
                let reason = "is the second pickle of the archive, which should have one";
                return Err(Fault::damaged(Place::entry(second.name), reason));
            }
            return Err(Fault::Foreign {
                what: "a zip archive without a data.pkl".to_owned(),
                advice: "if the checkpoint is in the archive, unpack it first",
            });
        };
        // All entries are in a folder that is called after the file.
        let folder = &pickle.name[..pickle.name.len() - "data.pkl".len()];
        let inside: Vec<(&str, &Entry)> = entries
            .iter()
            .filter_map(|entry| Some((entry.name.strip_prefix(folder)?, entry)))
            .collect();
        if inside.iter().any(|(name, _)| *name == "constants.pkl") {
            return Err(Fault::Foreign {
                what: "a TorchScript program".to_owned(),
                advice: "save the model's state_dict instead",
            });
        }
        let pickle = pickle.contents()?;
        let mut storages = HashMap::with_capacity(inside.len());
        for (name, entry) in inside {
            if name == "byteorder" {
                check_byte_order(&all[entry.contents()?])?;
            }
            if let Some(key) = name.strip_prefix("data/") {
                storages.insert(key, entry.contents()?);
            }
        }
        Ok(Archive { pickle, storages })
    }

    /// The tensor called `name`, where it lies; the name of its type if that is not read.
    fn tensor<'t>(
        &self,
        bytes: &Bytes,
        name: &str,
        tensor: &Tensor<'t>,
    ) -> Result<Result<Weight, &'t str>, Fault> {
        let wrong = |reason: String| Fault::damaged(Place::tensor(name), reason);
        let storage = tensor.storage;
        let (element, stored) = match (tensor.element, storage.element) {
            (Ok(element), Ok(stored)) => (element, stored),
            (Err(kind), _) | (_, Err(kind)) => return Ok(Err(kind)),
        };
        let range = self.storages.get(storage.key).ok_or_else(|| {
            let key = shortened(storage.key);
            wrong(format!("its storage data/{key} is not in the archive"))
        })?;
        let promised = storage.len.checked_mul(stored.bytes() as u64);
        if promised != Some(range.len() as u64) {
            return Err(wrong(format!(
                "its storage has {} elements of {stored:?}, but its entry {} bytes",
                storage.len,
                range.len()
            )));
        }
        let view = view(tensor, element, range.len() / element.bytes()).map_err(wrong)?;
        let offset = range.start + view.offset * element.bytes();
        let file = |shape| FileTensor::new(bytes.clone(), offset, element, shape);
        let weight = if view.is_dense() {
            file(view.shape).map(Weight::new)
        } else {
            file(vec![view.span])
                .and_then(|span| Strided::new(span, view.shape, view.strides))
                .map(Weight::new)
        };
        match weight {
            Some(weight) => Ok(Ok(weight)),
            None => Err(wrong("does not lie within its storage".to_owned())),
        }
    }
}

fn check_byte_order(order: &[u8]) -> Result<(), Fault> {
    if order == b"little" {
        return Ok(());
    }
    let order = shortened(&String::from_utf8_lossy(&order[..order.len().min(16)]));
    let reason = format!("says {order:?}; only little-endian files are read");
    Err(Fault::damaged(Place::entry("byteorder"), reason))
}

/// Which elements of a storage a tensor has.
struct View {
    offset: usize,
    /// Elements from its first to its last in the storage.
    span: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// Checks a tensor against its storage of `len` elements.
fn view(tensor: &Tensor<'_>, element: ElementType, len: usize) -> Result<View, String> {
    let shape = || shortened(&format!("{:?}", tensor.shape));
    let count = tensor
        .shape
        .iter()
        .try_fold(1u64, |count, size| count.checked_mul(*size))
        .filter(|count| count.checked_mul(element.bytes() as u64).is_some())
        .ok_or_else(|| format!("its shape {} has more elements than can be", shape()))?;
    let last = tensor
        .shape
        .iter()
        .zip(&tensor.strides)
        .try_fold(0u64, |at, (size, stride)| {
            at.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
        });
    let span = match (count, last) {
        (0, _) => Some(0),
        (_, last) => last.and_then(|last| last.checked_add(1)),
    };
    let end = span.and_then(|span| tensor.offset.checked_add(span));
    if end.is_none_or(|end| end > len as u64) {
        return Err(format!(
            "its shape {} with strides {} from element {} on does not fit its storage of {len} elements",
            shape(),
            shortened(&format!("{:?}", tensor.strides)),
            tensor.offset
        ));
    }
    if count > (len as u64).max(MAX_REPEATED) {
        return Err(format!(
            "its shape {} repeats the {len} elements of its storage too often",
            shape()
        ));
    }
    let sizes = |all: &[u64]| {
        all.iter()
            .map(|n| usize::try_from(*n).unwrap_or(usize::MAX))
            .collect()
    };
    Ok(View {
        offset: tensor.offset as usize,
        span: span.unwrap_or(0) as usize,
        shape: sizes(&tensor.shape),
        strides: sizes(&tensor.strides),
    })
}

impl View {
    /// Whether the elements lie one after the other, row-major.
    fn is_dense(&self) -> bool {
        let mut next = 1;
        self.shape.contains(&0)
            || self
                .shape
                .iter()
                .zip(&self.strides)
                .rev()
                .filter(|(size, _)| **size != 1)
                .all(|(size, stride)| {
                    let dense = *stride == next;
                    next *= size;
                    dense
                })
    }
}

/// A tensor of a pickle.
#[derive(Clone, Copy)]
enum Found<'v, 'a> {
    Tensor(&'v Tensor<'a>),
    Unread(&'a str),
}

/// The tensors and the texts of a pickle, by the names that [`super::open`] documents.
struct Search<'v, 'a> {
    values: &'v Values<'a>,
    tensors: BTreeMap<String, Found<'v, 'a>>,
    texts: BTreeMap<String, String>,
    /// Bytes of the texts.
    text_bytes: usize,
    visits: u64,
}

impl<'v, 'a> Search<'v, 'a> {
    fn run(values: &'v Values<'a>) -> Result<Self, Fault> {
        let mut search = Search {
            values,
            tensors: BTreeMap::new(),
            texts: BTreeMap::new(),
            text_bytes: 0,
            visits: 0,
        };
        let Some(root) = search.entries(values.root()) else {
            return Err(Fault::Foreign {
                what: "a PyTorch file that holds no dictionary of tensors".to_owned(),
                advice: "save the model's state_dict",
            });
        };
        let state_dict = values
            .entry(root, "state_dict")
            .filter(|id| search.entries(*id).is_some());
        match state_dict {
            Some(state_dict) => {
                search.visit("", state_dict, 0)?;
                // Beside it lie the optimizer's tensors, which nobody wants, and texts.
                for (key, value) in root {
                    if let Some(name) = search.name("", *key)?
                        && !search.is_container(*value)
                    {
                        search.text(name, *value);
                    }
                }
            }
            None => search.visit("", values.root(), 0)?,
        }
        Ok(search)
    }

    /// The entries of a dictionary, or the parameters of a module.
    fn entries(&self, id: Id) -> Option<&'v [(Id, Id)]> {
        let dict = match self.values.get(id) {
            Value::Module(Some(state)) => match self.values.get(*state) {
                Value::Dict(state) => self.values.entry(state, "_parameters")?,
                _ => return None,
            },
            _ => id,
        };
        match self.values.get(dict) {
            Value::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    fn is_container(&self, id: Id) -> bool {
        matches!(self.values.get(id), Value::List(_)) || self.entries(id).is_some()
    }

    fn visit(&mut self, name: &str, id: Id, depth: usize) -> Result<(), Fault> {
        self.visits += 1;
        let place = || Place::tensor(name);
        Fault::limit(place, "values in its containers", self.visits, MAX_VISITS)?;
        Fault::limit(
            place,
            "containers around it",
            depth as u64,
            MAX_DEPTH as u64,
        )?;
        let found = match self.values.get(id) {
            Value::Tensor(tensor) => Found::Tensor(tensor),
            Value::UnreadTensor(kind) => Found::Unread(kind),
            Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.visit(&join(name, &i.to_string()), *item, depth + 1)?;
                }
                return Ok(());
            }
            _ => {
                match self.entries(id) {
                    Some(entries) => {
                        for (key, value) in entries {
                            if let Some(name) = self.name(name, *key)? {
                                self.visit(&name, *value, depth + 1)?;
                            }
                        }
                    }
                    None => self.text(name.to_owned(), id),
                }
                return Ok(());
            }
        };
        // Python's dictionaries keep the last value of a key, and so does this.
        self.tensors.insert(name.to_owned(), found);
        let count = self.tensors.len() as u64;
        Fault::limit(|| Place::tensor(name), "tensors", count, MAX_TENSORS).map(drop)
    }

    /// The name of what lies under `key`, if it is a text or a number.
    fn name(&self, outer: &str, key: Id) -> Result<Option<String>, Fault> {
        let number;
        let key = match self.values.get(key) {
            Value::Text(text) => *text,
            Value::Int(n) => {
                number = n.to_string();
                &number
            }
            _ => return Ok(None),
        };
        let len = (outer.len() + key.len() + 1) as u64;
        Fault::limit(|| Place::tensor(key), "bytes of its name", len, MAX_NAME)?;
        Ok(Some(join(outer, key)))
    }

    /// Notes a text, a number or a truth value.
    fn text(&mut self, name: String, id: Id) {
        let text = match self.values.get(id) {
            Value::Text(text) if text.len() <= MAX_TEXT => (*text).to_owned(),
            Value::Int(n) => n.to_string(),
            Value::Float(x) => x.to_string(),
            Value::Bool(b) => b.to_string(),
            _ => return,
        };
        let bytes = name.len() + text.len();
        if self.text_bytes + bytes <= MAX_TEXTS {
            self.text_bytes += bytes;
            self.texts.insert(name, text);
        }
    }
}

fn join(outer: &str, key: &str) -> String {
    match outer {
        "" => key.to_owned(),
        _ => format!("{outer}.{key}"),
    }
}
