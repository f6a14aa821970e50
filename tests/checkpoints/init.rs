//! Pictures that begin with another one, against diffusers' pipelines with the same noise.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use kiln::pipeline::{Background, Hires, Init, Mask, Raster, Upscaler};
use kiln::{Kiln, Progress, Request};
use serde::Deserialize;

use super::common::{self, relative_error};
use super::compiled::{compile, options};
use super::layouts::{self, Element, Weights};
use super::model::TinyModel;
use super::pictures::psnr;

/// A row of `init/drawings.json`.
#[derive(Deserialize)]
struct Drawing {
    name: String,
    model: String,
    masked: bool,
    seed: u64,
    steps: usize,
    strength: f64,
}

/// How far latents may be off after all steps, as a share of the largest.
const LATENTS: f32 = 1e-4;
/// The least signal-to-noise of a picture of 8 bits, in dB.
const PSNR: f64 = 60.0;

fn package(name: &str, sizes: &[(usize, usize)], folder: &Path) -> PathBuf {
    let model = TinyModel::read(name);
    let (source, output) = (folder.join(name), folder.join(format!("{name}.kiln")));
    layouts::diffusers(&model, &source, Weights::Whole(Element::F32));
    let mut options = options(&source, &output);
    options.sizes = sizes.to_vec();
    compile(&options);
    output
}

fn open(name: &str, background: Background) -> Raster {
    let path = common::fixture(&format!("init/{name}.png"));
    Raster::open(&path, background).expect("a picture")
}

fn apple() -> Request {
    Request::new("a red apple")
        .negative("blue")
        .guidance_scale(4.0)
}

fn source() -> Init {
    Init::new(open("source", Background::White))
}

fn hard_mask() -> Mask {
    Mask {
        blur: 0.0,
        ..Mask::new(open("mask", Background::Black))
    }
}

fn check(model: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kiln = Kiln::open(package(model, &[(64, 64)], folder.path())).expect("a package");
    let expected = common::Tensors::read("init/reference.safetensors");
    let drawings: Vec<Drawing> = common::json("init/drawings.json");
    let mut count = 0;
    for drawing in drawings.iter().filter(|drawing| drawing.model == model) {
        let name = &drawing.name;
        let mut init = source();
        init.strength = drawing.strength;
        init.mask = drawing.masked.then(hard_mask);
        let request = apple().seed(drawing.seed).steps(drawing.steps).init(init);
        let mut latents = Vec::new();
        let mut told = Vec::new();
        let picture = kiln.draw(&request, &mut |progress| {
            if let Progress::Denoised {
                latents: now,
                step,
                steps,
            } = progress
            {
                latents = now.to_vec();
                told.push((step, steps));
            }
            ControlFlow::Continue(())
        });
        let picture = picture.unwrap_or_else(|e| panic!("{name}: {e}"));
        let taken = (drawing.steps as f64 * drawing.strength) as usize;
        let all: Vec<_> = (1..=taken).map(|step| (step, taken)).collect();
        assert_eq!(told, all, "{name}");
        let error = relative_error(&latents, &expected.values(&format!("{name}.final_latents")));
        let psnr = psnr(picture.pixels(), open(name, Background::White).pixels());
        println!("{name}: latents {error:.1e}, {psnr:.1} dB");
        assert!(error < LATENTS, "{name}: latents: {error:e}");
        assert!(psnr >= PSNR, "{name}: {psnr} dB");
        count += 1;
    }
    assert!(count > 0, "{model}");
}

#[test]
fn pictures_begin_with_a_picture() {
    check("sd1");
}

#[test]
fn a_tiny_autoencoder_encodes_too() {
    check("taesd");
}

#[test]
fn an_inpainting_model_is_told_the_mask() {
    check("inpaint");
}

/// The second pass is a picture that begins with the first one's, in the larger size.
#[test]
fn a_second_pass_is_larger() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kiln = Kiln::open(package("sd1", &[(64, 64), (96, 96)], folder.path())).expect("a package");
    let draw = |request: Request| {
        let go_on = &mut |_: Progress<'_>| ControlFlow::Continue(());
        kiln.draw(&request, go_on).expect("a picture")
    };
    let request = || apple().seed(3).steps(2).size(64, 64);
    let first = draw(request());
    let hires = Hires {
        steps: Some(4),
        strength: 0.5,
        ..Hires::new(1.5)
    };
    let both = draw(request().hires(hires));
    assert_eq!((both.width(), both.height()), (96, 96));
    let mut init = Init::new(Raster::new(64, 64, first.pixels()).expect("a picture"));
    init.strength = 0.5;
    let again = draw(request().steps(4).size(96, 96).init(init));
    assert!(both.pixels() == again.pixels());

    let latent = Hires {
        upscaler: Upscaler::Latent,
        ..hires
    };
    let mut told = Vec::new();
    let picture = kiln.draw(&request().hires(latent), &mut |progress| {
        if let Progress::Denoised {
            step,
            steps,
            latents,
        } = progress
        {
            told.push((step, steps, latents.len()));
        }
        ControlFlow::Continue(())
    });
    let (small, large) = (4 * 8 * 8, 4 * 12 * 12);
    let expected = [(1, 4, small), (2, 4, small), (3, 4, large), (4, 4, large)];
    assert_eq!(told, expected);
    assert!(picture.expect("a picture").pixels() != both.pixels());

    // The larger pass and the encoder are in the plan.
    let memory = |request: Request| {
        let settings = kiln.settings(&request).expect("settings");
        kiln.memory(&settings).expect("a plan").arena_bytes
    };
    assert!(memory(request().hires(hires)) > memory(request()));
}

/// What is not masked stays, byte for byte; a part is drawn in full size and put where it was.
#[test]
fn only_what_is_masked_changes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kiln = Kiln::open(package("sd1", &[(64, 64)], folder.path())).expect("a package");
    let draw = |mask: Mask| {
        let init = Init {
            mask: Some(mask),
            ..source()
        };
        let request = apple().seed(3).steps(2).init(init);
        let go_on = &mut |_: Progress<'_>| ControlFlow::Continue(());
        kiln.draw(&request, go_on).expect("a picture")
    };
    let (old, mask) = (open("source", Background::White), hard_mask());
    let part = draw(Mask {
        only_masked: Some(3),
        ..mask.clone()
    });
    assert_eq!((part.width(), part.height()), (80, 64));
    let changed = |new: &[u8], is_masked: bool| {
        let pixels = new.chunks(3).zip(old.pixels().chunks(3));
        let masks = mask.picture.pixels().chunks(3);
        pixels
            .zip(masks)
            .filter(|((new, old), mask)| (mask[0] > 0) == is_masked && new != old)
            .count()
    };
    assert_eq!(changed(part.pixels(), false), 0);
    assert!(changed(part.pixels(), true) > 1000);
    // A soft edge reaches further, and no further than the blur.
    let soft = draw(Mask {
        only_masked: Some(3),
        blur: 2.0,
        ..mask.clone()
    });
    assert!(changed(soft.pixels(), false) > 0);
    for (i, (new, old)) in soft
        .pixels()
        .chunks(3)
        .zip(old.pixels().chunks(3))
        .enumerate()
    {
        let (x, y) = (i % 80, i / 80);
        assert!(new == old || (x > 28 && y > 6 && y < 58), "{x} {y}");
    }
}
