//! The samplers and the schedules there are.

use std::fmt;

use super::*;

/// The samplers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SamplerKind {
    /// [`Ddim`].
    Ddim,
    /// [`Ddpm`].
    Ddpm,
    /// [`Pndm`].
    Pndm,
    /// [`Euler`].
    Euler,
    /// [`EulerAncestral`].
    EulerAncestral,
    /// [`Heun`].
    Heun,
    /// [`Dpm2`].
    Dpm2,
    /// [`Dpm2Ancestral`].
    Dpm2Ancestral,
    /// [`Lms`].
    Lms,
    /// [`Dpmpp2sAncestral`].
    Dpmpp2sAncestral,
    /// [`Dpmpp2m`].
    Dpmpp2m,
    /// [`DpmppSde`].
    DpmppSde,
    /// [`Dpmpp2mSde`].
    Dpmpp2mSde,
    /// [`Dpmpp3mSde`].
    Dpmpp3mSde,
    /// [`Unipc`].
    Unipc,
    /// [`Deis`].
    Deis,
    /// [`Ipndm`].
    Ipndm,
    /// [`Lcm`].
    Lcm,
    /// [`Tcd`].
    Tcd,
}

impl SamplerKind {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Ddim,
        Self::Ddpm,
        Self::Pndm,
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Dpm2,
        Self::Dpm2Ancestral,
        Self::Lms,
        Self::Dpmpp2sAncestral,
        Self::Dpmpp2m,
        Self::DpmppSde,
        Self::Dpmpp2mSde,
        Self::Dpmpp3mSde,
        Self::Unipc,
        Self::Deis,
        Self::Ipndm,
        Self::Lcm,
        Self::Tcd,
    ];

    /// The name that users type and packages store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Ddpm => "ddpm",
            Self::Pndm => "pndm",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-a",
            Self::Heun => "heun",
            Self::Dpm2 => "dpm2",
            Self::Dpm2Ancestral => "dpm2-a",
            Self::Lms => "lms",
            Self::Dpmpp2sAncestral => "dpmpp-2s-a",
            Self::Dpmpp2m => "dpmpp-2m",
            Self::DpmppSde => "dpmpp-sde",
            Self::Dpmpp2mSde => "dpmpp-2m-sde",
            Self::Dpmpp3mSde => "dpmpp-3m-sde",
            Self::Unipc => "unipc",
            Self::Deis => "deis",
            Self::Ipndm => "ipndm",
            Self::Lcm => "lcm",
            Self::Tcd => "tcd",
        }
    }

    /// The schedules that it can follow.
    pub fn schedules(self) -> &'static [ScheduleKind] {
        match self {
            // They step between the training's timesteps.
            Self::Ddim | Self::Ddpm | Self::Pndm | Self::Lcm | Self::Tcd => &[ScheduleKind::Normal],
            _ => &ScheduleKind::ALL,
        }
    }

    /// Prepares a run.
    pub fn prepare(
        self,
        schedule: &Schedule,
        run: &Run,
    ) -> Result<Box<dyn Sampler + Send>, ScheduleError> {
        let known = self.schedules();
        if let Some(asked) = run.schedule.filter(|asked| !known.contains(asked)) {
            return Err(ScheduleError::Kind {
                schedule: asked,
                sampler: self.name(),
                known: known
                    .iter()
                    .map(|kind| kind.name())
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
        if run.start >= run.steps && run.steps > 0 {
            return Err(ScheduleError::Start {
                start: run.start,
                steps: run.steps,
            });
        }
        Ok(match self {
            Self::Ddim => Box::new(Ddim::new(schedule, run)?),
            Self::Ddpm => Box::new(Ddpm::new(schedule, run)?),
            Self::Pndm => Box::new(Pndm::new(schedule, run)?),
            Self::Euler => Box::new(Euler::new(schedule, run)?),
            Self::EulerAncestral => Box::new(EulerAncestral::new(schedule, run)?),
            Self::Heun => Box::new(Heun::new(schedule, run)?),
            Self::Dpm2 => Box::new(Dpm2::new(schedule, run)?),
            Self::Dpm2Ancestral => Box::new(Dpm2Ancestral::new(schedule, run)?),
            Self::Lms => Box::new(Lms::new(schedule, run)?),
            Self::Dpmpp2sAncestral => Box::new(Dpmpp2sAncestral::new(schedule, run)?),
            Self::Dpmpp2m => Box::new(Dpmpp2m::new(schedule, run)?),
            Self::DpmppSde => Box::new(DpmppSde::new(schedule, run)?),
            Self::Dpmpp2mSde => Box::new(Dpmpp2mSde::new(schedule, run)?),
            Self::Dpmpp3mSde => Box::new(Dpmpp3mSde::new(schedule, run)?),
            Self::Unipc => Box::new(Unipc::new(schedule, run)?),
            Self::Deis => Box::new(Deis::new(schedule, run)?),
            Self::Ipndm => Box::new(Ipndm::new(schedule, run)?),
            Self::Lcm => Box::new(Lcm::new(schedule, run)?),
            Self::Tcd => Box::new(Tcd::new(schedule, run)?),
        })
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
