//! DEIS (Zhang and Chen, "Fast Sampling of Diffusion Models with Exponential Integrator"), the multi-step form in log rho.
//! diffusers' `DEISMultistepScheduler`.

use super::dpmpp_2m::FEW;
use super::history::History;
use super::levels::{Level, levels};
use super::predict::Scaled;
use super::sigmas::{Family, Last, Sigmas};
use super::{Course, Noise, Run, Sampler, Schedule, ScheduleError, Space};

/// The integral over the step of the polynomial in `log sigma` through the last `solver_order` predictions of the noise:
/// ```text
/// x = signal' (x / signal + sum of c_k e_k)
/// ```
/// The first steps, and the last of few, are of lower order; the first order is DDIM. It ends at the smallest sigma, not at 0.
pub struct Deis {
    course: Course,
    steps: Vec<Coefficients>,
    noises: History<3>,
}

struct Coefficients {
    predict: Scaled,
    update: Update,
}

enum Update {
    /// `x = latents x - noise e`.
    First { latents: f32, noise: f32 },
    /// `x = signal' (x / signal + sum of c_k e_k)`.
    Higher {
        signal: f32,
        next_signal: f32,
        weights: [f32; 3],
        order: usize,
    },
}

impl Deis {
    /// Prepares a run. Its default spacing is [`Spacing::Linspace`](super::Spacing::Linspace).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        schedule.refuse_thresholding("deis")?;
        run.refuse_eta("deis")?;
        let kind = schedule.kind(run);
        let sigmas = Sigmas::new(schedule, run, Family::Exponential, kind, Last::Own)?;
        let levels = levels(&sigmas);
        let few = run.steps < FEW;
        let coefficients = |i: usize| {
            let left = sigmas.steps() - i;
            let mut order = schedule.solver_order.min(i + 1);
            if few {
                order = order.min(left);
            }
            Coefficients {
                predict: levels[i].predict(schedule.prediction),
                update: update(&levels, i, order),
            }
        };
        Ok(Self {
            course: Course::of_sigmas(&sigmas, Space::Scaled),
            steps: (0..sigmas.steps()).map(coefficients).collect(),
            noises: History::new(run.latents),
        })
    }
}

fn update(levels: &[Level], i: usize, order: usize) -> Update {
    let (from, to) = (levels[i], levels[i + 1]);
    if order == 1 {
        return Update::First {
            latents: to.signal / from.signal,
            noise: to.noise * (libm::expf(to.lambda - from.lambda) - 1.0),
        };
    }
    let rho = |level: Level| f64::from(level.noise) / f64::from(level.signal);
    let (end, now, before) = (rho(to), rho(from), rho(levels[i - 1]));
    let weights = if order == 2 {
        let weight = |b, c| (linear(end, b, c) - linear(now, b, c)) as f32;
        [weight(now, before), weight(before, now), 0.0]
    } else {
        let oldest = rho(levels[i - 2]);
        let weight = |b, c, d| (square(end, b, c, d) - square(now, b, c, d)) as f32;
        [
            weight(now, before, oldest),
            weight(before, oldest, now),
            weight(oldest, now, before),
        ]
    };
    Update::Higher {
        signal: from.signal,
        next_signal: to.signal,
        weights,
        order,
    }
}

/// `integral (log t - log c) / (log b - log c) dt`. In `f64`, for the differences of two of them are small: in `f32`, diffusers'
/// third order is wrong by 1e-5.
fn linear(t: f64, b: f64, c: f64) -> f64 {
    let [lt, lb, lc] = [t, b, c].map(libm::log);
    t * (-lc + lt - 1.0) / (lb - lc)
}

/// `integral (log t - log c) (log t - log d) / ((log b - log c) (log b - log d)) dt`.
fn square(t: f64, b: f64, c: f64, d: f64) -> f64 {
    let [lt, lb, lc, ld] = [t, b, c, d].map(libm::log);
    let numerator = t * (lc * (ld - lt + 1.0) - ld * lt + ld + lt * lt - 2.0 * lt + 2.0);
    numerator / ((lb - lc) * (lb - ld))
}

impl Sampler for Deis {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], _noise: &mut Noise) {
        let Coefficients { predict, update } = &self.steps[index];
        self.noises.push(latents, prediction, |x, p| {
            let x0 = predict.picture(x, p);
            (x - predict.signal * x0) / predict.noise
        });
        let known = self.noises.tensors();
        for (i, x) in latents.iter_mut().enumerate() {
            *x = match update {
                Update::First { latents, noise } => latents * *x - noise * known[0][i],
                Update::Higher {
                    signal,
                    next_signal,
                    weights,
                    order,
                } => {
                    let mut sum = *x / signal;
                    for (weight, e) in weights.iter().zip(&known).take(*order) {
                        sum += weight * e[i];
                    }
                    next_signal * sum
                }
            };
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        self.noises.state()
    }
}
