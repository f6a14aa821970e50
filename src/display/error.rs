//! What can go wrong with a display.

use std::io;
use std::path::Path;

/// Why a display cannot be opened or does not show a frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DisplayError {
    /// The device or file cannot be opened, asked or written.
    #[error("{path}: {source}")]
    Io {
        /// The device or file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It answers no framebuffer's questions.
    #[error("{path}: is no framebuffer: {source}")]
    NoFramebuffer {
        /// The device or file.
        path: String,
        /// What it answered.
        source: io::Error,
    },
    /// Its pixels are of a kind that is not written.
    #[error("{path}: {found}; 16, 24 or 32 bits of red, green and blue expected")]
    Format {
        /// The device or file.
        path: String,
        /// What they are.
        found: String,
    },
    /// Width, height or stride make no sense.
    #[error("{width}x{height}{}: {reason}", .stride.map(|bytes| format!(", {bytes} bytes a row")).unwrap_or_default())]
    Geometry {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes from a row to the next, where there is such a thing.
        stride: Option<u32>,
        /// Why not.
        reason: String,
    },
    /// The frame is not of the display's size.
    #[error("a frame of {}x{} for a display of {}x{}", frame.0, frame.1, display.0, display.1)]
    Size {
        /// Width and height.
        frame: (u32, u32),
        /// Width and height.
        display: (u32, u32),
    },
    /// The driver of a panel says no.
    #[error("panel: {0}")]
    Panel(String),
}

impl DisplayError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.display().to_string(),
            source,
        }
    }
}
