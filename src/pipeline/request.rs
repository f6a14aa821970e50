//! What to draw.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::decoder::Decoder;
use super::error::RequestError;
use super::init::{Hires, Init};
use super::noise::Rng;
use super::prompt::PromptStyle;
use super::samplers::{SamplerKind, ScheduleKind, Spacing};
use super::tile::Tile;

/// What to draw. Whatever is not said is left to the model's card.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub(super) prompt: String,
    pub(super) negative: String,
    pub(super) prompt_style: PromptStyle,
    pub(super) steps: Option<usize>,
    pub(super) seed: Option<u64>,
    pub(super) size: Option<(u32, u32)>,
    pub(super) guidance_scale: Option<f32>,
    pub(super) sampler: Option<SamplerKind>,
    pub(super) clip_skip: Option<u32>,
    pub(super) schedule: Option<ScheduleKind>,
    pub(super) spacing: Option<Spacing>,
    pub(super) eta: Option<f32>,
    pub(super) guidance_rescale: f32,
    pub(super) guidance_from: Option<f32>,
    pub(super) guidance_until: Option<f32>,
    pub(super) rng: Rng,
    pub(super) subseed: Option<(u64, f32)>,
    pub(super) eta_seed_delta: u64,
    pub(super) init: Option<Init>,
    pub(super) hires: Option<Hires>,
    pub(super) decoder: Option<Decoder>,
    pub(super) tile: Option<Tile>,
}

impl Request {
    /// A picture of `prompt`.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            ..Self::default()
        }
    }

    /// What the picture should not show. Has no effect at a guidance scale of 1.
    pub fn negative(mut self, prompt: impl Into<String>) -> Self {
        self.negative = prompt.into();
        self
    }

    /// Whose language the prompts are in; the WebUI's unless it is said.
    pub fn prompt_style(mut self, style: PromptStyle) -> Self {
        self.prompt_style = style;
        self
    }

    /// Steps of the sampler: 1 to the number of timesteps the model was trained with. Most samplers evaluate the UNet once in
    /// each.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = Some(steps);
        self
    }

    /// The picture's number: the same seed and settings give the same picture on every machine. With [`Rng::Torch`] only the
    /// low 32 bits count. Without one it is random, and [`Picture`](super::Picture) tells it.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Width and height in pixels; a size that the package has programs for.
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.size = Some((width, height));
        self
    }

    /// How far to go from the negative prompt's prediction towards the prompt's and beyond. 1 is the prompt's
    /// alone, in half the time.
    pub fn guidance_scale(mut self, scale: f32) -> Self {
        self.guidance_scale = Some(scale);
        self
    }

    /// How to go from noise to latents.
    pub fn sampler(mut self, sampler: SamplerKind) -> Self {
        self.sampler = Some(sampler);
        self
    }

    /// Which of the text encoder's layers is its last, counted from the end: 1 is the last of all, 2 the one before. As in
    /// the Stable Diffusion WebUI; one more than diffusers' `clip_skip`.
    pub fn clip_skip(mut self, clip_skip: u32) -> Self {
        self.clip_skip = Some(clip_skip);
        self
    }

    /// The sigmas that the sampler passes through.
    pub fn schedule(mut self, schedule: ScheduleKind) -> Self {
        self.schedule = Some(schedule);
        self
    }

    /// Which of the training's timesteps it visits.
    pub fn spacing(mut self, spacing: Spacing) -> Self {
        self.spacing = Some(spacing);
        self
    }

    /// How much noise the sampler adds on the way: 0 to 1. Not every sampler adds any.
    pub fn eta(mut self, eta: f32) -> Self {
        self.eta = Some(eta);
        self
    }

    /// How far to bring the deviation of the guided prediction back to that of the prompt's alone: 0, not at all, to 1 (Lin et
    /// al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", section 3.4).
    pub fn guidance_rescale(mut self, share: f32) -> Self {
        self.guidance_rescale = share;
        self
    }

    /// The largest sigma that is guided; above it the prompt's prediction is taken, in half the time.
    pub fn guidance_from(mut self, sigma: f32) -> Self {
        self.guidance_from = Some(sigma);
        self
    }

    /// The smallest sigma that is guided.
    pub fn guidance_until(mut self, sigma: f32) -> Self {
        self.guidance_until = Some(sigma);
        self
    }

    /// The generator of the noise.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Turns the initial noise towards that of another seed: 0, not at all, to 1.
    pub fn subseed(mut self, seed: u64, strength: f32) -> Self {
        self.subseed = Some((seed, strength));
        self
    }

    /// What to add to the seed for the noise that the sampler adds; 0 lets it follow the initial noise.
    pub fn eta_seed_delta(mut self, delta: u64) -> Self {
        self.eta_seed_delta = delta;
        self
    }

    /// The picture to begin with.
    pub fn init(mut self, init: Init) -> Self {
        self.init = Some(init);
        self
    }

    /// Draws the picture again in a larger size, which the package must have programs for.
    pub fn hires(mut self, hires: Hires) -> Self {
        self.hires = Some(hires);
        self
    }

    /// What makes the picture of the latents. Without one it is the VAE, or whatever the package has.
    pub fn decoder(mut self, decoder: Decoder) -> Self {
        self.decoder = Some(decoder);
        self
    }

    /// Lets the VAE work on overlapping tiles: less memory, more time, almost the same picture. Also for sizes that the package
    /// has only the UNet's programs for.
    pub fn tile(mut self, tile: Tile) -> Self {
        self.tile = Some(tile);
        self
    }
}

impl Request {
    /// Whether the numbers are in their ranges, as far as that does not depend on the model.
    pub(super) fn check(&self) -> Result<(), RequestError> {
        let strength = self.subseed.map_or(0.0, |(_, strength)| strength);
        for (name, value) in [
            ("guidance-rescale", self.guidance_rescale),
            ("subseed-strength", strength),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(RequestError::Share { name, value });
            }
        }
        if let Some(init) = &self.init {
            init.check()?;
        }
        if let Some(hires) = &self.hires {
            hires.check()?;
            if self.init.is_some() {
                return Err(RequestError::HiresInit);
            }
        }
        let from = self.guidance_from.unwrap_or(f32::INFINITY);
        let until = self.guidance_until.unwrap_or(0.0);
        match 0.0 <= until && until <= from {
            true => Ok(()),
            false => Err(RequestError::GuidanceInterval { from, until }),
        }
    }
}

/// A seed that nobody has chosen, below 2^32.
pub fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() & 0xffff_ffff
}
