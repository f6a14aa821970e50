//! DPM-Solver-2 (Lu et al., "DPM-Solver", algorithm 1) in the form of Karras et al. diffusers' `KDPM2DiscreteScheduler`,
//! k-diffusion's `sample_dpm_2`.

use super::predict::unscaled;
use super::sigmas::{Family, Last, Sigmas, Training};
use super::{Course, Noise, Prediction, Run, Sampler, Schedule, ScheduleError, ScheduleKind};

/// A step with the derivative in its middle, where an Euler step leads:
/// `sigma_mid = exp((log sigma + log sigma') / 2)`. The step to sigma 0 is Euler's.
pub struct Dpm2 {
    course: Course,
    sigmas: Sigmas,
    prediction: Prediction,
    /// The latents at the begin of the step.
    state: [Vec<f32>; 1],
}

impl Dpm2 {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        run.refuse_eta("dpm2")?;
        let kind = schedule.kind(run);
        let mut sigmas = Sigmas::new(schedule, run, Family::Derivative, kind, Last::Zero)?;
        round_karras(&mut sigmas);
        let training = Training::new(schedule);
        let middle = |i: usize| {
            let (sigma, next) = sigmas.step(i);
            let middle = between(next, sigma);
            (training.timestep(f64::from(middle)), middle)
        };
        Ok(Self {
            course: Course::in_pairs(&sigmas, middle),
            sigmas,
            prediction: schedule.prediction,
            state: [vec![0.0; run.latents]],
        })
    }
}

/// diffusers' KDPM2 schedulers tell the UNet whole timesteps under karras, and only there.
pub(super) fn round_karras(sigmas: &mut Sigmas) {
    if sigmas.kind == ScheduleKind::Karras {
        sigmas
            .timesteps
            .iter_mut()
            .for_each(|t| *t = libm::rint(*t));
    }
}

/// Halfway between two sigmas in their logarithms, in the order of `torch.lerp`.
pub(super) fn between(from: f32, to: f32) -> f32 {
    let (from, to) = (libm::logf(from), libm::logf(to));
    libm::expf(to - (to - from) * 0.5)
}

impl Sampler for Dpm2 {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], _noise: &mut Noise) {
        let (sigma, next) = self.sigmas.step(index / 2);
        let here = self.course.evaluations[index].sigma;
        let picture = unscaled(self.prediction, here);
        let [begin] = &mut self.state;
        let to = if index.is_multiple_of(2) {
            begin.copy_from_slice(latents);
            let middle = self.course.evaluations.get(index + 1);
            middle.map_or(next, |middle| middle.sigma)
        } else {
            next
        };
        for ((x, &p), begin) in latents.iter_mut().zip(prediction).zip(begin) {
            let derivative = (*x - picture(*x, p)) / here;
            *x = *begin + derivative * (to - sigma);
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        &mut self.state
    }
}
