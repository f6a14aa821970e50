//! Whole drawings against diffusers' `StableDiffusionPipeline` on the embedded model in f32: the same noise, the same latents
//! after every step, the same picture.

#![cfg(feature = "onnx")]

#[allow(dead_code)]
mod common;

use std::ops::ControlFlow;

use common::{Tensors, relative_error};
use kiln::pipeline::{Noise, samplers};
use kiln::{Kiln, Progress, Request};
use serde::Deserialize;

#[derive(Deserialize)]
struct Run {
    name: String,
    sampler: String,
    prompt: String,
    negative_prompt: String,
    seed: u64,
    steps: usize,
    guidance_scale: f32,
    width: u32,
    height: u32,
    timesteps: Vec<f32>,
}

/// One evaluation differs by 1e-6; twenty steps with guidance of 4 make it 8e-6.
const LATENTS: f32 = 2e-5;

/// The fixture stores pictures as f16, which is 4e-4 of 1.
const IMAGE: f32 = 1e-3;

#[test]
fn draws_what_diffusers_draws() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kiln = Kiln::open(common::emoji(folder.path())).expect("a package");
    let file = Tensors::read("pipeline/pipeline.safetensors");
    let runs: Vec<Run> = common::json("pipeline/index.json");
    assert!(runs.len() >= 5);
    for (number, run) in runs.iter().enumerate() {
        let name = &run.name;
        let expected = |what: &str| file.values(&format!("{name}.{what}"));
        let request = Request::new(&run.prompt)
            .negative(&run.negative_prompt)
            .seed(run.seed)
            .steps(run.steps)
            .guidance_scale(run.guidance_scale)
            .size(run.width, run.height)
            .sampler(
                run.sampler
                    .replace("euler_ancestral", "euler-a")
                    .parse()
                    .expect("a sampler"),
            );

        let initial = expected("initial_latents");
        let mut noise = vec![0.0; initial.len()];
        Noise::new(run.seed).fill(&mut noise);
        assert!(relative_error(&noise, &initial) < 1e-6, "{name}");

        let settings = kiln.settings(&request).expect("settings");
        let sampler = settings
            .sampler
            .prepare(kiln.schedule(), &samplers::Run::new(run.steps, 1))
            .expect("a sampler");
        let told = sampler.evaluations().iter().map(|e| e.timestep);
        assert_eq!(told.collect::<Vec<_>>(), run.timesteps, "{name}");

        let (context, latents) = match number {
            0 => (Some(expected("context")), Some(expected("step_latents"))),
            _ => (None, None),
        };
        let mut last = Vec::new();
        let picture = kiln
            .draw(&request, &mut |progress| {
                match progress {
                    Progress::Encoded { context: actual } => {
                        if let Some(context) = &context {
                            let error = relative_error(actual, context);
                            assert!(error < 1e-4, "{name}: context: {error:e}");
                        }
                    }
                    Progress::Denoised {
                        step,
                        latents: actual,
                        ..
                    } => {
                        if let Some(latents) = &latents {
                            let error = relative_error(
                                actual,
                                &latents[(step - 1) * actual.len()..][..actual.len()],
                            );
                            assert!(error < LATENTS, "{name}: step {step}: {error:e}");
                        }
                        last = actual.to_vec();
                    }
                    Progress::Decoded { planes } => {
                        let error = relative_error(planes, &expected("image"));
                        assert!(error < IMAGE, "{name}: image: {error:e}");
                    }
                    other => panic!("{other:?}"),
                }
                ControlFlow::Continue(())
            })
            .expect("a picture");
        let error = relative_error(&last, &expected("final_latents"));
        assert!(error < LATENTS, "{name}: final latents: {error:e}");

        let path = common::fixture(&format!("pipeline/{name}.png"));
        let file = std::fs::File::open(path).expect("a picture");
        let mut reader = png::Decoder::new(std::io::BufReader::new(file))
            .read_info()
            .expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        reader.next_frame(&mut pixels).expect("pixels");
        let off = picture
            .pixels()
            .iter()
            .zip(&pixels)
            .filter(|(a, b)| a.abs_diff(**b) > 1)
            .count();
        assert_eq!(
            off,
            0,
            "{name}: {off} of {} bytes differ by more than 1",
            pixels.len()
        );
    }
}
