//! Puts the package that the command carries into `OUT_DIR/model.kiln`: the model under `models/emoji`, compiled here and
//! now, or the one that `KILN_MODEL` names.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=KILN_MODEL");
    let output =
        PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("model.kiln");
    if let Err(error) = embed(&output) {
        println!("cargo::error={}", error.replace('\n', " "));
    }
}

fn embed(output: &std::path::Path) -> Result<(), String> {
    let wanted = cfg!(any(feature = "embedded-model", feature = "prebuilt-model"));
    match env::var_os("KILN_MODEL").map(PathBuf::from) {
        Some(ready) if wanted => {
            println!("cargo::rerun-if-changed={}", ready.display());
            let copied = std::fs::copy(&ready, output);
            copied
                .map(|_| ())
                .map_err(|error| format!("KILN_MODEL={}: {error}", ready.display()))
        }
        None if wanted => compile(output),
        _ => Ok(()),
    }
}

#[cfg(feature = "embedded-model")]
fn compile(output: &std::path::Path) -> Result<(), String> {
    use kiln_host_compiler::{CompileOptions, compile};

    for part in [
        "card.json",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "unet",
        "vae_decoder",
        "vae_encoder",
    ] {
        println!("cargo::rerun-if-changed=models/emoji/{part}");
    }
    let options = CompileOptions::new("models/emoji", output);
    compile(&options, &mut |_| {})
        .map(|_| ())
        .map_err(|error| format!("models/emoji: {error}"))
}

#[cfg(not(feature = "embedded-model"))]
fn compile(_: &std::path::Path) -> Result<(), String> {
    Err("the feature prebuilt-model needs KILN_MODEL=FILE.kiln, an absolute path".into())
}
