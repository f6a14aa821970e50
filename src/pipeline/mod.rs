//! From a prompt to a picture.
//!
//! ```text
//! prompt -> tokenizer -> text encoder -> context ┐
//! seed   -> noise ------------------> latents ->   denoise: sampler and UNet, step by step -> VAE decoder -> picture
//! ```
//!
//! The tree:
//!
//! - `draw`: the whole of it, top to bottom; `request` is what goes in, `picture` what comes out.
//! - `prompt`: the language of prompts; `tokenizer`, `noise`, [`samplers`], `guidance`: the other parts that are not graphs.
//! - `contexts`: what the text encoder makes of a prompt; `decoder`: what makes the picture of latents.
//! - `checkpoint`: drawings that are broken off and gone on with.
//! - `memory`: whether a drawing fits in a budget; `promise`: how much memory it takes.
//! - `preview`: latents as pictures, before they are decoded.
//! - `init`: pictures to begin with, and a second pass.
//! - `tile`: the VAE on parts of a picture.
//! - `unet_inputs`: what inpainting and LCM models take besides.
//! - `tensors`: one graph on given tensors.
//! - `card`: what the package says about its model; `embedded`: the model that is a part of the program.

mod card;
mod checkpoint;
mod contexts;
mod decoder;
mod draw;
#[cfg(any(feature = "embedded-model", feature = "prebuilt-model"))]
mod embedded;
mod error;
mod guidance;
mod init;
mod memory;
mod noise;
mod picture;
mod preview;
mod promise;
mod prompt;
mod request;
pub mod samplers;
mod tensors;
mod tile;
mod tokenizer;
mod unet_inputs;
mod words;

use std::num::NonZeroUsize;
use std::path::Path;

use kiln_package::GraphKind;

use crate::runtime::{Cancellation, MemoryPlan, Model, RuntimeError, SessionOptions};

pub use card::{Card, Defaults, SourceCard, TextCard};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use decoder::{Decoder, UnknownDecoder};
pub use draw::Progress;
pub use error::{Error, RequestError, SectionError};
pub use init::{Hires, Init, Mask, Resize, UnknownResize, UnknownUpscaler, Upscaler};
pub use noise::{Noise, Rng, Seeds, UnknownRng};
#[cfg(feature = "kiosk")]
pub(crate) use picture::lanczos;
pub use picture::{
    Background, ModelName, Picture, PictureFormat, Raster, RasterError, Remembered,
    RememberedError, Settings,
};
pub use promise::Promise;
pub use prompt::{Chunk, Chunks, Prompt, PromptError, PromptStyle, UnknownStyle};
pub use request::{Request, random_seed};
pub use tensors::{Tensor, run_graph};
pub use tile::{Tile, UnknownTile};
pub use tokenizer::{Piece, Tokenizer, Tokens};

use samplers::{SamplerKind, Schedule};

/// A model that draws pictures of prompts.
pub struct Kiln {
    model: Model,
    card: Card,
    schedule: Schedule,
    options: SessionOptions,
}

impl Kiln {
    /// Opens a `.kiln` package. Weights are checked when they are first read, everything else now.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_model(Model::open(path)?)
    }

    /// The model that is a part of the program.
    #[cfg(any(feature = "embedded-model", feature = "prebuilt-model"))]
    pub fn embedded() -> Result<Self, Error> {
        Self::from_model(Model::from_static(embedded::bytes())?)
    }

    /// Draws with a model that is open already.
    pub fn from_model(model: Model) -> Result<Self, Error> {
        let package = model.package();
        let card = Card::from_json(package.card()).map_err(|source| Error::Section {
            origin: model.origin().into(),
            source,
        })?;
        let schedule =
            Schedule::from_json(package.scheduler()).map_err(|source| Error::Schedule {
                origin: model.origin().into(),
                source,
            })?;
        Ok(Self {
            model,
            card,
            schedule,
            options: SessionOptions::default(),
        })
    }

    /// Draws with so many threads instead of as many as there are cores. The picture does not depend on it.
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.options.threads = Some(threads);
        self
    }

    /// Keeps the whole process within so many bytes, mapped weights included: they are read when they are needed, once for
    /// each evaluation, and let go afterwards. The picture does not depend on it. A drawing that cannot keep within is
    /// refused by [`Kiln::settings`].
    pub fn ram(mut self, bytes: u64) -> Self {
        self.options.ram = Some(bytes);
        self
    }

    /// Lets [`Cancellation::cancel`] end a drawing, also in the middle of a step.
    pub fn cancellation(mut self, cancellation: Cancellation) -> Self {
        self.options.cancellation = cancellation;
        self
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the package says about it.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// The noise schedule that it was trained with.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Its tokenizer, read anew: it is several times as large in memory as in the package.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        Tokenizer::from_json(self.model.package().tokenizer(), self.card.text)
            .map_err(|source| self.section(source))
    }

    /// Chunks of a prompt, each of as many tokens as the text encoder takes, that there is room for at a size.
    pub fn max_chunks(&self, width: u32, height: u32) -> Result<usize, Error> {
        let unet = self.model.find(GraphKind::Unet, height, width)?;
        Ok(self.model.max_chunks(unet) as usize)
    }

    /// The error of a section of this package.
    fn section(&self, source: SectionError) -> Error {
        Error::Section {
            origin: self.model.origin().into(),
            source,
        }
    }

    /// Widths and heights, in pixels, of the pictures that it draws.
    pub fn sizes(&self) -> Vec<(u32, u32)> {
        self.sizes_with(None)
    }

    /// The same where the VAE works on tiles of that side, in pixels.
    pub fn sizes_with(&self, tile: Option<u32>) -> Vec<(u32, u32)> {
        let graphs = [GraphKind::VaeDecoder, GraphKind::TaesdDecoder];
        let decodes: Vec<_> = graphs
            .into_iter()
            .flat_map(|graph| self.model.sizes(graph))
            .collect();
        let denoises = self.model.sizes(GraphKind::Unet);
        denoises
            .map(|(height, width)| (width, height))
            .filter(|size| {
                let (width, height) = tile::tile_size(*size, tile);
                decodes.contains(&(height, width))
            })
            .collect()
    }

    /// A request with everything said: what it leaves open is taken from the card, or, the seed, from chance. Fails if
    /// the model cannot draw it; whatever can be told without drawing is told here.
    pub fn settings(&self, request: &Request) -> Result<Settings, Error> {
        let defaults = &self.card.defaults;
        let (width, height) = request.size.unwrap_or((defaults.width, defaults.height));
        let tile = self.tile_side(request.tile)?;
        let available = self.sizes_with(tile);
        let is_denoised = || {
            let mut sizes = self.model.sizes(GraphKind::Unet);
            sizes.any(|size| size == (height, width))
        };
        // Where there are no tiles of such a size, they are to blame.
        let in_tiles = tile.is_some() && is_denoised();
        if !in_tiles && !available.contains(&(width, height)) {
            return Err(RequestError::Size {
                width,
                height,
                available,
            }
            .into());
        }
        let guidance_scale = request.guidance_scale.unwrap_or(defaults.guidance_scale);
        if !guidance_scale.is_finite() {
            return Err(RequestError::GuidanceScale(guidance_scale).into());
        }
        request.check()?;
        let (sampler, named) = match request.sampler {
            Some(sampler) => (sampler, None),
            None => SamplerKind::from_name(&defaults.sampler).map_err(|error| {
                self.section(SectionError {
                    section: "card",
                    reason: error.to_string(),
                })
            })?,
        };
        let settings = Settings {
            prompt: request.prompt.clone(),
            negative: request.negative.clone(),
            prompt_style: request.prompt_style,
            steps: request.steps.unwrap_or(defaults.steps),
            seed: request.seed.unwrap_or_else(random_seed),
            width,
            height,
            guidance_scale,
            sampler,
            clip_skip: request.clip_skip.unwrap_or(defaults.clip_skip),
            schedule: request.schedule.or(named),
            spacing: request.spacing,
            eta: request.eta,
            guidance_rescale: request.guidance_rescale,
            guidance_from: request.guidance_from,
            guidance_until: request.guidance_until,
            rng: request.rng,
            subseed: request.subseed,
            eta_seed_delta: request.eta_seed_delta,
            init: request.init.clone(),
            hires: request.hires,
            decoder: self.decoder(request.decoder)?,
            tile,
        };
        self.check_passes(&settings, available)?;
        self.text_encoder(settings.clip_skip)?;
        settings.prompts(self.evaluations(&settings)?)?;
        self.check_ram(&settings)?;
        Ok(settings)
    }

    /// Whether the passes take steps, and the package has what they need.
    fn check_passes(&self, settings: &Settings, available: Vec<(u32, u32)>) -> Result<(), Error> {
        let takes = |name, steps, strength| match steps > 0 && init::taken(steps, strength) == 0 {
            true => Err(RequestError::NoSteps {
                name,
                strength,
                steps,
            }),
            false => Ok(()),
        };
        if let Some(init) = &settings.init {
            takes("strength", settings.steps, init.strength)?;
        }
        if let Some(hires) = settings.hires {
            let steps = hires.steps.unwrap_or(settings.steps);
            takes("hires-strength", steps, hires.strength)?;
            let from = (settings.width, settings.height);
            let to = hires.size(from);
            if !available.contains(&to) {
                return Err(RequestError::Hires {
                    factor: hires.factor,
                    from,
                    to,
                    available,
                }
                .into());
            }
        }
        if settings.init.is_some() || settings.hires.is_some() || settings.tile.is_some() {
            self.passes(settings)?;
        }
        Ok(())
    }

    /// The memory that drawing with these settings takes at most.
    pub fn memory(&self, settings: &Settings) -> Result<MemoryPlan, Error> {
        let passes = self.passes(settings)?;
        Ok(self
            .model
            .memory(&draw::lanes(&passes), self.options.thread_count()))
    }

    /// Draws a picture. `progress` is told of each part that is done, and may break off.
    ///
    /// ```no_run
    /// use std::ops::ControlFlow;
    /// use kiln::pipeline::{Kiln, Request};
    ///
    /// let kiln = Kiln::open("model.kiln")?;
    /// let request = Request::new("a red apple").seed(7);
    /// let picture = kiln.draw(&request, &mut |_| ControlFlow::Continue(()))?;
    /// picture.encode_png(&mut std::fs::File::create("apple.png")?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn draw(&self, request: &Request, progress: &mut Watch<'_>) -> Result<Picture, Error> {
        self.draw_settings(&self.settings(request)?, progress)
    }
}

/// Is told of each part of a drawing that is done. Breaking ends it with [`Error::Cancelled`].
pub type Watch<'a> = dyn FnMut(Progress<'_>) -> std::ops::ControlFlow<()> + 'a;

/// The embedded model, if there is one.
pub fn embedded_model() -> Option<Result<Model, RuntimeError>> {
    #[cfg(any(feature = "embedded-model", feature = "prebuilt-model"))]
    return Some(Model::from_static(embedded::bytes()));
    #[cfg(not(any(feature = "embedded-model", feature = "prebuilt-model")))]
    None
}
