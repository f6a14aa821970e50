//! `kiln compile`: from ONNX folders to packages that compute what PyTorch computed; other sources are in `cli_compile/`.

#![cfg(all(feature = "onnx", unix))]

#[allow(dead_code)]
mod common;
#[path = "cli_compile/sources.rs"]
mod sources;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::command::{fails, names, succeeds};
use common::{Tensors, fixture, relative_error};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

const PARTS: [&str; 4] = ["text_encoder", "unet", "vae_decoder", "vae_encoder"];

/// A folder with a tiny model of an exporter's dialect, put together of links as a hub's cache is.
fn tiny(variant: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("model");
    fs::create_dir(&model).expect("a folder");
    for shared in ["tokenizer", "scheduler", "model_index.json"] {
        symlink(fixture("tiny").join(shared), model.join(shared)).expect("a link");
    }
    for part in PARTS {
        symlink(fixture("tiny").join(variant).join(part), model.join(part)).expect("a link");
    }
    folder
}

const COMPILE: [&str; 4] = ["compile", "model", "-o", "model.kiln"];

/// One graph's reference inputs as `kiln run` takes them. Returns the file and the name and values of the output.
fn inputs(folder: &Path, graph: &str) -> (PathBuf, &'static str, Vec<f32>) {
    let file = Tensors::read("tiny/reference.safetensors");
    let (inputs, output): (&[&str], _) = match graph {
        "text_encoder" => (&["input_ids"], "last_hidden_state"),
        "unet" => (
            &["sample", "timestep", "encoder_hidden_states"],
            "out_sample",
        ),
        "vae_decoder" => (&["latents"], "sample"),
        _ => (&["image"], "moments"),
    };
    let tensors: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = inputs
        .iter()
        .map(|&name| match name {
            "input_ids" | "timestep" => {
                let numbers = file.integers(&format!("{graph}.{name}"));
                let shape = if name == "timestep" {
                    vec![1]
                } else {
                    vec![1, numbers.len()]
                };
                (
                    name,
                    Dtype::I64,
                    shape,
                    numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
                )
            }
            _ => {
                let (shape, values) = file.get(&format!("{graph}.{name}"));
                (
                    name,
                    Dtype::F32,
                    shape,
                    values.iter().flat_map(|x| x.to_le_bytes()).collect(),
                )
            }
        })
        .collect();
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (
            *name,
            TensorView::new(*dtype, shape.clone(), data).expect("a tensor"),
        )
    });
    let path = folder.join(format!("{graph}.safetensors"));
    fs::write(
        &path,
        safetensors::serialize(views, None).expect("safetensors"),
    )
    .expect("a file");
    (path, output, file.values(&format!("{graph}.{output}")))
}

#[test]
fn every_dialect_computes_what_pytorch_computed() {
    for variant in ["ts14", "ts17", "dyn18", "dyn20", "old14"] {
        let folder = tiny(variant);
        let folder = folder.path();
        let said = succeeds(folder, &[&COMPILE[..], &["--precision", "f32"]].concat());
        assert!(
            said.starts_with("model.kiln (") && said.ends_with(", f32, 32x32)\n"),
            "{said}"
        );
        succeeds(folder, &["verify", "model.kiln"]);
        for graph in PARTS {
            let (path, output, expected) = inputs(folder, graph);
            let path = path.to_str().expect("UTF-8");
            succeeds(
                folder,
                &[
                    "run",
                    "model.kiln",
                    "--graph",
                    graph,
                    "--inputs",
                    path,
                    "--output",
                    "out.safetensors",
                ],
            );
            let bytes = fs::read(folder.join("out.safetensors")).expect("outputs");
            let outputs = SafeTensors::deserialize(&bytes).expect("safetensors");
            let data = outputs.tensor(output).expect("the output").data();
            let actual: Vec<f32> = data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect();
            let error = relative_error(&actual, &expected);
            assert!(error < 1e-4, "{variant} {graph}: {error:e}");
        }
    }
}

#[test]
fn sizes_become_programs_and_the_first_is_the_default() {
    let folder = tiny("ts17");
    let folder = folder.path();
    succeeds(folder, &[&COMPILE[..], &["--size", "48x24,32x32"]].concat());
    let said = succeeds(
        folder,
        &[
            "draw",
            "a red apple",
            "-m",
            "model.kiln",
            "--steps",
            "2",
            "--json",
            "-o",
            "x.png",
        ],
    );
    assert!(
        said.contains(r#""width":48"#) && said.contains(r#""height":24"#),
        "{said}"
    );
    succeeds(
        folder,
        &[
            "draw",
            "a red apple",
            "-m",
            "model.kiln",
            "--steps",
            "2",
            "--size",
            "32x32",
            "-o",
            "x.png",
        ],
    );
    fails(
        folder,
        &["draw", "cat", "-m", "model.kiln", "--size", "24x48"],
        2,
        &["24x48", "48x24", "32x32"],
    );
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    let folder = tiny("dyn18");
    let folder = folder.path();
    succeeds(folder, &COMPILE);
    let first = fs::read(folder.join("model.kiln")).expect("a package");
    // Through a link, which stays.
    symlink("other.kiln", folder.join("link.kiln")).expect("a link");
    fs::write(folder.join("other.kiln"), b"old").expect("a file");
    succeeds(folder, &["compile", "model", "-o", "link.kiln", "--quiet"]);
    assert!(folder.join("link.kiln").is_symlink());
    assert_eq!(fs::read(folder.join("other.kiln")).ok(), Some(first));
}

#[test]
fn passes_can_be_looked_at() {
    let folder = tiny("ts17");
    let folder = folder.path();
    let before = succeeds(folder, &["compile", "model", "--stop-after", "0"]);
    let after = succeeds(folder, &["compile", "model", "--stop-after", "3"]);
    let dumped = succeeds(
        folder,
        &[&COMPILE[..], &["--dump", "fuse-group-norm", "-q"]].concat(),
    );
    for text in [&before, &after, &dumped] {
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with("# after "))
                .count(),
            4,
            "{text}"
        );
    }
    // The first three passes fuse the norms, which the frontend does not know.
    assert!(!before.contains("= source_group_norm ") && after.contains("= source_group_norm "));
    assert_eq!(after, dumped);
    assert_eq!(names(folder), ["model", "model.kiln"]);
}

#[test]
fn bad_command_lines_are_refused_before_anything_is_read() {
    let folder = tiny("ts17");
    let folder = folder.path();
    for (more, parts) in [
        (&["--size", "100x64"][..], &["100x64", "8"][..]),
        (&["--size", "64"], &["--size", "WIDTHxHEIGHT"]),
        (
            &["--precision", "int4"],
            &["--precision", "int8, f16 or f32"],
        ),
        (
            &["--dump", "fuse-everything"],
            &["fuse-everything", "fuse-attention"],
        ),
        (&["--stop-after", "99"], &["99"]),
    ] {
        fails(folder, &[&COMPILE[..], more].concat(), 2, parts);
    }
    fails(folder, &["compile", "model"], 2, &["--output"]);
    fails(
        folder,
        &["compile", "model", "-o", "missing/model.kiln"],
        1,
        &["missing/model.kiln", "No such file"],
    );
    fails(
        folder,
        &["compile", "model", "-o", "model"],
        1,
        &["model", "folder"],
    );
    assert!(
        Command::new("mkfifo")
            .arg(folder.join("pipe"))
            .status()
            .expect("mkfifo")
            .success()
    );
    fails(
        folder,
        &["compile", "model", "-o", "pipe"],
        1,
        &["pipe", "not a plain file"],
    );
}

#[test]
fn bad_folders_are_refused_and_named() {
    let folder = tiny("ts17");
    let folder = folder.path();
    fails(
        folder,
        &["compile", "nowhere", "-o", "x.kiln"],
        1,
        &["nowhere"],
    );
    fs::create_dir(folder.join("empty")).expect("a folder");
    fails(folder, &["compile", "empty", "-o", "x.kiln"], 1, &["empty"]);

    let unet = folder.join("model/unet");
    fs::remove_file(&unet).expect("a link");
    fails(folder, &COMPILE, 1, &["unet"]);
    fs::create_dir(&unet).expect("a folder");
    fs::copy(
        fixture("tiny/ts17/unet/config.json"),
        unet.join("config.json"),
    )
    .expect("a file");
    fails(folder, &COMPILE, 1, &["unet/model.onnx"]);
    fs::write(unet.join("model.onnx"), b"not a protobuf").expect("a file");
    fails(folder, &COMPILE, 1, &["unet/model.onnx"]);
    let onnx = fs::read(fixture("tiny/ts17/unet/model.onnx")).expect("a model");
    fs::write(unet.join("model.onnx"), &onnx[..onnx.len() / 2]).expect("a file");
    fails(folder, &COMPILE, 1, &["unet/model.onnx"]);
    for refused in [
        "qdq",
        "fp16",
        "opset23",
        "control_flow",
        "lstm",
        "unsupported",
    ] {
        fs::copy(
            fixture("refused").join(refused).join("model.onnx"),
            unet.join("model.onnx"),
        )
        .expect("a file");
        fails(folder, &COMPILE, 1, &["unet"]);
    }
    fs::write(unet.join("model.onnx"), &onnx).expect("a file");
    succeeds(folder, &COMPILE);
}

/// A limit on file sizes fails a write in the middle of the file, as a full disk does.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_old_package() {
    let folder = tiny("ts17");
    let folder = folder.path();
    fs::write(folder.join("model.kiln"), b"old").expect("a file");
    let command = assert_cmd::cargo::cargo_bin!("kiln").display().to_string();
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec {command} {}",
        COMPILE.join(" ")
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder)
        .output()
        .expect("sh");
    let line = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(
        line.starts_with("kiln: model.kiln: ") && line.contains("File too large"),
        "{line}"
    );
    assert_eq!(names(folder), ["model", "model.kiln"]);
    assert_eq!(
        fs::read(folder.join("model.kiln")).ok().as_deref(),
        Some(&b"old"[..])
    );
}
