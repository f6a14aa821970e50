//! DPM-Solver++ (2S) with noise added in every step. k-diffusion's `sample_dpmpp_2s_ancestral`.

use super::euler_ancestral::ancestral;
use super::predict::unscaled;
use super::sigmas::{Family, Last, Sigmas, Training};
use super::{Course, Noise, Prediction, Run, Sampler, Schedule, ScheduleError};

/// With `t = -log sigma`, a step of `h` down to `sigma_down`, whose picture `m'` is predicted in the middle, then noise up to
/// the next sigma, as in [`EulerAncestral`](super::EulerAncestral):
/// ```text
/// x_mid = exp(-h / 2) x - (exp(-h / 2) - 1) m
/// x     = exp(-h) x - (exp(-h) - 1) m' + sigma_up noise
/// ```
/// The step to sigma 0 is Euler's. `eta` is 1 unless said otherwise.
pub struct Dpmpp2sAncestral {
    course: Course,
    steps: Vec<Coefficients>,
    prediction: Prediction,
    fresh: Vec<f32>,
    /// The latents at the begin of the step.
    state: [Vec<f32>; 1],
}

struct Coefficients {
    sigma: f32,
    middle: Half,
    end: Half,
    noise: f32,
}

/// `x = latents x - picture m`.
struct Half {
    latents: f32,
    picture: f32,
}

impl Dpmpp2sAncestral {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        let eta = run.eta_or(1.0)?;
        let kind = schedule.kind(run);
        let sigmas = Sigmas::new(schedule, run, Family::Derivative, kind, Last::Zero)?;
        let training = Training::new(schedule);
        // The time, that of the middle and that of sigma_down.
        let times = |i: usize| {
            let (sigma, next) = sigmas.step(i);
            let (down, up) = ancestral(sigma, next, eta);
            let (time, end) = (-libm::logf(sigma), -libm::logf(down));
            (time, time + 0.5 * (end - time), end, up)
        };
        let coefficients = |i: usize| {
            let (time, middle, end, up) = times(i);
            let h = end - time;
            let half = |to: f32, h: f32| Half {
                latents: libm::expf(-to) / libm::expf(-time),
                picture: libm::expm1f(-h),
            };
            Coefficients {
                sigma: sigmas.values[i],
                middle: half(middle, h * 0.5),
                end: half(end, h),
                noise: up,
            }
        };
        let middle = |i: usize| {
            let sigma = libm::expf(-times(i).1);
            (training.timestep(f64::from(sigma)), sigma)
        };
        Ok(Self {
            course: Course::in_pairs(&sigmas, middle),
            steps: (0..sigmas.steps()).map(coefficients).collect(),
            prediction: schedule.prediction,
            fresh: vec![0.0; run.latents],
            state: [vec![0.0; run.latents]],
        })
    }
}

impl Sampler for Dpmpp2sAncestral {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise) {
        let step = &self.steps[index / 2];
        let picture = unscaled(self.prediction, self.course.evaluations[index].sigma);
        let [begin] = &mut self.state;
        if index + 1 == self.course.evaluations.len() {
            for (x, &p) in latents.iter_mut().zip(prediction) {
                *x += (*x - picture(*x, p)) / step.sigma * -step.sigma;
            }
        } else if index.is_multiple_of(2) {
            begin.copy_from_slice(latents);
            for (x, &p) in latents.iter_mut().zip(prediction) {
                *x = step.middle.latents * *x - step.middle.picture * picture(*x, p);
            }
        } else {
            noise.fill(&mut self.fresh);
            for (((x, &p), begin), n) in latents
                .iter_mut()
                .zip(prediction)
                .zip(begin)
                .zip(&self.fresh)
            {
                let m = picture(*x, p);
                *x = step.end.latents * *begin - step.end.picture * m + n * step.noise;
            }
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        &mut self.state
    }
}
