//! Reading the fixtures.

pub mod command;
pub mod toy;

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;

/// A file or folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Compiles models/emoji in f32 into a folder and gives the package's path.
#[cfg(feature = "onnx")]
pub fn emoji(folder: &Path) -> PathBuf {
    let (source, path) = (fixture("../../models/emoji"), folder.join("emoji.kiln"));
    let mut options = kiln_compiler::CompileOptions::new(source, &path);
    options.precision = kiln_compiler::plan::Precision::F32;
    kiln_compiler::compile(&options, &mut |_| ()).expect("a package");
    path
}

/// A JSON fixture.
pub fn json<T: DeserializeOwned>(name: &str) -> T {
    let path = fixture(name);
    let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A safetensors fixture.
pub struct Tensors(Vec<u8>);

impl Tensors {
    pub fn read(name: &str) -> Self {
        let path = fixture(name);
        Self(fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// The shape and the values of a tensor of `f32` or `f16`.
    pub fn get(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values = match tensor.dtype() {
            Dtype::F32 => tensor
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Dtype::F16 => tensor
                .data()
                .chunks_exact(2)
                .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            other => panic!("{name} is {other:?}"),
        };
        (tensor.shape().to_vec(), values)
    }

    /// The values of a tensor of `f32` or `f16`.
    pub fn values(&self, name: &str) -> Vec<f32> {
        self.get(name).1
    }

    /// The values of a tensor of `i64`.
    pub fn integers(&self, name: &str) -> Vec<i64> {
        let file = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype(), Dtype::I64, "{name}");
        tensor
            .data()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b))
            .collect()
    }
}

/// The largest difference, as a share of the largest expected value.
pub fn relative_error(actual: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    assert!(actual.iter().all(|x| x.is_finite()), "not finite");
    let largest = expected
        .iter()
        .fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
    actual
        .iter()
        .zip(expected)
        .fold(0.0, |m: f32, (a, b)| m.max((a - b).abs()))
        / largest
}
