//! Standard output that may close, and files that are complete or not there.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::CliError;

/// Writes text to standard output.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::Closed,
            _ => CliError::Failure(format!("standard output: {error}")),
        })
}

/// Where a file is to be written.
#[derive(Clone, Debug)]
pub enum Target {
    /// This file, whatever is there.
    Replace(PathBuf),
    /// `STEM.EXTENSION`, or `STEM-2.EXTENSION` and so on if that is taken.
    Fresh {
        /// The folder; empty for the current one.
        folder: PathBuf,
        /// The name's beginning.
        stem: String,
        /// The name's end, without the dot.
        extension: &'static str,
    },
}

impl Target {
    /// Fails where [`Target::write`] would before it has written anything: the folder is missing or cannot be written to,
    /// or the file is a folder. Leaves nothing behind.
    pub fn probe(&self) -> Result<(), CliError> {
        match self {
            Self::Replace(path) => {
                if path.is_dir() {
                    return Err(CliError::Failure(format!(
                        "{}: is a folder",
                        path.display()
                    )));
                }
                match is_special(path) {
                    true => OpenOptions::new()
                        .write(true)
                        .open(path)
                        .map(drop)
                        .map_err(|e| CliError::file(path, &e)),
                    false => Beside::create(&followed(path)).map(drop),
                }
            }
            Self::Fresh {
                folder,
                stem,
                extension,
            } => Beside::create(&folder.join(format!("{stem}.{extension}"))).map(drop),
        }
    }

    /// Has `write` fill the file and returns its path. Until all of it is on the disk it has another name; after an error
    /// it is gone, and what stood under the path is as it was. A device or a pipe is written to as it is.
    ///
    /// Errors of `write` are told with the file's path before them.
    pub fn write<E: Display>(
        &self,
        write: impl FnOnce(&mut File) -> Result<(), E>,
    ) -> Result<PathBuf, CliError> {
        match self {
            Self::Replace(path) if is_special(path) => {
                let mut file = OpenOptions::new()
                    .write(true)
                    .open(path)
                    .map_err(|e| CliError::file(path, &e))?;
                write(&mut file).map_err(|e| CliError::file(path, &e))?;
                Ok(path.clone())
            }
            Self::Replace(path) => {
                let real = followed(path);
                let mut beside = Beside::create(&real)?;
                if let Ok(old) = fs::metadata(&real) {
                    beside
                        .file
                        .set_permissions(old.permissions())
                        .map_err(|e| CliError::file(path, &e))?;
                }
                write(&mut beside.file).map_err(|e| CliError::file(path, &e))?;
                beside
                    .file
                    .sync_all()
                    .map_err(|e| CliError::file(path, &e))?;
                beside.rename(&real)?;
                Ok(path.clone())
            }
            Self::Fresh {
                folder,
                stem,
                extension,
            } => {
                let first = folder.join(format!("{stem}.{extension}"));
                let mut beside = Beside::create(&first)?;
                write(&mut beside.file).map_err(|e| CliError::file(&first, &e))?;
                beside
                    .file
                    .sync_all()
                    .map_err(|e| CliError::file(&first, &e))?;
                let path = reserve(folder, stem, extension)?;
                beside
                    .rename(&path)
                    .inspect_err(|_| _ = fs::remove_file(&path))?;
                Ok(path)
            }
        }
    }
}

/// Creates the first of `stem`, `stem-2`, ... that is free, empty, so that no other process takes it too.
fn reserve(folder: &Path, stem: &str, extension: &str) -> Result<PathBuf, CliError> {
    let mut number = 1_u64;
    loop {
        let path = match number {
            1 => folder.join(format!("{stem}.{extension}")),
            n => folder.join(format!("{stem}-{n}.{extension}")),
        };
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(CliError::file(&path, &error)),
        }
    }
}

/// A device, a pipe or the like: what a rename would replace by a plain file.
pub fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir())
}

/// The file that a symbolic link leads to, so that the link itself stays.
pub fn followed(path: &Path) -> PathBuf {
    match path.is_symlink() {
        true => fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
        false => path.to_owned(),
    }
}

/// A temporary file in the folder of another, removed unless it is renamed.
struct Beside {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Beside {
    /// Errors name `path`, the file that this one is for.
    fn create(path: &Path) -> Result<Self, CliError> {
        if path.file_name().is_none() {
            return Err(CliError::Failure(format!(
                "{}: not a file name",
                path.display()
            )));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut number = 0_u32;
        loop {
            let beside = folder.join(format!(".kiln-{}-{number}.tmp", std::process::id()));
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&beside)
            {
                Ok(file) => {
                    return Ok(Self {
                        path: beside,
                        file,
                        kept: false,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(CliError::file(path, &error)),
            }
        }
    }

    /// Moves it to `path`, in one step. The folder is synced too where the system can.
    fn rename(mut self, path: &Path) -> Result<(), CliError> {
        fs::rename(&self.path, path).map_err(|e| CliError::file(path, &e))?;
        self.kept = true;
        let folder = path
            .parent()
            .filter(|f| !f.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        if let Ok(folder) = File::open(folder) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A file name's beginning from a prompt: letters and digits in lower case, everything else a hyphen.
pub fn slug(prompt: &str) -> String {
    const MOST_BYTES: usize = 64;
    let mut slug = String::new();
    for word in prompt
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        let word = word.to_lowercase();
        let hyphen = usize::from(!slug.is_empty());
        if slug.len() + hyphen + word.len() > MOST_BYTES {
            if slug.is_empty() {
                slug.push_str(&word[..word.floor_char_boundary(MOST_BYTES)]);
            }
            break;
        }
        slug.push_str(&"-"[..hyphen]);
        slug.push_str(&word);
    }
    match slug.is_empty() {
        true => "picture".into(),
        false => slug,
    }
}
