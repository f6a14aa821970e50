//! Pictures to begin with.
//!
//! - here: what is asked for; `canvas`: the picture in the size that is drawn, and back; `begin`: its latents.
//! - `hires`: a second, larger pass.

mod begin;
mod canvas;
mod hires;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub(super) use begin::{Begun, Source};
pub(super) use canvas::Canvas;
pub use hires::{Hires, UnknownUpscaler, Upscaler};

use super::error::RequestError;
use super::picture::Raster;

/// A picture to begin with, and how much of it is to be left: drawing begins with its latents under the noise of a later
/// step.
#[derive(Clone, Debug, PartialEq)]
pub struct Init {
    /// The picture.
    pub picture: Raster,
    /// The share of the steps that is taken, 0 to 1: at 1 almost nothing is left of the picture.
    pub strength: f64,
    /// How it becomes as large as what is drawn.
    pub resize: Resize,
    /// What is to be repainted of it; all if `None`.
    pub mask: Option<Mask>,
}

/// Which part of a picture is to be repainted. What is black is put back when the rest is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    /// White is repainted, black is kept. Of the size of the picture.
    pub picture: Raster,
    /// Deviation, in pixels, of a blur of the edge along which old and new are put together.
    pub blur: f32,
    /// Draw only a part of the picture, around what is white and so many pixels more, as large as is asked for, and put it
    /// back. The picture then keeps its size.
    pub only_masked: Option<u32>,
}

/// The most that a mask is blurred.
const MAX_BLUR: f32 = 64.0;

impl Init {
    /// The WebUI's strength.
    pub const STRENGTH: f64 = 0.75;

    /// All of a picture, at [`Init::STRENGTH`].
    pub fn new(picture: Raster) -> Self {
        Self {
            picture,
            strength: Self::STRENGTH,
            resize: Resize::default(),
            mask: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), RequestError> {
        check_strength("strength", self.strength)?;
        let Some(mask) = &self.mask else {
            return Ok(());
        };
        let sizes = [&mask.picture, &self.picture].map(|r| (r.width(), r.height()));
        if sizes[0] != sizes[1] {
            return Err(RequestError::MaskSize {
                mask: sizes[0],
                picture: sizes[1],
            });
        }
        if !(0.0..=MAX_BLUR).contains(&mask.blur) {
            return Err(RequestError::MaskBlur {
                blur: mask.blur,
                most: MAX_BLUR,
            });
        }
        match mask.picture.brightness().iter().any(|&x| x >= 128) {
            true => Ok(()),
            false => Err(RequestError::MaskBlack),
        }
    }
}

impl Mask {
    /// The WebUI's blur.
    pub const BLUR: f32 = 4.0;

    /// A mask with the WebUI's blur.
    pub fn new(picture: Raster) -> Self {
        Self {
            picture,
            blur: Self::BLUR,
            only_masked: None,
        }
    }
}

pub(super) fn check_strength(name: &'static str, value: f64) -> Result<(), RequestError> {
    match (0.0..=1.0).contains(&value) {
        true => Ok(()),
        false => Err(RequestError::Share {
            name,
            value: value as f32,
        }),
    }
}

/// Steps that are taken of `steps`: diffusers' `get_timesteps`.
pub(super) fn taken(steps: usize, strength: f64) -> usize {
    ((steps as f64 * strength) as usize).min(steps)
}

/// How a picture becomes as large as what is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resize {
    /// Each side by itself.
    #[default]
    Stretch,
    /// The largest part from the middle that has the shape.
    Crop,
    /// All of it in the middle; its edges are drawn out to fill the rest.
    Pad,
}

impl Resize {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stretch, Self::Crop, Self::Pad];

    /// The name that users type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stretch => "stretch",
            Self::Crop => "crop",
            Self::Pad => "pad",
        }
    }
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no way of resizing has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown way to resize `{0}`, there are: stretch, crop, pad")]
pub struct UnknownResize(pub String);

impl FromStr for Resize {
    type Err = UnknownResize;

    fn from_str(name: &str) -> Result<Self, UnknownResize> {
        let found = Self::ALL.into_iter().find(|resize| resize.name() == name);
        found.ok_or_else(|| UnknownResize(name.into()))
    }
}
