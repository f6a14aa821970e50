//! Pictures from files, as pixels.

use std::fmt;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

/// The longest side of a picture, and the most pixels.
const MAX_SIDE: u32 = 1 << 15;
const MAX_PIXELS: u64 = 1 << 26;
/// The most bytes of a file, and of memory that its decoder takes.
const MAX_FILE: u64 = 1 << 28;
const MAX_DECODER: u64 = 1 << 30;

/// A picture of 8-bit RGB in memory. Copies share the pixels.
#[derive(Clone, PartialEq)]
pub struct Raster {
    width: u32,
    height: u32,
    pixels: Arc<[u8]>,
}

impl fmt::Debug for Raster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raster({}x{})", self.width, self.height)
    }
}

/// Why a picture cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RasterError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It is no PNG, JPEG or WebP.
    #[error("is no PNG, JPEG or WebP picture")]
    Format,
    /// It begins like a picture and goes on otherwise.
    #[error("is a damaged picture: {0}")]
    Damaged(String),
    /// It is larger than anything that is read.
    #[error(
        "a picture of {0}x{1} is too large: {MAX_SIDE} on a side and {MAX_PIXELS} pixels are the most"
    )]
    Size(u32, u32),
    /// The file is too long.
    #[error("a picture's file of more than {MAX_FILE} bytes is too long")]
    Long,
}

/// What is behind a picture's transparent parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Background {
    /// As in the WebUI.
    White,
    /// Where nothing is painted in a mask nothing is to be repainted.
    Black,
}

impl Raster {
    /// A picture of `width * height * 3` bytes, row by row from the top left; `None` of any other number, of no pixels, or of
    /// more than are read from files.
    pub fn new(width: u32, height: u32, pixels: impl Into<Arc<[u8]>>) -> Option<Self> {
        let pixels = pixels.into();
        let fits = check_size(width, height).is_ok()
            && pixels.len() as u64 == u64::from(width) * u64::from(height) * 3;
        fits.then_some(Self {
            width,
            height,
            pixels,
        })
    }

    /// Reads a PNG, JPEG or WebP, whatever its name, and turns it upright as its EXIF says. Sizes are checked before memory
    /// is taken.
    pub fn open(path: &Path, background: Background) -> Result<Self, RasterError> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)?;
        match bytes.len() as u64 > MAX_FILE {
            true => Err(RasterError::Long),
            false => Self::read(&bytes, background),
        }
    }

    /// Reads a picture's file that is in memory.
    pub fn read(bytes: &[u8], background: Background) -> Result<Self, RasterError> {
        let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
        if !matches!(
            reader.format(),
            Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)
        ) {
            return Err(RasterError::Format);
        }
        if reader.format() == Some(ImageFormat::Png) {
            // The decoder looks for pixels before it tells a size.
            let mut header = png::Decoder::new(Cursor::new(bytes));
            let header = header.read_header_info();
            let header = header.map_err(|error| RasterError::Damaged(error.to_string()))?;
            check_size(header.width, header.height)?;
        }
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MAX_DECODER);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(damaged)?;
        let (width, height) = decoder.dimensions();
        check_size(width, height)?;
        let orientation = decoder.orientation().map_err(damaged)?;
        let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
        picture.apply_orientation(orientation);
        let (width, height) = (picture.width(), picture.height());
        let pixels = match picture.color().has_alpha() {
            true => flat(picture.into_rgba8().as_raw(), background),
            false => picture.into_rgb8().into_raw(),
        };
        Ok(Self {
            width,
            height,
            pixels: pixels.into(),
        })
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Red, green and blue of each pixel, row by row from the top left.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Each pixel's brightness (ITU-R 601-2), as Pillow has it.
    pub(in crate::pipeline) fn brightness(&self) -> Vec<u8> {
        let pixels = self.pixels.as_chunks::<3>().0;
        let brightness = |&[red, green, blue]: &[u8; 3]| {
            let sum = u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471;
            ((sum + 0x8000) >> 16) as u8
        };
        pixels.iter().map(brightness).collect()
    }
}

fn check_size(width: u32, height: u32) -> Result<(), RasterError> {
    let pixels = u64::from(width) * u64::from(height);
    match width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS || pixels == 0 {
        true => Err(RasterError::Size(width, height)),
        false => Ok(()),
    }
}

fn damaged(error: ImageError) -> RasterError {
    match error {
        ImageError::IoError(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            RasterError::Io(error)
        }
        other => RasterError::Damaged(other.to_string()),
    }
}

/// RGBA laid over the background.
fn flat(pixels: &[u8], background: Background) -> Vec<u8> {
    let behind = match background {
        Background::White => 255,
        Background::Black => 0,
    };
    let pixels = pixels.as_chunks::<4>().0;
    let over = |&[red, green, blue, alpha]: &[u8; 4]| {
        [red, green, blue].map(|color| mixed(color, behind, alpha))
    };
    pixels.iter().flat_map(over).collect()
}

/// `share` of 255 of one byte and the rest of another, rounded.
pub(in crate::pipeline) fn mixed(one: u8, other: u8, share: u8) -> u8 {
    let share = u32::from(share);
    ((u32::from(one) * share + u32::from(other) * (255 - share) + 127) / 255) as u8
}
