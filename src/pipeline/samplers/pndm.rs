//! Pseudo linear multi-step (Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds"), without the
//! Runge-Kutta steps. diffusers' `PNDMScheduler` with `skip_prk_steps`.

use super::history::adams_bashforth;
use super::predict::Scaled;
use super::{Course, Noise, Run, Sampler, Schedule, ScheduleError};

/// With `e` the noise predicted, mixed of the last four predictions:
/// ```text
/// x = sqrt(a' / a) x - (a' - a) e / (a sqrt(1 - a') + sqrt(a (1 - a) a'))
/// ```
/// The first step is taken twice: once with its own prediction, then again with the mean of that and of the prediction at
/// its end. So a run has one evaluation more than it has steps.
pub struct Pndm {
    course: Course,
    evaluations: Vec<Coefficients>,
    /// The latents before the first step, then the predictions, the newest first.
    state: [Vec<f32>; 5],
}

struct Coefficients {
    predict: Scaled,
    latents: f32,
    /// `a' - a` and what it is divided by.
    ahead: f32,
    divisor: f32,
}

impl Pndm {
    /// Prepares a run. Its default spacing is [`Spacing::Leading`](super::Spacing::Leading).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        run.refuse_eta("pndm")?;
        if schedule.zero_snr {
            return Err(ScheduleError::Unsupported {
                key: "rescale_betas_zero_snr",
                sampler: "pndm",
            });
        }
        let mut timesteps = schedule.whole_timesteps(run)?;
        if let Some(&second) = timesteps.get(1) {
            timesteps.insert(1, second);
        }
        let mut course = Course::of_timesteps(schedule, &timesteps, run.start);
        course.evaluations[1..]
            .iter_mut()
            .for_each(|evaluation| evaluation.step -= 1);

        let train = schedule.train_timesteps();
        let apart = train / run.steps;
        let alphas = schedule.alphas_cumprod();
        let coefficients = |(i, &t): (usize, &usize)| {
            let (from, to) = match i {
                1 => ((t + apart).min(train - 1), Some(t)),
                _ => (t, t.checked_sub(apart)),
            };
            let alpha = alphas[from];
            let next = to.map_or_else(|| schedule.final_alpha(false), |t| alphas[t]);
            Coefficients {
                predict: Scaled::new(schedule.prediction, alpha),
                latents: libm::sqrtf(next / alpha),
                ahead: next - alpha,
                divisor: alpha * libm::sqrtf(1.0 - next)
                    + libm::sqrtf(alpha * (1.0 - alpha) * next),
            }
        };
        Ok(Self {
            evaluations: timesteps.iter().enumerate().map(coefficients).collect(),
            course,
            state: std::array::from_fn(|_| vec![0.0; run.latents]),
        })
    }
}

impl Sampler for Pndm {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], _noise: &mut Noise) {
        let to = &self.evaluations[index];
        if index == 1 {
            let [before, first, ..] = &self.state;
            latents.copy_from_slice(before);
            for ((x, &p), e) in latents.iter_mut().zip(prediction).zip(first) {
                *x = to.step(*x, (p + e) / 2.0);
            }
            return;
        }
        if index == 0 {
            self.state[0].copy_from_slice(latents);
        }
        self.state[1..].rotate_right(1);
        self.state[1].copy_from_slice(prediction);
        let [_, e0, e1, e2, e3] = &self.state;
        for (i, x) in latents.iter_mut().enumerate() {
            let mixed = adams_bashforth(index.max(1), [e0[i], e1[i], e2[i], e3[i]]);
            *x = to.step(*x, mixed);
        }
    }

    fn state(&mut self) -> &mut [Vec<f32>] {
        &mut self.state
    }
}

impl Coefficients {
    /// The latents after a step from `x` with the mixed prediction `p`.
    fn step(&self, x: f32, p: f32) -> f32 {
        let epsilon = self.predict.epsilon(x, p);
        self.latents * x - self.ahead * epsilon / self.divisor
    }
}
