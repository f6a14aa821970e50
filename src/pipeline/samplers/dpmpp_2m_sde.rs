//! DPM-Solver++ (2M) on the stochastic differential equation. diffusers' `DPMSolverMultistepScheduler` with `sde-dpmsolver++`,
//! k-diffusion's `sample_dpmpp_2m_sde`.

use super::dpmpp_2m::{multistep_sigmas, second_order};
use super::history::History;
use super::levels::levels;
use super::predict::Scaled;
use super::{Course, Noise, Run, Sampler, Schedule, ScheduleError, Space};

/// With the names of [`Dpmpp2m`](super::Dpmpp2m):
/// ```text
/// x = noise' / noise exp(-eta h) x + signal' (1 - exp(-(1 + eta) h)) (m + (m - m1) / (2 r))
///     + noise' sqrt(1 - exp(-2 eta h)) fresh
/// ```
/// `eta` is 1 unless said otherwise. The fresh noise of each step is drawn alone, as diffusers does; k-diffusion takes it
/// from a Brownian path through all steps, which has the same distribution.
pub struct Dpmpp2mSde {
    course: Course,
    steps: Vec<Coefficients>,
    pictures: History<2>,
    fresh: Vec<f32>,
}

struct Coefficients {
    predict: Scaled,
    latents: f32,
    picture: f32,
    /// `1 / r`, where the step is of second order.
    back: Option<f32>,
    noise: f32,
}

impl Dpmpp2mSde {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        schedule.refuse_thresholding("dpmpp-2m-sde")?;
        let eta = run.eta_or(1.0)?;
        let sigmas = multistep_sigmas(schedule, run)?;
        let levels = levels(&sigmas);
        let second = second_order(&sigmas, run);
        let coefficients = |i: usize| {
            let (from, to) = (levels[i], levels[i + 1]);
            let h = to.lambda - from.lambda;
            // To sigma 0 the step is infinite, and nothing times it is nothing.
            let eta_h = if eta == 0.0 { 0.0 } else { eta * h };
            Coefficients {
                predict: from.predict(schedule.prediction),
                latents: to.noise / from.noise * libm::expf(-eta_h),
                picture: to.signal * (1.0 - libm::expf(-(1.0 + eta) * h)),
                back: second(i).then(|| 1.0 / ((from.lambda - levels[i - 1].lambda) / h)),
                noise: to.noise * libm::sqrtf(1.0 - libm::expf(-2.0 * eta_h)),
            }
        };
        Ok(Self {
            course: Course::of_sigmas(&sigmas, Space::Scaled),
            steps: (0..sigmas.steps()).map(coefficients).collect(),
            pictures: History::new(run.latents),
            fresh: vec![0.0; if eta > 0.0 { run.latents } else { 0 }],
        })
    }
}

impl Sampler for Dpmpp2mSde {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise) {
        let step = &self.steps[index];
        self.pictures
            .push(latents, prediction, |x, p| step.predict.picture(x, p));
        let [now, before] = self.pictures.tensors();
        for ((x, m), m1) in latents.iter_mut().zip(now).zip(before) {
            *x = step.latents * *x + step.picture * m;
            if let Some(back) = step.back {
                *x += 0.5 * step.picture * (back * (m - m1));
            }
        }
        // Empty without eta.
        noise.fill(&mut self.fresh);
        for (x, n) in latents.iter_mut().zip(&self.fresh) {
            *x += step.noise * n;
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        self.pictures.state()
    }
}
