//! A finished picture.

use std::fmt;
use std::io::{self, Write};

use ndarray::ArrayView3;

use super::samplers::SamplerKind;

/// How a picture was drawn: a request with everything said.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What it should show.
    pub prompt: String,
    /// What it should not show.
    pub negative: String,
    /// Evaluations of the UNet.
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
    /// Which of the text encoder's layers is its last, counted from the end, from 1; one more than diffusers' `clip_skip`.
    pub clip_skip: u32,
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
            ("clip-skip", settings.clip_skip.to_string()),
            ("size", format!("{}x{}", settings.width, settings.height)),
            ("model", self.model.clone()),
            (
                "Software",
                concat!("kiln ", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
        ];
        for (key, text) in texts {
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
