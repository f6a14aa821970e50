//! A second pass at a larger size.

use std::fmt;
use std::str::FromStr;

use super::{check_strength, taken};
use crate::pipeline::error::RequestError;

/// A second pass at a larger size, which begins with what the first has drawn: the WebUI's "hires fix".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hires {
    /// How many times as wide and as high.
    pub factor: f32,
    /// Steps of the second pass, of which `strength` is taken; those of the first if `None`.
    pub steps: Option<usize>,
    /// The share of the steps that is taken, 0 to 1.
    pub strength: f64,
    /// What makes the first pass larger.
    pub upscaler: Upscaler,
}

impl Hires {
    /// A pass with the WebUI's strength.
    pub fn new(factor: f32) -> Self {
        Self {
            factor,
            steps: None,
            strength: 0.7,
            upscaler: Upscaler::default(),
        }
    }

    /// The larger size, rounded down.
    pub fn size(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let larger = |side: u32| (f64::from(side) * f64::from(self.factor)) as u32;
        (larger(width), larger(height))
    }

    /// Steps of the second pass that are taken, where the first has so many.
    pub(in crate::pipeline) fn taken(&self, steps: usize) -> usize {
        taken(self.steps.unwrap_or(steps), self.strength)
    }

    pub(in crate::pipeline) fn check(&self) -> Result<(), RequestError> {
        if !(self.factor > 1.0 && self.factor <= 16.0) {
            return Err(RequestError::HiresFactor(self.factor));
        }
        check_strength("hires-strength", self.strength)
    }
}

/// What makes a picture larger between two passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upscaler {
    /// A Lanczos filter on the picture, which is decoded and encoded again.
    #[default]
    Lanczos,
    /// Linear between latents; needs more strength, and neither decoder nor encoder.
    Latent,
}

impl Upscaler {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Lanczos, Self::Latent];

    /// The name that users type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lanczos => "lanczos",
            Self::Latent => "latent",
        }
    }

    /// The WebUI's name.
    pub(in crate::pipeline) fn webui_name(self) -> &'static str {
        match self {
            Self::Lanczos => "Lanczos",
            Self::Latent => "Latent",
        }
    }
}

impl fmt::Display for Upscaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no upscaler has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown upscaler `{0}`, there are: lanczos, latent")]
pub struct UnknownUpscaler(pub String);

impl FromStr for Upscaler {
    type Err = UnknownUpscaler;

    fn from_str(name: &str) -> Result<Self, UnknownUpscaler> {
        let found = Self::ALL
            .into_iter()
            .find(|upscaler| upscaler.name() == name);
        found.ok_or_else(|| UnknownUpscaler(name.into()))
    }
}
