//! The bytes of a package where they are: a mapped file, or a part of the program; and files of other kinds, mapped.

use std::fs::File;
use std::io;
use std::path::Path;
use std::slice;

use kiln_package::Package;
use memmap2::{Mmap, MmapOptions};

use super::RuntimeError;

/// What embedded bytes must begin at a multiple of, for operands to be aligned.
const ALIGNMENT: usize = 64;

/// An open package together with the mapping that it borrows.
pub(super) struct Mapped {
    package: Package<'static>,
    /// Keeps the bytes where they are; `None` for embedded ones.
    mapping: Option<(Mmap, File)>,
}

impl Mapped {
    /// Maps a file and opens the package in it. `origin` names it in errors.
    pub(super) fn open(path: &Path, origin: &str) -> Result<Self, RuntimeError> {
        let error = |source| RuntimeError::Open {
            origin: origin.to_owned(),
            source,
        };
        let file = File::open(path).map_err(error)?;
        // SAFETY: the mapping is private and read-only. Whoever changes or truncates the file meanwhile breaks the
        // promise that every mapped program relies on; the package is replaced by renaming, never rewritten in place.
        let mapping = unsafe { MmapOptions::new().map_copy_read_only(&file) }
            .map_err(|source| error(explained(source, file.metadata().map_or(0, |m| m.len()))))?;
        // SAFETY: the bytes stay mapped at this address until `mapping` is dropped, wherever it is moved. The slice and
        // what borrows it are kept only in `package`, which lives as long as `mapping` and is lent out by `package()`
        // for no longer than that.
        let bytes: &'static [u8] =
            unsafe { slice::from_raw_parts(mapping.as_ptr(), mapping.len()) };
        let package = open(bytes, origin)?;
        Ok(Mapped {
            package,
            mapping: Some((mapping, file)),
        })
    }

    /// Opens the package in bytes that are there for ever.
    pub(super) fn from_static(bytes: &'static [u8], origin: &str) -> Result<Self, RuntimeError> {
        if !bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Err(RuntimeError::Unaligned);
        }
        Ok(Mapped {
            package: open(bytes, origin)?,
            mapping: None,
        })
    }

    /// The addresses of the file's mapping; `None` for embedded bytes.
    pub(super) fn addresses(&self) -> Option<std::ops::Range<usize>> {
        let (mapping, _) = self.mapping.as_ref()?;
        let start = mapping.as_ptr().addr();
        Some(start..start + mapping.len())
    }

    /// The file, and where in it `bytes` of the package begin; `None` for embedded ones.
    pub(super) fn place(&self, bytes: &[u8]) -> Option<(&File, u64)> {
        let (mapping, file) = self.mapping.as_ref()?;
        let offset = bytes.as_ptr().addr().checked_sub(mapping.as_ptr().addr())?;
        Some((file, offset as u64))
    }

    /// The package, for as long as it is mapped.
    pub(super) fn package(&self) -> Package<'_> {
        self.package
    }
}

/// Maps a file to read it: its bytes take no memory of their own, and come when they are looked at. For the compiler,
/// whose sources are larger than a small computer's memory.
pub fn map_file(path: &Path) -> io::Result<impl AsRef<[u8]> + Send + Sync + use<>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    // SAFETY: the mapping is private and read-only, and lives as long as what is returned. As for a package, whoever
    // truncates the file meanwhile breaks the promise that every mapped program relies on.
    unsafe { MmapOptions::new().map_copy_read_only(&file) }
}

/// The error of a file of so many bytes that cannot be mapped. It says what is wrong where the system's own words, "out of
/// memory", would mislead: mapping takes no memory, but addresses.
fn explained(source: io::Error, bytes: u64) -> io::Error {
    let fits = usize::try_from(bytes).is_ok_and(|bytes| bytes <= isize::MAX as usize);
    if fits && source.kind() != io::ErrorKind::OutOfMemory {
        return source;
    }
    io::Error::other(format!(
        "its {} MB cannot be mapped: this process has not so many addresses left ({}-bit; a 32-bit system maps 2 to 3 GB)",
        bytes.div_ceil(1_000_000),
        usize::BITS
    ))
}

fn open<'a>(bytes: &'a [u8], origin: &str) -> Result<Package<'a>, RuntimeError> {
    Package::open(bytes).map_err(|source| RuntimeError::Package {
        origin: origin.to_owned(),
        source: source.into(),
    })
}
