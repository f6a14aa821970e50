//! Checkpoints as people download them: what is recognised, what is refused and how that is told.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_package::Package;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

use super::COMPILE;
use super::common::command::{fails, kiln, names, succeeds};
use super::common::fixture;

/// Name, shape, elements.
type Tensor = (String, Vec<usize>, Vec<f32>);

/// A folder with the tiny model as diffusers saves it, of links as in a hub's cache.
fn diffusers() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("model");
    fs::create_dir(&model).expect("a folder");
    for part in ["tokenizer", "scheduler", "model_index.json"] {
        symlink(fixture("tiny").join(part), model.join(part)).expect("a link");
    }
    for part in ["text_encoder", "unet", "vae"] {
        let from = fixture("tiny/weights").join(part);
        fs::create_dir(model.join(part)).expect("a folder");
        for name in names(&from) {
            symlink(from.join(&name), model.join(part).join(&name)).expect("a link");
        }
    }
    folder
}

const UNET: &str = "model/unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "model/vae/diffusion_pytorch_model.safetensors";

fn read(path: &Path) -> Vec<Tensor> {
    let bytes = fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = |(name, view): (String, TensorView<'_>)| {
        let data = match view.dtype() {
            Dtype::F32 => view
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
            Dtype::F16 => {
                let values = view.data().as_chunks::<2>().0.iter();
                values
                    .map(|b| half::f16::from_le_bytes(*b).to_f32())
                    .collect()
            }
            other => panic!("{name} is {other:?}"),
        };
        (name, view.shape().to_vec(), data)
    };
    file.tensors().into_iter().map(tensor).collect()
}

fn write(path: &Path, tensors: &[Tensor]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, data)| data.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor");
        (name.as_str(), view)
    });
    // A link is replaced, not followed.
    let _ = fs::remove_file(path);
    fs::write(
        path,
        safetensors::serialize(views, None).expect("safetensors"),
    )
    .expect("a file");
}

fn zeros(name: &str, shape: &[usize]) -> Tensor {
    (
        name.into(),
        shape.to_vec(),
        vec![0.0; shape.iter().product()],
    )
}

fn package(path: &Path) -> (serde_json::Value, serde_json::Value) {
    let bytes = fs::read(path).expect("a package");
    let package = Package::open(&bytes).expect("a package");
    let json = |text: &str| serde_json::from_str(text).expect("JSON");
    (json(package.card()), json(package.scheduler()))
}

#[test]
fn a_folder_is_recognised_in_a_hubs_cache_and_out_of_it() {
    let folder = diffusers();
    let folder = folder.path();
    succeeds(folder, &COMPILE);
    let (card, scheduler) = package(&folder.join("model.kiln"));
    assert_eq!(
        (card["name"].as_str(), scheduler["prediction_type"].as_str()),
        (Some("model"), Some("epsilon"))
    );
    let sources = card["sources"].as_array().expect("sources");
    let unet = sources
        .iter()
        .find(|file| file["path"] == "unet/diffusion_pytorch_model.safetensors");
    assert_eq!(
        unet.and_then(|file| file["sha256"].as_str()).map(str::len),
        Some(64)
    );

    let cache = folder.join("models--owner--tiny");
    fs::create_dir_all(cache.join("snapshots")).expect("a folder");
    fs::create_dir(cache.join("refs")).expect("a folder");
    fs::write(cache.join("refs/main"), "0123abcd").expect("a file");
    fs::create_dir(cache.join("snapshots/ffff")).expect("a folder");
    fs::rename(folder.join("model"), cache.join("snapshots/0123abcd")).expect("a folder");
    succeeds(
        folder,
        &["compile", "models--owner--tiny", "-o", "cache.kiln", "-q"],
    );
    assert_eq!(package(&folder.join("cache.kiln")).0["name"], "owner/tiny");
    fs::remove_file(cache.join("refs/main")).expect("a file");
    fails(
        folder,
        &["compile", "models--owner--tiny", "-o", "x.kiln"],
        1,
        &[
            "models--owner--tiny",
            "several revisions",
            "snapshots/0123abcd",
        ],
    );
}

#[test]
fn weights_may_be_half_or_in_several_files() {
    let folder = diffusers();
    let folder = folder.path();
    succeeds(folder, &[&COMPILE[..], &["--precision", "f32"]].concat());
    let whole = fs::read(folder.join("model.kiln")).expect("a package");
    let weights = |bytes: &[u8]| Package::open(bytes).expect("a package").weights().to_vec();

    let tensors = read(&folder.join(UNET));
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let shards = [
        "unet-00001-of-00002.safetensors",
        "unet-00002-of-00002.safetensors",
    ];
    let mut map = serde_json::Map::new();
    for (shard, tensors) in shards.iter().zip([first, second]) {
        write(&folder.join("model/unet").join(shard), tensors);
        map.extend(
            tensors
                .iter()
                .map(|(name, ..)| (name.clone(), (*shard).into())),
        );
    }
    fs::remove_file(folder.join(UNET)).expect("a link");
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    fs::write(folder.join(format!("{UNET}.index.json")), index).expect("a file");
    fs::rename(
        folder.join(VAE),
        folder.join(VAE.replace(".safe", ".fp16.safe")),
    )
    .expect("a link");
    succeeds(folder, &[&COMPILE[..], &["--precision", "f32"]].concat());
    let sharded = fs::read(folder.join("model.kiln")).expect("a package");
    assert!(weights(&sharded) == weights(&whole));

    fs::remove_file(folder.join("model/unet").join(shards[1])).expect("a file");
    fails(folder, &COMPILE, 1, &[shards[1], "No such file"]);
    fs::remove_file(folder.join(format!("{UNET}.index.json"))).expect("a file");
    fails(folder, &COMPILE, 1, &["model/unet", "holds no weights"]);
}

#[test]
fn other_models_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let checkpoint = "model.diffusion_model.input_blocks.0.0.weight";
    for (tensors, parts) in [
        (
            vec![
                zeros("conditioner.embedders.1.model.ln_final.weight", &[4]),
                zeros(checkpoint, &[4]),
            ],
            &["a Stable Diffusion XL model"][..],
        ),
        (
            vec![zeros("conditioner.embedders.0.model.ln_final.weight", &[4])],
            &["a Stable Diffusion XL refiner"],
        ),
        (
            vec![zeros(
                "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
                &[4],
            )],
            &["a Stable Diffusion 3 model"],
        ),
        (
            vec![zeros("double_blocks.0.img_mod.lin.weight", &[4])],
            &["a Flux model"],
        ),
        (
            vec![zeros("clip_txt_mapper.weight", &[4])],
            &["a Stable Cascade model"],
        ),
        (
            vec![zeros("adaln_single.linear.weight", &[4])],
            &["a PixArt model"],
        ),
        (
            vec![zeros(
                "model.diffusion_model.input_blocks.1.1.time_stack.0.norm1.weight",
                &[4],
            )],
            &["a Stable Video Diffusion model"],
        ),
        (
            vec![zeros("control_model.zero_convs.0.0.weight", &[4])],
            &["a ControlNet"],
        ),
        (
            vec![zeros("lora_unet_mid_block_proj.lora_up.weight", &[4, 1])],
            &["a LoRA, not a model", "--lora"],
        ),
        (
            vec![zeros("emb_params", &[2, 768])],
            &[
                "an embedding (textual inversion), not a model",
                "--embedding",
            ],
        ),
        (
            vec![zeros("input_blocks.0.0.weight", &[4])],
            &["a UNet alone, not a model", "--unet"],
        ),
        (
            vec![zeros("decoder.up.0.block.0.conv1.weight", &[4])],
            &["a VAE alone, not a model", "--vae"],
        ),
        (
            vec![zeros("text_model.embeddings.token_embedding.weight", &[4])],
            &["a text encoder alone", "--text-encoder"],
        ),
        (
            vec![zeros("taesd_decoder.1.weight", &[4])],
            &["TAESD", "--taesd"],
        ),
        (
            vec![zeros("layer.weight", &[4, 4, 3])],
            &["not those of a model that Kiln knows"],
        ),
    ] {
        write(&folder.join("other.safetensors"), &tensors);
        let parts = [&["other.safetensors"], parts].concat();
        fails(
            folder,
            &["compile", "other.safetensors", "-o", "x.kiln"],
            1,
            &parts,
        );
    }
    fs::write(folder.join("other.gguf"), b"GGUF\x03\0\0\0\0\0\0\0").expect("a file");
    fails(
        folder,
        &["compile", "other.gguf", "-o", "x.kiln"],
        1,
        &["other.gguf", "GGUF"],
    );

    for (index, what) in [
        (
            r#"{"_class_name": "StableDiffusionXLPipeline"}"#,
            "a Stable Diffusion XL model",
        ),
        (
            r#"{"_class_name": "StableDiffusion3Pipeline"}"#,
            "a Stable Diffusion 3 model",
        ),
        (r#"{"_class_name": "FluxPipeline"}"#, "a Flux model"),
        (
            r#"{"_class_name": "New", "text_encoder_2": ["transformers", "X"]}"#,
            "a model with two text encoders",
        ),
        (
            r#"{"_class_name": "New", "transformer": ["diffusers", "X"]}"#,
            "a diffusion transformer",
        ),
    ] {
        fs::create_dir_all(folder.join("other")).expect("a folder");
        fs::write(folder.join("other/model_index.json"), index).expect("a file");
        fails(
            folder,
            &["compile", "other", "-o", "x.kiln"],
            1,
            &["other", what],
        );
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let folder = diffusers();
    let folder = folder.path();
    let whole = read(&folder.join(UNET));
    let with = |change: &dyn Fn(&mut Vec<Tensor>)| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        write(&folder.join(UNET), &tensors);
    };
    with(&|tensors| {
        tensors.retain(|(name, ..)| name != "conv_in.bias");
        tensors.push(zeros("another.weight", &[2]));
        tensors.push(zeros("position_ids", &[2]));
    });
    fails(
        folder,
        &COMPILE,
        1,
        &[
            "model/unet: UNet: 1 tensor(s) missing: conv_in.bias; 1 tensor(s) that the model has no place for: another.weight",
        ],
    );
    with(&|tensors| tensors.retain(|(name, ..)| !name.starts_with("down_blocks.0.")));
    fails(folder, &COMPILE, 1, &["missing: down_blocks.0.", "more"]);
    with(&|tensors| {
        tensors.retain(|(name, ..)| name != "conv_in.bias");
        tensors.push(zeros("conv_in.bias", &[7]));
    });
    fails(
        folder,
        &COMPILE,
        1,
        &["model/unet", "conv_in.bias is [7], the model needs ["],
    );

    // The configuration says what the model needs, whatever the tensors are.
    fs::copy(
        fixture("tiny/weights/unet/config.json"),
        folder.join("config.json"),
    )
    .expect("a file");
    let text = fs::read_to_string(folder.join("config.json")).expect("a configuration");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config["addition_embed_type"] = "text_time".into();
    fs::remove_file(folder.join("model/unet/config.json")).expect("a link");
    fs::write(folder.join("model/unet/config.json"), config.to_string()).expect("a file");
    fails(
        folder,
        &COMPILE,
        1,
        &[
            "model/unet/config.json",
            "addition_embed_type is \"text_time\"",
        ],
    );
}

#[test]
fn damaged_files_and_wrong_folders_are_named() {
    let folder = diffusers();
    let folder = folder.path();
    let bytes = fs::read(folder.join(UNET)).expect("a file");
    fs::remove_file(folder.join(UNET)).expect("a link");
    for cut in [bytes.len() - 1, bytes.len() / 2, 9, 0] {
        fs::write(folder.join(UNET), &bytes[..cut]).expect("a file");
        fails(folder, &COMPILE, 1, &[UNET]);
    }
    fs::write(folder.join(UNET), &bytes).expect("a file");
    fails(
        folder,
        &["compile", "model/unet", "-o", "x.kiln"],
        1,
        &["model/unet", "the folder above it"],
    );
    fails(
        folder,
        &["compile", UNET, "-o", "x.kiln"],
        1,
        &["a UNet alone", "--unet"],
    );
    fails(
        folder,
        &["compile", "nowhere.safetensors", "-o", "x.kiln"],
        1,
        &["nowhere.safetensors", "No such file"],
    );
    fs::create_dir(folder.join("downloads")).expect("a folder");
    fails(
        folder,
        &["compile", "downloads", "-o", "x.kiln"],
        1,
        &["downloads", "model_index.json"],
    );
    fs::write(folder.join("downloads/a.safetensors"), b"").expect("a file");
    fails(
        folder,
        &["compile", "downloads", "-o", "x.kiln"],
        1,
        &["is a.safetensors in it meant?"],
    );
    fs::remove_dir_all(folder.join("model/vae")).expect("a folder");
    fails(
        folder,
        &COMPILE,
        1,
        &["model: there is no VAE: give one with --vae or --taesd"],
    );
    fails(
        folder,
        &[&COMPILE[..], &["--vae", UNET]].concat(),
        1,
        &[UNET, "a UNet alone, not a VAE"],
    );
}

#[test]
fn parts_of_their_own_make_the_same_model() {
    let folder = diffusers();
    let folder = folder.path();
    succeeds(folder, &[&COMPILE[..], &["--precision", "f32"]].concat());
    let parts = [
        "compile",
        "--unet",
        "model/unet",
        "--text-encoder",
        "model/text_encoder/model.safetensors",
        "--vae",
        VAE,
        "--tokenizer",
        "model/tokenizer",
        "-o",
        "parts.kiln",
        "--precision",
        "f32",
    ];
    succeeds(folder, &parts);
    let weights = |name: &str| {
        let bytes = fs::read(folder.join(name)).expect("a package");
        Package::open(&bytes).expect("a package").weights().to_vec()
    };
    assert!(weights("parts.kiln") == weights("model.kiln"));
    fails(folder, &parts[..3], 2, &["--output"]);
    fails(
        folder,
        &["compile", "--unet", "model/unet", "-o", "x.kiln"],
        1,
        &["there is no text encoder", "--text-encoder"],
    );
    fails(folder, &["compile", "-o", "x.kiln"], 2, &["SOURCE"]);
}

#[test]
fn what_the_unet_predicts_can_be_told() {
    let folder = diffusers();
    let folder = folder.path();
    succeeds(folder, &[&COMPILE[..], &["--prediction", "v"]].concat());
    assert_eq!(
        package(&folder.join("model.kiln")).1["prediction_type"],
        "v_prediction"
    );
    fails(
        folder,
        &[&COMPILE[..], &["--prediction", "x0"]].concat(),
        2,
        &["--prediction", "epsilon or v"],
    );
    let onnx = super::tiny("ts17");
    fails(
        onnx.path(),
        &[&COMPILE[..], &["--vae", "a"]].concat(),
        2,
        &["ONNX", "--vae"],
    );
}

#[test]
fn random_models_have_names() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    fails(
        folder,
        &["compile", "random:sd9", "-o", "x.kiln"],
        2,
        &["random:sd9", "sd15", "bk-sdm-tiny"],
    );
    fails(
        folder,
        &["compile", "random:sd15", "--vae", "a", "-o", "x.kiln"],
        2,
        &["random:sd15", "--vae"],
    );
}

/// A signal in the middle of the work ends it, with nothing left behind.
#[test]
fn an_interrupted_compilation_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("kiln"))
        .args([
            "compile",
            "random:bk-sdm-tiny",
            "-o",
            "x.kiln",
            "--precision",
            "f16",
            "-q",
        ])
        .current_dir(folder)
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let start = Instant::now();
    while names(folder).is_empty() {
        assert!(
            start.elapsed() < Duration::from_secs(300),
            "nothing was written"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.expect("kill").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert_eq!(names(folder), Vec::<String>::new());
}

#[test]
fn help_names_the_sources() {
    let help = kiln(Path::new("."), &["compile", "--help"]);
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    for word in ["random:NAME", "--unet", "--taesd", "--lora", "--prediction"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
