//! Latent consistency models (Luo et al., "Latent Consistency Models", algorithm 3): few steps, each to the picture and
//! back up with fresh noise. diffusers' `LCMScheduler`.

use super::predict::Scaled;
use super::{Course, Noise, Run, Sampler, Schedule, ScheduleError};

/// ```text
/// s  = timestep_scaling t
/// x0 = clip(picture) s / sqrt(s^2 + 1/4) + x (1/4) / (s^2 + 1/4)
/// x  = sqrt(a') x0 + sqrt(1 - a') noise          but x0 after the last step
/// ```
/// with `a'` the cumulative alpha at the next timestep. The timesteps are every so many of the `original_inference_steps`
/// that the model was distilled with.
pub struct Lcm {
    course: Course,
    steps: Vec<Coefficients>,
    clip: Option<f32>,
    fresh: Vec<f32>,
}

struct Coefficients {
    predict: Scaled,
    /// The share of the latents and that of the picture in the denoised latents.
    skip: f32,
    out: f32,
    /// The next step's signal and noise.
    next: Option<(f32, f32)>,
}

impl Lcm {
    /// Prepares a run.
    pub fn new(schedule: &Schedule, run: &Run) -> Result<Self, ScheduleError> {
        schedule.refuse_thresholding("lcm")?;
        run.refuse_eta("lcm")?;
        let timesteps = distilled_timesteps(schedule, run)?;
        let coefficients = |(i, &t): (usize, &usize)| {
            let scaled = t as f32 * schedule.timestep_scaling;
            Coefficients {
                predict: Scaled::new(schedule.prediction, schedule.alphas_cumprod()[t]),
                skip: 0.25 / (scaled * scaled + 0.25),
                out: scaled / libm::sqrtf(scaled * scaled + 0.25),
                next: timesteps.get(i + 1).map(|&next| {
                    let alpha = schedule.alphas_cumprod()[next];
                    (libm::sqrtf(alpha), libm::sqrtf(1.0 - alpha))
                }),
            }
        };
        Ok(Self {
            steps: timesteps.iter().enumerate().map(coefficients).collect(),
            course: Course::of_timesteps(schedule, &timesteps, run.start),
            clip: schedule.clip(false),
            fresh: vec![0.0; run.latents],
        })
    }
}

/// The timesteps of a run on a model that was distilled to `original_inference_steps` of them, falling, from `run.start` on.
pub(super) fn distilled_timesteps(
    schedule: &Schedule,
    run: &Run,
) -> Result<Vec<usize>, ScheduleError> {
    let (steps, original) = (run.steps, schedule.original_inference_steps);
    if !(1..=original).contains(&steps) {
        return Err(ScheduleError::Steps {
            steps,
            most: original,
        });
    }
    let apart = schedule.train_timesteps() / original;
    // numpy's `linspace(0, original, steps, endpoint=False)`, floored.
    let stride = original as f64 / steps as f64;
    let timesteps: Vec<usize> = (run.start..steps)
        .map(|i| (original - (i as f64 * stride) as usize) * apart - 1)
        .collect();
    schedule.refuse_zero_signal(&timesteps)?;
    Ok(timesteps)
}

impl Sampler for Lcm {
    fn course(&self) -> &Course {
        &self.course
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise) {
        let Coefficients {
            predict,
            skip,
            out,
            next,
        } = &self.steps[index];
        for (x, &p) in latents.iter_mut().zip(prediction) {
            let mut x0 = predict.picture(*x, p);
            if let Some(range) = self.clip {
                x0 = x0.clamp(-range, range);
            }
            *x = out * x0 + skip * *x;
        }
        if let Some((signal, deviation)) = next {
            noise.fill(&mut self.fresh);
            for (x, n) in latents.iter_mut().zip(&self.fresh) {
                *x = signal * *x + deviation * n;
            }
        }
    }
}
