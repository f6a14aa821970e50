//! DPM-Solver-2 with noise added in every step. diffusers' `KDPM2AncestralDiscreteScheduler`, k-diffusion's
//! `sample_dpm_2_ancestral`.

use super::dpm2::{between, round_karras};
use super::euler_ancestral::ancestral;
use super::predict::unscaled;
use super::sigmas::{Family, Last, Sigmas, Training};
use super::{Course, Noise, Prediction, Run, Sampler, Schedule, ScheduleError};

/// A step of [`Dpm2`](super::Dpm2) down to `sigma_down`, then noise up to the next sigma, as in
/// [`EulerAncestral`](super::EulerAncestral). `eta` is 1 unless said otherwise.
pub struct Dpm2Ancestral {
    course: Course,
    sigmas: Sigmas,
    prediction: Prediction,
    eta: f32,
    fresh: Vec<f32>,
    /// The latents at the begin of the step.
    state: [Vec<f32>; 1],
}

impl Dpm2Ancestral {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        let eta = run.eta_or(1.0)?;
        let kind = schedule.kind(run);
        let mut sigmas = Sigmas::new(schedule, run, Family::Derivative, kind, Last::Zero)?;
        round_karras(&mut sigmas);
        let training = Training::new(schedule);
        let middle = |i: usize| {
            let (sigma, next) = sigmas.step(i);
            let middle = between(sigma, ancestral(sigma, next, eta).0);
            (training.timestep(f64::from(middle)), middle)
        };
        Ok(Self {
            course: Course::in_pairs(&sigmas, middle),
            sigmas,
            prediction: schedule.prediction,
            eta,
            fresh: vec![0.0; run.latents],
            state: [vec![0.0; run.latents]],
        })
    }
}

impl Sampler for Dpm2Ancestral {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise) {
        let (sigma, next) = self.sigmas.step(index / 2);
        let here = self.course.evaluations[index].sigma;
        let picture = unscaled(self.prediction, here);
        let [begin] = &mut self.state;
        if index.is_multiple_of(2) {
            begin.copy_from_slice(latents);
            let middle = self.course.evaluations.get(index + 1);
            let to = middle.map_or(next, |middle| middle.sigma);
            for (x, &p) in latents.iter_mut().zip(prediction) {
                *x += (*x - picture(*x, p)) / here * (to - sigma);
            }
            return;
        }
        let (down, up) = ancestral(sigma, next, self.eta);
        noise.fill(&mut self.fresh);
        for (((x, &p), begin), n) in latents
            .iter_mut()
            .zip(prediction)
            .zip(begin)
            .zip(&self.fresh)
        {
            let derivative = (*x - picture(*x, p)) / here;
            *x = *begin + derivative * (down - sigma) + n * up;
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        &mut self.state
    }
}
