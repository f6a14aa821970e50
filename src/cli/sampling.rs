//! The options of `kiln draw` for those who know their sampler.

use kiln::pipeline::samplers::{ScheduleKind, Spacing};
use kiln::pipeline::{Request, Rng};

use super::values;

/// How the noise is made and taken away.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Sampling")]
pub struct Args {
    /// The sigmas: normal, karras, exponential, sgm-uniform, simple, beta or align-your-steps [default: the model's]
    #[arg(long, value_name = "NAME", value_parser = values::schedule)]
    schedule: Option<ScheduleKind>,
    /// The timesteps: leading, trailing or linspace [default: the model's]
    #[arg(long, value_name = "NAME", value_parser = values::spacing)]
    spacing: Option<Spacing>,
    /// Noise that the sampler adds on the way, 0 to 1 [default: the sampler's]
    #[arg(long, value_name = "X", value_parser = values::share)]
    eta: Option<f32>,
    /// Bring the guided prediction's deviation back to the prompt's, 0 to 1
    #[arg(long, value_name = "X", default_value = "0", value_parser = values::share)]
    guidance_rescale: f32,
    /// No guidance above this sigma, which is faster
    #[arg(long, value_name = "SIGMA", value_parser = values::sigma)]
    guidance_from: Option<f32>,
    /// No guidance below this sigma
    #[arg(long, value_name = "SIGMA", value_parser = values::sigma)]
    guidance_until: Option<f32>,
    /// Whose noise: torch (diffusers, ComfyUI) or philox (the WebUI on a GPU)
    #[arg(long, value_name = "NAME", default_value = "torch", value_parser = values::rng)]
    rng: Rng,
    /// Another seed, to turn the picture's towards
    #[arg(long, value_name = "N", requires = "subseed_strength", value_parser = values::seed)]
    subseed: Option<u64>,
    /// How far to turn, 0 to 1
    #[arg(long, value_name = "X", requires = "subseed", value_parser = values::share)]
    subseed_strength: Option<f32>,
    /// Add to the seed for the noise that the sampler adds
    #[arg(long, value_name = "N", default_value = "0", value_parser = values::seed)]
    eta_seed_delta: u64,
}

impl Args {
    /// The request with what these say.
    pub fn apply(&self, mut request: Request) -> Request {
        if let Some(schedule) = self.schedule {
            request = request.schedule(schedule);
        }
        if let Some(spacing) = self.spacing {
            request = request.spacing(spacing);
        }
        if let Some(eta) = self.eta {
            request = request.eta(eta);
        }
        if let Some(sigma) = self.guidance_from {
            request = request.guidance_from(sigma);
        }
        if let Some(sigma) = self.guidance_until {
            request = request.guidance_until(sigma);
        }
        if let (Some(seed), Some(strength)) = (self.subseed, self.subseed_strength) {
            request = request.subseed(seed, strength);
        }
        request
            .guidance_rescale(self.guidance_rescale)
            .rng(self.rng)
            .eta_seed_delta(self.eta_seed_delta)
    }
}
