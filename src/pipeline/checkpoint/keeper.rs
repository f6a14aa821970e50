//! Writing a checkpoint while a picture is drawn.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::format::{Head, Position, State, file_bytes, write};
use super::settings::Written;
use super::{Checkpoint, CheckpointError};
use crate::pipeline::noise::Noise;
use crate::pipeline::samplers::Sampler;
use crate::pipeline::{Error, Kiln, Settings};

/// What is wrong with a file whose checksum is right.
const OTHER: &str = "it is of another drawing than its settings say";

/// A checkpoint's file, and room for what is written to it: nothing is allocated once [`Keeper::make_room`] has been told how
/// much that is. (The standard library allocates for paths of more than 383 bytes.)
pub(in crate::pipeline) struct Keeper<'a> {
    checkpoint: &'a Checkpoint,
    package: u64,
    settings: String,
    path: PathBuf,
    beside: PathBuf,
    folder: Option<File>,
    bytes: Vec<u8>,
}

impl<'a> Keeper<'a> {
    /// A keeper of a drawing with these settings. Fails as [`Checkpoint::check`].
    pub(in crate::pipeline) fn new(
        checkpoint: &'a Checkpoint,
        kiln: &Kiln,
        settings: &Settings,
    ) -> Result<Self, Error> {
        checkpoint.check(kiln, settings)?;
        let path = followed(&checkpoint.path);
        Ok(Self {
            checkpoint,
            package: kiln.model().package().identity(),
            settings: Written::of(settings).to_json(),
            beside: beside(&path),
            // Not every system can open a folder.
            folder: File::open(folder(&path)).ok(),
            path,
            bytes: Vec::new(),
        })
    }

    /// The `len` latents that a pass has left, if the drawing goes on from a later one of `passes`.
    pub(in crate::pipeline) fn left_by(
        &self,
        pass: usize,
        passes: usize,
        len: usize,
    ) -> Result<Option<Vec<f32>>, Error> {
        let contents = self.checkpoint.contents.as_ref();
        let Some(saved) = contents.filter(|saved| saved.position.pass > pass) else {
            return Ok(None);
        };
        match saved.position.pass < passes && saved.before.len() == len {
            true => Ok(Some(saved.before.clone())),
            false => Err(self.error(CheckpointError::damaged(OTHER))),
        }
    }

    /// Puts back what was saved in a pass, which `begin` is the begin of, and says where it was; `None` if nothing was.
    pub(in crate::pipeline) fn go_on(
        &self,
        begin: Position,
        latents: &mut [f32],
        noise: &mut Noise,
        sampler: &mut dyn Sampler,
    ) -> Result<Option<Position>, Error> {
        let contents = self.checkpoint.contents.as_ref();
        let Some(saved) = contents.filter(|saved| saved.position.pass == begin.pass) else {
            return Ok(None);
        };
        let position = saved.position;
        let is_between_steps = position.index <= sampler.evaluations().len()
            && (position.index == 0 || sampler.completes_step(position.index - 1));
        let buffers = sampler.state();
        let is_as_large = saved.latents.len() == latents.len()
            && saved.sampler.len() == buffers.len()
            && (buffers.iter().zip(&saved.sampler)).all(|(a, b)| a.len() == b.len());
        if !is_between_steps || !is_as_large || position.steps != begin.steps {
            return Err(self.error(CheckpointError::damaged(OTHER)));
        }
        latents.copy_from_slice(&saved.latents);
        noise.clone_from(&saved.noise);
        for (buffer, saved) in buffers.iter_mut().zip(&saved.sampler) {
            buffer.copy_from_slice(saved);
        }
        Ok(Some(position))
    }

    /// Takes memory for what is written from now on: so many elements of latents, of a pass's before and so many buffers.
    pub(in crate::pipeline) fn make_room(&mut self, latents: usize, before: usize, buffers: usize) {
        let len = file_bytes(&self.head(), latents, before, buffers);
        self.bytes.clear();
        self.bytes.reserve_exact(len);
    }

    /// Writes the file anew: a system that stops at any moment leaves either the old one or the new one.
    pub(in crate::pipeline) fn save(&mut self, state: &State<'_>) -> Result<(), Error> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        write(&mut bytes, &self.head(), state);
        self.bytes = bytes;
        self.replace()
            .map_err(|error| self.error(CheckpointError::Io(error)))
    }

    /// An error of this file.
    pub(in crate::pipeline) fn error(&self, source: CheckpointError) -> Error {
        source.at(&self.checkpoint.path)
    }

    fn head(&self) -> Head<'_> {
        Head {
            package: self.package,
            settings: &self.settings,
            note: &self.checkpoint.note,
        }
    }

    fn replace(&self) -> io::Result<()> {
        let mut file = create(&self.beside)?;
        file.write_all(&self.bytes)?;
        file.sync_all()?;
        fs::rename(&self.beside, &self.path)?;
        match &self.folder {
            // Some file systems cannot sync a folder.
            Some(folder) => folder.sync_all().or(Ok(())),
            None => Ok(()),
        }
    }
}

/// Fails where [`Keeper::save`] would before it has written anything.
pub(super) fn probe(path: &Path) -> Result<(), CheckpointError> {
    if path.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
    }
    let beside = beside(&followed(path));
    create(&beside)?;
    fs::remove_file(&beside)?;
    Ok(())
}

/// The file's other name while it is written. It is always the same, so that there is one at most, however often a drawing
/// is broken off.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// The file that a symbolic link leads to, so that the link itself stays.
pub(super) fn followed(path: &Path) -> PathBuf {
    match path.is_symlink() {
        true => fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
        false => path.to_owned(),
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).open(path)
}

fn folder(path: &Path) -> &Path {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}
