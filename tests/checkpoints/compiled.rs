//! Compiling the tiny models.

use std::path::{Path, PathBuf};

use kiln_compiler::CompileOptions;
use kiln_compiler::plan::Precision;

use super::layouts::{self, Element, Weights};
use super::model::TinyModel;

/// Widths and heights of pictures: latents of 8x8, and of odd sizes.
pub const SIZES: [(usize, usize); 2] = [(64, 64), (104, 72)];

/// How the tests compile: in f32, for both sizes.
pub fn options(source: &Path, output: &Path) -> CompileOptions {
    let mut options = CompileOptions::new(source, output);
    options.precision = Precision::F32;
    options.sizes = SIZES.to_vec();
    options
}

/// Compiles, or fails with the compiler's error.
pub fn compile(options: &CompileOptions) {
    if let Err(error) = kiln_compiler::compile(options, &mut |_| ()) {
        panic!("{:?}: {error}", options.source);
    }
}

/// The package of a model's diffusers folder.
pub fn from_folder(model: &TinyModel, folder: &Path) -> PathBuf {
    let source = folder.join(&model.name);
    layouts::diffusers(model, &source, Weights::Whole(Element::F32));
    let output = folder.join("folder.kiln");
    compile(&options(&source, &output));
    output
}

/// The package in 8 bits of the folder that [`from_folder`] has written.
pub fn int8(model: &TinyModel, folder: &Path) -> PathBuf {
    let output = folder.join("int8.kiln");
    let mut options = options(&folder.join(&model.name), &output);
    options.precision = Precision::Int8;
    compile(&options);
    output
}
