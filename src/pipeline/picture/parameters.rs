//! How a picture was drawn, as the WebUI writes it beside its pictures:
//!
//! ```text
//! PROMPT
//! Negative prompt: NEGATIVE
//! Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: NAME
//! ```
//!
//! The text and its quoting are those of the WebUI's `create_infotext` and `quote`, and the reader is its
//! `parse_generation_parameters` (`modules/processing.py`, `modules/infotext_utils.py`).

use super::{ModelName, Settings};
use crate::pipeline::{Decoder, PromptStyle, Rng};

const NEGATIVE: &str = "Negative prompt:";

/// The text of a picture.
pub(super) fn write(settings: &Settings, model: &ModelName) -> String {
    let mut text = settings.prompt.clone();
    if !settings.negative.is_empty() {
        text.push_str(&format!("\n{NEGATIVE} {}", settings.negative));
    }
    let said: Vec<String> = entries(settings, model)
        .into_iter()
        .map(|(key, value)| format!("{key}: {}", quote(&value)))
        .collect();
    text.push('\n');
    text.push_str(&said.join(", "));
    text.trim().replace('\0', " ")
}

/// Key and value of each setting, in the WebUI's order.
fn entries(settings: &Settings, model: &ModelName) -> Vec<(&'static str, String)> {
    let mut entries = vec![
        ("Steps", settings.steps.to_string()),
        ("Sampler", settings.sampler.webui_name().to_owned()),
        ("CFG scale", settings.guidance_scale.to_string()),
        ("Seed", settings.seed.to_string()),
        ("Size", format!("{}x{}", settings.width, settings.height)),
    ];
    if let Some(hash) = &model.hash {
        entries.push(("Model hash", hash.clone()));
    }
    entries.push(("Model", model.name.clone()));
    if settings.clip_skip > 1 {
        entries.push(("Clip skip", settings.clip_skip.to_string()));
    }
    if let Some(schedule) = settings.schedule {
        entries.push(("Schedule type", schedule.webui_name().into()));
    }
    if let Some(init) = &settings.init {
        entries.push(("Denoising strength", init.strength.to_string()));
        if let Some(mask) = &init.mask {
            entries.push(("Mask blur", mask.blur.to_string()));
            if let Some(padding) = mask.only_masked {
                entries.push(("Inpaint area", "Only masked".into()));
                entries.push(("Masked area padding", padding.to_string()));
            }
        }
    }
    if let Some(hires) = settings.hires {
        entries.push(("Denoising strength", hires.strength.to_string()));
        entries.push(("Hires upscale", hires.factor.to_string()));
        entries.extend(hires.steps.map(|steps| ("Hires steps", steps.to_string())));
        entries.push(("Hires upscaler", hires.upscaler.webui_name().into()));
    }
    if let Some((seed, strength)) = settings.subseed {
        entries.push(("Variation seed", seed.to_string()));
        entries.push(("Variation seed strength", strength.to_string()));
    }
    if settings.eta_seed_delta != 0 {
        entries.push(("ENSD", settings.eta_seed_delta.to_string()));
    }
    // The WebUI's noise is a GPU's unless it is said.
    let rng = match settings.rng {
        Rng::Torch => "CPU",
        Rng::Philox => "GPU",
    };
    entries.push(("RNG", rng.into()));
    if let Some(eta) = settings.eta {
        entries.push(("Eta", eta.to_string()));
    }
    // `sd_vae_decode_method`, which the WebUI says unless it is "Full".
    if settings.decoder == Decoder::Taesd {
        entries.push(("VAE Decoder", "TAESD".into()));
    }
    // What the WebUI has no name for.
    if let Some(side) = settings.tile {
        entries.push(("VAE tile", side.to_string()));
    }
    if let Some(spacing) = settings.spacing {
        entries.push(("Spacing", spacing.name().into()));
    }
    if settings.guidance_rescale != 0.0 {
        entries.push(("Guidance rescale", settings.guidance_rescale.to_string()));
    }
    for (key, sigma) in [
        ("Guidance from", settings.guidance_from),
        ("Guidance until", settings.guidance_until),
    ] {
        entries.extend(sigma.map(|sigma| (key, sigma.to_string())));
    }
    if settings.prompt_style != PromptStyle::Webui {
        entries.push(("Prompt style", settings.prompt_style.to_string()));
    }
    entries.push((
        "Version",
        concat!("kiln ", env!("CARGO_PKG_VERSION")).into(),
    ));
    entries
}

/// In quotes, as JSON, if it would be mistaken for more than one value.
fn quote(value: &str) -> String {
    match value.contains([',', '\n', ':']) {
        true => serde_json::Value::from(value).to_string(),
        false => value.to_owned(),
    }
}

fn unquote(value: &str) -> String {
    serde_json::from_str(value).unwrap_or_else(|_| value.to_owned())
}

/// A text taken apart.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    pub prompt: String,
    pub negative: String,
    pub entries: Vec<(String, String)>,
}

/// Takes a text apart. Every text is one: what is not understood is the prompt.
pub(super) fn read(text: &str) -> Read {
    let mut read = Read::default();
    let mut lines: Vec<&str> = text.trim().split('\n').collect();
    let entries = lines.last().map_or(Vec::new(), |last| self::pairs(last));
    // Fewer are no settings but the end of a prompt.
    if entries.len() >= 3 {
        read.entries = entries;
        lines.pop();
    }
    let mut is_negative = false;
    for line in lines {
        let mut line = line.trim();
        if let Some(rest) = line.strip_prefix(NEGATIVE) {
            is_negative = true;
            line = rest.trim();
        }
        let said = match is_negative {
            true => &mut read.negative,
            false => &mut read.prompt,
        };
        if !said.is_empty() {
            said.push('\n');
        }
        said.push_str(line);
    }
    read
}

/// The matches of `\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)`, one after another.
fn pairs(line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = line;
    while let Some((key, after)) = next_key(rest) {
        let (value, end) = value(after);
        pairs.push((key.to_owned(), value));
        rest = &after[end..];
    }
    pairs
}

/// The next word that a colon follows, and what is behind it.
fn next_key(text: &str) -> Option<(&str, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut from = 0;
    loop {
        let start = from + text[from..].find(is_word)?;
        let end = text[start..]
            .find(|c: char| !(is_word(c) || matches!(c, ' ' | '-' | '/')))
            .map(|len| start + len)?;
        let key = &text[start..end];
        if text[end..].starts_with(':') && key.chars().nth(1).is_some() {
            return Some((key, text[end + 1..].trim_start()));
        }
        from = end;
    }
}

/// The value that a text begins with, and where the rest begins.
fn value(text: &str) -> (String, usize) {
    if text.starts_with('"') {
        let mut is_escaped = false;
        let close = text.char_indices().skip(1).find(|(_, c)| {
            let closes = *c == '"' && !is_escaped;
            is_escaped = *c == '\\' && !is_escaped;
            closes
        });
        if let Some((close, _)) = close.filter(|(at, _)| *at > 1) {
            let rest = &text[close + 1..];
            if rest.is_empty() || rest.starts_with(',') {
                return (unquote(&text[..=close]), (close + 2).min(text.len()));
            }
        }
    }
    let end = text.find(',').unwrap_or(text.len());
    (text[..end].to_owned(), (end + 1).min(text.len()))
}
