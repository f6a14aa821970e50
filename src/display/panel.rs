//! Every driver of `embedded-graphics` as a display.

use std::fmt;
use std::iter;

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;

use super::framebuffer::check_frame;
use super::rows::Rows;
use super::{Colors, Display, DisplayError, Dither, Frame, Palette, Rotation};

/// Turns a colour that the display has into the driver's.
type Convert<C> = Box<dyn Fn([u8; 3]) -> C + Send>;
/// Sends what was drawn to the panel, where drawing does not.
type Flush<T> = Box<dyn FnMut(&mut T) -> Result<(), String> + Send>;

/// A `DrawTarget` as a display.
pub struct Panel<T: DrawTarget> {
    target: T,
    rotation: Rotation,
    colors: Colors,
    dither: Dither,
    convert: Convert<T::Color>,
    flush: Flush<T>,
}

impl<T: DrawTarget> fmt::Debug for Panel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panel")
            .field("size", &self.target.bounding_box().size)
            .field("colors", &self.colors)
            .finish_non_exhaustive()
    }
}

impl<T: DrawTarget> Panel<T> {
    /// A panel of red, green and blue, such as most that are not e-paper. Its bits are dithered if they are fewer than 8.
    pub fn rgb(target: T) -> Self
    where
        T::Color: RgbColor + From<Rgb888>,
    {
        let bits = |most: u8| most.count_ones() as u8;
        let depth = [
            bits(T::Color::MAX_R),
            bits(T::Color::MAX_G),
            bits(T::Color::MAX_B),
        ];
        let colors = match depth {
            [8, 8, 8] => Colors::Full,
            depth => Colors::Depth(depth),
        };
        let convert = |[red, green, blue]: [u8; 3]| Rgb888::new(red, green, blue).into();
        Self::new(target, colors, Box::new(convert))
    }

    /// A panel of a few colours, such as e-paper: what each looks like, and what its driver calls it. `None` of fewer than 2 or more
    /// than 16.
    pub fn inks(target: T, inks: Vec<([u8; 3], T::Color)>) -> Option<Self>
    where
        T::Color: Send + 'static,
    {
        let looks: Vec<[u8; 3]> = inks.iter().map(|(look, _)| *look).collect();
        let palette = Palette::new(&looks)?;
        let convert = move |color: [u8; 3]| {
            let ink = inks.iter().find(|(look, _)| *look == color);
            ink.unwrap_or(&inks[0]).1
        };
        Some(Self::new(
            target,
            Colors::Palette(palette),
            Box::new(convert),
        ))
    }

    fn new(target: T, colors: Colors, convert: Convert<T::Color>) -> Self {
        Self {
            target,
            rotation: Rotation::None,
            colors,
            dither: Dither::default(),
            convert,
            flush: Box::new(|_| Ok(())),
        }
    }

    /// Turns what is shown.
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = rotation;
        self
    }

    /// How colours are mixed.
    pub fn dither(mut self, dither: Dither) -> Self {
        self.dither = dither;
        self
    }

    /// What sends a frame to the panel, where the driver draws in memory first.
    pub fn flush(
        mut self,
        flush: impl FnMut(&mut T) -> Result<(), String> + Send + 'static,
    ) -> Self {
        self.flush = Box::new(flush);
        self
    }

    /// The driver.
    pub fn target(&self) -> &T {
        &self.target
    }
}

impl<T: DrawTarget> Display for Panel<T>
where
    T::Error: fmt::Debug,
{
    fn size(&self) -> (u32, u32) {
        let Size { width, height } = self.target.bounding_box().size;
        self.rotation.turned((width, height))
    }

    fn show(&mut self, frame: &Frame) -> Result<(), DisplayError> {
        check_frame(frame, self.size())?;
        let area = self.target.bounding_box();
        let mut rows = Rows::new(frame, self.rotation, &self.colors, self.dither);
        let convert = &self.convert;
        let mut row = Vec::new();
        let mut place = 0;
        let colors = iter::from_fn(|| {
            if place == row.len() {
                row.clear();
                row.extend_from_slice(rows.next_row()?.as_chunks::<3>().0);
                place = 0;
            }
            place += 1;
            row.get(place - 1).map(|color| convert(*color))
        });
        self.target
            .fill_contiguous(&area, colors)
            .map_err(|error| DisplayError::Panel(format!("{error:?}")))?;
        (self.flush)(&mut self.target).map_err(DisplayError::Panel)
    }
}
