//! Settings as JSON. Numbers with a point are texts, so that they come back with all their bits.

use std::fmt::{self, Display};
use std::str::FromStr;

use kiln_package::crc32c;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CheckpointError;
use crate::pipeline::init::{Hires, Init, Mask};
use crate::pipeline::samplers::Spacing;
use crate::pipeline::{Raster, Request, Settings};

/// Settings as they are written. Every text has been read once when the file was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    prompt: String,
    negative: String,
    prompt_style: String,
    steps: usize,
    seed: u64,
    size: (u32, u32),
    guidance_scale: String,
    sampler: String,
    clip_skip: u32,
    schedule: Option<String>,
    spacing: Option<String>,
    eta: Option<String>,
    guidance_rescale: String,
    guidance_from: Option<String>,
    guidance_until: Option<String>,
    rng: String,
    subseed: Option<(u64, String)>,
    eta_seed_delta: u64,
    init: Option<WrittenInit>,
    hires: Option<WrittenHires>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenInit {
    picture: Digest,
    strength: String,
    resize: String,
    mask: Option<WrittenMask>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMask {
    picture: Digest,
    blur: String,
    only_masked: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHires {
    factor: String,
    steps: Option<usize>,
    strength: String,
    upscaler: String,
}

/// A picture's size and the CRC-32C of its pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Digest(u32, u32, u32);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{} with the checksum {:08x}", self.0, self.1, self.2)
    }
}

impl Digest {
    fn of(picture: &Raster) -> Self {
        Self(picture.width(), picture.height(), crc32c(picture.pixels()))
    }
}

impl Written {
    /// What is written of settings. Each field is named, so that none can be forgotten.
    pub(super) fn of(settings: &Settings) -> Self {
        let Settings {
            prompt,
            negative,
            prompt_style,
            steps,
            seed,
            width,
            height,
            guidance_scale,
            sampler,
            clip_skip,
            schedule,
            spacing,
            eta,
            guidance_rescale,
            guidance_from,
            guidance_until,
            rng,
            subseed,
            eta_seed_delta,
            init,
            hires,
        } = settings;
        let text = |value: &Option<f32>| value.map(|value| value.to_string());
        Self {
            prompt: prompt.clone(),
            negative: negative.clone(),
            prompt_style: prompt_style.to_string(),
            steps: *steps,
            seed: *seed,
            size: (*width, *height),
            guidance_scale: guidance_scale.to_string(),
            sampler: sampler.to_string(),
            clip_skip: *clip_skip,
            schedule: schedule.map(|kind| kind.to_string()),
            spacing: spacing.map(|spacing| spacing.name().to_owned()),
            eta: text(eta),
            guidance_rescale: guidance_rescale.to_string(),
            guidance_from: text(guidance_from),
            guidance_until: text(guidance_until),
            rng: rng.to_string(),
            subseed: subseed.map(|(seed, strength)| (seed, strength.to_string())),
            eta_seed_delta: *eta_seed_delta,
            init: init.as_ref().map(|init| WrittenInit {
                picture: Digest::of(&init.picture),
                strength: init.strength.to_string(),
                resize: init.resize.to_string(),
                mask: init.mask.as_ref().map(|mask| WrittenMask {
                    picture: Digest::of(&mask.picture),
                    blur: mask.blur.to_string(),
                    only_masked: mask.only_masked,
                }),
            }),
            hires: hires.map(|hires| WrittenHires {
                factor: hires.factor.to_string(),
                steps: hires.steps,
                strength: hires.strength.to_string(),
                upscaler: hires.upscaler.to_string(),
            }),
        }
    }

    pub(super) fn to_json(&self) -> String {
        self.value().to_string()
    }

    fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Reads what [`Written::to_json`] wrote, and whether each text means something.
    pub(super) fn from_json(text: &str) -> Result<Self, CheckpointError> {
        let damaged = |error: String| CheckpointError::damaged(format!("its settings: {error}"));
        let written: Self =
            serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        written.understood().map_err(damaged)?;
        Ok(written)
    }

    /// What is drawn, without the pictures that it begins with.
    pub(super) fn request(&self) -> Request {
        self.understood().unwrap_or_default()
    }

    fn understood(&self) -> Result<Request, String> {
        let mut request = Request::new(&*self.prompt)
            .negative(&*self.negative)
            .prompt_style(parsed(&self.prompt_style)?)
            .steps(self.steps)
            .seed(self.seed)
            .size(self.size.0, self.size.1)
            .guidance_scale(parsed(&self.guidance_scale)?)
            .sampler(parsed(&self.sampler)?)
            .clip_skip(self.clip_skip)
            .guidance_rescale(parsed(&self.guidance_rescale)?)
            .rng(parsed(&self.rng)?)
            .eta_seed_delta(self.eta_seed_delta);
        request.schedule = self.schedule.as_deref().map(parsed).transpose()?;
        request.spacing = match &self.spacing {
            Some(name) => {
                Some(Spacing::from_name(name).ok_or_else(|| format!("unknown spacing `{name}`"))?)
            }
            None => None,
        };
        let number = |text: &Option<String>| text.as_deref().map(parsed::<f32>).transpose();
        request.eta = number(&self.eta)?;
        request.guidance_from = number(&self.guidance_from)?;
        request.guidance_until = number(&self.guidance_until)?;
        if let Some((seed, strength)) = &self.subseed {
            request = request.subseed(*seed, parsed(strength)?);
        }
        if let Some(init) = &self.init {
            parsed::<f64>(&init.strength)?;
            parsed::<crate::pipeline::Resize>(&init.resize)?;
            if let Some(mask) = &init.mask {
                parsed::<f32>(&mask.blur)?;
            }
        }
        if let Some(hires) = &self.hires {
            request = request.hires(Hires {
                factor: parsed(&hires.factor)?,
                steps: hires.steps,
                strength: parsed(&hires.strength)?,
                upscaler: parsed(&hires.upscaler)?,
            });
        }
        Ok(request)
    }

    /// Whether there is a picture to begin with, and a mask.
    pub(super) fn pictures(&self) -> (bool, bool) {
        let init = self.init.as_ref();
        (init.is_some(), init.is_some_and(|init| init.mask.is_some()))
    }

    /// The request with pictures to begin with.
    pub(super) fn begin_with(
        &self,
        request: Request,
        picture: Raster,
        mask: Option<Raster>,
    ) -> Request {
        let Some(written) = &self.init else {
            return request;
        };
        let mut init = Init::new(picture);
        init.strength = parsed(&written.strength).unwrap_or(init.strength);
        init.resize = parsed(&written.resize).unwrap_or(init.resize);
        init.mask = mask.map(|picture| {
            let mut mask = Mask::new(picture);
            if let Some(written) = &written.mask {
                mask.blur = parsed(&written.blur).unwrap_or(mask.blur);
                mask.only_masked = written.only_masked;
            }
            mask
        });
        request.init(init)
    }

    /// Fails with the first setting that is another.
    pub(super) fn check(&self, settings: &Settings) -> Result<(), CheckpointError> {
        let (saved, asked) = (self.value(), Self::of(settings).value());
        let (Value::Object(saved), Value::Object(asked)) = (saved, asked) else {
            return Err(CheckpointError::damaged("its settings are none"));
        };
        let other = saved
            .iter()
            .find(|(name, value)| asked.get(*name) != Some(*value));
        let Some((name, value)) = other else {
            return Ok(());
        };
        let other = |name: &str, saved: String, asked: String| CheckpointError::Settings {
            name: name.replace('_', "-"),
            saved,
            asked,
        };
        let (own, init) = (self.init.as_ref(), Self::of(settings).init);
        if let (Some(own), Some(init)) = (own, &init) {
            let masks = (own.mask.as_ref(), init.mask.as_ref());
            if own.picture != init.picture {
                let (own, other_one) = (own.picture.to_string(), init.picture.to_string());
                return Err(other("picture to begin with", own, other_one));
            }
            if let (Some(own), Some(mask)) = masks
                && own.picture != mask.picture
            {
                return Err(other(
                    "mask",
                    own.picture.to_string(),
                    mask.picture.to_string(),
                ));
            }
        }
        let asked = asked.get(name).map(Value::to_string);
        Err(other(name, value.to_string(), asked.unwrap_or_default()))
    }
}

fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|error: T::Err| format!("`{text}`: {error}"))
}
