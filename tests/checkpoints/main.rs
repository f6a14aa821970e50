//! Models as people download them, against diffusers and transformers: each tiny model of `fixtures/checkpoints` is written
//! in the layouts that there are, compiled, and its graphs and pictures are compared with PyTorch's.

#[allow(dead_code)]
#[path = "../common/mod.rs"]
mod common;
mod compiled;
mod decoders;
mod graphs;
mod init;
mod int8;
mod layouts;
mod lora;
mod model;
mod pictures;
mod same;
mod torch_file;
mod weights;

use model::TinyModel;

/// Compiles a model from its diffusers folder in f32, compares its graphs and its pictures with diffusers', then compiles it
/// from other layouts and compares the packages.
fn check(name: &str) {
    let model = TinyModel::read(name);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let package = compiled::from_folder(&model, folder.path());
    graphs::compare(&model, &package);
    pictures::compare(&model, &package, pictures::F32);
    pictures::compare(
        &model,
        &compiled::int8(&model, folder.path()),
        pictures::INT8,
    );
    same::compare(&model, &package, folder.path());
}

#[test]
fn stable_diffusion_1() {
    check("sd1");
}

#[test]
fn stable_diffusion_2() {
    check("sd2");
}

#[test]
fn turbo() {
    check("turbo");
}

#[test]
fn latent_consistency_model() {
    check("lcm");
}

#[test]
fn bk_sdm_small() {
    check("bk-sdm-small");
}

#[test]
fn small_sd() {
    check("small-sd");
}

#[test]
fn bk_sdm_tiny() {
    check("bk-sdm-tiny");
}

#[test]
fn inpainting() {
    check("inpaint");
}

#[test]
fn tiny_autoencoder() {
    check("taesd");
}
