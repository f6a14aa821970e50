//! What is told of a package and done with its graphs: `info`, `bench`, `run`.

use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use super::common::command::{fails, folder, succeeds};
use super::common::toy;

#[test]
fn info_tells_the_model_its_sizes_and_the_memory() {
    let folder = folder();
    toy::write(folder.path());
    let said = succeeds(folder.path(), &["info", "toy.kiln"]);
    for part in [
        "toy",
        "draws noise",
        "MIT OR Apache-2.0",
        "text_encoder",
        "unet",
        "vae_decoder",
        "vae_encoder",
        "64x64",
        "96x64",
        "at most",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let object: Value =
        serde_json::from_str(&succeeds(folder.path(), &["info", "--json", "toy.kiln"]))
            .expect("JSON");
    assert_eq!(object["card"]["name"], "toy");
    assert_eq!(object["graphs"].as_array().map(Vec::len), Some(7));
    for size in object["sizes"].as_array().expect("sizes") {
        let bytes = |key: &str| size[key].as_u64().expect("bytes");
        assert_eq!(
            bytes("total_bytes"),
            bytes("arena_bytes") + bytes("scratch_bytes") + bytes("weight_bytes")
        );
        // The decoder's output alone is 3 planes of f32.
        assert!(bytes("arena_bytes") >= bytes("width") * bytes("height") * 12);
    }
    let unet = object["graphs"]
        .as_array()
        .and_then(|graphs| graphs.iter().find(|graph| graph["graph"] == "unet"));
    assert_eq!(
        unet.expect("a unet")["inputs"]["sample"],
        json!([1, 4, 8, 8])
    );
    fails(
        folder.path(),
        &["info", "--json", "--plan", "toy.kiln"],
        2,
        &["--plan"],
    );
}

#[test]
fn info_draws_the_arena() {
    let folder = folder();
    toy::write(folder.path());
    let said = succeeds(folder.path(), &["info", "--plan", "toy.kiln"]);
    let unet: Vec<&str> = said
        .lines()
        .skip_while(|line| !line.starts_with("unet 64x64"))
        .skip(1)
        .take(26)
        .collect();
    // Three steps: the second writes the attention, the third the output; the sample is there from the beginning.
    assert!(unet[0].ends_with("|  █"), "{said}");
    assert!(unet[23].ends_with("|███"), "{said}");
    assert!(unet[25].contains("at step 1 (attention)"), "{said}");
}

#[test]
fn bench_measures_every_graph() {
    let folder = folder();
    toy::write(folder.path());
    let said = succeeds(
        folder.path(),
        &[
            "bench",
            "toy.kiln",
            "--json",
            "--runs",
            "2",
            "--threads",
            "2",
            "--lanes",
            "2",
        ],
    );
    let object: Value = serde_json::from_str(&said).expect("JSON");
    let graphs: Vec<&String> = object.as_object().expect("an object").keys().collect();
    assert_eq!(
        graphs,
        ["text_encoder", "unet", "vae_decoder", "vae_encoder"]
    );
    for (name, graph) in object.as_object().expect("an object") {
        assert!(graph["seconds"].as_f64().is_some_and(|s| s > 0.0), "{name}");
        assert!(
            graph["arena_bytes"].as_u64().is_some_and(|n| n > 0),
            "{name}"
        );
    }
    // 64 pixels, 77 tokens, two products of 4 columns; 64 rows of 4 by 4; twice.
    assert_eq!(object["unet"]["macs"], 2 * (64 * 77 * 2 * 4 + 64 * 4 * 4));
    assert_eq!(object["unet"]["operators"]["Attention"]["count"], 1);
    for (name, graph) in object.as_object().expect("an object") {
        let kinds = graph["operators"].as_object().expect("an object").values();
        let seconds = kinds.filter_map(|kind| kind["seconds"].as_f64());
        let sum = seconds.sum::<f64>() + graph["between_seconds"].as_f64().expect("a number");
        let whole = graph["seconds"].as_f64().expect("a number");
        assert!((sum / whole - 1.0).abs() < 1e-3, "{name}: {sum} of {whole}");
    }
    let said = succeeds(
        folder.path(),
        &["bench", "toy.kiln", "--repeat", "1", "--layers", "2"],
    );
    assert!(said.contains("GMAC/s") && said.contains("unet_2_lanes"));
    let said = succeeds(
        folder.path(),
        &[
            "bench", "toy.kiln", "--runs", "1", "--graph", "unet", "--json",
        ],
    );
    let object: Value = serde_json::from_str(&said).expect("JSON");
    let graphs: Vec<&String> = object.as_object().expect("an object").keys().collect();
    assert_eq!(graphs, ["unet", "unet_2_lanes"]);
    assert_eq!(
        object["unet"]["macs"].as_u64().map(|macs| 2 * macs),
        object["unet_2_lanes"]["macs"].as_u64()
    );
    fails(
        folder.path(),
        &["bench", "toy.kiln", "--graph", "nothing"],
        2,
        &["--graph", "unet"],
    );
    fails(
        folder.path(),
        &["bench", "toy.kiln", "--size", "8x8"],
        2,
        &["8x8", "64x64, 96x64"],
    );
    fails(
        folder.path(),
        &["bench", "toy.kiln", "--lanes", "3"],
        2,
        &["--lanes"],
    );
}

/// A safetensors file of zeros.
fn tensors(path: &Path, tensors: &[(&str, Dtype, &[usize])]) {
    let zeros = vec![0; 1 << 20];
    let views = tensors.iter().map(|&(name, dtype, shape)| {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        (
            name,
            TensorView::new(dtype, shape.to_vec(), &zeros[..bytes]).expect("a tensor"),
        )
    });
    fs::write(
        path,
        safetensors::serialize(views, None).expect("safetensors"),
    )
    .expect("a file");
}

const UNET: [(&str, Dtype, &[usize]); 3] = [
    ("sample", Dtype::F32, &[1, 4, 8, 12]),
    ("timestep", Dtype::F32, &[1]),
    ("encoder_hidden_states", Dtype::F32, &[1, 77, 8]),
];

fn run(graph: &str) -> [&str; 8] {
    [
        "run",
        "toy.kiln",
        "--graph",
        graph,
        "--inputs",
        "in.safetensors",
        "--output",
        "out.safetensors",
    ]
}

#[test]
fn run_chooses_the_program_by_the_shapes() {
    let folder = folder();
    toy::write(folder.path());
    let input = folder.path().join("in.safetensors");
    for (graph, inputs, output, shape) in [
        (
            "text_encoder",
            &[("input_ids", Dtype::I64, &[1, 77][..])][..],
            "last_hidden_state",
            &[1, 77, 8][..],
        ),
        (
            "text_encoder",
            &[("input_ids", Dtype::I32, &[1, 77])],
            "last_hidden_state",
            &[1, 77, 8],
        ),
        ("unet", &UNET, "out_sample", &[1, 4, 8, 12]),
        (
            "vae_decoder",
            &[("latents", Dtype::F32, &[1, 4, 8, 8])],
            "sample",
            &[1, 3, 64, 64],
        ),
        (
            "vae_decoder",
            &[("latents", Dtype::F16, &[1, 4, 8, 12])],
            "sample",
            &[1, 3, 64, 96],
        ),
        (
            "vae_encoder",
            &[("image", Dtype::F32, &[1, 3, 64, 64])],
            "moments",
            &[1, 8, 8, 8],
        ),
    ] {
        tensors(&input, inputs);
        assert_eq!(succeeds(folder.path(), &run(graph)), "");
        let bytes = fs::read(folder.path().join("out.safetensors")).expect("outputs");
        let outputs = SafeTensors::deserialize(&bytes).expect("safetensors");
        assert_eq!(outputs.names(), [output]);
        let tensor = outputs.tensor(output).expect("the output");
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, shape));
    }
}

#[test]
fn run_refuses_tensors_that_do_not_fit() {
    let folder = folder();
    toy::write(folder.path());
    let input = folder.path().join("in.safetensors");
    let expected = "sample [1, 4, 8, 8] f32, timestep [1] f32, i32 or i64, encoder_hidden_states [1, 77, 8] f32";
    let with = |name: &str, dtype: Dtype, shape: &'static [usize]| {
        let mut inputs = UNET.to_vec();
        for tensor in inputs.iter_mut().filter(|tensor| tensor.0 == name) {
            *tensor = (tensor.0, dtype, shape);
        }
        inputs
    };
    for (inputs, part) in [
        (with("sample", Dtype::F32, &[1, 4, 9, 9]), "[1, 4, 9, 9]"),
        (with("sample", Dtype::F32, &[4, 8, 12]), "[4, 8, 12]"),
        (
            with("sample", Dtype::I32, &[1, 4, 8, 12]),
            "`sample` must be f32, found i32",
        ),
        (with("timestep", Dtype::F32, &[]), "`timestep`"),
        (
            with("encoder_hidden_states", Dtype::F32, &[2, 77, 8]),
            "[2, 77, 8]",
        ),
        (UNET[..2].to_vec(), "`encoder_hidden_states` is missing"),
        (
            [&UNET[..], &[("extra", Dtype::F32, &[1])]].concat(),
            "`extra`",
        ),
    ] {
        tensors(&input, &inputs);
        fails(folder.path(), &run("unet"), 1, &[part, expected]);
    }
    tensors(&input, &with("sample", Dtype::F64, &[1, 4, 8, 12]));
    fails(
        folder.path(),
        &run("unet"),
        1,
        &["in.safetensors", "`sample`", "F64", "F32, F16, I32 or I64"],
    );
    tensors(&input, &[("input_ids", Dtype::F32, &[1, 77])]);
    fails(
        folder.path(),
        &run("text_encoder"),
        1,
        &["`input_ids` must be i32 or i64, found f32"],
    );
    let mut ids = vec![0_u8; 77 * 4];
    ids[8] = 200;
    let view = TensorView::new(Dtype::I32, vec![1, 77], &ids).expect("a tensor");
    fs::write(
        &input,
        safetensors::serialize([("input_ids", view)], None).expect("safetensors"),
    )
    .expect("a file");
    fails(
        folder.path(),
        &run("text_encoder"),
        1,
        &["200 at 2", "vocabulary of 8"],
    );

    fs::write(&input, b"no tensors").expect("a file");
    fails(
        folder.path(),
        &run("unet"),
        1,
        &["in.safetensors", "not a safetensors file"],
    );
    fs::remove_file(&input).expect("a file");
    fails(
        folder.path(),
        &run("unet"),
        1,
        &["in.safetensors", "No such file"],
    );
    fails(
        folder.path(),
        &run("vae"),
        2,
        &[
            "--graph",
            "text_encoder, unet, vae_decoder, vae_encoder, taesd_decoder",
        ],
    );
    tensors(&input, &UNET);
    let mut missing = run("unet");
    missing[7] = "missing/out.safetensors";
    fails(folder.path(), &missing, 1, &["missing/out.safetensors"]);
    fails(folder.path(), &["run", "toy.kiln"], 2, &["--graph"]);
}
