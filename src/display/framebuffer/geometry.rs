//! How the pixels of a framebuffer lie.

use super::ioctl::{Fixed, Variable};
use crate::display::DisplayError;
use crate::display::frame::check_size;

/// The longest row, in bytes.
const MAX_STRIDE: u32 = 1 << 20;
/// From `linux/fb.h`.
const FB_TYPE_PACKED_PIXELS: u32 = 0;
const FB_VISUAL_TRUECOLOR: u32 = 2;
const FB_VISUAL_DIRECTCOLOR: u32 = 4;

/// Where the bits of a colour are in a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The lowest bit's place, from the pixel's lowest.
    pub offset: u32,
    /// How many.
    pub bits: u32,
}

/// How the pixels of a framebuffer lie: rows from the top, pixels of 2, 3 or 4 bytes, the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from a row to the next.
    pub stride: u32,
    /// The first pixel's byte.
    pub start: u64,
    /// Bits of a pixel: 16, 24 or 32.
    pub bits: u32,
    /// Red.
    pub red: Channel,
    /// Green.
    pub green: Channel,
    /// Blue.
    pub blue: Channel,
}

impl Geometry {
    /// Pixels of 16 bits (5, 6 and 5 for red, green and blue), 24 or 32 (8 each), blue lowest, rows without gaps: what most
    /// framebuffers have.
    pub fn new(width: u32, height: u32, bits: u32) -> Result<Self, DisplayError> {
        let channel = |offset, bits| Channel { offset, bits };
        let (red, green, blue) = match bits {
            16 => (channel(11, 5), channel(5, 6), channel(0, 5)),
            _ => (channel(16, 8), channel(8, 8), channel(0, 8)),
        };
        let geometry = Self {
            width,
            height,
            stride: width.saturating_mul(bits / 8),
            start: 0,
            bits,
            red,
            green,
            blue,
        };
        geometry.check().map(|()| geometry)
    }

    /// The same with so many bytes from a row to the next.
    pub fn stride(self, stride: u32) -> Result<Self, DisplayError> {
        let geometry = Self { stride, ..self };
        geometry.check().map(|()| geometry)
    }

    /// What a driver says, or what it says that is not written.
    pub(super) fn of_screen(fixed: &Fixed, variable: &Variable) -> Result<Self, String> {
        let bits = variable.bits_per_pixel;
        if fixed.kind != FB_TYPE_PACKED_PIXELS
            || variable.grayscale != 0
            || variable.nonstd != 0
            || ![FB_VISUAL_TRUECOLOR, FB_VISUAL_DIRECTCOLOR].contains(&fixed.visual)
            || ![16, 24, 32].contains(&bits)
        {
            return Err(format!(
                "pixels of {bits} bits, type {}, visual {}, grayscale {}, nonstd {}",
                fixed.kind, fixed.visual, variable.grayscale, variable.nonstd
            ));
        }
        let fields = [variable.red, variable.green, variable.blue];
        if let Some(field) = fields.iter().find(|field| {
            field.msb_right != 0
                || !(1..=16).contains(&field.length)
                || field.offset.saturating_add(field.length) > bits
        }) {
            return Err(format!(
                "a colour of {} bits from bit {} of {bits}{}",
                field.length,
                field.offset,
                if field.msb_right == 0 {
                    ""
                } else {
                    ", the highest bit last"
                }
            ));
        }
        let [red, green, blue] = fields.map(|field| Channel {
            offset: field.offset,
            bits: field.length,
        });
        let stride = fixed.line_length;
        let start = u64::from(variable.yoffset) * u64::from(stride)
            + u64::from(variable.xoffset) * u64::from(bits / 8);
        Ok(Self {
            width: variable.xres,
            height: variable.yres,
            stride,
            start,
            bits,
            red,
            green,
            blue,
        })
    }

    /// Whether it makes sense.
    pub(super) fn check(&self) -> Result<(), DisplayError> {
        check_size(self.width, self.height)?;
        let error = |reason: String| DisplayError::Geometry {
            width: self.width,
            height: self.height,
            stride: Some(self.stride),
            reason,
        };
        if ![16, 24, 32].contains(&self.bits) {
            return Err(error(format!(
                "{} bits a pixel: 16, 24 or 32 expected",
                self.bits
            )));
        }
        let least = self.width * (self.bits / 8);
        if !(least..=MAX_STRIDE).contains(&self.stride) {
            return Err(error(format!(
                "{least} to {MAX_STRIDE} bytes a row expected"
            )));
        }
        let fits = |channel: Channel| {
            (1..=16).contains(&channel.bits)
                && channel.offset <= self.bits - channel.bits.min(self.bits)
        };
        match self.channels().into_iter().all(fits) {
            true => Ok(()),
            false => Err(error(format!("a colour lies outside {} bits", self.bits))),
        }
    }

    pub(super) fn channels(&self) -> [Channel; 3] {
        [self.red, self.green, self.blue]
    }

    /// Bytes of a whole file.
    pub(super) fn bytes(&self) -> u64 {
        self.start + u64::from(self.stride) * u64::from(self.height)
    }

    /// Bytes of a row's pixels.
    pub(super) fn row_bytes(&self) -> usize {
        self.width as usize * (self.bits / 8) as usize
    }

    /// RGB as pixels.
    pub(super) fn pack(&self, row: &[u8], bytes: &mut [u8]) {
        let channels = self.channels();
        let size = (self.bits / 8) as usize;
        let pixels = row.as_chunks::<3>().0.iter();
        for (pixel, out) in pixels.zip(bytes.chunks_exact_mut(size)) {
            let mut word = 0_u32;
            for (byte, channel) in pixel.iter().zip(channels) {
                // The highest bits; where there are more than 8, again from the top.
                let wide = u32::from(*byte) * 0x101;
                word |= (wide >> (16 - channel.bits)) << channel.offset;
            }
            out.copy_from_slice(&word.to_le_bytes()[..size]);
        }
    }
}
