//! The noise schedule and the settings of models that do not say.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Prediction;
use super::config::Config;

/// The schedule that Stable Diffusion was trained with, as `scheduler_config.json`.
pub(super) fn scheduler(lcm: bool) -> Map<String, Value> {
    let mut scheduler = Map::new();
    for (key, value) in [
        ("beta_start", json!(0.00085)),
        ("beta_end", json!(0.012)),
        ("beta_schedule", json!("scaled_linear")),
        ("num_train_timesteps", json!(1000)),
        ("clip_sample", json!(false)),
        ("prediction_type", json!("epsilon")),
    ] {
        scheduler.insert(key.into(), value);
    }
    let own = if lcm {
        // Those of LCM's own models.
        vec![
            ("_class_name", json!("LCMScheduler")),
            ("original_inference_steps", json!(50)),
            ("timestep_scaling", json!(10.0)),
            ("set_alpha_to_one", json!(true)),
            ("steps_offset", json!(0)),
        ]
    } else {
        vec![
            ("_class_name", json!("DDIMScheduler")),
            ("set_alpha_to_one", json!(false)),
            ("steps_offset", json!(1)),
        ]
    };
    scheduler.extend(own.into_iter().map(|(key, value)| (key.to_owned(), value)));
    scheduler
}

/// Says in a schedule what the UNet predicts.
pub(super) fn predict(scheduler: &mut Map<String, Value>, prediction: Prediction) {
    scheduler.insert("prediction_type".into(), prediction.name().into());
}

/// Fills in the settings that a card does not name, by the kind of the model: its scheduler's class and spacing.
pub(super) fn settings(own: &mut Map<String, Value>, scheduler: &Config, guidance_embedded: bool) {
    let class = scheduler.text("_class_name").unwrap_or_default();
    let turbo =
        class.starts_with("Euler") && scheduler.text("timestep_spacing") == Some("trailing");
    let sampler = match class {
        "LCMScheduler" => "lcm",
        "EulerDiscreteScheduler" => "euler",
        "EulerAncestralDiscreteScheduler" => "euler-a",
        _ => "ddim",
    };
    let (steps, guidance_scale) = match (class, turbo) {
        // diffusers' default; one less is what is embedded.
        ("LCMScheduler", _) if guidance_embedded => (4, 8.5),
        ("LCMScheduler", _) => (4, 1.0),
        (_, true) => (1, 1.0),
        _ => (20, 7.5),
    };
    let defaults = own.entry("defaults").or_insert_with(|| json!({}));
    if let Value::Object(defaults) = defaults {
        for (key, value) in [
            ("steps", json!(steps)),
            ("guidance_scale", json!(guidance_scale)),
            ("sampler", json!(sampler)),
        ] {
            defaults.entry(key).or_insert(value);
        }
    }
}

/// What a file says about its model in the fields of `modelspec`.
pub(super) fn modelspec(own: &mut Map<String, Value>, metadata: &BTreeMap<String, String>) {
    for (field, key) in [
        ("title", "name"),
        ("description", "description"),
        ("license", "license"),
        ("author", "author"),
        ("hash_sha256", "hash_sha256"),
    ] {
        let value = metadata.get(&format!("modelspec.{field}"));
        if let Some(text) = value.filter(|text| !text.trim().is_empty()) {
            own.entry(key).or_insert_with(|| text.trim().into());
        }
    }
}

/// What a file says that its UNet predicts.
pub(super) fn told(metadata: &BTreeMap<String, String>) -> Option<Prediction> {
    let field = |name: &str| {
        metadata
            .get(&format!("modelspec.{name}"))
            .map(String::as_str)
    };
    match field("prediction_type") {
        Some("v") => return Some(Prediction::Velocity),
        Some("epsilon") => return Some(Prediction::Epsilon),
        _ => {}
    }
    match field("architecture")? {
        "stable-diffusion-v2-768-v" => Some(Prediction::Velocity),
        "stable-diffusion-v1" | "stable-diffusion-v2-512" => Some(Prediction::Epsilon),
        _ => None,
    }
}
