//! Samplers and schedules by name.

use std::fmt;
use std::str::FromStr;

use super::*;

/// The samplers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SamplerKind {
    /// [`Ddim`].
    Ddim,
    /// [`Euler`].
    Euler,
    /// [`EulerAncestral`].
    EulerAncestral,
    /// [`Lcm`].
    Lcm,
}

impl SamplerKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ddim, Self::Euler, Self::EulerAncestral, Self::Lcm];

    /// The name that users type and packages store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-a",
            Self::Lcm => "lcm",
        }
    }

    /// Prepares a run.
    pub fn prepare(
        self,
        schedule: &Schedule,
        run: &Run,
    ) -> Result<Box<dyn Sampler + Send>, ScheduleError> {
        Ok(match self {
            Self::Ddim => Box::new(Ddim::new(schedule, run)?),
            Self::Euler => Box::new(Euler::new(schedule, run)?),
            Self::EulerAncestral => Box::new(EulerAncestral::new(schedule, run)?),
            Self::Lcm => Box::new(Lcm::new(schedule, run)?),
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

/// The sigmas that a run passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScheduleKind {
    /// The training's, at the timesteps of the [`Spacing`].
    Normal,
    /// Dense at the end (Karras et al., equation 5, rho 7).
    Karras,
    /// Even in their logarithm.
    Exponential,
    /// The training's at even timesteps, without the last (Stability AI's `sgm`).
    SgmUniform,
    /// Every so many of the training's.
    Simple,
    /// By the quantiles of a beta distribution (Lee et al., "Beta Sampling is All You Need"), as diffusers has it.
    Beta,
    /// NVIDIA's for Stable Diffusion 1.
    AlignYourSteps,
}

impl ScheduleKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Normal,
        Self::Karras,
        Self::Exponential,
        Self::SgmUniform,
        Self::Simple,
        Self::Beta,
        Self::AlignYourSteps,
    ];

    /// The name that users type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Karras => "karras",
            Self::Exponential => "exponential",
            Self::SgmUniform => "sgm-uniform",
            Self::Simple => "simple",
            Self::Beta => "beta",
            Self::AlignYourSteps => "align-your-steps",
        }
    }
}

impl fmt::Display for ScheduleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no schedule has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown schedule `{0}`, there are: {names}", names = ScheduleKind::ALL.map(ScheduleKind::name).join(", "))]
pub struct UnknownSchedule(pub String);

impl FromStr for ScheduleKind {
    type Err = UnknownSchedule;

    fn from_str(name: &str) -> Result<Self, UnknownSchedule> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownSchedule(name.into()))
    }
}
