//! A finished picture.

use std::fmt;
use std::io::{self, Write};

use ndarray::ArrayView3;

use super::noise::{Rng, Seeds};
use super::samplers::{SamplerKind, ScheduleKind, Spacing};

/// How a picture was drawn: a request with everything said.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What it should show.
    pub prompt: String,
    /// What it should not show.
    pub negative: String,
    /// Steps of the sampler.
    pub steps: usize,
    /// The picture's number.
    pub seed: u64,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How far to go from the negative prompt's prediction towards the prompt's.
    pub guidance_scale: f32,
    /// How to go from noise to latents.
    pub sampler: SamplerKind,
    /// The sigmas on the way; `None` leaves them to the model and the sampler.
    pub schedule: Option<ScheduleKind>,
    /// The timesteps on the way; `None` leaves them to the model and the sampler.
    pub spacing: Option<Spacing>,
    /// How much noise the sampler adds; `None` leaves it to the sampler.
    pub eta: Option<f32>,
    /// How far the guided prediction's deviation is brought back to that of the prompt's alone, 0 to 1.
    pub guidance_rescale: f32,
    /// The largest sigma that is guided.
    pub guidance_from: Option<f32>,
    /// The smallest sigma that is guided.
    pub guidance_until: Option<f32>,
    /// The generator of the noise.
    pub rng: Rng,
    /// Another seed, and how far the initial noise is turned towards its, 0 to 1.
    pub subseed: Option<(u64, f32)>,
    /// Added to the seed for the noise that the sampler adds, if not 0.
    pub eta_seed_delta: u64,
}

impl Settings {
    /// What the noise is made from.
    pub fn seeds(&self) -> Seeds {
        Seeds {
            rng: self.rng,
            seed: self.seed,
            subseed: self.subseed,
            eta_seed_delta: self.eta_seed_delta,
        }
    }

    /// Whether predictions at `sigma` are guided.
    pub(super) fn guides(&self, sigma: f32) -> bool {
        self.guidance_from.is_none_or(|from| sigma <= from)
            && self.guidance_until.is_none_or(|until| sigma >= until)
    }

    /// What was chosen beyond what every picture has, under the names that the command line gives it.
    pub fn chosen(&self) -> Vec<(&'static str, String)> {
        let rescale = (self.guidance_rescale != 0.0).then_some(self.guidance_rescale);
        let rng = (self.rng != Rng::default()).then_some(self.rng);
        let delta = (self.eta_seed_delta != 0).then_some(self.eta_seed_delta);
        [
            ("schedule", self.schedule.map(|kind| kind.to_string())),
            ("spacing", self.spacing.map(|spacing| spacing.name().into())),
            ("eta", self.eta.map(|eta| eta.to_string())),
            ("guidance-rescale", rescale.map(|share| share.to_string())),
            (
                "guidance-from",
                self.guidance_from.map(|sigma| sigma.to_string()),
            ),
            (
                "guidance-until",
                self.guidance_until.map(|sigma| sigma.to_string()),
            ),
            ("rng", rng.map(|rng| rng.to_string())),
            ("subseed", self.subseed.map(|(seed, _)| seed.to_string())),
            (
                "subseed-strength",
                self.subseed.map(|(_, strength)| strength.to_string()),
            ),
            ("eta-seed-delta", delta.map(|delta| delta.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

/// A picture of 8-bit RGB, with the settings that drew it.
#[derive(Clone, PartialEq)]
pub struct Picture {
    pub(super) pixels: Vec<u8>,
    pub(super) settings: Settings,
    pub(super) model: String,
    pub(super) cut: Vec<String>,
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picture")
            .field("settings", &self.settings)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl Picture {
    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.settings.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.settings.height
    }

    /// Red, green and blue of each pixel, row by row from the top left.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels as `[height, width, 3]`.
    pub fn view(&self) -> ArrayView3<'_, u8> {
        let shape = (
            self.settings.height as usize,
            self.settings.width as usize,
            3,
        );
        ArrayView3::from_shape(shape, &self.pixels).expect("a picture has height * width * 3 bytes")
    }

    /// The settings that drew it; its seed also where the request had none.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Name of the model that drew it.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Words of the prompt, then of the negative prompt, that the text encoder had no room for.
    pub fn cut(&self) -> &[String] {
        &self.cut
    }

    /// Writes a PNG. Its text chunks hold the settings, under the names that the command line gives them.
    pub fn encode_png(&self, out: &mut impl Write) -> io::Result<()> {
        let mut encoder = png::Encoder::new(out, self.width(), self.height());
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let settings = &self.settings;
        let texts = [
            ("prompt", settings.prompt.clone()),
            ("negative", settings.negative.clone()),
            ("seed", settings.seed.to_string()),
            ("steps", settings.steps.to_string()),
            ("sampler", settings.sampler.to_string()),
            ("guidance-scale", settings.guidance_scale.to_string()),
            ("size", format!("{}x{}", settings.width, settings.height)),
            ("model", self.model.clone()),
            (
                "Software",
                concat!("kiln ", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
        ];
        for (key, text) in texts.into_iter().chain(settings.chosen()) {
            let text = text.replace('\0', " ");
            // tEXt holds Latin-1; what does not fit goes into iTXt, which holds UTF-8.
            let added = match text.chars().all(|c| u32::from(c) < 256) {
                true => encoder.add_text_chunk(key.into(), text),
                false => encoder.add_itxt_chunk(key.into(), text),
            };
            added.map_err(into_io)?;
        }
        let mut writer = encoder.write_header().map_err(into_io)?;
        writer.write_image_data(&self.pixels).map_err(into_io)?;
        writer.finish().map_err(into_io)
    }
}

fn into_io(error: png::EncodingError) -> io::Error {
    match error {
        png::EncodingError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

/// `round(clamp(x / 2 + 0.5, 0, 1) * 255)`, ties to even, as diffusers makes a picture of the decoder's output. The input
/// is `[3, height, width]`, the output `[height, width, 3]`.
pub(super) fn to_rgb8(planes: &[f32], pixels: &mut [u8]) {
    let area = pixels.len() / 3;
    for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        for (channel, byte) in pixel.iter_mut().enumerate() {
            let value = (planes[channel * area + i] / 2.0 + 0.5).clamp(0.0, 1.0);
            *byte = libm::rintf(value * 255.0) as u8;
        }
    }
}
