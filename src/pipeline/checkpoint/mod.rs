//! Drawings that are broken off and gone on with.
//!
//! A [`Checkpoint`] is a file beside a drawing. After each step it holds all that the rest depends on: the settings, the latents,
//! what the sampler remembers, the state of the noise's generator and which evaluation is next. Whoever goes on from it gets the
//! picture of a drawing that was never disturbed, bit for bit.
//!
//! ```no_run
//! # use std::{ops::ControlFlow, path::Path};
//! # use kiln::pipeline::{Checkpoint, Kiln, Request};
//! # let kiln = Kiln::open("model.kiln")?;
//! let path = Path::new("apple.checkpoint");
//! let checkpoint = match path.exists() {
//!     true => Checkpoint::open(path)?,
//!     false => Checkpoint::new(path).note("whatever the caller wants to find again"),
//! };
//! let request = match checkpoint.request() {
//!     Some(request) => request,
//!     None => Request::new("a red apple").steps(20),
//! };
//! let settings = kiln.settings(&request)?;
//! let picture = kiln.draw_kept(&settings, &checkpoint, &mut |_| ControlFlow::Continue(()))?;
//! // Once the picture is safe:
//! checkpoint.remove()?;
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! - `format`: the file's bytes; `settings`: its settings, JSON; `keeper`: writing it while a picture is drawn.

mod format;
mod keeper;
mod settings;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Error, Kiln, Request, Settings};
use format::Contents;
pub(super) use format::{Position, State};
pub(super) use keeper::Keeper;

/// The most bytes of a file that is read: 19 samplers remember six tensors at most, which is 26 MB at 2048x2048.
const MAX_FILE: u64 = 1 << 28;

/// The file of a drawing that can be gone on with, and what it held when it was opened.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    note: String,
    contents: Option<Contents>,
}

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is something else.
    #[error("is no checkpoint of a drawing")]
    Foreign,
    /// A later Kiln has written it.
    #[error("is of version {found}, this Kiln knows version {known}")]
    Newer {
        /// The file's version.
        found: u32,
        /// The version that is known.
        known: u32,
    },
    /// The file is not as it was written.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// The drawing was begun with another package.
    #[error(
        "was made with another model than {origin}; go on with the model that it was begun with"
    )]
    Package {
        /// The package that was to go on.
        origin: String,
    },
    /// The drawing was begun with other settings.
    #[error("was made with another {name}: {saved}, not {asked}")]
    Settings {
        /// The setting.
        name: String,
        /// What the file says.
        saved: String,
        /// What was asked for.
        asked: String,
    },
}

impl CheckpointError {
    fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    fn at(self, path: &Path) -> Error {
        Error::Checkpoint {
            path: path.to_owned(),
            source: self,
        }
    }
}

impl Checkpoint {
    /// The checkpoint of a new drawing, in a file that is written when the drawing begins, whatever is there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            note: String::new(),
            contents: None,
        }
    }

    /// The checkpoint of a drawing to go on with. It will be written to the same file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        match read(&path).and_then(|bytes| Contents::read(&bytes)) {
            Ok(contents) => Ok(Self {
                path,
                note: contents.note.clone(),
                contents: Some(contents),
            }),
            Err(error) => Err(error.at(&path)),
        }
    }

    /// A text for whoever goes on, such as where the picture is to be written.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Writes to another file from now on; the one that was opened stays as it is.
    pub fn write_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = path.into();
        self
    }

    /// The file that is written to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text of whoever began.
    pub fn read_note(&self) -> &str {
        &self.note
    }

    /// Steps that were done when it was opened, and how many there are; `None` of a new drawing.
    pub fn progress(&self) -> Option<(usize, usize)> {
        let contents = self.contents.as_ref()?;
        Some((contents.position.step, contents.position.steps))
    }

    /// What is drawn, with everything said; `None` of a new drawing. Pictures that it begins with are not in the file:
    /// where [`Checkpoint::needs`] says so, [`Request::init`] has to be given them again.
    pub fn request(&self) -> Option<Request> {
        Some(self.contents.as_ref()?.settings.request())
    }

    /// What the file does not hold: whether the drawing begins with a picture, and whether there is a mask.
    pub fn needs(&self) -> (bool, bool) {
        let contents = self.contents.as_ref();
        contents.map_or((false, false), |contents| contents.settings.pictures())
    }

    /// Puts the pictures that the drawing began with into [`Checkpoint::request`]. They must be those that it began with.
    pub fn begin_with(
        &self,
        request: Request,
        picture: super::Raster,
        mask: Option<super::Raster>,
    ) -> Request {
        match &self.contents {
            Some(contents) => contents.settings.begin_with(request, picture, mask),
            None => request,
        }
    }

    /// Removes the file, if it is there, and what an interrupted writing may have left beside it.
    pub fn remove(&self) -> Result<(), Error> {
        let gone = |path: &Path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let path = keeper::followed(&self.path);
        gone(&keeper::beside(&path))
            .and_then(|()| gone(&path))
            .map_err(|error| CheckpointError::from(error).at(&self.path))
    }

    /// Fails where a drawing with these settings cannot go on from it, or where the file cannot be written.
    pub fn check(&self, kiln: &Kiln, settings: &Settings) -> Result<(), Error> {
        let checked = match &self.contents {
            Some(contents) => contents.check(kiln, settings),
            None => Ok(()),
        };
        checked
            .and_then(|()| keeper::probe(&self.path))
            .map_err(|error| error.at(&self.path))
    }
}

impl Contents {
    fn check(&self, kiln: &Kiln, settings: &Settings) -> Result<(), CheckpointError> {
        if self.package != kiln.model().package().identity() {
            return Err(CheckpointError::Package {
                origin: kiln.model().origin().to_owned(),
            });
        }
        self.settings.check(settings)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    if len > MAX_FILE {
        return Err(CheckpointError::Foreign);
    }
    let mut bytes = Vec::with_capacity(len as usize);
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}
