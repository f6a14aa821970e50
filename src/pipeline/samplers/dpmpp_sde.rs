//! DPM-Solver++ of second order on the stochastic differential equation. diffusers' `DPMSolverSDEScheduler`, k-diffusion's
//! `sample_dpmpp_sde`.

use super::euler_ancestral::ancestral;
use super::predict::unscaled;
use super::sigmas::{Family, Last, Sigmas, Training};
use super::{Course, Noise, Prediction, Run, Sampler, Schedule, ScheduleError};

/// With `t = -log sigma` and `s` the middle of the step, both halves go from the step's begin `x`: the first to `s` with the
/// picture `m` predicted there, the second to the end with the picture predicted at `s`. Each steps down further than its goal
/// and adds noise up to it, as [`EulerAncestral`](super::EulerAncestral) does:
/// ```text
/// x' = sigma_down / sigma x - (sigma_down / sigma - 1) m + sigma_up fresh
/// ```
/// The step to sigma 0 is Euler's. `eta` is 1 unless said otherwise.
///
/// The noise of the two halves belongs to one Brownian path over sigma, as in diffusers and k-diffusion: that of the whole
/// step is the sum of the path's increments over its two halves, drawn one after the other.
pub struct DpmppSde {
    course: Course,
    steps: Vec<Coefficients>,
    prediction: Prediction,
    fresh: Vec<f32>,
    /// The latents at the begin of the step, and the noise of its first half.
    state: [Vec<f32>; 2],
}

struct Coefficients {
    sigma: f32,
    middle: Part,
    end: Part,
    /// The shares of the halves' noise in that of the whole step.
    path: [f32; 2],
}

/// `x = latents x - picture m + noise fresh`.
struct Part {
    latents: f32,
    picture: f32,
    noise: f32,
}

impl DpmppSde {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        let eta = run.eta_or(1.0)?;
        let kind = schedule.kind(run);
        let sigmas = Sigmas::new(schedule, run, Family::Derivative, kind, Last::Zero)?;
        let training = Training::new(schedule);
        let times = |i: usize| {
            let (sigma, next) = sigmas.step(i);
            let (time, end) = (-libm::logf(sigma), -libm::logf(next));
            (time, time + (end - time) * 0.5, end)
        };
        let coefficients = |i: usize| {
            let (time, middle, end) = times(i);
            let part = |to: f32| {
                let (down, up) = ancestral(libm::expf(-time), libm::expf(-to), eta);
                let to = -libm::logf(down);
                Part {
                    latents: libm::expf(-to) / libm::expf(-time),
                    picture: libm::expm1f(time - to),
                    noise: up,
                }
            };
            let (sigma, next) = sigmas.step(i);
            let middle_sigma = libm::expf(-middle);
            let share = |length: f32| libm::sqrtf(length / (sigma - next));
            Coefficients {
                sigma,
                middle: part(middle),
                end: part(end),
                path: [share(sigma - middle_sigma), share(middle_sigma - next)],
            }
        };
        let middle = |i: usize| {
            let sigma = libm::expf(-times(i).1);
            (training.timestep(f64::from(sigma)), sigma)
        };
        let fresh = if eta > 0.0 { run.latents } else { 0 };
        Ok(Self {
            course: Course::in_pairs(&sigmas, middle),
            steps: (0..sigmas.steps()).map(coefficients).collect(),
            prediction: schedule.prediction,
            fresh: vec![0.0; fresh],
            state: [vec![0.0; run.latents], vec![0.0; fresh]],
        })
    }
}

impl Sampler for DpmppSde {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise) {
        let step = &self.steps[index / 2];
        let picture = unscaled(self.prediction, self.course.evaluations[index].sigma);
        let [begin, first] = &mut self.state;
        if index + 1 == self.course.evaluations.len() {
            for (x, &p) in latents.iter_mut().zip(prediction) {
                *x += (*x - picture(*x, p)) / step.sigma * -step.sigma;
            }
            return;
        }
        // Empty without eta.
        noise.fill(&mut self.fresh);
        let part = if index.is_multiple_of(2) {
            begin.copy_from_slice(latents);
            first.copy_from_slice(&self.fresh);
            &step.middle
        } else {
            let [of_first, of_second] = step.path;
            for (n, first) in self.fresh.iter_mut().zip(first) {
                *n = of_first * *first + of_second * *n;
            }
            &step.end
        };
        for ((x, &p), begin) in latents.iter_mut().zip(prediction).zip(begin) {
            *x = part.latents * *begin - part.picture * picture(*x, p);
        }
        for (x, n) in latents.iter_mut().zip(&self.fresh) {
            *x += n * part.noise;
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        &mut self.state
    }
}
