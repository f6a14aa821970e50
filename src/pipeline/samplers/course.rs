//! The evaluations that a run is made of.

use super::Schedule;
use super::sigmas::Sigmas;

/// An evaluation of the UNet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// What the UNet is told.
    pub timestep: f32,
    /// The ratio of noise to signal in its input.
    pub sigma: f32,
    /// The step that it is a part of, from 0. Steps follow each other; some take two evaluations.
    pub step: usize,
}

/// How latents hold noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// `(picture + sigma noise) / sqrt(sigma^2 + 1)`: what the UNet takes.
    Scaled,
    /// `picture + sigma noise`.
    Unscaled,
}

/// The evaluations of a run, in order, and how the latents are to be read meanwhile.
#[derive(Clone, Debug)]
pub struct Course {
    pub(super) evaluations: Vec<Evaluation>,
    pub(super) space: Space,
    /// The standard deviation of latents of nothing but noise before the first evaluation.
    pub(super) initial_sigma: f32,
}

impl Course {
    /// One evaluation for each of some of the training's timesteps, as steps from `start` on.
    pub(super) fn of_timesteps(schedule: &Schedule, timesteps: &[usize], start: usize) -> Self {
        let evaluation = |(i, &t): (usize, &usize)| {
            let alpha = schedule.alphas_cumprod()[t];
            Evaluation {
                timestep: t as f32,
                sigma: libm::sqrtf((1.0 - alpha) / alpha),
                step: start + i,
            }
        };
        Self {
            evaluations: timesteps.iter().enumerate().map(evaluation).collect(),
            space: Space::Scaled,
            initial_sigma: 1.0,
        }
    }

    /// One evaluation for each sigma but the last.
    pub(super) fn of_sigmas(sigmas: &Sigmas, space: Space) -> Self {
        let evaluation = |(i, &timestep): (usize, &f64)| Evaluation {
            timestep: timestep as f32,
            sigma: sigmas.values[i],
            step: sigmas.start + i,
        };
        let evaluations = sigmas.timesteps.iter().enumerate().map(evaluation);
        Self::new(evaluations.collect(), space, sigmas)
    }

    /// Steps of two evaluations each, the second of step `i` at `second(i)`; a step to nothing has one.
    pub(super) fn in_pairs(sigmas: &Sigmas, second: impl Fn(usize) -> (f64, f32)) -> Self {
        let mut evaluations = Vec::with_capacity(2 * sigmas.timesteps.len());
        for (i, &timestep) in sigmas.timesteps.iter().enumerate() {
            let step = sigmas.start + i;
            evaluations.push(Evaluation {
                timestep: timestep as f32,
                sigma: sigmas.values[i],
                step,
            });
            if sigmas.values[i + 1] > 0.0 {
                let (timestep, sigma) = second(i);
                evaluations.push(Evaluation {
                    timestep: timestep as f32,
                    sigma,
                    step,
                });
            }
        }
        Self::new(evaluations, Space::Unscaled, sigmas)
    }

    fn new(evaluations: Vec<Evaluation>, space: Space, sigmas: &Sigmas) -> Self {
        let initial_sigma = match space {
            Space::Scaled => 1.0,
            Space::Unscaled => sigmas.initial,
        };
        Self {
            evaluations,
            space,
            initial_sigma,
        }
    }
}
