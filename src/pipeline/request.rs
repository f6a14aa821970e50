//! What to draw.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::samplers::SamplerKind;

/// What to draw. Whatever is not said is left to the model's card.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub(super) prompt: String,
    pub(super) negative: String,
    pub(super) steps: Option<usize>,
    pub(super) seed: Option<u64>,
    pub(super) size: Option<(u32, u32)>,
    pub(super) guidance_scale: Option<f32>,
    pub(super) sampler: Option<SamplerKind>,
    pub(super) clip_skip: Option<u32>,
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

    /// Evaluations of the UNet: 1 to the number of timesteps the model was trained with.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = Some(steps);
        self
    }

    /// The picture's number: the same seed and settings give the same picture on every machine. Only the low 32 bits
    /// count, as with `torch.Generator`. Without one it is random, and [`Picture`](super::Picture) tells it.
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
}

/// A seed that nobody has chosen, below 2^32.
pub fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() & 0xffff_ffff
}
