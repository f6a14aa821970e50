//! What options are parsed to. Errors say what is expected.

use std::num::NonZeroUsize;

use kiln::pipeline::samplers::SamplerKind;
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

/// A sampler's name.
pub fn sampler(text: &str) -> Result<SamplerKind, String> {
    text.parse()
        .map_err(|error: kiln::pipeline::samplers::UnknownSampler| error.to_string())
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
