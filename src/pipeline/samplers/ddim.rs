//! DDIM (Song et al., "Denoising Diffusion Implicit Models", equation 12) without added noise (eta 0).

use super::{Noise, Prediction, Sampler, Schedule, ScheduleError, Spacing};

/// ```text
/// epsilon:    x0 = (x - sqrt(1 - a) p) / sqrt(a)          e = p
/// v:          x0 = sqrt(a) x - sqrt(1 - a) p              e = sqrt(a) p + sqrt(1 - a) x
/// x = sqrt(a') clip(x0) + sqrt(1 - a') e
/// ```
/// with `a` the cumulative alpha at the step's timestep and `a'` at the one `train / steps` before it.
pub struct Ddim {
    timesteps: Vec<f32>,
    steps: Vec<Coefficients>,
    prediction: Prediction,
    clip: Option<f32>,
}

/// Square roots of the signal's and the noise's share, before and after the step.
struct Coefficients {
    signal: f32,
    noise: f32,
    next_signal: f32,
    next_noise: f32,
}

impl Ddim {
    /// Prepares `steps` steps of a model's schedule. Its default spacing is [`Spacing::Leading`].
    pub fn new(schedule: &Schedule, steps: usize) -> Result<Self, ScheduleError> {
        schedule.refuse_thresholding("ddim")?;
        let train = schedule.train_timesteps();
        let timesteps: Vec<usize> = schedule
            .timesteps(schedule.spacing.unwrap_or(Spacing::Leading), steps)?
            .into_iter()
            .map(|t| libm::rint(t) as usize)
            .collect();
        if timesteps[0] >= train {
            return Err(ScheduleError::Steps {
                steps,
                most: most_leading_steps(schedule),
            });
        }
        let alphas = schedule.alphas_cumprod();
        if schedule.prediction == Prediction::Epsilon
            && let Some(&timestep) = timesteps.iter().find(|t| alphas[**t] == 0.0)
        {
            return Err(ScheduleError::NoSignal { timestep });
        }
        let coefficients = |&t: &usize| {
            let alpha = alphas[t];
            let next = t
                .checked_sub(train / steps)
                .map_or(schedule.final_alpha, |t| alphas[t]);
            Coefficients {
                signal: libm::sqrtf(alpha),
                noise: libm::sqrtf(1.0 - alpha),
                next_signal: libm::sqrtf(next),
                next_noise: libm::sqrtf(1.0 - next),
            }
        };
        Ok(Self {
            steps: timesteps.iter().map(coefficients).collect(),
            timesteps: timesteps.into_iter().map(|t| t as f32).collect(),
            prediction: schedule.prediction,
            clip: schedule.clip,
        })
    }
}

/// The most steps whose first timestep, `(steps - 1) (train / steps) + offset`, is one of the training's.
fn most_leading_steps(schedule: &Schedule) -> usize {
    let train = schedule.train_timesteps();
    (1..=train)
        .rev()
        .find(|steps| (steps - 1) * (train / steps) + schedule.steps_offset < train)
        .unwrap_or(0)
}

impl Sampler for Ddim {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn initial_sigma(&self) -> f32 {
        1.0
    }

    fn scale_input(&self, _index: usize, latents: &[f32], input: &mut [f32]) {
        input.copy_from_slice(latents);
    }

    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], _noise: &mut Noise) {
        let Coefficients {
            signal,
            noise,
            next_signal,
            next_noise,
        } = self.steps[index];
        for (x, &p) in latents.iter_mut().zip(prediction) {
            let (mut x0, epsilon) = match self.prediction {
                Prediction::Epsilon => ((*x - noise * p) / signal, p),
                Prediction::Velocity => (signal * *x - noise * p, signal * p + noise * *x),
            };
            if let Some(range) = self.clip {
                x0 = x0.clamp(-range, range);
            }
            *x = next_signal * x0 + next_noise * epsilon;
        }
    }
}
