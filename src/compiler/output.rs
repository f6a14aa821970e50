//! The output file: written beside its place, moved there when it is whole, gone when it is not.

use crate::plan::PlanError;
use crate::{Cancel, CompileError};
use kiln_package::WriteError;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Removes the file when dropped, unless it was moved away before.
struct Partial(Option<PathBuf>);

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Nothing more can be done about a file that cannot be removed.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A file that refuses to be written to once someone has asked to stop.
pub(crate) struct Watched {
    file: File,
    cancel: Cancel,
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.asked() {
            return Err(io::Error::other("cancelled"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Watched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Writes a file by `write` and moves it to `path`. Gives its size.
pub(crate) fn replace(
    path: &Path,
    cancel: &Cancel,
    write: impl FnOnce(&mut BufWriter<Watched>) -> Result<(), PlanError>,
) -> Result<u64, CompileError> {
    let error = |source| CompileError::Write {
        path: path.to_owned(),
        source,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let beside = path.with_file_name(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&beside)
        .map_err(error)?;
    let mut partial = Partial(Some(beside.clone()));
    let watched = Watched {
        file,
        cancel: cancel.clone(),
    };
    let mut file = BufWriter::with_capacity(1 << 20, watched);
    write(&mut file).map_err(|e| match e {
        PlanError::Write(WriteError::Io(source)) => error(source),
        other => CompileError::Plan(other),
    })?;
    file.flush().map_err(error)?;
    let file = file.into_inner().map_err(|e| error(e.into_error()))?.file;
    let bytes = file.metadata().map_err(error)?.len();
    file.sync_all().map_err(error)?;
    drop(file);
    std::fs::rename(&beside, path).map_err(error)?;
    partial.0 = None;
    Ok(bytes)
}
