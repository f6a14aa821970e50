//! A finished picture, and what picture files say of themselves.
//!
//! - `parameters`: the settings as text, as the WebUI writes and reads them.
//! - `encode`: pictures to files; `raster`: and from files; `resample`: in other sizes.
//! - `remembered`: what files say, whichever program wrote them.

mod encode;
mod parameters;
mod raster;
mod remembered;
mod resample;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};

use ndarray::ArrayView3;

pub use encode::PictureFormat;
pub(super) use raster::mixed;
pub use raster::{Background, Raster, RasterError};
pub use remembered::{Remembered, RememberedError};

pub(crate) use resample::lanczos;
pub(super) use resample::{Box4, bilinear};

use super::decoder::Decoder;
use super::init::{Hires, Init, Resize, taken};
use super::noise::{Rng, Seeds};
use super::prompt::{Prompt, PromptError, PromptStyle};
use super::samplers::{SamplerKind, ScheduleKind, Spacing};

/// How a picture was drawn: a request with everything said.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What it should show.
    pub prompt: String,
    /// What it should not show.
    pub negative: String,
    /// The language that both are in.
    pub prompt_style: PromptStyle,
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
    /// Which of the text encoder's layers is its last, counted from the end, from 1; one more than diffusers' `clip_skip`.
    pub clip_skip: u32,
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
    /// The picture to begin with.
    pub init: Option<Init>,
    /// The second pass.
    pub hires: Option<Hires>,
    /// What makes the picture of the latents.
    pub decoder: Decoder,
    /// The side of the tiles that the VAE works on, in pixels; `None` if it works on the whole picture.
    pub tile: Option<u32>,
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

    /// Steps that are taken, in all passes.
    pub fn taken(&self) -> usize {
        self.taken_at_first() + self.hires.map_or(0, |hires| hires.taken(self.steps))
    }

    pub(super) fn taken_at_first(&self) -> usize {
        let strength = self.init.as_ref().map_or(1.0, |init| init.strength);
        taken(self.steps, strength)
    }

    /// Width and height of the picture whose latents there are after a step, counted from 1.
    pub fn size_at(&self, step: usize) -> (u32, u32) {
        let size = (self.width, self.height);
        match self.hires {
            Some(hires) if step > self.taken_at_first() => hires.size(size),
            _ => size,
        }
    }

    /// Width and height of what comes of it.
    pub fn size(&self) -> (u32, u32) {
        let size = (self.width, self.height);
        let init = self.init.as_ref();
        match init.and_then(|init| Some((init, init.mask.as_ref()?))) {
            Some((init, mask)) if mask.only_masked.is_some() => {
                (init.picture.width(), init.picture.height())
            }
            _ => self.hires.map_or(size, |hires| hires.size(size)),
        }
    }

    /// What was chosen beyond what every picture has, under the names that the command line gives it.
    pub fn chosen(&self) -> Vec<(&'static str, String)> {
        let rescale = (self.guidance_rescale != 0.0).then_some(self.guidance_rescale);
        let rng = (self.rng != Rng::default()).then_some(self.rng);
        let delta = (self.eta_seed_delta != 0).then_some(self.eta_seed_delta);
        let init = self.init.as_ref();
        let resize = init
            .map(|init| init.resize)
            .filter(|resize| *resize != Resize::default());
        let mask = init.and_then(|init| init.mask.as_ref());
        let only_masked = mask.and_then(|mask| mask.only_masked);
        let hires = self.hires;
        let hires_steps = hires.and_then(|hires| hires.steps);
        let decoder = (self.decoder != Decoder::default()).then_some(self.decoder);
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
            ("strength", init.map(|init| init.strength.to_string())),
            ("resize", resize.map(|resize| resize.to_string())),
            ("mask-blur", mask.map(|mask| mask.blur.to_string())),
            ("only-masked", only_masked.map(|pixels| pixels.to_string())),
            ("hires", hires.map(|hires| hires.factor.to_string())),
            ("hires-steps", hires_steps.map(|steps| steps.to_string())),
            (
                "hires-strength",
                hires.map(|hires| hires.strength.to_string()),
            ),
            (
                "hires-upscaler",
                hires.map(|hires| hires.upscaler.to_string()),
            ),
            ("decoder", decoder.map(|decoder| decoder.to_string())),
            ("tile", self.tile.map(|side| side.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    /// The negative prompt and the prompt, read for so many evaluations of the UNet.
    pub(super) fn prompts(&self, evaluations: usize) -> Result<Vec<Prompt>, PromptError> {
        [&self.negative, &self.prompt]
            .map(|prompt| Prompt::parse(prompt, self.prompt_style, evaluations))
            .into_iter()
            .collect()
    }

    /// The settings as the WebUI writes them beside its pictures, for a picture that `model` draws.
    pub fn parameters(&self, model: &ModelName) -> String {
        parameters::write(self, model)
    }
}

/// What a picture says of the model that drew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    /// Its name.
    pub name: String,
    /// The first ten digits of the SHA-256 of the checkpoint that it was compiled from, if that was one file.
    pub hash: Option<String>,
}

/// A picture of 8-bit RGB, with the settings that drew it.
#[derive(Clone, PartialEq)]
pub struct Picture {
    pub(super) size: (u32, u32),
    pub(super) pixels: Vec<u8>,
    pub(super) settings: Settings,
    pub(super) model: ModelName,
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
        self.size.0
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.size.1
    }

    /// Red, green and blue of each pixel, row by row from the top left.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels as `[height, width, 3]`.
    pub fn view(&self) -> ArrayView3<'_, u8> {
        let shape = (self.size.1 as usize, self.size.0 as usize, 3);
        ArrayView3::from_shape(shape, &self.pixels).expect("a picture has height * width * 3 bytes")
    }

    /// The settings that drew it; its seed also where the request had none.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Name of the model that drew it.
    pub fn model(&self) -> &str {
        &self.model.name
    }

    /// Words of the prompt, then of the negative prompt, that the text encoder had no room for.
    pub fn cut(&self) -> &[String] {
        &self.cut
    }

    /// The settings as the WebUI writes them beside its pictures.
    pub fn parameters(&self) -> String {
        self.settings.parameters(&self.model)
    }

    /// Writes a PNG. Its text chunk `parameters` says how it was drawn.
    pub fn encode_png(&self, out: &mut impl Write) -> io::Result<()> {
        self.encode(PictureFormat::Png, out)
    }

    /// Writes a picture file that says how it was drawn.
    pub fn encode(&self, format: PictureFormat, out: &mut impl Write) -> io::Result<()> {
        let size = (self.width(), self.height());
        format.encode(size, &self.pixels, &self.parameters(), out)
    }
}

/// `round(clamp(x / 2 + 0.5, 0, 1) * 255)`, ties to even, as diffusers makes a picture of the decoder's output. The input
/// is `[3, height, width]`, the output `[height, width, 3]`.
pub(super) fn to_rgb8(planes: &[f32], pixels: &mut [u8]) {
    let area = pixels.len() / 3;
    for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        for (channel, byte) in pixel.iter_mut().enumerate() {
            *byte = to_byte(planes[channel * area + i]);
        }
    }
}

/// A number of the decoder's as [`to_rgb8`] has it.
pub(super) fn to_byte(x: f32) -> u8 {
    libm::rintf((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0) as u8
}
