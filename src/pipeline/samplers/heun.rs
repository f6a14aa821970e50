//! Heun's method (Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", algorithm 1). diffusers'
//! `HeunDiscreteScheduler`.

use super::predict::unscaled;
use super::sigmas::{Family, Last, Sigmas};
use super::{Course, Noise, Prediction, Run, Sampler, Schedule, ScheduleError};

/// An Euler step, then again from where it began with the mean of the derivatives at both ends. The step to sigma 0 is
/// Euler's.
pub struct Heun {
    course: Course,
    sigmas: Sigmas,
    prediction: Prediction,
    clip: Option<f32>,
    /// The latents at the begin of the step, and the derivative there.
    state: [Vec<f32>; 2],
}

impl Heun {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        run.refuse_eta("heun")?;
        let kind = schedule.kind(run);
        let sigmas = Sigmas::new(schedule, run, Family::Derivative, kind, Last::Zero)?;
        let end = |i: usize| (sigmas.timesteps[i + 1], sigmas.values[i + 1]);
        Ok(Self {
            course: Course::in_pairs(&sigmas, end),
            sigmas,
            prediction: schedule.prediction,
            clip: schedule.clip(false),
            state: std::array::from_fn(|_| vec![0.0; run.latents]),
        })
    }
}

impl Sampler for Heun {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], _noise: &mut Noise) {
        let (sigma, next) = self.sigmas.step(index / 2);
        let here = if index.is_multiple_of(2) { sigma } else { next };
        let picture = unscaled(self.prediction, here);
        let derivative = |x: f32, p: f32| {
            let mut x0 = picture(x, p);
            if let Some(range) = self.clip {
                x0 = x0.clamp(-range, range);
            }
            (x - x0) / here
        };
        let [begin, first] = &mut self.state;
        if index.is_multiple_of(2) {
            begin.copy_from_slice(latents);
            for ((x, &p), d) in latents.iter_mut().zip(prediction).zip(first) {
                *d = derivative(*x, p);
                *x += *d * (next - sigma);
            }
        } else {
            for (((x, &p), d), begin) in latents.iter_mut().zip(prediction).zip(first).zip(begin) {
                let mean = (*d + derivative(*x, p)) / 2.0;
                *x = *begin + mean * (next - sigma);
            }
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        &mut self.state
    }
}
