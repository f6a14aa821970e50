//! Tensors of checkpoint files, where they lie: nothing is read until it is asked for.

mod error;
mod index;
mod kind;
mod pickle;
mod safetensors;
mod strided;
#[cfg(test)]
mod tests;
mod torch;
mod zip;

pub use error::{Fault, Place, ReadError};

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::graph::{Weight, WeightData};
use kind::Kind;

/// The bytes of a file, mapped or read. The compiler has no unsafe code, so whoever calls it maps.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Opens a file as bytes.
pub type OpenFile = fn(&Path) -> io::Result<Bytes>;

/// Reads a file into memory: an [`OpenFile`] where nothing can be mapped.
pub fn read_file(path: &Path) -> io::Result<Bytes> {
    Ok(Arc::new(std::fs::read(path)?))
}

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ElementType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl ElementType {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            ElementType::F64 | ElementType::I64 => 8,
            ElementType::F32 | ElementType::I32 => 4,
            ElementType::F16 | ElementType::BF16 | ElementType::I16 => 2,
            ElementType::I8 | ElementType::U8 | ElementType::Bool => 1,
        }
    }
}

/// A tensor in a file: dense, row-major, little-endian. Its range has been checked against the file.
#[derive(Clone)]
pub struct FileTensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Type of the elements.
    pub element: ElementType,
    bytes: Bytes,
    offset: usize,
}

impl FileTensor {
    /// The tensor at `offset` of `bytes`; `None` if it does not lie within, or has more elements than can be counted.
    pub fn new(
        bytes: Bytes,
        offset: usize,
        element: ElementType,
        shape: Vec<usize>,
    ) -> Option<Self> {
        let len = shape
            .iter()
            .try_fold(element.bytes(), |len, size| len.checked_mul(*size))?;
        let end = offset.checked_add(len)?;
        (end <= (*bytes).as_ref().len()).then_some(FileTensor {
            shape,
            element,
            bytes,
            offset,
        })
    }

    /// The elements' bytes.
    pub fn bytes(&self) -> &[u8] {
        let len = self.shape.iter().product::<usize>() * self.element.bytes();
        &(*self.bytes).as_ref()[self.offset..self.offset + len]
    }
}

impl WeightData for FileTensor {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn read(&self) -> Cow<'_, [f32]> {
        let bytes = self.bytes();
        fn each<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            let (chunks, _) = bytes.as_chunks();
            chunks.iter().map(|chunk| convert(*chunk)).collect()
        }
        let values = match self.element {
            ElementType::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            ElementType::F32 => each(bytes, f32::from_le_bytes),
            ElementType::F16 => each(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            ElementType::BF16 => each(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            ElementType::I64 => each(bytes, |b| i64::from_le_bytes(b) as f32),
            ElementType::I32 => each(bytes, |b| i32::from_le_bytes(b) as f32),
            ElementType::I16 => each(bytes, |b| f32::from(i16::from_le_bytes(b))),
            ElementType::I8 => each(bytes, |b| f32::from(i8::from_le_bytes(b))),
            ElementType::U8 | ElementType::Bool => each(bytes, |[b]: [u8; 1]| f32::from(b)),
        };
        values.into()
    }
}

/// Named tensors of one file or of several, sorted by name.
#[derive(Clone, Default)]
pub struct Tensors {
    /// What they are called and what they are. Files give [`FileTensor`]s; whoever renames, cuts or merges them puts
    /// weights of its own in their place.
    pub by_name: BTreeMap<String, Weight>,
    /// Tensors of types that are not read. Most checkpoints that have any have them beside those that matter; see
    /// [`Tensors::check_read`].
    pub unread: BTreeMap<String, Unread>,
    /// Free text of the files, such as a LoRA's `ss_network_module`.
    pub metadata: BTreeMap<String, String>,
    /// The files that they were read from.
    pub files: Vec<PathBuf>,
}

/// A tensor of a type that is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The file that holds it.
    pub path: PathBuf,
    /// Its type in the file's words, such as `F8_E4M3`.
    pub element: String,
}

impl Tensors {
    /// An error for the first tensor, by name, that is `wanted` and of a type that is not read. To be asked before a
    /// tensor is said to be missing.
    pub fn check_read(&self, wanted: impl Fn(&str) -> bool) -> Result<(), ReadError> {
        match self.unread.iter().find(|(name, _)| wanted(name)) {
            Some((name, unread)) => {
                let fault = Fault::Unsupported {
                    tensor: error::shortened(name),
                    element: unread.element.clone(),
                };
                Err(fault.of(&unread.path))
            }
            None => Ok(()),
        }
    }
}

/// Reads what tensors a checkpoint file holds, and where. What it is, is seen by its contents, never by its name:
///
/// - a `safetensors` file; its metadata are kept;
/// - PyTorch's format since 1.6 (`.ckpt`, `.pt`, `.pth`, `.bin`), of which nothing is executed. The root must be a
///   dictionary; if it has a `state_dict`, that is taken in its place, and of what lies beside it only texts, numbers and truth
///   values. A tensor's name is its keys joined with dots, so a plain state dict keeps its names, and a textual inversion
///   has `string_to_param.*`. Places in a list count as keys. Texts, numbers and truth values go into
///   [`Tensors::metadata`] under names made alike, such as `name`, `global_step` and `string_to_token.*`;
/// - the index of a checkpoint in several files, as [`open_index`] reads it.
///
/// Tensors that share their elements, and those that do not lie row-major, are given as they are meant. Elements are not
/// looked at; all else is checked against the file, so that reading a tensor cannot fail.
pub fn open(path: &Path, open_file: OpenFile) -> Result<Tensors, ReadError> {
    let bytes = bytes_of(path, open_file)?;
    match kind_of(path, &bytes)? {
        Kind::Json => index::read(path, &bytes, open_file),
        kind => read(path, &bytes, kind),
    }
}

/// Reads a checkpoint in several files from its index, such as `model.safetensors.index.json`. The files that it names must lie
/// in its folder or below it; symbolic links are followed. Tensors of those files that the index does not name are left
/// out, one that it names and that is not there is an error.
pub fn open_index(path: &Path, open_file: OpenFile) -> Result<Tensors, ReadError> {
    let bytes = bytes_of(path, open_file)?;
    index::read(path, &bytes, open_file)
}

/// As [`open`], but no index.
fn open_tensors(path: &Path, open_file: OpenFile) -> Result<Tensors, ReadError> {
    let bytes = bytes_of(path, open_file)?;
    let kind = kind_of(path, &bytes)?;
    read(path, &bytes, kind)
}

fn bytes_of(path: &Path, open_file: OpenFile) -> Result<Bytes, ReadError> {
    open_file(path).map_err(|error| Fault::Io(error).of(path))
}

fn kind_of(path: &Path, bytes: &Bytes) -> Result<Kind, ReadError> {
    kind::recognise((**bytes).as_ref()).map_err(|fault| fault.of(path))
}

fn read(path: &Path, bytes: &Bytes, kind: Kind) -> Result<Tensors, ReadError> {
    let tensors = match kind {
        Kind::Safetensors => safetensors::read(path, bytes),
        Kind::Zip => torch::read(path, bytes),
        Kind::Json => Err(Fault::Foreign {
            what: "JSON text".to_owned(),
            advice: "it is named where a file of tensors is expected",
        }),
    };
    let mut tensors = tensors.map_err(|fault| fault.of(path))?;
    tensors.files = vec![path.to_owned()];
    Ok(tensors)
}
