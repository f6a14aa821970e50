//! Fewer colours, and where each goes.
//!
//! - [`Colors`]: what a display has: everything, a number of bits for each channel, or a [`Palette`].
//! - [`Dither::Diffusion`] hands a pixel's error on to its neighbours (Floyd and Steinberg, "An Adaptive Algorithm for Spatial Grey
//!   Scale", 1976), every other row from right to left.
//! - [`Dither::BlueNoise`] compares with a mask whose pattern has no low frequencies (`mask`): a pixel depends on itself alone, so what
//!   stands still on the screen does not change when something beside it does.
//!
//! Palettes are mixed in linear light, in integers, so that an area has the brightness that it had and the same dots on every
//! machine. The 32 or 64 levels of a channel lie so close together that they are mixed as they are.

mod mask;
mod palette;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use mask::{MASK_SIDE, mask};
use palette::Mixer;
pub use palette::Palette;

/// How colours that there are not are made of those that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dither {
    /// Not: the nearest is taken.
    None,
    /// By error diffusion.
    #[default]
    Diffusion,
    /// By a mask of blue noise.
    BlueNoise,
}

/// A name that nothing has; says which there are.
#[derive(Debug, thiserror::Error)]
#[error("expected {0}")]
pub struct UnknownName(&'static str);

impl FromStr for Dither {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "none" => Ok(Self::None),
            "diffusion" => Ok(Self::Diffusion),
            "blue-noise" => Ok(Self::BlueNoise),
            _ => Err(UnknownName("none, diffusion or blue-noise")),
        }
    }
}

/// The colours that a display has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Colors {
    /// 8 bits of red, green and blue.
    #[default]
    Full,
    /// So many bits, 1 to 8, of red, green and blue.
    Depth([u8; 3]),
    /// These.
    Palette(Palette),
}

impl Colors {
    /// 5, 6 and 5 bits of red, green and blue.
    pub fn rgb565() -> Self {
        Self::Depth([5, 6, 5])
    }

    /// Black and white.
    pub fn one_bit() -> Self {
        Self::Palette(Palette::black_and_white())
    }

    /// The seven of ACeP e-paper.
    pub fn seven() -> Self {
        Self::Palette(Palette::acep())
    }
}

impl FromStr for Colors {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "full" => Ok(Self::Full),
            "rgb565" => Ok(Self::rgb565()),
            "1-bit" => Ok(Self::one_bit()),
            "7-color" => Ok(Self::seven()),
            _ => Err(UnknownName("full, rgb565, 1-bit or 7-color")),
        }
    }
}

/// Reduces row after row, from the top.
pub(super) struct Reducer<'a> {
    colors: &'a Colors,
    dither: Dither,
    mixer: Option<Mixer<'a>>,
    /// What the row before handed down, and what this one hands down, with a pixel more at each end.
    errors: [Vec<[i32; 3]>; 2],
    y: usize,
}

impl<'a> Reducer<'a> {
    pub(super) fn new(colors: &'a Colors, dither: Dither, width: usize) -> Self {
        let row = || match dither {
            Dither::Diffusion => vec![[0; 3]; width + 2],
            _ => Vec::new(),
        };
        Self {
            colors,
            dither,
            mixer: match colors {
                Colors::Palette(palette) => Some(Mixer::new(palette)),
                _ => None,
            },
            errors: [row(), row()],
            y: 0,
        }
    }

    /// Puts colours that there are in place of a row's.
    pub(super) fn reduce(&mut self, row: &mut [u8]) {
        let pixels = row.as_chunks_mut().0;
        match (self.colors, &mut self.mixer) {
            (Colors::Depth(bits), _) => {
                let most = bits.map(|bits| (1 << bits.clamp(1, 8)) - 1);
                match self.dither {
                    Dither::None => pixels.iter_mut().for_each(|pixel| {
                        *pixel = each(|i| {
                            expanded(rounded(i32::from(pixel[i]) * most[i], most[i]), most[i])
                        });
                    }),
                    Dither::BlueNoise => {
                        for (x, pixel) in pixels.iter_mut().enumerate() {
                            *pixel = each(|i| masked(pixel[i], most[i], x, self.y, i));
                        }
                    }
                    Dither::Diffusion => self.diffuse(pixels, &mut |pixel, errors| {
                        let wanted = each(|i| i32::from(pixel[i]) * most[i] + errors[i]);
                        let code = each(|i| rounded(wanted[i], most[i]));
                        let left = each(|i| wanted[i] - code[i] * 255);
                        (each(|i| expanded(code[i], most[i])), left)
                    }),
                }
            }
            (Colors::Palette(_), Some(mixer)) => match self.dither {
                Dither::None => pixels.iter_mut().for_each(|pixel| {
                    *pixel = mixer.color(mixer.nearest(Mixer::linear(*pixel)));
                }),
                Dither::BlueNoise => {
                    for (x, pixel) in pixels.iter_mut().enumerate() {
                        let index = mixer.chosen(*pixel, threshold(x, self.y));
                        *pixel = mixer.color(index);
                    }
                }
                Dither::Diffusion => {
                    let mut mixer = self.mixer.take();
                    if let Some(mixer) = &mut mixer {
                        self.diffuse(pixels, &mut |pixel, errors| mixer.diffused(pixel, errors));
                    }
                    self.mixer = mixer;
                }
            },
            _ => {}
        }
        self.y += 1;
    }

    /// Goes along a row, every other one backwards. `choose` takes a pixel and what was handed to it, and gives the colour and what
    /// is left over.
    fn diffuse(
        &mut self,
        pixels: &mut [[u8; 3]],
        choose: &mut dyn FnMut([u8; 3], [i32; 3]) -> ([u8; 3], [i32; 3]),
    ) {
        let width = pixels.len();
        let backwards = self.y % 2 == 1;
        let [here, below] = &mut self.errors;
        below.fill([0; 3]);
        for step in 0..width {
            let x = if backwards { width - 1 - step } else { step };
            let (color, left) = choose(pixels[x], here[x + 1]);
            pixels[x] = color;
            let (ahead, behind) = if backwards { (x, x + 2) } else { (x + 2, x) };
            for (i, error) in left.into_iter().enumerate() {
                // In sixteenths; what rounding leaves goes ahead, so that nothing is lost.
                let (down, back, on) = (error * 5 / 16, error * 3 / 16, error / 16);
                below[x + 1][i] += down;
                below[behind][i] += back;
                below[ahead][i] += on;
                here[ahead][i] += error - down - back - on;
            }
        }
        self.errors.swap(0, 1);
    }
}

fn each<T>(f: impl FnMut(usize) -> T) -> [T; 3] {
    std::array::from_fn(f)
}

/// The code nearest to a value in 255ths of one.
fn rounded(value: i32, most: i32) -> i32 {
    ((value + 127) / 255).clamp(0, most)
}

/// A code as a byte.
fn expanded(code: i32, most: i32) -> u8 {
    ((code * 255 + most / 2) / most) as u8
}

/// The mask at a pixel: 0 to one less than its elements.
fn threshold(x: usize, y: usize) -> u32 {
    u32::from(mask()[y % MASK_SIDE * MASK_SIDE + x % MASK_SIDE])
}

/// A channel of a pixel by the mask, which is shifted for each so that they do not change together.
fn masked(byte: u8, most: i32, x: usize, y: usize, channel: usize) -> u8 {
    let elements = (MASK_SIDE * MASK_SIDE) as i64;
    let rank = i64::from(threshold(x + channel * 23, y + channel * 41));
    // In 255ths of a code: the middle of the rank's share is added, and what is no whole code cut off.
    let value = i64::from(byte) * i64::from(most) * 2 * elements + (2 * rank + 1) * 255;
    let code = (value / (255 * 2 * elements)) as i32;
    expanded(code.min(most), most)
}
