//! The options of `kiln draw` for pictures to begin with.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use kiln::pipeline::{Background, Hires, Init, Mask, Raster, Request, Resize, Upscaler};

use super::error::CliError;
use super::values;

/// What a picture begins with.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Beginning with a picture")]
pub struct Args {
    /// Begin with this picture (PNG, JPEG or WebP) instead of noise alone
    #[arg(long, value_name = "PICTURE")]
    init: Option<PathBuf>,
    /// The share of the steps that is taken, 0 to 1: less leaves more of the picture [default: 0.75]
    #[arg(long, value_name = "X", value_parser = values::strength)]
    strength: Option<f64>,
    /// Bring it to the size that is drawn: stretch, crop or pad [default: stretch]
    #[arg(long, value_name = "NAME", value_parser = values::resize)]
    resize: Option<Resize>,
    /// Repaint what is white here and keep what is black; as large as the picture to begin with
    #[arg(long, value_name = "PICTURE")]
    mask: Option<PathBuf>,
    /// Blur the edge along which old and new are put together [default: 4]
    #[arg(long, value_name = "PIXELS", value_parser = values::finite)]
    mask_blur: Option<f32>,
    /// Draw only what is white and so many pixels around it, in full size, and put it back
    #[arg(long, value_name = "PADDING")]
    only_masked: Option<u32>,
    /// Draw the finished picture again, so many times as large; 1 is not at all
    #[arg(long, value_name = "FACTOR", value_parser = values::finite)]
    hires: Option<f32>,
    /// Steps of the second time [default: those of the first]
    #[arg(long, value_name = "N", value_parser = values::count)]
    hires_steps: Option<NonZeroUsize>,
    /// The share of them that is taken, 0 to 1 [default: 0.7]
    #[arg(long, value_name = "X", value_parser = values::strength)]
    hires_strength: Option<f64>,
    /// What makes the picture larger: lanczos or latent [default: lanczos]
    #[arg(long, value_name = "NAME", value_parser = values::upscaler)]
    hires_upscaler: Option<Upscaler>,
}

/// Pictures that were read, so that each is read once.
#[derive(Default)]
pub struct Pictures(HashMap<(PathBuf, Background), Raster>);

impl Pictures {
    /// Reads a picture.
    pub fn open(&mut self, path: &Path, background: Background) -> Result<Raster, CliError> {
        let key = (path.to_owned(), background);
        if let Some(raster) = self.0.get(&key) {
            return Ok(raster.clone());
        }
        let raster =
            Raster::open(path, background).map_err(|error| CliError::file(path, &error))?;
        self.0.insert(key, raster.clone());
        Ok(raster)
    }
}

impl Args {
    /// The request with what these say.
    pub fn apply(
        &self,
        mut request: Request,
        pictures: &mut Pictures,
    ) -> Result<Request, CliError> {
        self.check()?;
        if let Some(path) = &self.init {
            let mut init = Init::new(pictures.open(path, Background::White)?);
            init.strength = self.strength.unwrap_or(init.strength);
            init.resize = self.resize.unwrap_or_default();
            if let Some(path) = &self.mask {
                let mut mask = Mask::new(pictures.open(path, Background::Black)?);
                mask.blur = self.mask_blur.unwrap_or(mask.blur);
                mask.only_masked = self.only_masked;
                init.mask = Some(mask);
            }
            request = request.init(init);
        }
        if let Some(factor) = self.hires.filter(|factor| *factor != 1.0) {
            let mut hires = Hires::new(factor);
            hires.steps = self.hires_steps.map(NonZeroUsize::get);
            hires.strength = self.hires_strength.unwrap_or(hires.strength);
            hires.upscaler = self.hires_upscaler.unwrap_or_default();
            request = request.hires(hires);
        }
        Ok(request)
    }

    /// The picture to begin with, and the mask.
    pub fn paths(&self) -> (Option<&Path>, Option<&Path>) {
        (self.init.as_deref(), self.mask.as_deref())
    }

    /// Options that say something of another one need it.
    fn check(&self) -> Result<(), CliError> {
        let (init, mask, hires) = (
            self.init.is_some(),
            self.mask.is_some(),
            self.hires.is_some(),
        );
        for (is_said, name, is_there, needed) in [
            (self.strength.is_some(), "strength", init, "init"),
            (self.resize.is_some(), "resize", init, "init"),
            (mask, "mask", init, "init"),
            (self.mask_blur.is_some(), "mask-blur", mask, "mask"),
            (self.only_masked.is_some(), "only-masked", mask, "mask"),
            (self.hires_steps.is_some(), "hires-steps", hires, "hires"),
            (
                self.hires_strength.is_some(),
                "hires-strength",
                hires,
                "hires",
            ),
            (
                self.hires_upscaler.is_some(),
                "hires-upscaler",
                hires,
                "hires",
            ),
        ] {
            if is_said && !is_there {
                return Err(CliError::Usage(format!("--{name} needs --{needed}")));
            }
        }
        Ok(())
    }
}
