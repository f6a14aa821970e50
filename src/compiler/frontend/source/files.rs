//! The files of a source: opened, read, and noted for the card.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::config::Config;
use super::error::SourceError;
use crate::frontend::tensors::{self, OpenFile, Tensors};
use crate::frontend::{SourceFile, sha256};

/// Configurations and vocabularies are at most this long, in bytes.
const MOST_TEXT: u64 = 64 << 20;

/// Opens files and remembers which.
pub(super) struct Files {
    open_file: OpenFile,
    /// The source's own folder; what lies within is called by its path from there.
    root: PathBuf,
    noted: BTreeMap<String, PathBuf>,
}

impl Files {
    pub fn new(root: impl Into<PathBuf>, open_file: OpenFile) -> Self {
        Files {
            open_file,
            root: root.into(),
            noted: BTreeMap::new(),
        }
    }

    /// Notes that a file was read.
    pub fn note(&mut self, path: &Path) {
        let within = path.strip_prefix(&self.root).ok();
        let label = match within.filter(|within| !within.as_os_str().is_empty()) {
            Some(within) => {
                let parts = within.components().map(|c| c.as_os_str().to_string_lossy());
                parts.collect::<Vec<_>>().join("/")
            }
            None => file_name(path),
        };
        // Two files of one name from two places.
        let mut number = 2;
        let mut unique = label.clone();
        while self.noted.get(&unique).is_some_and(|other| other != path) {
            unique = format!("{label} ({number})");
            number += 1;
        }
        self.noted.insert(unique, path.to_owned());
    }

    /// The tensors of a file.
    pub fn tensors(&mut self, path: &Path) -> Result<Tensors, SourceError> {
        let read = tensors::open(path, self.open_file)?;
        self.noted_all(read)
    }

    /// The tensors of the files that an index names.
    pub fn indexed(&mut self, path: &Path) -> Result<Tensors, SourceError> {
        let read = tensors::open_index(path, self.open_file)?;
        self.noted_all(read)
    }

    fn noted_all(&mut self, read: Tensors) -> Result<Tensors, SourceError> {
        for file in &read.files {
            self.note(file);
        }
        Ok(read)
    }

    /// The text of a file, if it is there.
    pub fn optional_text(&mut self, path: &Path) -> Result<Option<String>, SourceError> {
        let length = match std::fs::metadata(path) {
            Ok(found) => found.len(),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SourceError::read(path, source)),
        };
        if length > MOST_TEXT {
            let reason = format!("has {length} bytes, expected a text of at most {MOST_TEXT}");
            return Err(SourceError::malformed(path, reason));
        }
        let text = std::fs::read_to_string(path).map_err(|e| SourceError::read(path, e))?;
        self.note(path);
        Ok(Some(text))
    }

    /// A configuration file, if it is there.
    pub fn config(&mut self, path: &Path) -> Result<Option<Config>, SourceError> {
        let text = self.optional_text(path)?;
        text.map(|text| Config::parse(path, &text)).transpose()
    }

    /// Every file noted, with its hash. `hear` is told the bytes hashed and the bytes in all, and says whether to go on.
    pub fn hashed(
        self,
        hear: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Vec<SourceFile>, SourceError> {
        let opened: Vec<_> = self
            .noted
            .iter()
            .map(|(label, path)| {
                let bytes = (self.open_file)(path).map_err(|e| SourceError::read(path, e))?;
                Ok((label, bytes))
            })
            .collect::<Result<_, SourceError>>()?;
        let length = |bytes: &tensors::Bytes| (**bytes).as_ref().len() as u64;
        let total = opened.iter().map(|(_, bytes)| length(bytes)).sum();
        let mut done = 0;
        let mut files = Vec::with_capacity(opened.len());
        for (label, bytes) in &opened {
            let mut read = Heard {
                bytes: (**bytes).as_ref(),
                hear: &mut |read| {
                    done += read;
                    hear(done, total)
                },
            };
            let sha256 = sha256(&mut read, &mut |_| {}).map_err(|_| SourceError::Cancelled)?;
            files.push(SourceFile {
                path: (*label).clone(),
                sha256,
            });
        }
        Ok(files)
    }
}

/// Bytes that are read while someone hears how many, and says whether to go on.
struct Heard<'a> {
    bytes: &'a [u8],
    hear: &'a mut dyn FnMut(u64) -> bool,
}

impl Read for Heard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        match (self.hear)(read as u64) {
            true => Ok(read),
            false => Err(io::Error::other("cancelled")),
        }
    }
}

/// The last part of a path, as text.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
