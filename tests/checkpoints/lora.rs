//! A LoRA merged by the compiler against the same LoRA merged here.

use std::ops::ControlFlow;
use std::path::Path;

use kiln::{Kiln, Progress, Request};
use kiln_compiler::frontend::lora::LoraArgument;

use super::common::relative_error;
use super::compiled::{self, compile, options};
use super::layouts::{self, Element, Weights};
use super::model::{Part, Tensor, TinyModel};
use super::pictures::psnr;
use super::same;
use super::weights::example;

const WEIGHT: f32 = 0.75;

/// A layer that the LoRA changes: its name, and its rank and alpha there.
const UNET: [(&str, usize, f32); 4] = [
    (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        4,
        2.0,
    ),
    (
        "up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj",
        2,
        2.0,
    ),
    ("mid_block.attentions.0.proj_in", 3, 6.0),
    ("down_blocks.1.resnets.0.conv1", 4, 4.0),
];
const TEXT_ENCODER: [(&str, usize, f32); 2] = [
    ("text_model.encoder.layers.0.self_attn.q_proj", 4, 8.0),
    ("text_model.encoder.layers.1.mlp.fc1", 4, 2.0),
];

/// The factors of a layer's change: `[out, rank]` and `[rank, in, ..]`, small beside the layer's own weights.
fn factors(layer: &Tensor, rank: usize) -> [Tensor; 2] {
    let mut up = vec![layer.shape[0], rank];
    up.resize(layer.shape.len(), 1);
    let mut down = layer.shape.clone();
    down[0] = rank;
    [("up", up), ("down", down)].map(|(half, shape)| {
        let mut values = example(&format!("{half} {}", layer.name), &shape);
        values.iter_mut().for_each(|x| *x /= 8.0);
        Tensor {
            name: half.to_owned(),
            shape,
            values,
        }
    })
}

/// Adds the change to the part's own weights and gives its tensors in kohya's names.
fn change(part: &mut Part, prefix: &str, layers: &[(&str, usize, f32)]) -> Vec<Tensor> {
    let mut lora = Vec::new();
    for &(layer, rank, alpha) in layers {
        let weight = part.tensor_mut(&format!("{layer}.weight"));
        let [up, down] = factors(weight, rank);
        let columns = weight.values.len() / weight.shape[0];
        for (i, row) in weight.values.chunks_exact_mut(columns).enumerate() {
            for (j, x) in row.iter_mut().enumerate() {
                let product: f64 = (0..rank)
                    .map(|r| {
                        f64::from(up.values[i * rank + r]) * f64::from(down.values[r * columns + j])
                    })
                    .sum();
                let scale = f64::from(WEIGHT) * f64::from(alpha) / rank as f64;
                *x = (f64::from(*x) + scale * product) as f32;
            }
        }
        let name = format!("{prefix}_{}", layer.replace('.', "_"));
        lora.push(Tensor {
            name: format!("{name}.lora_up.weight"),
            ..up
        });
        lora.push(Tensor {
            name: format!("{name}.lora_down.weight"),
            ..down
        });
        lora.push(Tensor {
            name: format!("{name}.alpha"),
            shape: Vec::new(),
            values: vec![alpha],
        });
    }
    lora
}

#[test]
fn a_lora_draws_what_merged_weights_draw() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = TinyModel::read("sd1");
    let (checkpoint, lora) = (
        folder.path().join("sd1.safetensors"),
        folder.path().join("style.safetensors"),
    );
    layouts::single_file(&model, &checkpoint, Element::F16);
    let mut merged = model.clone();
    merged.name = "merged".into();
    let mut tensors = change(&mut merged.unet, "lora_unet", &UNET);
    tensors.extend(change(&mut merged.text_encoder, "lora_te", &TEXT_ENCODER));
    layouts::safetensors(&lora, &tensors, Element::F32, &[]);

    let output = folder.path().join("lora.kiln");
    let mut with = same::single_file(&model, &checkpoint, &output);
    with.changes.loras = vec![LoraArgument {
        file: lora,
        weight: WEIGHT,
    }];
    compile(&with);
    let source = folder.path().join("merged");
    layouts::diffusers(&merged, &source, Weights::Whole(Element::F32));
    let merged = folder.path().join("merged.kiln");
    compile(&options(&source, &merged));
    let plain = compiled::from_folder(&model, folder.path());

    let (expected, picture) = draw(&merged);
    let (found, other) = draw(&output);
    let error = relative_error(&found, &expected);
    assert!(error < 1e-4, "{error:e}");
    assert!(psnr(&other, &picture) >= 80.0);
    // The LoRA does something.
    let (without, _) = draw(&plain);
    assert!(relative_error(&without, &expected) > 0.01);
}

/// Final latents and bytes of a picture.
fn draw(package: &Path) -> (Vec<f32>, Vec<u8>) {
    let kiln = Kiln::open(package).expect("a package");
    let request = Request::new("a red apple")
        .seed(11)
        .steps(4)
        .guidance_scale(4.0)
        .size(64, 64);
    let mut latents = Vec::new();
    let picture = kiln.draw(&request, &mut |progress| {
        if let Progress::Denoised { latents: now, .. } = progress {
            latents = now.to_vec();
        }
        ControlFlow::Continue(())
    });
    let pixels = picture.expect("a picture").pixels().to_vec();
    (latents, pixels)
}
