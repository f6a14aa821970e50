use super::{ARENA, parts, side, sizes};
use crate::frontend::diffusers::geometry;
use crate::frontend::{Checkpoint, source};
use crate::plan::{self, Precision};
use crate::{CompileError, CompileOptions, passes};

/// Stable Diffusion 1.5's geometry, its VAE after all passes.
fn sd15() -> Checkpoint {
    let tokenizer = source::clip_tokenizer().expect("a tokenizer");
    let geometry = geometry::named("sd15").expect("a geometry");
    let mut model = geometry.checkpoint(tokenizer).expect("a model");
    for graph in [&mut model.vae_decoder]
        .into_iter()
        .chain(&mut model.vae_encoder)
    {
        passes::run(graph, None, &mut |_, _| ()).expect("kiln operators");
    }
    model
}

/// With everything else that decoding a picture of 2048x2048 holds it is less than 40 MB.
#[test]
fn the_chosen_tile_fits_in_40_mb() {
    let model = sd15();
    let mut options = CompileOptions::new("unread", "unwritten");
    options.precision = Precision::F16;
    let chosen = side(&model, &options).expect("a side").expect("tiles");
    let largest = |side: usize| {
        let parts = parts(&model, (side, side), options.precision).expect("programs");
        assert_eq!(parts.len(), 2, "decoder and encoder");
        let bytes = parts
            .iter()
            .map(|part| plan::arena_bytes(part, options.precision).expect("an arena"));
        bytes.max().expect("two")
    };
    println!("{chosen} pixels, {} bytes", largest(chosen));
    assert!(chosen.is_multiple_of(8) && chosen >= 64);
    assert!(largest(chosen) <= ARENA && largest(chosen + 8) > ARENA);
    let picture = 2048 * 2048 * 3;
    let unfinished = 2048 * chosen as u64 * 3 * 4;
    let latents = 4 * (2048 / 8) * (2048 / 8) * 4;
    let all = ARENA + picture + unfinished + latents;
    // The rest is for scratch of the threads and one tile's numbers.
    assert!(all <= 38_000_000, "{all}");

    for wrong in [0, 56, 100, 1 << 20] {
        options.tile = Some(wrong);
        let error = side(&model, &options).expect_err("no tile");
        assert!(matches!(error, CompileError::Tile { .. }), "{error}");
    }
    options.tile = Some(96);
    assert_eq!(side(&model, &options).expect("a side"), Some(96));
}

#[test]
fn tiles_are_those_of_pictures_that_are_larger() {
    let pictures = [(512, 512), (512, 64), (64, 64)];
    assert_eq!(sizes(&pictures, 136), [(136, 136), (136, 64)]);
    assert_eq!(sizes(&pictures, 64), []);
    assert_eq!(sizes(&pictures, 1024), []);
}
