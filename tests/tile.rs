//! The VAE on tiles, against the VAE on the whole picture.

#[allow(dead_code)]
mod common;

use std::fs;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use common::toy;
use kiln::pipeline::{Init, Raster, Tile};
use kiln::{Kiln, Picture, Progress, Request};
use serde_json::json;

/// What is lost in the rounding of a picture's bytes.
const LEVELS: f64 = 0.5;

/// A picture's size and its pixels, RGB.
type Rgb<'a> = ((usize, usize), &'a [u8]);

fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares = a
        .iter()
        .zip(b)
        .map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    let mean = squares.sum::<f64>() / a.len() as f64;
    10.0 * libm::log10(255.0 * 255.0 / mean)
}

/// The mean step from each column to the next, and from each row to the next.
fn steps(((width, height), pixels): Rgb<'_>) -> [Vec<f64>; 2] {
    let at = |x: usize, y: usize| &pixels[(y * width + x) * 3..][..3];
    let step = |a: &[u8], b: &[u8]| -> f64 {
        let steps = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)));
        steps.sum::<f64>() / 3.0
    };
    let columns = (1..width).map(|x| {
        let sum: f64 = (0..height).map(|y| step(at(x - 1, y), at(x, y))).sum();
        sum / height as f64
    });
    let rows = (1..height).map(|y| {
        let sum: f64 = (0..width).map(|x| step(at(x, y - 1), at(x, y))).sum();
        sum / width as f64
    });
    [columns.collect(), rows.collect()]
}

/// Where tiles of `tile` begin and end along a side, but for the side's own ends: as the pipeline places them, a quarter or
/// more of each over the next.
fn seams(side: usize, tile: usize) -> Vec<usize> {
    let (side, tile) = (side / 8, tile / 8);
    let overlap = tile.div_ceil(4).max(4);
    let count = (side - overlap).div_ceil(tile - overlap).max(1);
    let gaps = (count - 1).max(1);
    let starts: Vec<usize> = (0..count)
        .map(|i| (i * (side - tile) + gaps / 2) / gaps)
        .collect();
    let mut seams: Vec<usize> = starts[1..].iter().map(|start| start * 8).collect();
    seams.extend(starts[..count - 1].iter().map(|start| (start + tile) * 8));
    // In the middle between them the tiles have equal shares.
    seams.extend(starts.windows(2).map(|pair| (pair[0] + tile + pair[1]) * 4));
    seams.sort_unstable();
    seams
}

/// By how many levels of 255 the step across a seam is larger than all steps beside it, within eight pixels, and than the one
/// that the whole picture has there: the most of all seams.
fn worst_seam(tiled: Rgb<'_>, whole: Rgb<'_>, tile: usize) -> f64 {
    let (width, height) = tiled.0;
    let mut worst = f64::MIN;
    for ((side, tiled), whole) in [width, height]
        .into_iter()
        .zip(steps(tiled))
        .zip(steps(whole))
    {
        if side <= tile {
            continue;
        }
        for seam in seams(side, tile) {
            // The step into a column stands at its number less one.
            let at = seam - 1;
            let beside = (at.saturating_sub(8)..(at + 9).min(tiled.len())).filter(|i| *i != at);
            let most = beside.map(|i| tiled[i]).fold(whole[at], f64::max);
            worst = worst.max(tiled[at] - most);
        }
    }
    worst
}

fn draw(kiln: &Kiln, request: &Request) -> (Picture, Vec<f32>) {
    let mut latents = Vec::new();
    let picture = kiln.draw(request, &mut |progress| {
        if let Progress::Denoised { latents: now, .. } = progress {
            latents = now.to_vec();
        }
        ControlFlow::Continue(())
    });
    (picture.expect("a picture"), latents)
}

/// The trained model in tiles of half its pictures' size and in tiles of that size.
#[cfg(feature = "onnx")]
#[test]
fn tiles_give_the_picture_without_seams() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("emoji.kiln");
    let mut options =
        kiln_compiler::CompileOptions::new(common::fixture("../../models/emoji"), &path);
    options.sizes = vec![(128, 128), (256, 192)];
    options.tile = Some(64);
    kiln_compiler::compile(&options, &mut |_| ()).expect("a package");
    let kiln = Kiln::open(&path).expect("a package");

    let request = Request::new("grinning face, 3d style, blue background")
        .seed(2)
        .sampler(kiln::pipeline::samplers::SamplerKind::Ddim)
        .guidance_scale(4.0)
        .steps(10);
    let (small, small_latents) = draw(&kiln, &request.clone().size(128, 128));
    let raster = Raster::new(128, 128, small.pixels()).expect("a picture");
    let mut init = Init::new(raster);
    init.strength = 0.1;
    let request = request.size(256, 192).init(init);
    let (large, large_latents) = draw(&kiln, &request);
    for (picture, latents, sides) in [
        (&small, &small_latents, &[64][..]),
        (&large, &large_latents, &[64, 128]),
    ] {
        let size = (picture.width(), picture.height());
        let own = (size.0 as usize, size.1 as usize);
        for &side in sides {
            let decode = |kiln: &Kiln| {
                let tile = Some(Tile::Side(side));
                let decoded = kiln.decode(latents.clone(), size, None, tile);
                decoded.expect("a picture")
            };
            let tiled = decode(&kiln);
            let psnr = psnr(&tiled, picture.pixels());
            let whole = (own, picture.pixels());
            let worst = worst_seam((own, &tiled), whole, side as usize);
            println!("{size:?} in tiles of {side}: {psnr:.1} dB, worst seam {worst:.2}");
            assert!(psnr >= 30.0, "{size:?} in tiles of {side}: {psnr} dB");
            assert!(worst <= LEVELS, "{size:?} in tiles of {side}: {worst}");

            // Were all that is right of one seam a sixteenth darker, it would be seen.
            let mut cut = tiled.clone();
            let seam = seams(own.0, side as usize)[0];
            for row in cut.chunks_exact_mut(own.0 * 3) {
                row[seam * 3..]
                    .iter_mut()
                    .for_each(|byte| *byte -= *byte / 16);
            }
            let worst = worst_seam((own, &cut), whole, side as usize);
            assert!(worst > LEVELS, "{worst}");

            let three = NonZeroUsize::new(3).expect("three");
            let again = decode(&Kiln::open(&path).expect("a package").threads(three));
            assert!(again == tiled, "the threads must not matter");
        }
    }
    // A tile as large as the picture is the picture.
    let whole = kiln.decode(small_latents, (128, 128), None, Some(Tile::Side(128)));
    assert!(whole.expect("a picture") == small.pixels());

    // The encoder in tiles, and the decoder.
    let (tiled, latents) = draw(&kiln, &request.clone().tile(Tile::Auto));
    let psnr = psnr(tiled.pixels(), large.pixels());
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>();
    let errors = &mut latents.iter().zip(&large_latents).map(|(a, b)| a - b);
    let error = (square(errors) / square(&mut large_latents.iter().copied())).sqrt();
    println!("encoded in tiles: latents {error:.3}, {psnr:.1} dB");
    assert!(psnr >= 30.0, "{psnr} dB");
    assert!(latents != large_latents && error < 0.1, "{error}");
    assert!(tiled.parameters().contains(", VAE tile: 64, "));

    let memory = |request: &Request| {
        let settings = kiln.settings(request).expect("settings");
        kiln.memory(&settings).expect("a plan").arena_bytes
    };
    assert!(memory(&request.clone().tile(Tile::Auto)) < memory(&request));
}

/// A size that there are only the UNet's programs for; what is said where there are no tiles.
#[test]
fn a_size_of_the_unet_alone_is_drawn_in_tiles() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("toy.kiln");
    let bytes = toy::package_with(&json!({"tile": 64}), &json!({}), [&[(128, 128)], &[]]);
    fs::write(&path, bytes).expect("a file");
    let kiln = Kiln::open(&path).expect("a package");
    let request = Request::new("a red apple").seed(1).steps(2);
    let large = request.clone().size(128, 128);
    let refused = |request: &Request| kiln.settings(request).expect_err("refused").to_string();
    assert!(refused(&large).contains("size 128x128"));
    let mut told = Vec::new();
    let picture = kiln.draw(&large.clone().tile(Tile::Auto), &mut |progress| {
        if let Progress::Tile { tile, tiles } = progress {
            told.push((tile, tiles));
        }
        ControlFlow::Continue(())
    });
    let picture = picture.expect("a picture");
    assert_eq!((picture.width(), picture.height()), (128, 128));
    assert_eq!(picture.settings().tile, Some(64));
    // The toy has no norms, so nothing is measured; three tiles of 64 stand on 128.
    assert_eq!(told, (1..=9).map(|tile| (tile, 9)).collect::<Vec<_>>());

    // Its decoder sees a pixel around each: tiles are the whole, up to rounding.
    let wide = request.clone().size(96, 64);
    let (whole, _) = draw(&kiln, &wide);
    let (tiled, _) = draw(&kiln, &wide.clone().tile(Tile::Side(64)));
    let most = |a: &Picture, b: &Picture| {
        let pairs = a.pixels().iter().zip(b.pixels());
        pairs.map(|(a, b)| a.abs_diff(*b)).max()
    };
    assert!(most(&whole, &tiled) <= Some(1));
    assert!(!whole.parameters().contains("VAE tile"));

    let error = refused(&wide.clone().tile(Tile::Side(72)));
    assert!(error.contains("tile 72") || error.contains("72"), "{error}");
    let plain = Kiln::open(toy::write(folder.path())).expect("a package");
    let error = plain
        .settings(&request.tile(Tile::Auto))
        .expect_err("none")
        .to_string();
    assert!(error.contains("names no size of tiles"), "{error}");
}
