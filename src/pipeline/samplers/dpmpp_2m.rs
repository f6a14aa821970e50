//! DPM-Solver++ (2M) (Lu et al., "DPM-Solver++", algorithm 2). diffusers' `DPMSolverMultistepScheduler`.

use super::history::History;
use super::levels::levels;
use super::predict::Scaled;
use super::sigmas::{Family, Last, Sigmas};
use super::{Course, Noise, Run, Sampler, Schedule, ScheduleError, Space};

/// Below so many steps the last one is of first order, as it always is to sigma 0.
pub(super) const FEW: usize = 15;

/// With `h` the step in lambda, `r` the step before as a share of it, and `m` and `m1` the pictures predicted now and before:
/// ```text
/// x = noise' / noise x - signal' (exp(-h) - 1) (m + (m - m1) / (2 r))
/// ```
/// The first step and the last have `m` alone.
pub struct Dpmpp2m {
    course: Course,
    steps: Vec<Coefficients>,
    pictures: History<2>,
}

struct Coefficients {
    predict: Scaled,
    latents: f32,
    /// `signal' (exp(-h) - 1)`.
    picture: f32,
    /// `1 / r`, where the step is of second order.
    back: Option<f32>,
}

impl Dpmpp2m {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        schedule.refuse_thresholding("dpmpp-2m")?;
        run.refuse_eta("dpmpp-2m")?;
        let sigmas = multistep_sigmas(schedule, run)?;
        let levels = levels(&sigmas);
        let second = second_order(&sigmas, run);
        let coefficients = |i: usize| {
            let (from, to) = (levels[i], levels[i + 1]);
            let h = to.lambda - from.lambda;
            Coefficients {
                predict: from.predict(schedule.prediction),
                latents: to.noise / from.noise,
                picture: to.signal * (libm::expf(-h) - 1.0),
                back: second(i).then(|| 1.0 / ((from.lambda - levels[i - 1].lambda) / h)),
            }
        };
        Ok(Self {
            course: Course::of_sigmas(&sigmas, Space::Scaled),
            steps: (0..sigmas.steps()).map(coefficients).collect(),
            pictures: History::new(run.latents),
        })
    }
}

/// The sigmas of diffusers' `DPMSolverMultistepScheduler`.
pub(super) fn multistep_sigmas(schedule: &Schedule, run: &Run) -> Result<Sigmas, ScheduleError> {
    let last = match schedule.final_sigma_min {
        true => Last::Smallest,
        false => Last::Zero,
    };
    Sigmas::new(schedule, run, Family::Exponential, schedule.kind(run), last)
}

/// Whether a step is of second order.
pub(super) fn second_order(sigmas: &Sigmas, run: &Run) -> impl Fn(usize) -> bool {
    let last = sigmas.steps() - 1;
    let first_order_last = run.steps < FEW || sigmas.values[last + 1] == 0.0;
    move |i| i > 0 && !(i == last && first_order_last)
}

impl Sampler for Dpmpp2m {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], _noise: &mut Noise) {
        let step = &self.steps[index];
        self.pictures
            .push(latents, prediction, |x, p| step.predict.picture(x, p));
        let [now, before] = self.pictures.tensors();
        for ((x, m), m1) in latents.iter_mut().zip(now).zip(before) {
            *x = step.latents * *x - step.picture * m;
            if let Some(back) = step.back {
                *x -= 0.5 * step.picture * (back * (m - m1));
            }
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        self.pictures.state()
    }
}
