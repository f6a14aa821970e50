//! The names that the WebUI, ComfyUI and diffusers give to samplers and schedules.
//!
//! Names are compared without regard to case, spaces and punctuation, so that what stands in another tool's file can be taken
//! as it is. README.md beside this file has the table.

use std::str::FromStr;

use super::{SamplerKind, ScheduleKind};

/// Names other than [`SamplerKind::name`], as [`plain`] writes them.
const SAMPLERS: [(&str, SamplerKind); 31] = [
    ("plms", SamplerKind::Pndm),
    ("eulerancestral", SamplerKind::EulerAncestral),
    ("dpm2ancestral", SamplerKind::Dpm2Ancestral),
    ("dpmpp2sancestral", SamplerKind::Dpmpp2sAncestral),
    ("dpmppsdegpu", SamplerKind::DpmppSde),
    ("dpmpp2msdegpu", SamplerKind::Dpmpp2mSde),
    ("dpmpp3msdegpu", SamplerKind::Dpmpp3mSde),
    ("unipcbh2", SamplerKind::Unipc),
    // k-diffusion, as the WebUI's API has it.
    ("kddim", SamplerKind::Ddim),
    ("keuler", SamplerKind::Euler),
    ("keulera", SamplerKind::EulerAncestral),
    ("keulerancestral", SamplerKind::EulerAncestral),
    ("kheun", SamplerKind::Heun),
    ("kdpm2", SamplerKind::Dpm2),
    ("kdpm2a", SamplerKind::Dpm2Ancestral),
    ("klms", SamplerKind::Lms),
    ("kdpmpp2sa", SamplerKind::Dpmpp2sAncestral),
    ("kdpmpp2m", SamplerKind::Dpmpp2m),
    ("kdpmppsde", SamplerKind::DpmppSde),
    ("kdpmpp2msde", SamplerKind::Dpmpp2mSde),
    ("kdpmpp3msde", SamplerKind::Dpmpp3mSde),
    // diffusers, without `Scheduler`.
    ("eulerdiscrete", SamplerKind::Euler),
    ("eulerancestraldiscrete", SamplerKind::EulerAncestral),
    ("heundiscrete", SamplerKind::Heun),
    ("kdpm2discrete", SamplerKind::Dpm2),
    ("kdpm2ancestraldiscrete", SamplerKind::Dpm2Ancestral),
    ("lmsdiscrete", SamplerKind::Lms),
    ("dpmsolvermultistep", SamplerKind::Dpmpp2m),
    ("dpmsolversde", SamplerKind::DpmppSde),
    ("unipcmultistep", SamplerKind::Unipc),
    ("deismultistep", SamplerKind::Deis),
];

/// Names other than [`ScheduleKind::name`], as [`plain`] writes them.
const SCHEDULES: [(&str, ScheduleKind); 5] = [
    ("automatic", ScheduleKind::Normal),
    ("uniform", ScheduleKind::Normal),
    ("discrete", ScheduleKind::Normal),
    ("ays", ScheduleKind::AlignYourSteps),
    ("exp", ScheduleKind::Exponential),
];

/// Letters and digits alone, in lower case; a plus is a `p`.
fn plain(name: &str) -> String {
    name.chars()
        .filter_map(|c| match c {
            '+' => Some('p'),
            c if c.is_ascii_alphanumeric() => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn sampler(plain_name: &str) -> Option<SamplerKind> {
    let name = plain_name.strip_suffix("scheduler").unwrap_or(plain_name);
    let own = SamplerKind::ALL.into_iter().find(|kind| plain(kind.name()) == name);
    own.or_else(|| known(&SAMPLERS, name))
}

fn known<T: Copy>(names: &[(&str, T)], name: &str) -> Option<T> {
    names.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

impl SamplerKind {
    /// The sampler of a name of Kiln, the WebUI, ComfyUI or diffusers, and the schedule that the WebUI's old names end with:
    /// `DPM++ 2M Karras`.
    pub fn from_name(name: &str) -> Result<(Self, Option<ScheduleKind>), UnknownSampler> {
        let plain_name = plain(name);
        if let Some(kind) = sampler(&plain_name) {
            return Ok((kind, None));
        }
        let schedules = ScheduleKind::ALL.map(|kind| (plain(kind.name()), kind));
        let others = SCHEDULES.map(|(name, kind)| (name.to_owned(), kind));
        schedules
            .iter()
            .chain(&others)
            .find_map(|(ending, schedule)| {
                let kind = sampler(plain_name.strip_suffix(ending.as_str())?)?;
                Some((kind, Some(*schedule)))
            })
            .ok_or_else(|| UnknownSampler(name.into()))
    }
}

/// A name that no sampler has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown sampler `{0}`, there are: {names}", names = SamplerKind::ALL.map(SamplerKind::name).join(", "))]
pub struct UnknownSampler(pub String);

impl FromStr for SamplerKind {
    type Err = UnknownSampler;

    /// [`SamplerKind::from_name`] without the schedule.
    fn from_str(name: &str) -> Result<Self, UnknownSampler> {
        Self::from_name(name).map(|(kind, _)| kind)
    }
}

/// A name that no schedule has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown schedule `{0}`, there are: {names}", names = ScheduleKind::ALL.map(ScheduleKind::name).join(", "))]
pub struct UnknownSchedule(pub String);

impl FromStr for ScheduleKind {
    type Err = UnknownSchedule;

    fn from_str(name: &str) -> Result<Self, UnknownSchedule> {
        let plain_name = plain(name);
        Self::ALL
            .into_iter()
            .find(|kind| plain(kind.name()) == plain_name)
            .or_else(|| known(&SCHEDULES, &plain_name))
            .ok_or_else(|| UnknownSchedule(name.into()))
    }
}
