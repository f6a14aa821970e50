//! DPM-Solver++ (3M) on the stochastic differential equation. k-diffusion's `sample_dpmpp_3m_sde`. (diffusers' third order of
//! `sde-dpmsolver++` has the sign of a term wrong: its weight does not vanish with the step.)

use super::history::History;
use super::predict::unscaled;
use super::sigmas::{Family, Last, Sigmas};
use super::{Course, Noise, Prediction, Run, Sampler, Schedule, ScheduleError, Space};

/// With `h` the step in `-log sigma`, `g = (1 + eta) h`, and `d1` and `d2` the first and the second difference quotient of the
/// pictures predicted:
/// ```text
/// x = exp(-g) x + (1 - exp(-g)) m + phi2 d1 - phi3 d2 + sigma' sqrt(1 - exp(-2 eta h)) fresh
/// phi2 = (exp(-g) - 1) / g + 1        phi3 = phi2 / g - 1/2
/// ```
/// The step to sigma 0 gives `m`. `eta` is 1 unless said otherwise; the noise is as in [`Dpmpp2mSde`](super::Dpmpp2mSde).
pub struct Dpmpp3mSde {
    course: Course,
    steps: Vec<Coefficients>,
    prediction: Prediction,
    pictures: History<3>,
    fresh: Vec<f32>,
}

/// Of a step that does not end at sigma 0.
struct Coefficients {
    sigma: f32,
    latents: f32,
    picture: f32,
    phi2: f32,
    phi3: f32,
    /// The steps before as shares of this one.
    before: [f32; 2],
    noise: f32,
}

impl Dpmpp3mSde {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        schedule.refuse_thresholding("dpmpp-3m-sde")?;
        let eta = run.eta_or(1.0)?;
        let kind = schedule.kind(run);
        let sigmas = Sigmas::new(schedule, run, Family::Exponential, kind, Last::Zero)?;
        let time = |i: usize| -libm::logf(sigmas.values[i]);
        let coefficients = |i: usize| {
            let (sigma, next) = sigmas.step(i);
            let h = time(i + 1) - time(i);
            let g = h * (eta + 1.0);
            let decay = libm::expm1f(-g);
            let phi2 = decay / g + 1.0;
            let share = |back: usize| match i.checked_sub(back) {
                Some(from) => (time(from + 1) - time(from)) / h,
                None => 0.0,
            };
            Coefficients {
                sigma,
                latents: libm::expf(-g),
                picture: -decay,
                phi2,
                phi3: phi2 / g - 0.5,
                before: [share(1), share(2)],
                noise: next * libm::sqrtf(-libm::expm1f(-2.0 * h * eta)),
            }
        };
        Ok(Self {
            course: Course::of_sigmas(&sigmas, Space::Unscaled),
            steps: (0..sigmas.steps()).map(coefficients).collect(),
            prediction: schedule.prediction,
            pictures: History::new(run.latents),
            fresh: vec![0.0; if eta > 0.0 { run.latents } else { 0 }],
        })
    }
}

impl Sampler for Dpmpp3mSde {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise) {
        let step = &self.steps[index];
        let picture = unscaled(self.prediction, step.sigma);
        self.pictures.push(latents, prediction, picture);
        let [m, m1, m2] = self.pictures.tensors();
        if index + 1 == self.steps.len() {
            latents.copy_from_slice(m);
            return;
        }
        let [r0, r1] = step.before;
        for (i, x) in latents.iter_mut().enumerate() {
            *x = step.latents * *x + step.picture * m[i];
            if index >= 2 {
                let newer = (m[i] - m1[i]) / r0;
                let older = (m1[i] - m2[i]) / r1;
                let first = newer + (newer - older) * r0 / (r0 + r1);
                let second = (newer - older) / (r0 + r1);
                *x = *x + step.phi2 * first - step.phi3 * second;
            } else if index == 1 {
                *x += step.phi2 * ((m[i] - m1[i]) / r0);
            }
        }
        // Empty without eta.
        noise.fill(&mut self.fresh);
        for (x, n) in latents.iter_mut().zip(&self.fresh) {
            *x += n * step.noise;
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        self.pictures.state()
    }
}
