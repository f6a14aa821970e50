//! The configuration of a kiosk.

mod section;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use serde_json::{Map, Value};

use super::prompts::Prompts;
use crate::display::{
    Colors, Display, DisplayError, Dither, Fit, Framebuffer, Geometry, Look, PngFile, Rotation,
};
pub(super) use section::{Section, nearest, texts};

/// The longest configuration, in bytes.
const MAX_BYTES: u64 = 1 << 22;
/// The most pictures that are kept.
const MAX_KEEP: u64 = 10_000;
/// The most displays.
const MAX_DISPLAYS: usize = 16;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is too long to be one.
    #[error("more than {MAX_BYTES} bytes")]
    Long,
    /// It is no TOML.
    #[error("line {line}: {reason}")]
    Syntax {
        /// Where, from 1.
        line: usize,
        /// What.
        reason: String,
    },
    /// A key that nothing has.
    #[error("`{key}`: there is no such key{}", .nearest.as_ref().map(|name| format!(", did you mean `{name}`?")).unwrap_or_default())]
    Unknown {
        /// The key with the sections that it is in.
        key: String,
        /// The nearest that there is.
        nearest: Option<String>,
    },
    /// A key whose value is not what it should be.
    #[error("`{key}`: {reason}")]
    Value {
        /// The key with the sections that it is in.
        key: String,
        /// Why not.
        reason: String,
    },
}

/// What a kiosk is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where pictures are kept, and what is needed after the power has failed.
    pub folder: PathBuf,
    /// How many pictures.
    pub keep: usize,
    /// The least time from one picture's beginning to the next one's.
    pub every: Duration,
    /// Whether a picture that was being drawn when the power failed is gone on with from its last step.
    pub checkpoint: bool,
    /// Where prompts come from.
    pub prompts: Prompts,
    /// Options of `kiln draw`, under their names.
    pub draw: Map<String, Value>,
    /// Where pictures are shown.
    pub displays: Vec<DisplayConfig>,
}

impl Config {
    /// Reads a file.
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let file = fs::File::open(path)?;
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, MAX_BYTES + 1), &mut text)?;
        match text.len() as u64 > MAX_BYTES {
            true => Err(ConfigError::Long),
            false => text.parse(),
        }
    }
}

impl std::str::FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut root = Section::parse(text)?;
        let folder = root.text("folder")?;
        let keep = root.number("keep", 1..=MAX_KEEP)?.unwrap_or(100);
        let every = root.parsed("every", duration)?.unwrap_or_default();
        let checkpoint = root.flag("checkpoint")?.unwrap_or(true);
        let prompts = root.section("prompts")?;
        let draw = root.json("draw")?;
        let sections = root.sections("display")?;
        // A name that is misspelt is the reason for whatever else is missing.
        root.end()?;
        let missing = "a section that says where prompts come from is missing";
        let mut prompts = prompts.ok_or_else(|| root.wrong("prompts", missing))?;
        let prompts = Prompts::read(&mut prompts)?;
        if sections.len() > MAX_DISPLAYS {
            return Err(root.wrong("display", &format!("{MAX_DISPLAYS} are the most")));
        }
        let read = |mut section| DisplayConfig::read(&mut section);
        Ok(Self {
            folder: folder.map_or_else(|| "pictures".into(), PathBuf::from),
            keep: keep as usize,
            every,
            checkpoint,
            prompts,
            draw,
            displays: sections.into_iter().map(read).collect::<Result<_, _>>()?,
        })
    }
}

/// Where a display's pixels go.
#[derive(Clone, Debug, PartialEq)]
pub enum Surface {
    /// A framebuffer's device.
    Framebuffer(PathBuf),
    /// A file laid out like one.
    Plain(PathBuf, Geometry),
    /// A PNG of a size.
    Png(PathBuf, (u32, u32)),
}

/// A display.
#[derive(Clone, Debug, PartialEq)]
pub struct DisplayConfig {
    /// Where its pixels go.
    pub surface: Surface,
    /// How far what it shows is turned.
    pub rotation: Rotation,
    /// The colours that it has.
    pub colors: Colors,
    /// How they are mixed.
    pub dither: Dither,
    /// What is on it.
    pub look: Look,
}

impl DisplayConfig {
    fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let framebuffer = section.text("framebuffer")?.map(PathBuf::from);
        let png = section.text("png")?.map(PathBuf::from);
        let size = section.parsed("size", size)?;
        let bits = section.number("bits", 16..=32)?;
        let stride = section.number("stride", 1..=u64::from(u32::MAX))?;
        let defaults = Look::default();
        let rotation = section.said("rotate")?.unwrap_or_default();
        let colors = section.said("colors")?.unwrap_or_default();
        let dither = section.said("dither")?.unwrap_or_default();
        let look = Look {
            caption: section.flag("caption")?.unwrap_or(defaults.caption),
            progress: section.flag("progress")?.unwrap_or(defaults.progress),
            preview: section.flag("preview")?.unwrap_or(defaults.preview),
            letterbox: section
                .parsed("letterbox", color)?
                .unwrap_or(defaults.letterbox),
            fit: section.said::<Fit>("fit")?.unwrap_or_default(),
        };
        // A name that is misspelt is the reason for whatever else is missing.
        section.end()?;
        let surface = match (framebuffer, png, size, bits) {
            (Some(path), None, Some((width, height)), bits) => {
                let wrong = |key| move |error: DisplayError| (key, error.to_string());
                let geometry = Geometry::new(width, height, bits.unwrap_or(32) as u32)
                    .map_err(wrong("bits"))
                    .and_then(|geometry| match stride {
                        Some(stride) => geometry.stride(stride as u32).map_err(wrong("stride")),
                        None => Ok(geometry),
                    })
                    .map_err(|(key, reason)| section.wrong(key, &reason))?;
                Surface::Plain(path, geometry)
            }
            (Some(path), None, None, None) if stride.is_none() => Surface::Framebuffer(path),
            (Some(_), None, None, _) => {
                let reason = "a device knows its own; with `size` it is a plain file's";
                return Err(section.wrong(if bits.is_some() { "bits" } else { "stride" }, reason));
            }
            (None, Some(path), size, None) if stride.is_none() => {
                Surface::Png(path, size.unwrap_or((800, 480)))
            }
            (None, Some(_), ..) => {
                let name = if bits.is_some() { "bits" } else { "stride" };
                return Err(section.wrong(name, "a PNG has none"));
            }
            _ => {
                let reason = "either `framebuffer` or `png` says where a display is";
                return Err(section.wrong("framebuffer", reason));
            }
        };
        Ok(Self {
            surface,
            rotation,
            colors,
            dither,
            look,
        })
    }

    /// The device or file.
    pub fn path(&self) -> &Path {
        match &self.surface {
            Surface::Framebuffer(path) | Surface::Plain(path, _) | Surface::Png(path, _) => path,
        }
    }

    /// Opens it.
    pub fn open(&self) -> Result<Box<dyn Display>, DisplayError> {
        let framebuffer = |framebuffer: Framebuffer| -> Box<dyn Display> {
            let turned = framebuffer.rotation(self.rotation);
            Box::new(turned.colors(self.colors.clone(), self.dither))
        };
        Ok(match &self.surface {
            Surface::Framebuffer(path) => framebuffer(Framebuffer::open(path)?),
            Surface::Plain(path, geometry) => framebuffer(Framebuffer::plain(path, *geometry)?),
            Surface::Png(path, size) => {
                let png = PngFile::new(path, *size).rotation(self.rotation);
                Box::new(png.colors(self.colors.clone(), self.dither))
            }
        })
    }
}

/// `90s`, `10m`, `1h30m`, `1d`; a number alone is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let error = || "expected a time such as 90s, 10m, 1h30m or 1d".to_owned();
    let mut seconds: u64 = 0;
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse() {
        return Some(Duration::from_secs(seconds))
            .filter(is_time)
            .ok_or_else(error);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let number: u64 = rest[..digits].parse().map_err(|_| error())?;
        let mut unit = rest[digits..].chars();
        let factor = match unit.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(error()),
        };
        let sum = number
            .checked_mul(factor)
            .and_then(|more| seconds.checked_add(more));
        seconds = sum.ok_or_else(error)?;
        rest = unit.as_str();
    }
    Some(Duration::from_secs(seconds))
        .filter(is_time)
        .ok_or_else(error)
}

/// No more than a year.
fn is_time(time: &Duration) -> bool {
    time.as_secs() <= 366 * 86_400
}

/// `800x480`.
fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').and_then(|(width, height)| {
        Some((width.trim().parse().ok()?, height.trim().parse().ok()?))
    });
    let (width, height) = sides.ok_or("expected WxH in pixels, such as 800x480")?;
    crate::display::Frame::new((width, height))
        .map(|_| (width, height))
        .map_err(|error| error.to_string())
}

/// `#102030`.
fn color(text: &str) -> Result<[u8; 3], String> {
    let digits = text
        .strip_prefix('#')
        .filter(|digits| digits.len() == 6 && digits.is_ascii());
    let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let number = number.ok_or("expected a colour such as #102030")?;
    Ok([(number >> 16) as u8, (number >> 8) as u8, number as u8])
}
