//! A PNG as a display: for tests, and for looking from elsewhere.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::framebuffer::check_frame;
use super::rows::Rows;
use super::{Colors, Display, DisplayError, Dither, Frame, Rotation};
use crate::pipeline::PictureFormat;

/// A PNG that always holds the last frame, whole.
#[derive(Debug)]
pub struct PngFile {
    path: PathBuf,
    size: (u32, u32),
    rotation: Rotation,
    colors: Colors,
    dither: Dither,
}

impl PngFile {
    /// A file for frames of a size.
    pub fn new(path: impl Into<PathBuf>, size: (u32, u32)) -> Self {
        Self {
            path: path.into(),
            size,
            rotation: Rotation::None,
            colors: Colors::Full,
            dither: Dither::default(),
        }
    }

    /// Turns what is written: the file shows what a display that hangs so is sent.
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = rotation;
        self
    }

    /// Fewer colours.
    pub fn colors(mut self, colors: Colors, dither: Dither) -> Self {
        self.colors = colors;
        self.dither = dither;
        self
    }
}

impl Display for PngFile {
    fn size(&self) -> (u32, u32) {
        self.rotation.turned(self.size)
    }

    fn show(&mut self, frame: &Frame) -> Result<(), DisplayError> {
        check_frame(frame, self.size())?;
        let mut pixels = Vec::with_capacity(frame.pixels().len());
        let mut rows = Rows::new(frame, self.rotation, &self.colors, self.dither);
        while let Some(row) = rows.next_row() {
            pixels.extend_from_slice(row);
        }
        let mut bytes = Vec::new();
        PictureFormat::Png
            .encode(self.size, &pixels, "", &mut bytes)
            .and_then(|()| replace(&self.path, &bytes, false))
            .map_err(|error| DisplayError::io(&self.path, error))
    }
}

/// Writes a file beside another and then renames it, so that the other is whole at any time. With `sync` it is also so after the
/// power has failed. What is left over after a failure is written over the next time.
pub(crate) fn replace(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a file name",
        ));
    };
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(".tmp");
    let beside = path.with_file_name(beside);
    let written = File::create(&beside)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            match sync {
                true => file.sync_all(),
                false => Ok(()),
            }
        })
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // It takes room that may be what there is too little of.
        let _ = fs::remove_file(&beside);
    }
    written?;
    if sync {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
