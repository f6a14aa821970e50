//! What options are parsed to. Errors say what is expected.

use std::num::NonZeroUsize;

use kiln::pipeline::samplers::{SamplerKind, ScheduleKind, Spacing};
use kiln::pipeline::{Decoder, PromptStyle, Resize, Rng, Tile, Upscaler};
use kiln_package::GraphKind;

/// `WIDTHxHEIGHT`, in pixels.
pub fn size(text: &str) -> Result<(u32, u32), String> {
    let parsed = text
        .split_once('x')
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    match parsed {
        Some((width, height)) if width > 0 && height > 0 => Ok((width, height)),
        _ => Err("expected WIDTHxHEIGHT in pixels, such as 512x512".into()),
    }
}

/// A sampler's name, with the schedule that it may end with.
pub fn sampler(text: &str) -> Result<(SamplerKind, Option<ScheduleKind>), String> {
    SamplerKind::from_name(text).map_err(|error| error.to_string())
}

/// A schedule's name.
pub fn schedule(text: &str) -> Result<ScheduleKind, String> {
    text.parse()
        .map_err(|error: kiln::pipeline::samplers::UnknownSchedule| error.to_string())
}

/// A spacing's name.
pub fn spacing(text: &str) -> Result<Spacing, String> {
    Spacing::from_name(text).ok_or_else(|| "expected leading, trailing or linspace".into())
}

/// A generator's name.
pub fn rng(text: &str) -> Result<Rng, String> {
    text.parse()
        .map_err(|error: kiln::pipeline::UnknownRng| error.to_string())
}

/// A number from 0 to 1.
pub fn share(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "expected a number from 0 to 1".into())
}

/// A number from 0 to 1, in all its digits: it is multiplied with steps and rounded.
pub fn strength(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "expected a number from 0 to 1".into())
}

/// A way to resize.
pub fn resize(text: &str) -> Result<Resize, String> {
    text.parse()
        .map_err(|error: kiln::pipeline::UnknownResize| error.to_string())
}

/// An upscaler's name.
pub fn upscaler(text: &str) -> Result<Upscaler, String> {
    text.parse()
        .map_err(|error: kiln::pipeline::UnknownUpscaler| error.to_string())
}

/// A ratio of noise to signal.
pub fn sigma(text: &str) -> Result<f32, String> {
    finite(text)
        .ok()
        .filter(|sigma| *sigma >= 0.0)
        .ok_or_else(|| "expected a number from 0 up".into())
}

/// A decoder's name.
pub fn decoder(text: &str) -> Result<Decoder, String> {
    text.parse()
        .map_err(|error: kiln::pipeline::UnknownDecoder| error.to_string())
}

/// The side of tiles: `None` for no tiles.
pub fn tile(text: &str) -> Result<Option<Tile>, String> {
    match text {
        "off" => Ok(None),
        _ => text
            .parse()
            .map(Some)
            .map_err(|error: kiln::pipeline::UnknownTile| format!("{error} or off")),
    }
}

/// A prompt style's name.
pub fn prompt_style(text: &str) -> Result<PromptStyle, String> {
    text.parse()
        .map_err(|error: kiln::pipeline::UnknownStyle| error.to_string())
}

/// A graph's name.
pub fn graph(text: &str) -> Result<GraphKind, String> {
    GraphKind::ALL
        .iter()
        .copied()
        .find(|graph| graph.name() == text)
        .ok_or_else(|| {
            let names: Vec<_> = GraphKind::ALL.iter().map(|graph| graph.name()).collect();
            format!("unknown graph, there are: {}", names.join(", "))
        })
}

/// A finite number.
pub fn finite(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|scale: &f32| scale.is_finite())
        .ok_or_else(|| "expected a finite number".into())
}

/// A whole number from 1 up.
pub fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "expected a whole number from 1 up".into())
}

/// A number of threads: no machine has more than 4096.
pub fn threads(text: &str) -> Result<NonZeroUsize, String> {
    const MOST: usize = 4096;
    count(text)
        .ok()
        .filter(|n| n.get() <= MOST)
        .ok_or_else(|| format!("expected a whole number from 1 to {MOST}"))
}

/// A number of pictures or runs, which are counted.
pub fn pictures(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| "expected a whole number from 1 up".into())
}

/// Memory: a number of bytes, or of KiB, MiB or GiB with `K`, `M` or `G` behind it; `auto` for what is there.
pub fn ram(text: &str) -> Result<Ram, String> {
    if text == "auto" {
        return Ok(Ram::Auto);
    }
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let bytes = digits.parse::<u64>().ok();
    let bytes = bytes.and_then(|bytes| bytes.checked_mul(1 << unit));
    bytes
        .filter(|bytes| *bytes > 0)
        .map(Ram::Bytes)
        .ok_or_else(|| "expected a number of bytes such as 256M or 1G, or auto".into())
}

/// A budget of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ram {
    /// So many bytes.
    Bytes(u64),
    /// What the system and its cgroups leave.
    Auto,
}

impl Ram {
    /// In bytes; `None` where nobody tells.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Ram::Bytes(bytes) => Some(bytes),
            Ram::Auto => kiln::runtime::memory::available_bytes(),
        }
    }
}

/// A seed.
pub fn seed(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

/// A clip skip.
pub fn clip_skip(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| "expected a whole number from 1 up".into())
}
