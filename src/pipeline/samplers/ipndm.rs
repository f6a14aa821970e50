//! Improved PNDM (Zhang and Chen, "Fast Sampling of Diffusion Models with Exponential Integrator", section B): Euler's method
//! with a derivative mixed of the last four. diffusers' `IPNDMScheduler`, whose own sigmas are those of one model; here it
//! follows any.

use super::history::{History, adams_bashforth};
use super::predict::unscaled;
use super::sigmas::{Family, Last, Sigmas};
use super::{Course, Noise, Prediction, Run, Sampler, Schedule, ScheduleError, Space};

/// `x += (sigma' - sigma) d`, with `d` the Adams-Bashforth mixture of the last four `(x - x0) / sigma`.
pub struct Ipndm {
    course: Course,
    sigmas: Sigmas,
    prediction: Prediction,
    derivatives: History<4>,
}

impl Ipndm {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        run.refuse_eta("ipndm")?;
        let kind = schedule.kind(run);
        let sigmas = Sigmas::new(schedule, run, Family::Derivative, kind, Last::Zero)?;
        Ok(Self {
            course: Course::of_sigmas(&sigmas, Space::Unscaled),
            sigmas,
            prediction: schedule.prediction,
            derivatives: History::new(run.latents),
        })
    }
}

impl Sampler for Ipndm {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], _noise: &mut Noise) {
        let (sigma, next) = self.sigmas.step(index);
        let picture = unscaled(self.prediction, sigma);
        self.derivatives
            .push(latents, prediction, |x, p| (x - picture(x, p)) / sigma);
        let known = self.derivatives.tensors();
        for (i, x) in latents.iter_mut().enumerate() {
            let mixed = adams_bashforth(index + 1, known.map(|d| d[i]));
            *x += mixed * (next - sigma);
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        self.derivatives.state()
    }
}
