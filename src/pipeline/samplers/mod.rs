//! Samplers: from noise to latents in a few evaluations of the UNet.
//!
//! Each has diffusers' arithmetic, in `f32` and in its order, so that the same noise and the same predictions give the
//! same latents. A run is
//!
//! ```text
//! latents = noise * sampler.initial_sigma()
//! for i in 0..sampler.timesteps().len():
//!     input = sampler.scale_input(i, latents)
//!     prediction = unet(input, sampler.timesteps()[i])
//!     sampler.step(i, prediction, latents, noise)
//! ```

mod ddim;
mod euler;
mod euler_ancestral;
mod schedule;

use std::fmt;
use std::str::FromStr;

pub use ddim::Ddim;
pub use euler::Euler;
pub use euler_ancestral::EulerAncestral;
pub use schedule::{Prediction, Schedule, ScheduleError, Spacing};

use super::noise::Noise;

/// A sampler with its coefficients for a number of steps. None of its methods allocates.
pub trait Sampler {
    /// The timestep that the UNet is told, for each step.
    fn timesteps(&self) -> &[f32];

    /// The standard deviation of the latents before the first step.
    fn initial_sigma(&self) -> f32;

    /// Writes the UNet's input for step `index` into `input`, which has the length of `latents`.
    fn scale_input(&self, index: usize, latents: &[f32], input: &mut [f32]);

    /// Takes step `index` in place: `prediction` is the UNet's output, of the length of `latents`. `noise` is only drawn
    /// from by ancestral samplers; they draw `latents.len()` numbers in every step.
    fn step(&mut self, index: usize, prediction: &[f32], latents: &mut [f32], noise: &mut Noise);
}

/// The samplers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SamplerKind {
    /// [`Ddim`], without added noise.
    Ddim,
    /// [`Euler`].
    Euler,
    /// [`EulerAncestral`].
    EulerAncestral,
}

impl SamplerKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ddim, Self::Euler, Self::EulerAncestral];

    /// The name that users type and packages store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-a",
        }
    }

    /// Prepares a run. `latents` is the number of elements that each step works on.
    pub fn prepare(
        self,
        schedule: &Schedule,
        steps: usize,
        latents: usize,
    ) -> Result<Box<dyn Sampler + Send>, ScheduleError> {
        Ok(match self {
            Self::Ddim => Box::new(Ddim::new(schedule, steps)?),
            Self::Euler => Box::new(Euler::new(schedule, steps)?),
            Self::EulerAncestral => Box::new(EulerAncestral::new(schedule, steps, latents)?),
        })
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no sampler has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown sampler `{0}`, there are: {names}", names = SamplerKind::ALL.map(SamplerKind::name).join(", "))]
pub struct UnknownSampler(pub String);

impl FromStr for SamplerKind {
    type Err = UnknownSampler;

    fn from_str(name: &str) -> Result<Self, UnknownSampler> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownSampler(name.into()))
    }
}
