//! Pictures to files that say how they were drawn.

use std::io::{self, Write};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageError};

/// A kind of picture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureFormat {
    /// Without loss; the settings in a text chunk called `parameters`.
    Png,
    /// With loss, the least; the settings in EXIF's user comment.
    Jpeg,
    /// Without loss; the settings in EXIF's user comment.
    WebP,
}

/// The quality of JPEG files, of 100.
const QUALITY: u8 = 95;
/// The most bytes of EXIF that a JPEG can hold: a segment's length is 16 bits and counts itself and the name `Exif`.
const JPEG_EXIF: usize = 0xffff - 2 - 6;

impl PictureFormat {
    /// The format that a file's name asks for; PNG if it has no extension. `None` if there is none of that extension.
    pub fn of(path: &Path) -> Option<Self> {
        let Some(extension) = path.extension() else {
            return Some(Self::Png);
        };
        match extension.to_str()?.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }

    /// Writes a picture of RGB, `width * height * 3` bytes from the top left, with a text about it.
    pub fn encode(
        self,
        (width, height): (u32, u32),
        pixels: &[u8],
        text: &str,
        out: &mut impl Write,
    ) -> io::Result<()> {
        match self {
            Self::Png => png(width, height, pixels, text, out),
            Self::Jpeg => {
                let comment = exif(text);
                if comment.len() > JPEG_EXIF {
                    return Err(io::Error::other(format!(
                        "the prompts are too long for a JPEG: its EXIF holds {JPEG_EXIF} bytes, not {}",
                        comment.len()
                    )));
                }
                let mut encoder = JpegEncoder::new_with_quality(out, QUALITY);
                encoder
                    .set_exif_metadata(comment)
                    .map_err(io::Error::other)?;
                encoder
                    .write_image(pixels, width, height, ExtendedColorType::Rgb8)
                    .map_err(image_error)
            }
            Self::WebP => {
                let mut encoder = WebPEncoder::new_lossless(out);
                encoder
                    .set_exif_metadata(exif(text))
                    .map_err(io::Error::other)?;
                encoder
                    .write_image(pixels, width, height, ExtendedColorType::Rgb8)
                    .map_err(image_error)
            }
        }
    }
}

fn png(width: u32, height: u32, pixels: &[u8], text: &str, out: &mut impl Write) -> io::Result<()> {
    let mut encoder = png::Encoder::new(out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let software = concat!("kiln ", env!("CARGO_PKG_VERSION"));
    for (key, text) in [("parameters", text), ("Software", software)] {
        if text.is_empty() {
            continue;
        }
        // tEXt holds Latin-1; what does not fit goes into iTXt, which holds UTF-8.
        let added = match text.chars().all(|c| u32::from(c) < 256) {
            true => encoder.add_text_chunk(key.into(), text.into()),
            false => encoder.add_itxt_chunk(key.into(), text.into()),
        };
        added.map_err(png_error)?;
    }
    let mut writer = encoder.write_header().map_err(png_error)?;
    writer.write_image_data(pixels).map_err(png_error)?;
    writer.finish().map_err(png_error)
}

/// A TIFF structure, big-endian, whose only entry is EXIF's user comment in UTF-16.
fn exif(text: &str) -> Vec<u8> {
    const EXIF_IFD: u16 = 0x8769;
    const USER_COMMENT: u16 = 0x9286;
    const LONG: u16 = 4;
    const UNDEFINED: u16 = 7;
    // A header of 8 bytes, then two directories of one entry each: a count, the entry, the next directory.
    const DIRECTORY: u32 = 2 + 12 + 4;
    let mut comment = b"UNICODE\0".to_vec();
    comment.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
    let directory = |tag: u16, kind: u16, count: u32, value: u32| {
        let mut bytes = vec![0, 1];
        bytes.extend(tag.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(count.to_be_bytes());
        bytes.extend(value.to_be_bytes());
        bytes.extend([0; 4]);
        bytes
    };
    let mut bytes = b"MM\0\x2a\0\0\0\x08".to_vec();
    bytes.extend(directory(EXIF_IFD, LONG, 1, 8 + DIRECTORY));
    // Texts are far from 4 GB: prompts are bounded.
    let count = comment.len() as u32;
    bytes.extend(directory(USER_COMMENT, UNDEFINED, count, 8 + 2 * DIRECTORY));
    bytes.extend(comment);
    bytes
}

fn png_error(error: png::EncodingError) -> io::Error {
    match error {
        png::EncodingError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

fn image_error(error: ImageError) -> io::Error {
    match error {
        ImageError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
