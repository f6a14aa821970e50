//! The Linux framebuffer, or a plain file that is laid out like one.
//!
//! Rows are written, not mapped: every driver takes that, and a screen that is gone is an error instead of a signal. They are never
//! written alone: of one row that is written from its first to its last byte, DRM's emulation of framebuffers works out that pixels 0 to 0
//! have changed (`drm_fb_helper_memory_range_to_clip`), and shows nothing.

mod geometry;
mod ioctl;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub use geometry::{Channel, Geometry};

use super::rows::Rows;
use super::{Colors, Display, DisplayError, Dither, Frame, Rotation};

/// Bytes that are written at once, or up to twice as many, or two or three rows.
const BLOCK: u32 = 1 << 16;

/// A framebuffer.
#[derive(Debug)]
pub struct Framebuffer {
    path: PathBuf,
    file: File,
    geometry: Geometry,
    is_device: bool,
    rotation: Rotation,
    colors: Colors,
    dither: Dither,
}

impl Framebuffer {
    /// A device such as `/dev/fb0`, as its driver says it is. It is switched on.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DisplayError> {
        let path = path.as_ref();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| DisplayError::io(path, error))?;
        let (fixed, variable) =
            ioctl::screen(&file).map_err(|source| DisplayError::NoFramebuffer {
                path: path.display().to_string(),
                source,
            })?;
        let geometry =
            Geometry::of_screen(&fixed, &variable).map_err(|found| DisplayError::Format {
                path: path.display().to_string(),
                found,
            })?;
        ioctl::switch_on(&file, &variable);
        let opened = Self::new(path, file, geometry)?;
        Ok(Self {
            is_device: true,
            ..opened
        })
    }

    /// A file of this geometry, made if it is not there and brought to its size.
    pub fn plain(path: impl AsRef<Path>, geometry: Geometry) -> Result<Self, DisplayError> {
        let path = path.as_ref();
        geometry.check()?;
        let error = |error| DisplayError::io(path, error);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(error)?;
        file.set_len(geometry.bytes()).map_err(error)?;
        Self::new(path, file, geometry)
    }

    fn new(path: &Path, file: File, geometry: Geometry) -> Result<Self, DisplayError> {
        geometry.check()?;
        Ok(Self {
            path: path.to_owned(),
            file,
            geometry,
            is_device: false,
            rotation: Rotation::None,
            colors: Colors::Full,
            dither: Dither::default(),
        })
    }

    /// Turns what is shown.
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = rotation;
        self
    }

    /// Fewer colours than the framebuffer has, where the panel behind it has no more; and how they are mixed. The bits of a
    /// framebuffer of 16 are dithered without being asked for.
    pub fn colors(mut self, colors: Colors, dither: Dither) -> Self {
        self.colors = colors;
        self.dither = dither;
        self
    }

    /// How its pixels lie.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }
}

impl Display for Framebuffer {
    fn size(&self) -> (u32, u32) {
        self.rotation
            .turned((self.geometry.width, self.geometry.height))
    }

    /// The kernel's console writes on a device too.
    fn is_shared(&self) -> bool {
        self.is_device
    }

    fn show(&mut self, frame: &Frame) -> Result<(), DisplayError> {
        check_frame(frame, self.size())?;
        let geometry = &self.geometry;
        let depth = geometry.channels().map(|channel| channel.bits.min(8) as u8);
        let own = Colors::Depth(depth);
        let colors = match &self.colors {
            Colors::Full if depth != [8; 3] => &own,
            colors => colors,
        };
        let mut rows = Rows::new(frame, self.rotation, colors, self.dither);
        let (stride, long) = (geometry.stride as usize, geometry.row_bytes());
        let mut bytes = Vec::new();
        for block in blocks(geometry.height, geometry.stride) {
            bytes.clear();
            for _ in block.clone() {
                let Some(row) = rows.next_row() else { break };
                // Zeros in the gap behind the row before.
                let begin = bytes.len().next_multiple_of(stride);
                bytes.resize(begin + long, 0);
                geometry.pack(row, &mut bytes[begin..]);
            }
            let at = geometry.start + u64::from(block.start) * u64::from(geometry.stride);
            self.file
                .write_all_at(&bytes, at)
                .map_err(|error| DisplayError::io(&self.path, error))?;
        }
        Ok(())
    }
}

/// Which rows are written at once: all in order, and never one alone unless there are no more.
fn blocks(height: u32, stride: u32) -> impl Iterator<Item = Range<u32>> {
    let most = (BLOCK / stride).max(2);
    let count = (height / most).max(1);
    let edge = move |block: u32| (u64::from(height) * u64::from(block) / u64::from(count)) as u32;
    (0..count).map(move |block| edge(block)..edge(block + 1))
}

/// Fails if a frame is of another size than the display's.
pub(super) fn check_frame(frame: &Frame, display: (u32, u32)) -> Result<(), DisplayError> {
    let frame = frame.size();
    match frame == display {
        true => Ok(()),
        false => Err(DisplayError::Size { frame, display }),
    }
}
