//! Euler's method with noise added in every step (k-diffusion's `sample_euler_ancestral`).

use super::euler::{Sigmas, predict};
use super::{Noise, Sampler, Schedule, ScheduleError};

/// An Euler step down to `sigma_down`, then noise up to the next sigma:
/// ```text
/// sigma_up   = sqrt(sigma'^2 (sigma^2 - sigma'^2) / sigma^2)
/// sigma_down = sqrt(sigma'^2 - sigma_up^2)
/// ```
pub struct EulerAncestral {
    sigmas: Sigmas,
    fresh: Vec<f32>,
}

impl EulerAncestral {
    /// Prepares `steps` steps on `latents` elements. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, steps: usize, latents: usize) -> Result<Self, ScheduleError> {
        Ok(Self {
            sigmas: Sigmas::new(schedule, steps, 0.0)?,
            fresh: vec![0.0; latents],
        })
    }
}

impl Sampler for EulerAncestral {
    fn timesteps(&self) -> &[f32] {
        &self.sigmas.timesteps
    }

    fn initial_sigma(&self) -> f32 {
        self.sigmas.initial
    }

    fn scale_input(&self, index: usize, latents: &[f32], input: &mut [f32]) {
        self.sigmas.scale_input(index, latents, input);
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise) {
        let (sigma, next) = self.sigmas.step(index);
        let up = libm::sqrtf(next * next * (sigma * sigma - next * next) / (sigma * sigma));
        let down = libm::sqrtf(next * next - up * up);
        let predict = predict(self.sigmas.prediction, sigma);
        noise.fill(&mut self.fresh);
        for ((x, &p), n) in latents.iter_mut().zip(prediction).zip(&self.fresh) {
            let derivative = (*x - predict(*x, p)) / sigma;
            *x = *x + derivative * (down - sigma) + n * up;
        }
    }
}
