//! One model from all layouts: the same programs, the same weights, the same tokenizer.

use std::path::{Path, PathBuf};

use kiln_compiler::CompileOptions;
use kiln_compiler::frontend::source::Prediction;
use kiln_package::Package;

use super::compiled::{compile, options};
use super::layouts::{self, Element, Weights};
use super::model::TinyModel;

/// Compiles the model from every other layout and compares with `package`.
pub fn compare(model: &TinyModel, package: &Path, folder: &Path) {
    let expected = Contents::read(package);
    let output = folder.join("other.kiln");
    let check = |layout: &str, options: &CompileOptions| {
        compile(options);
        Contents::read(&output).check(&expected, &format!("{}, {layout}", model.name));
    };

    for (layout, weights) in [
        ("bfloat16", Weights::Whole(Element::Bf16)),
        ("fp16", Weights::Fp16),
        ("sharded", Weights::Sharded),
    ] {
        let source = folder.join(layout);
        layouts::diffusers(model, &source, weights);
        check(layout, &options(&source, &output));
    }
    #[cfg(unix)]
    {
        let source = layouts::hub_cache(model, folder);
        check("hub cache", &options(&source, &output));
    }
    for element in [Element::F32, Element::F16, Element::Bf16] {
        // A name that says nothing.
        let source = folder.join(format!("{element:?}.weights"));
        layouts::single_file(model, &source, element);
        let layout = format!("single file, {element:?}");
        check(&layout, &single_file(model, &source, &output));
    }
    let source = folder.join("model.ckpt");
    layouts::ckpt(model, &source, Element::F16);
    check("ckpt", &single_file(model, &source, &output));
}

/// Options for a model in one file, which has no room for a tokenizer, nor for what the UNet predicts. The vocabulary that
/// comes with Kiln is too large for the tiny models.
pub fn single_file(model: &TinyModel, source: &Path, output: &Path) -> CompileOptions {
    let tokenizer = source.with_extension("tokenizer");
    layouts::tokenizer(model, &tokenizer);
    let mut options = options(source, output);
    options.changes.tokenizer = Some(tokenizer);
    if model.text_encoder.key == "openclip" {
        options.changes.prediction = Some(match model.name.as_str() {
            "sd2" => Prediction::Velocity,
            _ => Prediction::Epsilon,
        });
    }
    if model.vae.key == "taesd" {
        options.changes.taesd = Some(taesd(model, source));
    }
    options
}

/// The tiny autoencoder as its makers publish it, in a file for each half; gives the decoder's.
fn taesd(model: &TinyModel, source: &Path) -> PathBuf {
    let mut files = ["encoder", "decoder"].map(|half| {
        let path = source.with_file_name(format!("taesd_{half}.safetensors"));
        let prefix = format!("{half}.");
        let tensors = model.vae.original.iter().filter_map(|tensor| {
            let mut tensor = tensor.clone();
            tensor.name = tensor.name.strip_prefix(&prefix)?.to_owned();
            Some(tensor)
        });
        let tensors: Vec<_> = tensors.collect();
        layouts::safetensors(&path, &tensors, Element::F32, &[]);
        path
    });
    std::mem::take(&mut files[1])
}

/// A package without its card.
#[derive(PartialEq)]
struct Contents {
    programs: Vec<String>,
    weights: Vec<u8>,
    tokenizer: Vec<u8>,
    prediction: String,
}

impl Contents {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("a package");
        let package = Package::open(&bytes).expect("a package");
        let programs = package.programs().map(|program| {
            let head = format!(
                "{} {:?} {}x{} arena {} scratch {} pinned {} chunks {}",
                program.graph(),
                program.stage(),
                program.height(),
                program.width(),
                program.arena_bytes(),
                program.thread_scratch_bytes(),
                program.pinned_bytes(),
                program.max_chunks(),
            );
            let ports = program.inputs().chain(program.outputs());
            let ports = ports.map(|port| format!("{port:?}"));
            let steps = program.steps().map(|step| {
                let operands: Vec<_> = step.operands().collect();
                format!("{} {:?} {operands:?}", step.name(), step.op())
            });
            let lines: Vec<String> = [head].into_iter().chain(ports).chain(steps).collect();
            lines.join("\n")
        });
        let scheduler: serde_json::Value =
            serde_json::from_str(package.scheduler()).expect("a scheduler");
        Contents {
            programs: programs.collect(),
            weights: package.weights().to_vec(),
            tokenizer: package.tokenizer().to_vec(),
            prediction: scheduler["prediction_type"].to_string(),
        }
    }

    fn check(&self, expected: &Self, what: &str) {
        assert_eq!(self.programs.len(), expected.programs.len(), "{what}");
        for (found, expected) in self.programs.iter().zip(&expected.programs) {
            assert_eq!(found, expected, "{what}");
        }
        assert!(self.weights == expected.weights, "{what}: other weights");
        assert!(
            self.tokenizer == expected.tokenizer,
            "{what}: another tokenizer"
        );
        assert_eq!(self.prediction, expected.prediction, "{what}");
    }
}
