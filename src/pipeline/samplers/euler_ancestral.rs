//! Euler's method with noise added in every step (k-diffusion's `sample_euler_ancestral`). diffusers'
//! `EulerAncestralDiscreteScheduler`.

use super::predict::unscaled;
use super::sigmas::{Family, Last, Sigmas};
use super::{Course, Noise, Prediction, Run, Sampler, Schedule, ScheduleError, ScheduleKind, Space};

/// An Euler step down to `sigma_down`, then noise up to the next sigma:
/// ```text
/// sigma_up   = eta sqrt(sigma'^2 (sigma^2 - sigma'^2) / sigma^2)
/// sigma_down = sqrt(sigma'^2 - sigma_up^2)
/// ```
/// `eta` is 1 unless said otherwise.
pub struct EulerAncestral {
    course: Course,
    sigmas: Sigmas,
    prediction: Prediction,
    eta: f32,
    fresh: Vec<f32>,
}

impl EulerAncestral {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace); as diffusers' it does not
    /// take other sigmas from the model's file.
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        let eta = run.eta_or(1.0)?;
        let kind = run.schedule.unwrap_or(ScheduleKind::Normal);
        let sigmas = Sigmas::new(schedule, run, Family::Derivative, kind, Last::Zero)?;
        Ok(Self {
            course: Course::of_sigmas(&sigmas, Space::Unscaled),
            sigmas,
            prediction: schedule.prediction,
            eta,
            fresh: vec![0.0; run.latents],
        })
    }
}

impl Sampler for EulerAncestral {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise) {
        let (sigma, next) = self.sigmas.step(index);
        let (down, up) = ancestral(sigma, next, self.eta);
        let picture = unscaled(self.prediction, sigma);
        noise.fill(&mut self.fresh);
        for ((x, &p), n) in latents.iter_mut().zip(prediction).zip(&self.fresh) {
            let derivative = (*x - picture(*x, p)) / sigma;
            *x = *x + derivative * (down - sigma) + n * up;
        }
    }
}

/// How far to step down from `sigma`, and how much noise to add to get to `next`: k-diffusion's `get_ancestral_step`. In `f64`,
/// for from a large sigma almost nothing is left of a difference.
pub(super) fn ancestral(sigma: f32, next: f32, eta: f32) -> (f32, f32) {
    let [sigma, next, eta] = [sigma, next, eta].map(f64::from);
    let up = eta * libm::sqrt(next * next * (sigma * sigma - next * next) / (sigma * sigma));
    let up = up.min(next);
    (libm::sqrt(next * next - up * up) as f32, up as f32)
}
