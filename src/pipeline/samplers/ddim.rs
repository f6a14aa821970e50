//! DDIM (Song et al., "Denoising Diffusion Implicit Models", equation 12). diffusers' `DDIMScheduler`.

use super::predict::Scaled;
use super::{Course, Noise, Run, Sampler, Schedule, ScheduleError};

/// ```text
/// d  = eta sqrt((1 - a') / (1 - a) (1 - a / a'))
/// x  = sqrt(a') clip(picture) + sqrt(1 - a' - d^2) epsilon + d noise
/// ```
/// with `a` the cumulative alpha at the step's timestep and `a'` at the one `train / steps` before it. `eta` is 0 unless said
/// otherwise: then no noise is drawn.
pub struct Ddim {
    course: Course,
    steps: Vec<Coefficients>,
    clip: Option<f32>,
    fresh: Vec<f32>,
}

struct Coefficients {
    predict: Scaled,
    /// The signal after the step, what is left of the predicted noise, and the deviation of the noise added.
    signal: f32,
    direction: f32,
    deviation: f32,
}

impl Ddim {
    /// Prepares a run. Its default spacing is [`Spacing::Leading`](super::Spacing::Leading).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        schedule.refuse_thresholding("ddim")?;
        let eta = run.eta_or(0.0)?;
        let timesteps = schedule.whole_timesteps(run)?;
        schedule.refuse_zero_signal(&timesteps)?;
        let alphas = schedule.alphas_cumprod();
        let apart = schedule.train_timesteps() / run.steps;
        let coefficients = |&t: &usize| {
            let alpha = alphas[t];
            let next = match t.checked_sub(apart) {
                Some(t) => alphas[t],
                None => schedule.final_alpha(true),
            };
            let variance = (1.0 - next) / (1.0 - alpha) * (1.0 - alpha / next);
            let deviation = eta * libm::sqrtf(variance);
            Coefficients {
                predict: Scaled::new(schedule.prediction, alpha),
                signal: libm::sqrtf(next),
                // Rounding may leave less than nothing where eta is 1.
                direction: libm::sqrtf((1.0 - next - deviation * deviation).max(0.0)),
                deviation,
            }
        };
        Ok(Self {
            steps: timesteps.iter().map(coefficients).collect(),
            course: Course::of_timesteps(schedule, &timesteps, run.start),
            clip: schedule.clip(true),
            fresh: vec![0.0; if eta > 0.0 { run.latents } else { 0 }],
        })
    }
}

impl Sampler for Ddim {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise) {
        let Coefficients {
            predict,
            signal,
            direction,
            deviation,
        } = self.steps[index];
        for (x, &p) in latents.iter_mut().zip(prediction) {
            let mut x0 = predict.picture(*x, p);
            if let Some(range) = self.clip {
                x0 = x0.clamp(-range, range);
            }
            *x = signal * x0 + direction * predict.epsilon(*x, p);
        }
        // Empty without eta.
        noise.fill(&mut self.fresh);
        for (x, n) in latents.iter_mut().zip(&self.fresh) {
            *x += deviation * n;
        }
    }
}
