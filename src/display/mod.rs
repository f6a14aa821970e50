//! Displays: what is on the screen, and ways to get it there.
//!
//! ```text
//! picture, caption, progress, preview -> Screen -> Frame -> rotated, dithered rows -> Framebuffer, PngFile or Panel
//! ```
//!
//! - [`Screen`] lays out what is to be seen in a [`Frame`] of RGB; `text` has its fonts.
//! - `rows` turns a frame as the display hangs and reduces its colours; [`dither`] says how.
//! - A [`Display`] takes frames: [`Framebuffer`], `/dev/fb0` or a plain file of a stated [`Geometry`]; [`PngFile`], for tests and
//!   for looking from elsewhere; [`Panel`], everything that is a `DrawTarget` of `embedded-graphics`, such as the driver of an SPI or e-paper
//!   panel.
//!
//! `src/display/examples/` has a program for an SPI panel and one for e-paper.
//!
//! ```
//! use kiln::display::{Colors, Dither, Display, Look, PngFile, Screen};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("now.png");
//! let mut display = PngFile::new(path, (160, 120)).colors(Colors::seven(), Dither::Diffusion);
//! let mut screen = Screen::new(display.size(), Look::default())?;
//! screen.set_picture((2, 1), &[255, 0, 0, 0, 0, 255]);
//! screen.set_caption("rouge à gauche");
//! screen.set_progress(Some((3, 20)));
//! display.show(screen.compose())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod dither;
mod error;
mod frame;
mod framebuffer;
mod panel;
mod png_file;
mod rows;
mod screen;
mod text;

pub use dither::{Colors, Dither, Palette};
pub use error::DisplayError;
pub use frame::Frame;
pub use framebuffer::{Channel, Framebuffer, Geometry};
pub use panel::Panel;
pub use png_file::PngFile;
pub(crate) use png_file::replace;
pub use rows::Rotation;
pub use screen::{Fit, Look, Screen};

/// What shows frames.
pub trait Display {
    /// Width and height of its frames, in pixels, as it hangs: turned by its rotation.
    fn size(&self) -> (u32, u32);

    /// Shows a frame of that size.
    fn show(&mut self, frame: &Frame) -> Result<(), DisplayError>;

    /// Whether others write on it too, so that a frame does not stay unless it is shown again from time to time.
    fn is_shared(&self) -> bool {
        false
    }
}
