//! The noise is `torch.randn`'s, and the same bits everywhere.

#[allow(dead_code)]
mod common;

use common::Tensors;
use kiln::pipeline::Noise;
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
