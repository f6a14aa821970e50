//! LoRAs against what diffusers, PEFT and LyCORIS make of them, and LoRAs that are refused.

#[path = "../../../../tests/common/uniform.rs"]
mod uniform;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;
use crate::graph::Literal;
use uniform::uniform;

type Shapes = BTreeMap<String, Vec<usize>>;

#[derive(Deserialize)]
struct Fixture {
    model: BTreeMap<String, Shapes>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    files: Vec<File>,
    changed: BTreeMap<String, BTreeMap<String, [f64; 4]>>,
}

#[derive(Deserialize)]
struct File {
    weight: f32,
    tensors: Shapes,
    numbers: BTreeMap<String, f32>,
    metadata: BTreeMap<String, String>,
}

fn literal(shape: &[usize], values: Vec<f32>) -> Weight {
    Weight::new(Literal {
        shape: shape.to_vec(),
        values,
    })
}

fn tensors(shapes: &Shapes) -> Tensors {
    let mut tensors = Tensors::default();
    for (name, shape) in shapes {
        let values = uniform(name, shape.iter().product());
        let weight = literal(shape, values);
        tensors.by_name.insert(name.clone(), weight);
    }
    tensors
}

impl File {
    fn tensors(&self) -> Tensors {
        let mut tensors = tensors(&self.tensors);
        for (name, number) in &self.numbers {
            let weight = literal(&[], vec![*number]);
            tensors.by_name.insert(name.clone(), weight);
        }
        tensors.metadata = self.metadata.clone();
        tensors
    }
}

fn fixture() -> Fixture {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/lora/index.json"
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The model of the fixture: UNet and text encoder.
fn model(fixture: &Fixture) -> (Tensors, Tensors) {
    let part = |name: &str| tensors(&fixture.model[name]);
    (part("unet"), part("text_encoder"))
}

/// The fixture's digest.
fn digest(values: &[f32]) -> [f64; 4] {
    let probe = uniform("probe", values.len());
    let sum = values
        .iter()
        .zip(&probe)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum();
    let at = |i: usize| f64::from(values[i]);
    [sum, at(0), at(values.len() / 2), at(values.len() - 1)]
}

#[test]
fn merges_as_diffusers_peft_and_lycoris_do() {
    let fixture = fixture();
    assert!(fixture.cases.len() >= 17);
    for case in &fixture.cases {
        let (mut unet, mut text_encoder) = model(&fixture);
        let before = (unet.clone(), text_encoder.clone());
        let mut changed = Vec::new();
        for file in &case.files {
            let applied = apply(
                &mut unet,
                &mut text_encoder,
                &file.tensors(),
                file.weight,
            )
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
            assert_eq!(applied.unmatched, [""; 0], "{}", case.name);
            changed.extend(applied.changed);
        }
        for (part, name, tensors, before) in [
            (Part::Unet, "unet", &unet, &before.0),
            (
                Part::TextEncoder,
                "text_encoder",
                &text_encoder,
                &before.1,
            ),
        ] {
            let expected = case.changed.get(name);
            for (parameter, weight) in &tensors.by_name {
                let label = format!("{}: {name}.{parameter}", case.name);
                let Some(expected) = expected.and_then(|e| e.get(parameter)) else {
                    assert!(weight.same(&before.by_name[parameter]), "{label}");
                    continue;
                };
                assert!(changed.contains(&(part, parameter.clone())), "{label}");
                let found = weight.read();
                assert_eq!(weight.shape(), before.by_name[parameter].shape());
                let largest = found.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                let limit = 1e-6 * f64::from(largest);
                let [sum, samples @ ..] = digest(&found);
                let [expected_sum, expected @ ..] = *expected;
                for (found, expected) in samples.into_iter().zip(expected) {
                    assert!((found - expected).abs() <= limit, "{label}: {found} {expected}");
                }
                // Independent roundings of so many elements, each times 0.06 on average.
                let limit = limit * 0.1 * (found.len() as f64).sqrt();
                assert!(
                    (sum - expected_sum).abs() <= limit,
                    "{label}: {sum} {expected_sum}"
                );
            }
        }
    }
}
