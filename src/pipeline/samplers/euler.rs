//! Euler's method on the probability-flow ODE (Karras et al., "Elucidating the Design Space of Diffusion-Based Generative
//! Models", algorithm 2 without churn). diffusers' `EulerDiscreteScheduler`.

use super::predict::unscaled;
use super::sigmas::{Family, Last, Sigmas};
use super::{Course, Noise, Prediction, Run, Sampler, Schedule, ScheduleError, Space};

/// `x += (x - x0) / sigma * (sigma' - sigma)`, with `x0` the picture predicted from `x` and the UNet's output.
pub struct Euler {
    course: Course,
    sigmas: Sigmas,
    prediction: Prediction,
}

impl Euler {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        schedule.refuse_euler_only("euler")?;
        run.refuse_eta("euler")?;
        let last = match schedule.final_sigma_min {
            true => Last::Smallest,
            false => Last::Zero,
        };
        let sigmas = Sigmas::new(schedule, run, Family::Derivative, schedule.kind(run), last)?;
        Ok(Self {
            course: Course::of_sigmas(&sigmas, Space::Unscaled),
            sigmas,
            prediction: schedule.prediction,
        })
    }
}

impl Sampler for Euler {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], _noise: &mut Noise) {
        let (sigma, next) = self.sigmas.step(index);
        let picture = unscaled(self.prediction, sigma);
        for (x, &p) in latents.iter_mut().zip(prediction) {
            let derivative = (*x - picture(*x, p)) / sigma;
            *x += derivative * (next - sigma);
        }
    }
}
