//! What a run of a sampler is prepared for.

use super::{ScheduleError, ScheduleKind, Spacing};

/// What a run of a sampler is prepared for. What is `None` is left to the model's file, or else to the sampler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Steps from nothing but noise to the picture.
    pub steps: usize,
    /// The first step that is taken: those before it are left out. 0 but where a picture is given. Less than `steps`.
    pub start: usize,
    /// Elements of the latents.
    pub latents: usize,
    /// The sigmas that the run passes through.
    pub schedule: Option<ScheduleKind>,
    /// Which of the training's timesteps it visits.
    pub spacing: Option<Spacing>,
    /// How much noise is added on the way: 0 none, 1 as much as a diffusion run backwards.
    pub eta: Option<f32>,
}

impl Run {
    /// All of `steps` steps on `latents` elements, everything else left open.
    pub fn new(steps: usize, latents: usize) -> Self {
        Self {
            steps,
            start: 0,
            latents,
            schedule: None,
            spacing: None,
            eta: None,
        }
    }

    pub(super) fn eta_or(&self, default: f32) -> Result<f32, ScheduleError> {
        let eta = self.eta.unwrap_or(default);
        match (0.0..=1.0).contains(&eta) {
            true => Ok(eta),
            false => Err(ScheduleError::Eta(eta)),
        }
    }

    pub(super) fn refuse_eta(&self, sampler: &'static str) -> Result<(), ScheduleError> {
        match self.eta {
            Some(_) => Err(ScheduleError::NoEta { sampler }),
            None => Ok(()),
        }
    }
}
