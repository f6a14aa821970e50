//! Each sampler takes the steps that diffusers' scheduler takes.

#[allow(dead_code)]
mod common;

use common::{Tensors, relative_error};
use kiln::pipeline::Noise;
use kiln::pipeline::samplers::{SamplerKind, Schedule, ScheduleError};
use serde::Deserialize;
use serde_json::{Value, json};

const LEN: usize = 64;

#[derive(Deserialize)]
struct Run {
    name: String,
    sampler: String,
    steps: usize,
    init_noise_sigma: f64,
    config: Value,
}

#[test]
fn agree_with_diffusers_step_by_step() {
    let file = Tensors::read("samplers/samplers.safetensors");
    let runs: Vec<Run> = common::json("samplers/index.json");
    assert!(runs.len() > 100);
    let initial = file.values("initial");
    let outputs = file.values("model_outputs");
    for run in runs {
        let name = &run.name;
        let kind: SamplerKind = run
            .sampler
            .replace("euler_ancestral", "euler-a")
            .parse()
            .expect("a sampler");
        let schedule = Schedule::from_json(&run.config.to_string()).expect("a schedule");
        let mut sampler = kind.prepare(&schedule, run.steps, LEN).expect("a sampler");

        assert_eq!(
            sampler.timesteps(),
            file.values(&format!("{name}.timesteps")),
            "{name}"
        );
        let sigma = f64::from(sampler.initial_sigma());
        assert!(
            (sigma / run.init_noise_sigma - 1.0).abs() < 1e-6,
            "{name}: {sigma}"
        );

        // What diffusers was given came from one generator: the initial noise, then the outputs, then the noise added.
        let mut noise = Noise::new(7);
        noise.fill(&mut vec![0.0; LEN + outputs.len()]);
        let mut latents: Vec<f32> = initial
            .iter()
            .map(|x| x * sampler.initial_sigma())
            .collect();
        let samples = file.values(&format!("{name}.samples"));
        let inputs =
            (kind != SamplerKind::Ddim).then(|| file.values(&format!("{name}.model_inputs")));
        let mut input = vec![0.0; LEN];
        for step in 0..run.steps {
            let at = step * LEN..(step + 1) * LEN;
            sampler.scale_input(step, &latents, &mut input);
            match &inputs {
                Some(expected) => assert!(
                    relative_error(&input, &expected[at.clone()]) < 1e-5,
                    "{name} step {step}"
                ),
                None => assert_eq!(input, latents, "{name} step {step}"),
            }
            sampler.step(step, &outputs[at.clone()], &mut latents, &mut noise);
            let error = relative_error(&latents, &samples[at]);
            assert!(error < 1e-5, "{name} step {step}: {error:e}");
        }
    }
}

fn emoji() -> Value {
    json!({
        "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1,
        "clip_sample": false, "set_alpha_to_one": false, "trained_betas": null,
    })
}

fn with(changes: Value) -> Result<Schedule, ScheduleError> {
    let mut config = emoji();
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    Schedule::from_json(&config.to_string())
}

/// diffusers 0.42.1, `DDIMScheduler(**config).alphas_cumprod` at 0, 1, 500, 998 and 999, as bits; the last may differ.
#[test]
fn the_schedules_are_diffusers_own() {
    for (changes, expected) in [
        (
            json!({}),
            [
                0x3f7f_c84b,
                0x3f7f_9054,
                0x3e8d_7b73,
                0x3b9a_8e83,
                0x3b98_b3b6,
            ],
        ),
        (
            json!({ "beta_schedule": "linear" }),
            [
                0x3f7f_c84b,
                0x3f7f_8fe7,
                0x3e24_a151,
                0x3ad1_78b3,
                0x3ace_f533,
            ],
        ),
        (
            json!({ "beta_schedule": "squaredcos_cap_v2" }),
            [
                0x3f7f_fd4b,
                0x3f7f_fa45,
                0x3efc_0cc9,
                0x3622_fde3,
                0x3126_e6c2,
            ],
        ),
        (
            json!({ "rescale_betas_zero_snr": true }),
            [0x3f7f_c84b, 0x3f7f_8c3b, 0x3e76_cd91, 0x3453_4ef4, 0],
        ),
    ] {
        let schedule = with(changes.clone()).expect("a schedule");
        let bits = [0, 1, 500, 998, 999].map(|t| schedule.alphas_cumprod()[t].to_bits());
        let near = bits
            .iter()
            .zip(expected)
            .all(|(a, b): (_, u32)| a.abs_diff(b) <= 1);
        assert!(near, "{changes}: {bits:x?}, expected {expected:x?}");
    }
}

#[test]
fn missing_keys_take_the_samplers_defaults() {
    let mut config = emoji();
    config
        .as_object_mut()
        .expect("an object")
        .remove("timestep_spacing");
    let schedule = Schedule::from_json(&config.to_string()).expect("a schedule");
    let first = |kind: SamplerKind| {
        kind.prepare(&schedule, 4, LEN)
            .expect("a sampler")
            .timesteps()[0]
    };
    assert_eq!(first(SamplerKind::Ddim), 751.0);
    assert_eq!(first(SamplerKind::Euler), 999.0);
    assert_eq!(first(SamplerKind::EulerAncestral), 999.0);
}

#[test]
fn trained_betas_replace_the_schedule() {
    let betas: Vec<f32> = (1..=10).map(|i| i as f32 / 100.0).collect();
    let schedule =
        with(json!({ "num_train_timesteps": 10, "trained_betas": betas })).expect("a schedule");
    assert_eq!(schedule.train_timesteps(), 10);
    assert_eq!(
        schedule.alphas_cumprod()[1],
        (f64::from(0.99f32) * f64::from(0.98f32)) as f32
    );
}

#[test]
fn zero_signal_needs_velocity() {
    let changes = json!({ "rescale_betas_zero_snr": true, "timestep_spacing": "trailing" });
    let schedule = with(changes.clone()).expect("a schedule");
    assert_eq!(
        SamplerKind::Ddim.prepare(&schedule, 4, LEN).err(),
        Some(ScheduleError::NoSignal { timestep: 999 })
    );
    let mut changes = changes;
    changes["prediction_type"] = json!("v_prediction");
    let schedule = with(changes).expect("a schedule");
    let mut sampler = SamplerKind::Ddim
        .prepare(&schedule, 4, LEN)
        .expect("a sampler");
    let mut latents = vec![1.0; LEN];
    sampler.step(0, &[0.5; LEN], &mut latents, &mut Noise::new(0));
    assert!(latents.iter().all(|x| x.is_finite()));
}

#[test]
fn refuse_what_they_do_not_know() {
    for (changes, message) in [
        (
            json!({ "beta_schedule": "sigmoid" }),
            "scheduler: beta_schedule is `sigmoid`, known: linear, scaled_linear, squaredcos_cap_v2",
        ),
        (
            json!({ "prediction_type": "sample" }),
            "scheduler: prediction_type is `sample`, known: epsilon, v_prediction",
        ),
        (
            json!({ "timestep_spacing": "even" }),
            "scheduler: timestep_spacing is `even`, known: leading, trailing, linspace",
        ),
        (
            json!({ "final_sigmas_type": "one" }),
            "scheduler: final_sigmas_type is `one`, known: zero, sigma_min",
        ),
        (
            json!({ "num_train_timesteps": 0 }),
            "scheduler: num_train_timesteps is 0, expected 1 to 100000",
        ),
        (
            json!({ "steps_offset": 2000 }),
            "scheduler: steps_offset is 2000, expected 0 to 1000",
        ),
        (
            json!({ "clip_sample": true, "clip_sample_range": -1 }),
            "scheduler: clip_sample_range is -1, expected a positive number",
        ),
        (
            json!({ "trained_betas": [0.1] }),
            "scheduler: trained_betas is 1 numbers, expected 1000, one for each training timestep",
        ),
        (json!({ "beta_end": 1.5 }), "scheduler: betas is "),
        (json!({ "beta_start": -1.0 }), "scheduler: betas is "),
        (
            json!({ "num_train_timesteps": "many" }),
            "scheduler: invalid type",
        ),
    ] {
        let error = with(changes.clone())
            .err()
            .unwrap_or_else(|| panic!("{changes} was accepted"))
            .to_string();
        assert!(error.starts_with(message), "{changes}: {error}");
    }
    assert!(Schedule::from_json("not JSON").is_err());
    assert!(Schedule::from_json("[]").is_err());
}

#[test]
fn refuse_what_they_cannot_do() {
    for (kind, changes, message) in [
        (
            SamplerKind::Ddim,
            json!({ "thresholding": true }),
            "scheduler: thresholding is not supported by the sampler ddim",
        ),
        (
            SamplerKind::Euler,
            json!({ "use_karras_sigmas": true }),
            "scheduler: use_karras_sigmas is not supported by the sampler euler",
        ),
        (
            SamplerKind::Euler,
            json!({ "interpolation_type": "log_linear" }),
            "scheduler: interpolation_type is not supported by the sampler euler",
        ),
    ] {
        let schedule = with(changes).expect("a schedule");
        let error = kind.prepare(&schedule, 4, LEN).err().expect("an error");
        assert_eq!(error.to_string(), message);
        assert!(
            SamplerKind::EulerAncestral
                .prepare(&schedule, 4, LEN)
                .is_ok()
        );
    }
    let schedule = with(json!({})).expect("a schedule");
    for kind in SamplerKind::ALL {
        for steps in [0, 1001] {
            let error = kind.prepare(&schedule, steps, LEN).err().expect("an error");
            assert_eq!(error, ScheduleError::Steps { steps, most: 1000 });
        }
    }
    let error = SamplerKind::Ddim
        .prepare(&schedule, 1000, LEN)
        .err()
        .expect("an error");
    assert_eq!(
        error,
        ScheduleError::Steps {
            steps: 1000,
            most: 999
        }
    );
}

#[test]
fn an_unknown_name_lists_the_known() {
    let error = "plms"
        .parse::<SamplerKind>()
        .expect_err("there is no such sampler");
    assert_eq!(
        error.to_string(),
        "unknown sampler `plms`, there are: ddim, euler, euler-a"
    );
}

/// The final sigma of `final_sigmas_type: sigma_min` is the training's smallest: some noise stays.
#[test]
fn the_final_sigma_may_be_the_smallest() {
    let run = |kind: &str| {
        let schedule = with(json!({ "final_sigmas_type": kind })).expect("a schedule");
        let mut sampler = SamplerKind::Euler
            .prepare(&schedule, 1, 1)
            .expect("a sampler");
        let mut latents = [0.0];
        sampler.step(0, &[1.0], &mut latents, &mut Noise::new(0));
        latents[0]
    };
    let smallest = (0.00085_f64 / (1.0 - 0.00085)).sqrt();
    assert!((f64::from(run("sigma_min") - run("zero")) - smallest).abs() < 1e-6);
}
