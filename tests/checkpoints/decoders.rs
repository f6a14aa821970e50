//! A tiny autoencoder beside the VAE, and in its place.

use std::ops::ControlFlow;

use kiln::pipeline::Decoder;
use kiln::{Kiln, Picture, Progress, Request};
use kiln_package::GraphKind;

use super::compiled::{SIZES, compile, options};
use super::graphs;
use super::layouts::{self, Element, Weights};
use super::model::TinyModel;

fn draw(kiln: &Kiln, decoder: Option<Decoder>) -> (Picture, Vec<f32>) {
    let mut request = Request::new("a red apple")
        .guidance_scale(4.0)
        .seed(3)
        .steps(2);
    if let Some(decoder) = decoder {
        request = request.decoder(decoder);
    }
    let mut latents = Vec::new();
    let picture = kiln.draw(&request, &mut |progress| {
        if let Progress::Denoised { latents: now, .. } = progress {
            latents = now.to_vec();
        }
        ControlFlow::Continue(())
    });
    (picture.expect("a picture"), latents)
}

#[test]
fn a_tiny_autoencoder_beside_the_vae() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let (model, tiny) = (TinyModel::read("sd1"), TinyModel::read("taesd"));
    let source = folder.join("sd1");
    layouts::diffusers(&model, &source, Weights::Whole(Element::F32));
    let file = folder.join("tiny.safetensors");
    layouts::safetensors(&file, &tiny.vae.tensors, Element::F32, &[]);
    let package = |name: &str, change: &dyn Fn(&mut kiln_compiler::CompileOptions)| {
        let path = folder.join(name);
        let mut options = options(&source, &path);
        change(&mut options);
        compile(&options);
        path
    };
    let alone = package("alone.kiln", &|_| {});
    let both = package("both.kiln", &|o| o.changes.taesd = Some(file.clone()));
    let replaced = package("replaced.kiln", &|o| o.changes.vae = Some(file.clone()));

    // Each graph is the one that PyTorch computed, at both sizes.
    graphs::compare(&model, &both);
    graphs::decoder(&both, GraphKind::TaesdDecoder, "taesd");
    graphs::decoder(&replaced, GraphKind::VaeDecoder, "taesd");
    let [alone, both, replaced] =
        [alone, both, replaced].map(|path| Kiln::open(path).expect("a package"));
    assert_eq!(alone.decoders(), [Decoder::Vae]);
    assert_eq!(both.decoders(), [Decoder::Vae, Decoder::Taesd]);
    assert_eq!(replaced.decoders(), [Decoder::Taesd]);
    assert_eq!(both.sizes().len(), SIZES.len());

    // The VAE draws unless the other is asked for, or is the only one.
    let (expected, _) = draw(&alone, None);
    for decoder in [None, Some(Decoder::Vae)] {
        let (picture, _) = draw(&both, decoder);
        assert!(picture.pixels() == expected.pixels());
        assert!(!picture.parameters().contains("VAE Decoder"));
    }
    let (quick, latents) = draw(&both, Some(Decoder::Taesd));
    assert!(quick.pixels() != expected.pixels());
    assert!(quick.parameters().contains(", VAE Decoder: TAESD, "));
    for decoder in [None, Some(Decoder::Taesd)] {
        let (picture, _) = draw(&replaced, decoder);
        assert!(picture.pixels() == quick.pixels());
    }
    let decoded = both.decode(latents, (64, 64), Some(Decoder::Taesd), None);
    assert!(decoded.expect("a picture") == quick.pixels());

    for (kiln, decoder, has) in [
        (&alone, Decoder::Taesd, "vae"),
        (&replaced, Decoder::Vae, "taesd"),
    ] {
        let error = kiln.settings(&Request::new("a").decoder(decoder));
        let error = error.expect_err("another decoder").to_string();
        assert!(
            error.contains(&format!("decoder {decoder}: the model has {has}")),
            "{error}"
        );
    }

    // A budget that the VAE is too large for.
    let memory = |decoder| {
        let request = Request::new("a").guidance_scale(1.0).decoder(decoder);
        let settings = both.settings(&request).expect("settings");
        both.memory(&settings).expect("a plan").arena_bytes
    };
    assert!(memory(Decoder::Taesd) <= memory(Decoder::Vae));
}

/// Its latents must be those of the model.
#[test]
fn a_tiny_autoencoder_of_another_model_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let (model, mut tiny) = (TinyModel::read("sd1"), TinyModel::read("taesd"));
    let source = folder.join("sd1");
    layouts::diffusers(&model, &source, Weights::Whole(Element::F32));
    let first = tiny.vae.tensor_mut("decoder.layers.0.weight");
    let (out, latents) = (first.shape[0], first.shape[1]);
    let area = first.shape[2] * first.shape[3];
    first.shape[1] = latents - 1;
    first.values.truncate(out * (latents - 1) * area);
    let file = folder.join("tiny.safetensors");
    layouts::safetensors(&file, &tiny.vae.tensors, Element::F32, &[]);
    let mut options = options(&source, &folder.join("x.kiln"));
    options.changes.taesd = Some(file);
    let error = kiln_compiler::compile(&options, &mut |_| ()).expect_err("three channels");
    let error = error.to_string();
    assert!(
        error.contains("tiny.safetensors") && error.contains("3 channels"),
        "{error}"
    );
}
