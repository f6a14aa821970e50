//! Tensors of checkpoint files, where they lie: nothing is read until it is asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::graph::{Weight, WeightData};

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
    /// Free text of the files, such as a LoRA's `ss_network_module`.
    pub metadata: BTreeMap<String, String>,
    /// The files that they were read from.
    pub files: Vec<PathBuf>,
}
