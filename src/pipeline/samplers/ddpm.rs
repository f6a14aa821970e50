//! DDPM (Ho et al., "Denoising Diffusion Probabilistic Models", algorithm 2) on some of the timesteps. diffusers'
//! `DDPMScheduler`.

use super::predict::Scaled;
use super::schedule::Variance;
use super::{Course, Noise, Run, Sampler, Schedule, ScheduleError};

/// ```text
/// b = 1 - a / a'
/// x = sqrt(a') b / (1 - a) clip(picture) + sqrt(a / a') (1 - a') / (1 - a) x + d noise
/// ```
/// with `a'` the cumulative alpha at the next timestep, 1 after the last, and `d^2 = b (1 - a') / (1 - a)`, or `b` where the
/// model's file says `fixed_large`. At timestep 0 no noise is added.
pub struct Ddpm {
    course: Course,
    steps: Vec<Coefficients>,
    clip: Option<f32>,
    fresh: Vec<f32>,
}

struct Coefficients {
    predict: Scaled,
    picture: f32,
    latents: f32,
    deviation: Option<f32>,
}

impl Ddpm {
    /// Prepares a run. Its default spacing is [`Spacing::Leading`](super::Spacing::Leading).
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        schedule.refuse_thresholding("ddpm")?;
        run.refuse_eta("ddpm")?;
        let variance = schedule.variance("ddpm")?;
        let timesteps = schedule.whole_timesteps(run)?;
        schedule.refuse_zero_signal(&timesteps)?;
        let alphas = schedule.alphas_cumprod();
        let coefficients = |(i, &t): (usize, &usize)| {
            let alpha = alphas[t];
            let next = timesteps.get(i + 1).map_or(1.0, |&t| alphas[t]);
            let kept = alpha / next;
            let beta = 1.0 - kept;
            let small = ((1.0 - next) / (1.0 - alpha) * beta).max(1e-20);
            Coefficients {
                predict: Scaled::new(schedule.prediction, alpha),
                picture: libm::sqrtf(next) * beta / (1.0 - alpha),
                latents: libm::sqrtf(kept) * (1.0 - next) / (1.0 - alpha),
                deviation: (t > 0).then(|| match variance {
                    Variance::Small => libm::sqrtf(small),
                    Variance::SmallLog => libm::expf(0.5 * libm::logf(small)),
                    Variance::Large => libm::sqrtf(beta),
                }),
            }
        };
        Ok(Self {
            steps: timesteps.iter().enumerate().map(coefficients).collect(),
            course: Course::of_timesteps(schedule, &timesteps, run.start),
            clip: schedule.clip(true),
            fresh: vec![0.0; run.latents],
        })
    }
}

impl Sampler for Ddpm {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise) {
        let step = &self.steps[index];
        for (x, &p) in latents.iter_mut().zip(prediction) {
            let mut x0 = step.predict.picture(*x, p);
            if let Some(range) = self.clip {
                x0 = x0.clamp(-range, range);
            }
            *x = step.picture * x0 + step.latents * *x;
        }
        if let Some(deviation) = step.deviation {
            noise.fill(&mut self.fresh);
            for (x, n) in latents.iter_mut().zip(&self.fresh) {
                *x += deviation * n;
            }
        }
    }
}
