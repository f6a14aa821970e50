//! The noise is `torch.randn`'s, and the same bits everywhere.

#[allow(dead_code)]
mod common;

use common::Tensors;
use kiln::pipeline::{Noise, Rng, Seeds};
use serde::Deserialize;

/// PyTorch's answers with AVX2 and without, which differ by up to 1.8e-6, and how near they must be.
const FILES: [(&str, f32); 2] = [
    ("noise/randn.safetensors", 1e-6),
    ("noise/randn_scalar.safetensors", 2e-6),
];

#[derive(Deserialize)]
struct Draw {
    name: String,
    seed: String,
    kind: String,
    #[serde(default)]
    shape: Vec<usize>,
    #[serde(default)]
    shapes: Vec<Vec<usize>>,
}

fn check(file: &Tensors, name: &str, actual: &[f32]) -> f32 {
    let expected = file.values(name);
    assert_eq!(actual.len(), expected.len(), "{name}");
    actual
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn agrees_with_torch() {
    for (path, tolerance) in FILES {
        let file = Tensors::read(path);
        let draws: Vec<Draw> = common::json("noise/index.json");
        assert!(draws.len() > 50);
        for draw in draws {
            let mut noise = Noise::new(draw.seed.parse().expect("a seed"));
            let error = match draw.kind.as_str() {
                "successive" => draw
                    .shapes
                    .iter()
                    .enumerate()
                    .map(|(i, shape)| {
                        let mut values = vec![0.0; shape.iter().product()];
                        noise.fill(&mut values);
                        check(&file, &format!("{}.{i}", draw.name), &values)
                    })
                    .fold(0.0, f32::max),
                kind => {
                    let mut values = vec![0.0; draw.shape.iter().product()];
                    noise.fill(&mut values);
                    match kind {
                        "whole" => check(&file, &draw.name, &values),
                        "ends" => {
                            check(&file, &format!("{}.first", draw.name), &values[..64]).max(check(
                                &file,
                                &format!("{}.last", draw.name),
                                &values[values.len() - 64..],
                            ))
                        }
                        other => panic!("{other}"),
                    }
                }
            };
            assert!(error <= tolerance, "{path}: {}: {error:e}", draw.name);
        }
    }
}

/// Golden bits: every machine must make these.
#[test]
fn has_the_same_bits_everywhere() {
    let mut noise = Noise::new(42);
    let mut values = [0.0; 33];
    noise.fill(&mut values);
    let mut few = [0.0; 3];
    noise.fill(&mut few);
    let hash = values
        .iter()
        .chain(&few)
        .flat_map(|x| x.to_bits().to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |h, byte| {
            (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3_u64)
        });
    assert_eq!(hash, 9_370_312_530_740_065_837);
}

#[derive(Deserialize)]
struct Begin {
    rng: String,
    seed: String,
    shape: [usize; 3],
    subseed: Option<String>,
    #[serde(default)]
    strength: f32,
    delta: u64,
    first: Vec<f32>,
    sum: f64,
    next: Vec<f32>,
}

/// Both generators, with sub-seeds: the initial noise, and what a sampler draws after it.
#[test]
fn pictures_begin_with_the_noise_of_their_seeds() {
    let rows: Vec<Begin> = common::json("seeds.json");
    assert!(rows.len() > 25);
    let number = |text: &String| text.parse().expect("a seed");
    for row in rows {
        let [channels, height, width] = row.shape;
        let seeds = Seeds {
            rng: row.rng.parse().expect("a generator"),
            seed: number(&row.seed),
            subseed: row
                .subseed
                .as_ref()
                .map(|seed| (number(seed), row.strength)),
            eta_seed_delta: row.delta,
        };
        let mut latents = vec![0.0; channels * height * width];
        let mut noise = seeds.begin(&mut latents, [height, width]);
        let near = |actual: &[f32], expected: &[f32]| {
            let error = |(a, b): (&f32, &f32)| (a - b).abs();
            let error = actual.iter().zip(expected).map(error).fold(0.0, f32::max);
            assert!(error < 2e-6, "{} {:?}: {error:e}", row.seed, row.shape);
        };
        near(&latents[..16], &row.first);
        let sum: f64 = latents.iter().map(|&x| f64::from(x)).sum();
        assert!(
            (sum - row.sum).abs() < 2e-3,
            "{}: {sum} {}",
            row.seed,
            row.sum
        );
        let mut next = vec![0.0; latents.len()];
        noise.fill(&mut next);
        near(&next[..8], &row.next);
    }
}

/// A seed has one noise whatever came before; a strength of 0 leaves it, one of 1 is the other seed's.
#[test]
fn subseeds_go_from_one_seed_to_the_other() {
    for rng in Rng::ALL {
        let noise = |seed, subseed| {
            let mut latents = vec![0.0; 4 * 8 * 8];
            let seeds = Seeds {
                rng,
                seed,
                subseed,
                eta_seed_delta: 0,
            };
            seeds.begin(&mut latents, [8, 8]);
            latents
        };
        assert_eq!(noise(1, Some((2, 0.0))), noise(1, None));
        let error = |(a, b): (&f32, &f32)| (a - b).abs();
        let (turned, other) = (noise(1, Some((2, 1.0))), noise(2, None));
        assert!(turned.iter().zip(&other).map(error).fold(0.0, f32::max) < 1e-6);
    }
}
