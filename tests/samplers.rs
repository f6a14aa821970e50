//! Each sampler takes the steps that diffusers' scheduler takes.

#[allow(dead_code)]
mod common;

use std::collections::BTreeSet;

use common::{Tensors, relative_error};
use kiln::pipeline::Noise;
use kiln::pipeline::samplers::{
    Run, Sampler, SamplerKind, Schedule, ScheduleError, ScheduleKind, Spacing,
};
use serde::Deserialize;
use serde_json::{Value, json};

const LEN: usize = 64;

#[derive(Deserialize)]
struct Recorded {
    name: String,
    sampler: String,
    steps: usize,
    init_noise_sigma: f64,
    config: Value,
}

#[test]
fn agree_with_diffusers_step_by_step() {
    let file = Tensors::read("samplers/samplers.safetensors");
    let runs: Vec<Recorded> = common::json("samplers/index.json");
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
        let mut sampler = kind
            .prepare(&schedule, &Run::new(run.steps, LEN))
            .expect("a sampler");

        assert_eq!(
            timesteps(&*sampler),
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

#[derive(Deserialize)]
struct Trajectory {
    name: String,
    sampler: String,
    schedule: String,
    steps: usize,
    #[serde(default)]
    start: usize,
    eta: Option<f32>,
    initial_sigma: f32,
    config: Value,
}

impl Trajectory {
    const LEN: usize = 16;

    fn prepare(&self) -> Box<dyn Sampler + Send> {
        let mut config = json!({
            "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        });
        for (key, value) in self.config.as_object().expect("an object") {
            config[key] = value.clone();
        }
        let schedule = Schedule::from_json(&config.to_string()).expect("a schedule");
        let run = Run {
            start: self.start,
            schedule: Some(self.schedule.parse().expect("a schedule")),
            eta: self.eta,
            ..Run::new(self.steps, Self::LEN)
        };
        let kind: SamplerKind = self.sampler.parse().expect("a sampler");
        kind.prepare(&schedule, &run).expect("a sampler")
    }
}

/// The latents, the pattern of the model and the noise of a trajectory, as make_trajectories.py has them.
struct Begin {
    latents: Vec<f32>,
    pattern: Vec<f32>,
    noise: Noise,
}

impl Begin {
    fn of(run: &Trajectory, sampler: &dyn Sampler, file: &Tensors) -> Self {
        let mut noise = Noise::new(11);
        // Both are in the file, for PyTorch's last bits differ from machine to machine.
        noise.fill(&mut [0.0; Trajectory::LEN]);
        noise.fill(&mut [0.0; Trajectory::LEN]);
        let (initial, pattern) = (file.values("initial"), file.values("pattern"));
        let latents = match run.start {
            0 => initial
                .iter()
                .map(|x| x * sampler.initial_sigma())
                .collect(),
            _ => {
                let mut picture = pattern.clone();
                sampler.add_noise(&mut picture, &initial);
                picture
            }
        };
        Self {
            latents,
            pattern,
            noise,
        }
    }

    /// Evaluates the model and takes the sampler on.
    fn go_on(&mut self, sampler: &mut dyn Sampler, index: usize) {
        let mut input = [0.0; Trajectory::LEN];
        sampler.scale_input(index, &self.latents, &mut input);
        let scale = sampler.evaluations()[index].timestep * 0.001;
        for (x, pattern) in input.iter_mut().zip(&self.pattern) {
            *x = *x * 0.75 + pattern * scale;
        }
        sampler.step(index, &input, &mut self.latents, &mut self.noise);
    }
}

/// Every sampler, on every schedule, with every kind of prediction: what diffusers or k-diffusion gives.
#[test]
fn agree_with_the_references_step_by_step() {
    let file = Tensors::read("trajectories/trajectories.safetensors");
    let runs: Vec<Trajectory> = common::json("trajectories/index.json");
    for kind in SamplerKind::ALL {
        for schedule in kind.schedules() {
            // Its reference has no other; they are checked with other samplers.
            let known =
                |run: &Trajectory| run.sampler == kind.name() && run.schedule == schedule.name();
            let checked = runs.iter().filter(|run| known(run)).count();
            assert!(
                checked > 1 || NO_REFERENCE.contains(&kind),
                "{kind} {schedule}"
            );
        }
    }
    for run in &runs {
        let name = &run.name;
        let mut sampler = run.prepare();
        let expected = file.values(&format!("{name}.timesteps"));
        assert_eq!(sampler.evaluations().len(), expected.len(), "{name}");
        for (evaluation, expected) in sampler.evaluations().iter().zip(&expected) {
            let error = (evaluation.timestep - expected).abs();
            assert!(error < 2e-3, "{name}: {} {expected}", evaluation.timestep);
        }
        let sigma = sampler.initial_sigma();
        assert!((sigma / run.initial_sigma - 1.0).abs() < 1e-6, "{name}");

        let samples = file.values(&format!("{name}.samples"));
        let mut samples = samples.chunks_exact(Trajectory::LEN);
        let mut state = Begin::of(run, &*sampler, &file);
        for index in 0..sampler.evaluations().len() {
            state.go_on(&mut *sampler, index);
            if sampler.completes_step(index) {
                let error = relative_error(&state.latents, samples.next().expect("a step"));
                assert!(error < 1e-5, "{name} evaluation {index}: {error:e}");
            }
        }
        assert_eq!(samples.next(), None, "{name}");
    }
}

/// Samplers whose diffusers scheduler cannot be given sigmas of one's own.
const NO_REFERENCE: [SamplerKind; 4] = [
    SamplerKind::Dpm2,
    SamplerKind::Dpm2Ancestral,
    SamplerKind::Lms,
    SamplerKind::DpmppSde,
];

/// Latents, noise and the sampler's state are all that a run depends on: a run that is broken off after any evaluation and
/// taken up by another sampler ends with the same bits.
#[test]
fn a_run_can_be_taken_up_again() {
    let file = Tensors::read("trajectories/trajectories.safetensors");
    let runs: Vec<Trajectory> = common::json("trajectories/index.json");
    let mut seen = BTreeSet::new();
    for run in runs.iter().filter(|run| run.steps >= 4 && run.start == 0) {
        if !seen.insert((run.sampler.clone(), run.eta.map(f32::to_bits))) {
            continue;
        }
        let mut whole = run.prepare();
        let count = whole.evaluations().len();
        let mut expected = Begin::of(run, &*whole, &file);
        (0..count).for_each(|index| expected.go_on(&mut *whole, index));
        for broken in 1..count {
            let (mut first, mut second) = (run.prepare(), run.prepare());
            let mut state = Begin::of(run, &*first, &file);
            (0..broken).for_each(|index| state.go_on(&mut *first, index));
            for (to, from) in second.state().iter_mut().zip(first.state()) {
                to.copy_from_slice(from);
            }
            (broken..count).for_each(|index| state.go_on(&mut *second, index));
            assert_eq!(state.latents, expected.latents, "{} {broken}", run.name);
        }
    }
}

fn timesteps(sampler: &dyn Sampler) -> Vec<f32> {
    sampler.evaluations().iter().map(|e| e.timestep).collect()
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
        let sampler = kind.prepare(&schedule, &Run::new(4, LEN));
        timesteps(&*sampler.expect("a sampler"))[0]
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
        SamplerKind::Ddim
            .prepare(&schedule, &Run::new(4, LEN))
            .err(),
        Some(ScheduleError::NoSignal { timestep: 999 })
    );
    let mut changes = changes;
    changes["prediction_type"] = json!("v_prediction");
    let schedule = with(changes).expect("a schedule");
    let mut sampler = SamplerKind::Ddim
        .prepare(&schedule, &Run::new(4, LEN))
        .expect("a sampler");
    let mut latents = vec![1.0; LEN];
    sampler.add_noise(&mut latents, &[2.0; LEN]);
    assert_eq!(latents, [2.0; LEN]);
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
            json!({ "prediction_type": "flow" }),
            "scheduler: prediction_type is `flow`, known: epsilon, v_prediction, sample",
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
            SamplerKind::Pndm,
            json!({ "rescale_betas_zero_snr": true }),
            "scheduler: rescale_betas_zero_snr is not supported by the sampler pndm",
        ),
        (
            SamplerKind::Ddpm,
            json!({ "variance_type": "learned" }),
            "scheduler: variance_type is not supported by the sampler ddpm",
        ),
        (
            SamplerKind::Unipc,
            json!({ "predict_x0": false }),
            "scheduler: predict_x0 is not supported by the sampler unipc",
        ),
        (
            SamplerKind::Euler,
            json!({ "interpolation_type": "log_linear" }),
            "scheduler: interpolation_type is not supported by the sampler euler",
        ),
    ] {
        let schedule = with(changes).expect("a schedule");
        let error = kind
            .prepare(&schedule, &Run::new(4, LEN))
            .err()
            .expect("an error");
        assert_eq!(error.to_string(), message);
        assert!(
            SamplerKind::EulerAncestral
                .prepare(&schedule, &Run::new(4, LEN))
                .is_ok()
        );
    }
}

#[test]
fn refuse_more_steps_than_there_are() {
    let schedule = with(json!({})).expect("a schedule");
    let most = |kind| match kind {
        SamplerKind::Lcm | SamplerKind::Tcd => 50,
        // Their steps are between one timestep more.
        SamplerKind::Dpmpp2m
        | SamplerKind::Dpmpp2mSde
        | SamplerKind::Dpmpp3mSde
        | SamplerKind::Unipc
        | SamplerKind::Deis => 998,
        _ => 1000,
    };
    for kind in SamplerKind::ALL {
        for steps in [0, 1001] {
            let error = kind.prepare(&schedule, &Run::new(steps, LEN)).err();
            let expected = ScheduleError::Steps {
                steps,
                most: most(kind),
            };
            assert_eq!(error, Some(expected), "{kind}");
        }
    }
    for kind in [SamplerKind::Ddim, SamplerKind::Ddpm, SamplerKind::Pndm] {
        let error = kind.prepare(&schedule, &Run::new(1000, LEN)).err();
        let expected = ScheduleError::Steps {
            steps: 1000,
            most: 999,
        };
        assert_eq!(error, Some(expected), "{kind}");
    }
}

#[test]
fn refuse_what_is_not_theirs() {
    let schedule = with(json!({})).expect("a schedule");
    let error = |kind: SamplerKind, run: Run| {
        let error = kind.prepare(&schedule, &run).err();
        error.expect("an error").to_string()
    };
    let run = Run::new(4, LEN);
    for kind in SamplerKind::ALL {
        for asked in ScheduleKind::ALL {
            let run = Run {
                schedule: Some(asked),
                ..run
            };
            let prepared = kind.prepare(&schedule, &run).map(|_| ());
            assert_eq!(
                prepared.is_ok(),
                kind.schedules().contains(&asked),
                "{kind} {asked}"
            );
        }
        for eta in [-0.1, 1.5, f32::NAN] {
            let eta = Some(eta);
            assert!(kind.prepare(&schedule, &Run { eta, ..run }).is_err());
        }
        assert_eq!(
            error(kind, Run { start: 4, ..run }),
            "step 4 is not one of 4, counted from 0"
        );
    }
    let karras = Run {
        schedule: Some(ScheduleKind::Karras),
        ..run
    };
    assert_eq!(
        error(SamplerKind::Ddim, karras),
        "schedule karras: the sampler ddim takes normal"
    );
    let eta = |eta| Run {
        eta: Some(eta),
        ..run
    };
    let trailing = Run {
        spacing: Some(Spacing::Trailing),
        ..run
    };
    assert_eq!(
        error(SamplerKind::Lcm, trailing),
        "spacing: the sampler lcm has timesteps of its own"
    );
    assert_eq!(
        error(SamplerKind::Heun, eta(0.5)),
        "eta: the sampler heun has none"
    );
    assert_eq!(
        error(SamplerKind::EulerAncestral, eta(2.0)),
        "eta is 2, expected 0 to 1"
    );
}

/// The spacing that is asked for takes precedence over the file's.
#[test]
fn the_spacing_may_be_chosen() {
    let schedule = with(json!({})).expect("a schedule");
    let first = |spacing| {
        let run = Run {
            spacing,
            ..Run::new(4, LEN)
        };
        let sampler = SamplerKind::Ddim.prepare(&schedule, &run);
        timesteps(&*sampler.expect("a sampler"))[0]
    };
    assert_eq!(first(None), 751.0);
    assert_eq!(first(Some(Spacing::Trailing)), 999.0);
    for spacing in Spacing::ALL {
        assert_eq!(Spacing::from_name(spacing.name()), Some(spacing));
    }
}

/// A model's file may ask for sigmas; those whose diffusers scheduler reads the key follow it.
#[test]
fn the_file_may_ask_for_sigmas() {
    let first = |kind: SamplerKind, changes| {
        let schedule = with(changes).expect("a schedule");
        let sampler = kind.prepare(&schedule, &Run::new(8, LEN));
        sampler.expect("a sampler").evaluations()[1].sigma
    };
    let karras = || json!({ "use_karras_sigmas": true });
    assert_ne!(
        first(SamplerKind::Euler, karras()),
        first(SamplerKind::Euler, json!({}))
    );
    assert_eq!(
        first(SamplerKind::EulerAncestral, karras()),
        first(SamplerKind::EulerAncestral, json!({}))
    );
    let both = with(json!({ "use_karras_sigmas": true, "use_beta_sigmas": true }));
    let error = both.expect_err("an error").to_string();
    assert!(error.contains("one of them"), "{error}");
}

#[test]
fn an_unknown_name_lists_the_known() {
    let error = "restart"
        .parse::<SamplerKind>()
        .expect_err("there is no such sampler");
    assert_eq!(
        error.to_string(),
        "unknown sampler `restart`, there are: ddim, ddpm, pndm, euler, euler-a, heun, dpm2, dpm2-a, lms, dpmpp-2s-a, dpmpp-2m, \
         dpmpp-sde, dpmpp-2m-sde, dpmpp-3m-sde, unipc, deis, ipndm, lcm, tcd"
    );
    let error = "kl_optimal"
        .parse::<ScheduleKind>()
        .expect_err("there is no such schedule");
    assert_eq!(
        error.to_string(),
        "unknown schedule `kl_optimal`, there are: normal, karras, exponential, sgm-uniform, simple, beta, align-your-steps"
    );
}

/// Every name in the tables of samplers/README.md means the sampler or the schedule of its row.
#[test]
fn the_names_of_other_tools_are_known() {
    let text = include_str!("../src/pipeline/samplers/README.md");
    let mut rows = 0;
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let own = cells[0].trim_matches('`');
        let names = |cell: &str| -> Vec<String> {
            let names = cell.replace('`', "");
            names.split(", ").map(str::to_owned).collect()
        };
        rows += 1;
        if let Ok(schedule) = own.parse::<ScheduleKind>() {
            let comfy = if own == "align-your-steps" {
                ""
            } else {
                cells[2]
            };
            for name in names(cells[1]).into_iter().chain(names(comfy)) {
                let parsed = name.parse::<ScheduleKind>();
                assert!(name.is_empty() || parsed == Ok(schedule), "{name}");
            }
            continue;
        }
        let kind: SamplerKind = own.parse().expect("a sampler");
        assert_eq!(kind.name(), own);
        // Two rows share a scheduler of diffusers; its name means the first.
        let scheduler = match kind {
            SamplerKind::Dpmpp2mSde => "",
            _ => cells[3].split([' ', ',']).next().unwrap_or(""),
        };
        let others = names(cells[1]).into_iter().chain(names(cells[2]));
        for name in others
            .chain(names(scheduler))
            .filter(|name| !name.is_empty())
        {
            assert_eq!(SamplerKind::from_name(&name), Ok((kind, None)), "{name}");
        }
        assert!(
            cells[6].contains("diffusion") || cells[6].contains("diffusers"),
            "{own}"
        );
    }
    assert_eq!(rows, SamplerKind::ALL.len() + ScheduleKind::ALL.len());
}

#[test]
fn old_names_of_the_webui_end_with_the_schedule() {
    for (name, kind, schedule) in [
        (
            "DPM++ 2M Karras",
            SamplerKind::Dpmpp2m,
            Some(ScheduleKind::Karras),
        ),
        (
            "DPM++ 2M SDE Exponential",
            SamplerKind::Dpmpp2mSde,
            Some(ScheduleKind::Exponential),
        ),
        (
            "k_dpmpp_2m_sde_exp",
            SamplerKind::Dpmpp2mSde,
            Some(ScheduleKind::Exponential),
        ),
        (
            "DPM2 a Karras",
            SamplerKind::Dpm2Ancestral,
            Some(ScheduleKind::Karras),
        ),
        ("LMS Karras", SamplerKind::Lms, Some(ScheduleKind::Karras)),
        (
            "Euler SGM Uniform",
            SamplerKind::Euler,
            Some(ScheduleKind::SgmUniform),
        ),
        ("euler_ancestral", SamplerKind::EulerAncestral, None),
        ("k_euler_a", SamplerKind::EulerAncestral, None),
    ] {
        assert_eq!(SamplerKind::from_name(name), Ok((kind, schedule)), "{name}");
    }
    for name in [
        "",
        "Karras",
        "DPM fast",
        "DPM++ 2M SDE Heun",
        "Euler Karras Karras",
    ] {
        assert!(SamplerKind::from_name(name).is_err(), "{name}");
    }
}

/// The final sigma of `final_sigmas_type: sigma_min` is the training's smallest: some noise stays.
#[test]
fn the_final_sigma_may_be_the_smallest() {
    let run = |kind: &str| {
        let schedule = with(json!({ "final_sigmas_type": kind })).expect("a schedule");
        let mut sampler = SamplerKind::Euler
            .prepare(&schedule, &Run::new(1, 1))
            .expect("a sampler");
        let mut latents = [0.0];
        sampler.step(0, &[1.0], &mut latents, &mut Noise::new(0));
        latents[0]
    };
    let smallest = (0.00085_f64 / (1.0 - 0.00085)).sqrt();
    assert!((f64::from(run("sigma_min") - run("zero")) - smallest).abs() < 1e-6);
}
