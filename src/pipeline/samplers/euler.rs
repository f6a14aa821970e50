//! Euler's method on the probability-flow ODE (Karras et al., "Elucidating the Design Space of Diffusion-Based Generative
//! Models", algorithm 2 without churn).

use super::{Noise, Prediction, Sampler, Schedule, ScheduleError, Spacing};

/// `x += (x - x0) / sigma * (sigma' - sigma)`, with `x0` the picture predicted from `x` and the UNet's output.
pub struct Euler {
    sigmas: Sigmas,
}

impl Euler {
    /// Prepares `steps` steps of a model's schedule. Its default spacing is [`Spacing::Linspace`].
    pub fn new(schedule: &Schedule, steps: usize) -> Result<Self, ScheduleError> {
        schedule.refuse_reshaped_sigmas("euler")?;
        let last = match schedule.final_sigma_min {
            true => schedule.sigmas(&[0.0])[0],
            false => 0.0,
        };
        Ok(Self {
            sigmas: Sigmas::new(schedule, steps, last)?,
        })
    }
}

impl Sampler for Euler {
    fn timesteps(&self) -> &[f32] {
        &self.sigmas.timesteps
    }

    fn initial_sigma(&self) -> f32 {
        self.sigmas.initial
    }

    fn scale_input(&self, index: usize, latents: &[f32], input: &mut [f32]) {
        self.sigmas.scale_input(index, latents, input);
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], _noise: &mut Noise) {
        let (sigma, next) = self.sigmas.step(index);
        let predict = predict(self.sigmas.prediction, sigma);
        for (x, &p) in latents.iter_mut().zip(prediction) {
            let derivative = (*x - predict(*x, p)) / sigma;
            *x += derivative * (next - sigma);
        }
    }
}

/// What the Euler samplers share: the sigmas, with one more at the end.
pub(super) struct Sigmas {
    pub(super) timesteps: Vec<f32>,
    pub(super) initial: f32,
    pub(super) prediction: Prediction,
    values: Vec<f32>,
}

impl Sigmas {
    pub(super) fn new(schedule: &Schedule, steps: usize, last: f32) -> Result<Self, ScheduleError> {
        let spacing = schedule.spacing.unwrap_or(Spacing::Linspace);
        let mut timesteps = schedule.timesteps(spacing, steps)?;
        timesteps.iter_mut().for_each(|t| *t = f64::from(*t as f32));
        let mut values = schedule.sigmas(&timesteps);
        values.push(last);
        let largest = values.iter().copied().fold(0.0, f32::max);
        Ok(Self {
            timesteps: timesteps.into_iter().map(|t| t as f32).collect(),
            initial: match spacing {
                Spacing::Leading => libm::sqrtf(largest * largest + 1.0),
                Spacing::Trailing | Spacing::Linspace => largest,
            },
            prediction: schedule.prediction,
            values,
        })
    }

    /// The sigma of step `index` and that of the next.
    pub(super) fn step(&self, index: usize) -> (f32, f32) {
        (self.values[index], self.values[index + 1])
    }

    /// Divides by `sqrt(sigma^2 + 1)`: the variance that the UNet was trained with.
    pub(super) fn scale_input(&self, index: usize, latents: &[f32], input: &mut [f32]) {
        let sigma = self.values[index];
        let deviation = libm::sqrtf(sigma * sigma + 1.0);
        for (out, x) in input.iter_mut().zip(latents) {
            *out = x / deviation;
        }
    }
}

/// The picture predicted from the latents `x` and the UNet's output `p`:
/// ```text
/// epsilon:  x - sigma p
/// v:        x / (sigma^2 + 1) - p sigma / sqrt(sigma^2 + 1)
/// ```
pub(super) fn predict(prediction: Prediction, sigma: f32) -> impl Fn(f32, f32) -> f32 {
    let variance = sigma * sigma + 1.0;
    let velocity = -sigma / libm::sqrtf(variance);
    move |x, p| match prediction {
        Prediction::Epsilon => x - sigma * p,
        Prediction::Velocity => p * velocity + x / variance,
    }
}
