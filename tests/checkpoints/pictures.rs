//! Whole pictures against diffusers' pipelines with the same noise.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use kiln::pipeline::samplers::Run;
use kiln::pipeline::{Noise, Tensor, run_graph};
use kiln::runtime::SessionOptions;
use kiln::{Kiln, Progress, Request};
use kiln_package::GraphKind;
use ndarray::{ArrayD, IxDyn};
use serde::Deserialize;

use super::common::{self, relative_error};
use super::model::TinyModel;

/// A row of `pictures.json`.
#[derive(Deserialize)]
struct Drawing {
    name: String,
    model: String,
    prompt: String,
    negative_prompt: String,
    seed: u64,
    steps: usize,
    guidance_scale: f32,
    width: u32,
    height: u32,
    timesteps: Vec<f32>,
}

/// How far a package may be off.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Latents after all steps, as a share of the largest.
    latents: f32,
    /// The least signal-to-noise of a picture of 8 bits, in dB.
    psnr: f64,
}

/// At 80 dB, one byte in 1500 may be off by one.
pub const F32: Limits = Limits {
    latents: 1e-4,
    psnr: 80.0,
};
/// Networks of random weights that are asked four times, under guidance, do not forgive an error.
pub const INT8: Limits = Limits {
    latents: 0.06,
    psnr: 32.0,
};

/// Draws every picture of the fixtures that is of this model.
pub fn compare(model: &TinyModel, package: &Path, limits: Limits) {
    let kiln = Kiln::open(package).expect("a package");
    let drawings: Vec<Drawing> = common::json("checkpoints/pictures.json");
    let same = |name: &str| match name {
        // Its UNet under another name.
        "small-sd" => "bk-sdm-small".to_owned(),
        other => other.to_owned(),
    };
    let defaults = &kiln.card().defaults;
    let chosen = (
        defaults.sampler.as_str(),
        defaults.steps,
        defaults.guidance_scale,
    );
    let expected = match model.name.as_str() {
        "turbo" => ("euler", 1, 1.0),
        "lcm" => ("lcm", 4, 8.5),
        _ => ("ddim", 20, 7.5),
    };
    assert_eq!(chosen, expected, "{}", model.name);
    let mut count = 0;
    for drawing in drawings.iter().filter(|d| d.model == same(&model.name)) {
        draws(&kiln, drawing, limits);
        count += 1;
    }
    assert!(count > 0, "{}", model.name);
}

fn draws(kiln: &Kiln, drawing: &Drawing, limits: Limits) {
    let name = &drawing.name;
    let expected = common::Tensors::read("checkpoints/reference.safetensors");
    // The sampler is the model's own.
    let request = Request::new(&drawing.prompt)
        .negative(&drawing.negative_prompt)
        .seed(drawing.seed)
        .steps(drawing.steps)
        .guidance_scale(drawing.guidance_scale)
        .size(drawing.width, drawing.height);
    let settings = kiln.settings(&request).expect("settings");
    let sampler = settings
        .sampler
        .prepare(kiln.schedule(), &Run::new(drawing.steps, 1))
        .expect("a sampler");
    let timesteps: Vec<f32> = sampler.evaluations().iter().map(|e| e.timestep).collect();
    assert_eq!(timesteps, drawing.timesteps, "{name}");

    if drawing.model == "inpaint" {
        masked_picture(kiln, drawing, &expected, limits);
    }
    let mut latents = Vec::new();
    let picture = kiln
        .draw(&request, &mut |progress| {
            if let Progress::Denoised { latents: now, .. } = progress {
                latents = now.to_vec();
            }
            ControlFlow::Continue(())
        })
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let error = relative_error(&latents, &expected.values(&format!("{name}.final_latents")));
    let psnr = psnr(picture.pixels(), &png(name));
    println!("{name}: latents {error:.1e}, {psnr:.1} dB");
    assert!(error < limits.latents, "{name}: latents: {error:e}");
    assert!(psnr >= limits.psnr, "{name}: {psnr} dB");
}

/// What diffusers gives an inpainting UNet of a picture that is all masked: drawn from the encoder's distribution with the
/// numbers that come after the first latents.
fn masked_picture(kiln: &Kiln, drawing: &Drawing, expected: &common::Tensors, limits: Limits) {
    let expected = expected.values(&format!("{}.masked_image_latents", drawing.name));
    let grey = ArrayD::zeros(IxDyn(&[
        1,
        3,
        drawing.height as usize,
        drawing.width as usize,
    ]));
    let inputs = BTreeMap::from([("image".to_owned(), Tensor::F32(grey))]);
    let outputs = run_graph(
        kiln.model(),
        GraphKind::VaeEncoder,
        &inputs,
        &SessionOptions::default(),
    );
    let moments: Vec<f32> = outputs.expect("moments")["moments"]
        .iter()
        .copied()
        .collect();
    let (mean, log_variance) = moments.split_at(expected.len());
    let (mut first, mut second) = (vec![0.0; mean.len()], vec![0.0; mean.len()]);
    let mut noise = Noise::new(drawing.seed);
    noise.fill(&mut first);
    noise.fill(&mut second);
    let found: Vec<f32> = (0..mean.len())
        .map(|i| 0.18215 * (mean[i] + libm::expf(0.5 * log_variance[i]) * second[i]))
        .collect();
    let error = relative_error(&found, &expected);
    assert!(error < limits.latents, "{error:e}");
}

/// The bytes of a picture of the fixtures.
fn png(name: &str) -> Vec<u8> {
    let path = common::fixture(&format!("checkpoints/{name}.png"));
    let file = std::fs::File::open(path).expect("a picture");
    let mut reader = png::Decoder::new(std::io::BufReader::new(file))
        .read_info()
        .expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("pixels");
    pixels
}

/// Peak signal-to-noise of two pictures of 8 bits, in dB.
pub fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: u64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2))
        .sum();
    let mean = squares as f64 / a.len() as f64;
    10.0 * libm::log10(255.0 * 255.0 / mean)
}
