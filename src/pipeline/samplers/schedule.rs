//! The noise schedule that a model was trained with, read from diffusers' `scheduler_config.json`.
//!
//! diffusers computes the schedule in `f32` and its cumulative product with a `f64` accumulator; so does this module, so
//! that the numbers are the same bits. Near the end of a run `1 - alpha` is about 1e-3, where the rounding of `alpha`
//! to `f32` alone moves the result by more than 1e-5.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Run, ScheduleKind};

/// Why a model's scheduler section, or a number of steps, is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// The section is not the JSON object that it should be.
    #[error("scheduler: {0}")]
    Json(String),
    /// A key has a value that is not known.
    #[error("scheduler: {key} is `{value}`, known: {known}")]
    Unknown {
        /// The key in the JSON.
        key: &'static str,
        /// What stands there.
        value: String,
        /// What may stand there.
        known: &'static str,
    },
    /// A key asks for something that the sampler does not do.
    #[error("scheduler: {key} is not supported by the sampler {sampler}")]
    Unsupported {
        /// The key in the JSON.
        key: &'static str,
        /// The sampler's name.
        sampler: &'static str,
    },
    /// A number is outside its range.
    #[error("scheduler: {key} is {value}, expected {expected}")]
    Range {
        /// The key in the JSON.
        key: &'static str,
        /// What stands there.
        value: String,
        /// What may stand there.
        expected: String,
    },
    /// The number of steps is outside the model's range.
    #[error("{steps} steps: the model takes 1 to {most}")]
    Steps {
        /// The steps asked for.
        steps: usize,
        /// The most that the model's schedule gives.
        most: usize,
    },
    /// The model predicts noise, but its schedule starts where there is nothing but noise.
    #[error(
        "scheduler: prediction_type epsilon cannot start at timestep {timestep}, where the signal is zero"
    )]
    NoSignal {
        /// The timestep whose cumulative alpha is zero.
        timestep: usize,
    },
    /// The sampler cannot follow the sigmas asked for.
    #[error("schedule {schedule}: the sampler {sampler} takes {known}")]
    Kind {
        /// The schedule asked for.
        schedule: ScheduleKind,
        /// The sampler's name.
        sampler: &'static str,
        /// The schedules that it takes.
        known: String,
    },
    /// The sampler's timesteps are those that the model was distilled with.
    #[error("spacing: the sampler {sampler} has timesteps of its own")]
    NoSpacing {
        /// The sampler's name.
        sampler: &'static str,
    },
    /// The sampler adds no noise whose strength could be chosen.
    #[error("eta: the sampler {sampler} has none")]
    NoEta {
        /// The sampler's name.
        sampler: &'static str,
    },
    /// The run begins after its end.
    #[error("step {start} is not one of {steps}, counted from 0")]
    Start {
        /// The step to begin with.
        start: usize,
        /// The steps that there are.
        steps: usize,
    },
    /// The strength of the noise added is out of range.
    #[error("eta is {0}, expected 0 to 1")]
    Eta(f32),
}

impl ScheduleError {
    /// Whether it is the request that is wrong, not the model's file.
    pub fn is_of_request(&self) -> bool {
        matches!(
            self,
            Self::Steps { .. }
                | Self::Kind { .. }
                | Self::NoSpacing { .. }
                | Self::NoEta { .. }
                | Self::Start { .. }
                | Self::Eta(_)
        )
    }
}

/// What the UNet's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise in the latents.
    Epsilon,
    /// `sqrt(alpha) * noise - sqrt(1 - alpha) * latents`.
    Velocity,
    /// The latents without noise.
    Sample,
}

/// The variance of the noise that DDPM adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variance {
    Small,
    SmallLog,
    Large,
}

/// Which of the training timesteps a run of fewer steps visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spacing {
    /// Multiples of `train / steps`, from 0 (and `steps_offset`).
    Leading,
    /// Multiples of `train / steps`, down from the last.
    Trailing,
    /// Evenly from the last to 0.
    Linspace,
}

impl Spacing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Leading, Self::Trailing, Self::Linspace];

    /// The name that users type and diffusers' files store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leading => "leading",
            Self::Trailing => "trailing",
            Self::Linspace => "linspace",
        }
    }

    /// The spacing of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|spacing| spacing.name() == name)
    }
}

/// The keys of `scheduler_config.json` that are read; those that are missing take diffusers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    num_train_timesteps: usize,
    beta_start: f64,
    beta_end: f64,
    beta_schedule: String,
    trained_betas: Option<Vec<f32>>,
    prediction_type: String,
    timestep_spacing: Option<String>,
    steps_offset: usize,
    clip_sample: Option<bool>,
    clip_sample_range: f32,
    set_alpha_to_one: Option<bool>,
    thresholding: bool,
    rescale_betas_zero_snr: bool,
    interpolation_type: String,
    use_karras_sigmas: Option<bool>,
    use_exponential_sigmas: Option<bool>,
    use_beta_sigmas: Option<bool>,
    timestep_type: String,
    final_sigmas_type: String,
    original_inference_steps: usize,
    timestep_scaling: f32,
    solver_order: usize,
    solver_type: String,
    predict_x0: bool,
    variance_type: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: "linear".into(),
            trained_betas: None,
            prediction_type: "epsilon".into(),
            timestep_spacing: None,
            steps_offset: 0,
            clip_sample: None,
            clip_sample_range: 1.0,
            set_alpha_to_one: None,
            thresholding: false,
            rescale_betas_zero_snr: false,
            interpolation_type: "linear".into(),
            use_karras_sigmas: None,
            use_exponential_sigmas: None,
            use_beta_sigmas: None,
            timestep_type: "discrete".into(),
            final_sigmas_type: "zero".into(),
            original_inference_steps: 50,
            timestep_scaling: 10.0,
            solver_order: 2,
            solver_type: String::new(),
            predict_x0: true,
            variance_type: None,
        }
    }
}

/// A model's noise schedule.
///
/// A sampler other than the one the file was written for takes the same values, as diffusers' `from_config` does; a key
/// that is missing takes the default of the sampler that reads it.
#[derive(Clone, Debug)]
pub struct Schedule {
    alphas_cumprod: Vec<f32>,
    /// What the UNet's output means.
    pub prediction: Prediction,
    /// The timesteps of a run; `None` leaves them to the sampler.
    pub spacing: Option<Spacing>,
    /// Added to every timestep under [`Spacing::Leading`].
    pub steps_offset: usize,
    /// LCM and TCD: of how many timesteps the steps of a run are chosen.
    pub original_inference_steps: usize,
    /// LCM: what timesteps are multiplied by where they weigh the latents against the picture.
    pub timestep_scaling: f32,
    /// Whether the betas were rescaled so that the last timestep is nothing but noise.
    pub zero_snr: bool,
    /// Euler: the sigma after the last step is the smallest of the training's, not 0.
    pub final_sigma_min: bool,
    /// UniPC and DEIS: how many predictions a step is made of, 1 to 3.
    pub solver_order: usize,
    /// UniPC: its function `B(h)` is `h`, not `exp(h) - 1`.
    pub(super) bh1: bool,
    pub(super) predict_x0: bool,
    thresholding: bool,
    clip_sample: Option<bool>,
    clip_sample_range: f32,
    set_alpha_to_one: Option<bool>,
    variance_type: Option<String>,
    /// The sigmas that the file asks for.
    kind: ScheduleKind,
    /// The first key asking for sigmas or timesteps that no other sampler than diffusers' Euler knows.
    euler_only: Option<&'static str>,
}

/// More training timesteps than any model has; keeps a damaged file from asking for all memory.
const MOST_TIMESTEPS: usize = 100_000;

impl Schedule {
    /// Reads diffusers' `scheduler_config.json`.
    pub fn from_json(text: &str) -> Result<Self, ScheduleError> {
        let config = serde_json::from_str::<Map<String, Value>>(text)
            .and_then(|keys| serde_json::from_value::<Config>(Value::Object(keys)))
            .map_err(|e| ScheduleError::Json(e.to_string()))?;
        if !(1..=MOST_TIMESTEPS).contains(&config.num_train_timesteps) {
            return Err(ScheduleError::Range {
                key: "num_train_timesteps",
                value: config.num_train_timesteps.to_string(),
                expected: format!("1 to {MOST_TIMESTEPS}"),
            });
        }
        if config.steps_offset > config.num_train_timesteps {
            return Err(ScheduleError::Range {
                key: "steps_offset",
                value: config.steps_offset.to_string(),
                expected: format!("0 to {}", config.num_train_timesteps),
            });
        }
        if config.clip_sample == Some(true)
            && !(config.clip_sample_range.is_finite() && config.clip_sample_range > 0.0)
        {
            return Err(ScheduleError::Range {
                key: "clip_sample_range",
                value: config.clip_sample_range.to_string(),
                expected: "a positive number".into(),
            });
        }
        if !(1..=config.num_train_timesteps).contains(&config.original_inference_steps)
            && config.original_inference_steps != 50
        {
            return Err(ScheduleError::Range {
                key: "original_inference_steps",
                value: config.original_inference_steps.to_string(),
                expected: format!("1 to {}", config.num_train_timesteps),
            });
        }
        if !(1..=3).contains(&config.solver_order) {
            return Err(ScheduleError::Range {
                key: "solver_order",
                value: config.solver_order.to_string(),
                expected: "1 to 3".into(),
            });
        }
        if !(config.timestep_scaling.is_finite() && config.timestep_scaling > 0.0) {
            return Err(ScheduleError::Range {
                key: "timestep_scaling",
                value: config.timestep_scaling.to_string(),
                expected: "a positive number".into(),
            });
        }
        let prediction = match config.prediction_type.as_str() {
            "epsilon" => Prediction::Epsilon,
            "v_prediction" => Prediction::Velocity,
            "sample" => Prediction::Sample,
            other => {
                return Err(unknown(
                    "prediction_type",
                    other,
                    "epsilon, v_prediction, sample",
                ));
            }
        };
        let spacing =
            match config.timestep_spacing.as_deref() {
                None => None,
                Some(name) => Some(Spacing::from_name(name).ok_or_else(|| {
                    unknown("timestep_spacing", name, "leading, trailing, linspace")
                })?),
            };
        let final_sigma_min = match config.final_sigmas_type.as_str() {
            "zero" => false,
            "sigma_min" => true,
            other => return Err(unknown("final_sigmas_type", other, "zero, sigma_min")),
        };
        let asked: Vec<(&str, ScheduleKind)> = [
            (
                "use_karras_sigmas",
                ScheduleKind::Karras,
                config.use_karras_sigmas,
            ),
            (
                "use_exponential_sigmas",
                ScheduleKind::Exponential,
                config.use_exponential_sigmas,
            ),
            (
                "use_beta_sigmas",
                ScheduleKind::Beta,
                config.use_beta_sigmas,
            ),
        ]
        .into_iter()
        .filter_map(|(key, kind, asked)| (asked == Some(true)).then_some((key, kind)))
        .collect();
        let kind = match asked[..] {
            [] => ScheduleKind::Normal,
            [(_, kind)] => kind,
            [(key, _), (other, _), ..] => {
                return Err(ScheduleError::Range {
                    key: "use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas",
                    value: format!("true for {key} and {other}"),
                    expected: "one of them".into(),
                });
            }
        };
        let euler_only = [
            ("interpolation_type", config.interpolation_type != "linear"),
            (
                "timestep_type",
                config.timestep_type != "discrete" && prediction == Prediction::Velocity,
            ),
        ]
        .into_iter()
        .find_map(|(key, asked)| asked.then_some(key));

        let betas = betas(&config)?;
        let alphas_cumprod = cumulative_alphas(&betas);
        let signal = |a: &f32| {
            if config.rescale_betas_zero_snr {
                (0.0..1.0).contains(a)
            } else {
                *a > 0.0 && *a < 1.0
            }
        };
        if let Some(at) = alphas_cumprod.iter().position(|a| !signal(a)) {
            return Err(ScheduleError::Range {
                key: "betas",
                value: format!("{} at timestep {at}", betas[at]),
                expected: "betas between 0 and 1 that leave some signal".into(),
            });
        }
        Ok(Self {
            prediction,
            spacing,
            steps_offset: config.steps_offset,
            // 50 is the default, which a model of fewer timesteps need not have said.
            original_inference_steps: config
                .original_inference_steps
                .min(config.num_train_timesteps),
            timestep_scaling: config.timestep_scaling,
            solver_order: config.solver_order,
            bh1: config.solver_type == "bh1",
            predict_x0: config.predict_x0,
            variance_type: config.variance_type,
            clip_sample: config.clip_sample,
            clip_sample_range: config.clip_sample_range,
            set_alpha_to_one: config.set_alpha_to_one,
            zero_snr: config.rescale_betas_zero_snr,
            final_sigma_min,
            thresholding: config.thresholding,
            kind,
            euler_only,
            alphas_cumprod,
        })
    }

    /// Timesteps of the training.
    pub fn train_timesteps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// The share of signal in the variance of the latents at each training timestep (`alphas_cumprod`).
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// The range that predicted pictures are clipped to; `default` says whether they are where the file does not.
    pub(super) fn clip(&self, default: bool) -> Option<f32> {
        self.clip_sample
            .unwrap_or(default)
            .then_some(self.clip_sample_range)
    }

    /// The cumulative alpha after the last step; `default` says whether it is 1 where the file does not.
    pub(super) fn final_alpha(&self, default_one: bool) -> f32 {
        match self.set_alpha_to_one.unwrap_or(default_one) {
            true => 1.0,
            false => self.alphas_cumprod[0],
        }
    }

    /// Refuses to find the picture in noise alone, which only models of the noise must.
    pub(super) fn refuse_zero_signal(&self, timesteps: &[usize]) -> Result<(), ScheduleError> {
        let zero = |t: &&usize| self.alphas_cumprod[**t] == 0.0;
        match timesteps.iter().find(zero) {
            Some(&timestep) if self.prediction == Prediction::Epsilon => {
                Err(ScheduleError::NoSignal { timestep })
            }
            _ => Ok(()),
        }
    }

    /// The variance of the noise that DDPM adds, unless the model predicts it.
    pub(super) fn variance(&self, sampler: &'static str) -> Result<Variance, ScheduleError> {
        match self.variance_type.as_deref() {
            None | Some("fixed_small") => Ok(Variance::Small),
            Some("fixed_small_log") => Ok(Variance::SmallLog),
            Some("fixed_large") => Ok(Variance::Large),
            Some(_) => Err(ScheduleError::Unsupported {
                key: "variance_type",
                sampler,
            }),
        }
    }

    /// Refuses dynamic thresholding, which is for pixels and does harm to latents.
    pub(super) fn refuse_thresholding(&self, sampler: &'static str) -> Result<(), ScheduleError> {
        match self.thresholding {
            true => Err(ScheduleError::Unsupported {
                key: "thresholding",
                sampler,
            }),
            false => Ok(()),
        }
    }

    /// Refuses the keys that only diffusers' Euler reads, and Kiln's does not.
    pub(super) fn refuse_euler_only(&self, sampler: &'static str) -> Result<(), ScheduleError> {
        self.euler_only.map_or(Ok(()), |key| {
            Err(ScheduleError::Unsupported { key, sampler })
        })
    }

    /// The sigmas that were asked for, or else the file's.
    pub(super) fn kind(&self, run: &Run) -> ScheduleKind {
        run.schedule.unwrap_or(self.kind)
    }

    /// The timesteps of a run for samplers that step between the training's, from `run.start` on. Their default is
    /// [`Spacing::Leading`].
    pub(super) fn whole_timesteps(&self, run: &Run) -> Result<Vec<usize>, ScheduleError> {
        let spacing = self.spacing(run).unwrap_or(Spacing::Leading);
        let timesteps: Vec<usize> = self
            .timesteps(spacing, run.steps)?
            .into_iter()
            .map(|t| libm::rint(t) as usize)
            .collect();
        match timesteps[0] < self.train_timesteps() {
            true => Ok(timesteps[run.start..].to_vec()),
            false => Err(ScheduleError::Steps {
                steps: run.steps,
                most: self.most_leading_steps(0),
            }),
        }
    }

    /// The spacing that was asked for, or else the file's.
    pub(super) fn spacing(&self, run: &Run) -> Option<Spacing> {
        run.spacing.or(self.spacing)
    }

    /// The most steps whose first timestep under [`Spacing::Leading`] is one of the training's, if the training's are
    /// shared among so many `more`.
    pub(super) fn most_leading_steps(&self, more: usize) -> usize {
        let train = self.train_timesteps();
        let first =
            |steps: usize| (steps + more - 1) * (train / (steps + more)) + self.steps_offset;
        (1..=train - more.min(train))
            .rev()
            .find(|&steps| first(steps) < train)
            .unwrap_or(0)
    }

    /// The timesteps of a run, falling; not rounded to whole ones under [`Spacing::Linspace`].
    pub fn timesteps(&self, spacing: Spacing, steps: usize) -> Result<Vec<f64>, ScheduleError> {
        let train = self.train_timesteps();
        if !(1..=train).contains(&steps) {
            return Err(ScheduleError::Steps { steps, most: train });
        }
        Ok(match spacing {
            Spacing::Leading => {
                let ratio = train / steps;
                (0..steps)
                    .rev()
                    .map(|i| (i * ratio + self.steps_offset) as f64)
                    .collect()
            }
            Spacing::Trailing => {
                // numpy's `arange(train, 0, -ratio)` steps by the rounded difference of its first two values.
                let ratio = train as f64 / steps as f64;
                let delta = (train as f64 - ratio) - train as f64;
                (0..steps)
                    .map(|i| libm::rint(train as f64 + i as f64 * delta) - 1.0)
                    .collect()
            }
            Spacing::Linspace if steps == 1 => vec![0.0],
            Spacing::Linspace => {
                let delta = (train - 1) as f64 / (steps - 1) as f64;
                let mut rising: Vec<f64> = (0..steps).map(|i| i as f64 * delta).collect();
                rising[steps - 1] = (train - 1) as f64;
                rising.reverse();
                rising
            }
        })
    }

    /// The timesteps of a run that leaves out the last of `steps + 1`, falling and whole.
    pub(super) fn inner_timesteps(
        &self,
        spacing: Spacing,
        steps: usize,
    ) -> Result<Vec<f64>, ScheduleError> {
        let train = self.train_timesteps();
        let most = match spacing {
            Spacing::Trailing => train,
            Spacing::Leading => self.most_leading_steps(1),
            Spacing::Linspace => train - 1,
        };
        if !(1..=most).contains(&steps) {
            return Err(ScheduleError::Steps { steps, most });
        }
        let mut timesteps = match spacing {
            Spacing::Trailing => return self.timesteps(spacing, steps),
            Spacing::Leading | Spacing::Linspace => self.timesteps(spacing, steps + 1)?,
        };
        timesteps.truncate(steps);
        timesteps.iter_mut().for_each(|t| *t = libm::rint(*t));
        match timesteps[0] < train as f64 {
            true => Ok(timesteps),
            false => Err(ScheduleError::Steps { steps, most }),
        }
    }

    /// The ratio of noise to signal, `sqrt((1 - alpha) / alpha)`, at each of the training's timesteps. Under zero SNR the
    /// last alpha counts as 2^-24, so that its sigma is finite: 2^12.
    pub(super) fn training_sigmas(&self) -> Vec<f32> {
        let sigma = |&alpha: &f32| libm::sqrtf((1.0 - alpha) / alpha);
        let mut sigmas: Vec<f32> = self.alphas_cumprod.iter().map(sigma).collect();
        if let Some(last) = sigmas.last_mut().filter(|_| self.zero_snr) {
            *last = 4096.0;
        }
        sigmas
    }
}

fn unknown(key: &'static str, value: &str, known: &'static str) -> ScheduleError {
    ScheduleError::Unknown {
        key,
        value: value.into(),
        known,
    }
}

fn betas(config: &Config) -> Result<Vec<f32>, ScheduleError> {
    let train = config.num_train_timesteps;
    let betas = match (&config.trained_betas, config.beta_schedule.as_str()) {
        (Some(betas), _) if betas.len() == train => betas.clone(),
        (Some(betas), _) => {
            return Err(ScheduleError::Range {
                key: "trained_betas",
                value: format!("{} numbers", betas.len()),
                expected: format!("{train}, one for each training timestep"),
            });
        }
        (None, "linear") => linspace(config.beta_start, config.beta_end, train),
        (None, "scaled_linear") => linspace(
            libm::sqrt(config.beta_start),
            libm::sqrt(config.beta_end),
            train,
        )
        .into_iter()
        .map(|root| root * root)
        .collect(),
        (None, "squaredcos_cap_v2") => cosine(train),
        (None, other) => {
            return Err(unknown(
                "beta_schedule",
                other,
                "linear, scaled_linear, squaredcos_cap_v2",
            ));
        }
    };
    Ok(if config.rescale_betas_zero_snr {
        rescale_to_zero_snr(&betas)
    } else {
        betas
    })
}

/// `torch.linspace` in `f32`: from both ends towards the middle.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if count == 1 {
        return vec![start];
    }
    let step = (end - start) / (count - 1) as f32;
    let value = |i: usize| match i < count / 2 {
        true => start + step * i as f32,
        false => end - step * (count - i - 1) as f32,
    };
    (0..count).map(value).collect()
}

/// Betas whose cumulative alpha is a squared cosine (Nichol and Dhariwal, "Improved DDPM", equation 17).
fn cosine(train: usize) -> Vec<f32> {
    let alpha_bar = |t: f64| {
        let c = libm::cos((t + 0.008) / 1.008 * core::f64::consts::PI / 2.0);
        c * c
    };
    let at = |i: usize| alpha_bar(i as f64 / train as f64);
    (0..train)
        .map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32)
        .collect()
}

/// Shifts and scales `sqrt(alphas_cumprod)` so that the last is 0 and the first stays (Lin et al., "Common Diffusion Noise
/// Schedules and Sample Steps are Flawed", algorithm 1).
fn rescale_to_zero_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulative_alphas(betas)
        .into_iter()
        .map(libm::sqrtf)
        .collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let scale = first / (first - last);
    let mut before = 1.0;
    roots
        .into_iter()
        .map(|root| {
            let root = (root - last) * scale;
            let alpha = root * root;
            let beta = 1.0 - alpha / before;
            before = alpha;
            beta
        })
        .collect()
}

fn cumulative_alphas(betas: &[f32]) -> Vec<f32> {
    let mut product = 1.0f64;
    betas
        .iter()
        .map(|beta| {
            product *= f64::from(1.0 - beta);
            product as f32
        })
        .collect()
}
