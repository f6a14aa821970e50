//! The model that the command carries, with real prompts.

use std::path::{Path, PathBuf};

use super::*;
use safetensors::SafeTensors;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Tensor {
    let view = file.tensor(name).unwrap();
    let data = match view.dtype() {
        safetensors::Dtype::I64 => view
            .data()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b) as f32)
            .collect(),
        _ => view
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
    };
    Tensor {
        shape: shape.to_vec(),
        data,
    }
}

/// Rows and columns of the latents.
const SIDE: usize = 32;

/// Latents `[1, 4, SIDE, SIDE]` as the graph has them.
fn turned(x: &Tensor) -> Vec<f32> {
    let plane = SIDE * SIDE;
    (0..4 * plane)
        .map(|i| x.data[i % 4 * plane + i / 4])
        .collect()
}

#[test]
fn the_embedded_model_stays_faithful() {
    let mut model = crate::frontend::onnx::open(&root().join("models/emoji"), &mut |_| ()).unwrap();
    let encoder = model.vae_encoder.as_mut();
    for graph in [
        &mut model.text_encoder,
        &mut model.unet,
        &mut model.vae_decoder,
    ]
    .into_iter()
    .chain(encoder)
    {
        crate::passes::run(graph, None, &mut |_, _| ()).unwrap();
    }
    let (text_encoder, unet) = (model.text_encoder.clone(), model.unet.clone());
    // What its card says.
    let gain = model.card.f16_gain().unwrap();
    let mut heard = Vec::new();
    let reports = quantize(&mut model, gain, &crate::Cancel::default(), &mut |m| {
        heard.push((m.part.to_owned(), m.done, m.total));
    })
    .unwrap();
    for (_, done, total) in heard
        .chunk_by(|a, b| a.0 == b.0)
        .filter_map(|part| part.last())
    {
        assert_eq!(done, total);
    }
    let text = crate::report::to_text(&reports);
    println!("{text}");
    let bytes: u64 = reports
        .iter()
        .flat_map(|report| &report.layers)
        .map(|layer| layer.bytes)
        .sum();
    println!("{bytes} bytes of products' weights");

    let bytes = std::fs::read(root().join("tests/fixtures/pipeline/pipeline.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let evaluator = Evaluator::new();
    let alphas = calibrate::alphas_cumprod(&model.scheduler);
    let prompts = [
        ("apple", "input_ids"),
        ("face", "input_ids"),
        ("panda", "input_ids"),
        ("panda", "negative_input_ids"),
        ("apple", "negative_input_ids"),
    ];
    let noise = crate::graph::random(5, 12 * 4 * SIDE * SIDE);
    let mut worst = Vec::new();
    for (name, ids) in prompts {
        let ids = read(&file, &format!("{name}.{ids}"), &[77]);
        let ids = [ids];
        let context = run(&evaluator, &text_encoder, &ids, Numbers::Exact).remove(0);
        let stored = run(&evaluator, &model.text_encoder, &ids, Numbers::Stored).remove(0);
        println!(
            "context of {name}: {} dB",
            Error::between(&context.data, &stored.data).decibels()
        );
        let latents = turned(&read(
            &file,
            &format!("{name}.final_latents"),
            &[1, 4, SIDE, SIDE],
        ));
        for (i, timestep) in [951, 801, 601, 401, 201, 20, 1].into_iter().enumerate() {
            let (signal, rest) = (
                alphas[timestep].sqrt() as f32,
                (1.0 - alphas[timestep]).sqrt() as f32,
            );
            // Four uniform numbers of variance 1/3 make about a normal one.
            let normal = |n: usize| {
                (0..4)
                    .map(|k| noise[(n * 12 + k + i) % noise.len()])
                    .sum::<f32>()
                    * 0.75f32.sqrt()
            };
            let data = latents
                .iter()
                .enumerate()
                .map(|(n, x)| signal * x + rest * normal(n))
                .collect();
            let inputs = [
                Tensor {
                    shape: vec![SIDE, SIDE, 4],
                    data,
                },
                Tensor {
                    shape: vec![1],
                    data: vec![timestep as f32],
                },
                context.clone(),
            ];
            let exact = run(&evaluator, &unet, &inputs, Numbers::Exact);
            let found = run(&evaluator, &model.unet, &inputs, Numbers::Stored);
            let db = Error::between(&exact[0].data, &found[0].data).decibels();
            println!("{name} at {timestep}: {db} dB");
            let least = if timestep >= 200 {
                35.0
            } else if timestep >= 20 {
                26.0
            } else {
                20.0
            };
            if db < least {
                worst.push(format!("{name} at {timestep}: {db} dB"));
            }
        }
    }
    assert!(worst.is_empty(), "{worst:?}");
}

#[test]
fn the_embedded_model_is_small() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("emoji.kiln");
    let options = crate::CompileOptions::new(root().join("models/emoji"), &output);
    let compiled = crate::compile(&options, &mut |_| ()).unwrap();
    let bytes = std::fs::read(&output).unwrap();
    let weights = kiln_package::Package::open(&bytes).unwrap().weights().len();
    println!(
        "{weights} bytes of weights in {} of package",
        compiled.bytes
    );
    // 10.9 million parameters, the token table's among those in 8 bits.
    assert!(weights < 12_000_000, "{weights}");
}
