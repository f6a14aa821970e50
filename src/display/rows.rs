//! A frame as a display takes it: turned, its colours reduced, row after row.

use std::fmt;
use std::str::FromStr;

use super::Frame;
use super::dither::{Colors, Dither, Reducer};

/// How far a frame is turned on its display, clockwise: what is up in it is then to the right of what the display's wires call up,
/// below it or to the left. A display that hangs turned by as much the other way shows it upright.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// As it is.
    #[default]
    None,
    /// A quarter.
    Quarter,
    /// Upside down.
    Half,
    /// Three quarters.
    ThreeQuarters,
}

/// A number of degrees that is not one of four.
#[derive(Debug, thiserror::Error)]
#[error("expected 0, 90, 180 or 270 degrees")]
pub struct UnknownRotation;

impl FromStr for Rotation {
    type Err = UnknownRotation;

    fn from_str(text: &str) -> Result<Self, UnknownRotation> {
        match text {
            "0" => Ok(Self::None),
            "90" => Ok(Self::Quarter),
            "180" => Ok(Self::Half),
            "270" => Ok(Self::ThreeQuarters),
            _ => Err(UnknownRotation),
        }
    }
}

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let degrees = match self {
            Self::None => 0,
            Self::Quarter => 90,
            Self::Half => 180,
            Self::ThreeQuarters => 270,
        };
        write!(f, "{degrees}")
    }
}

impl Rotation {
    /// A size, turned. The same both ways.
    pub fn turned(self, (width, height): (u32, u32)) -> (u32, u32) {
        match self {
            Self::None | Self::Half => (width, height),
            Self::Quarter | Self::ThreeQuarters => (height, width),
        }
    }

    /// The place in a frame of `width` by `height` that a place of the display shows.
    fn source(self, (width, height): (u32, u32), x: u32, y: u32) -> (u32, u32) {
        match self {
            Self::None => (x, y),
            Self::Quarter => (y, height - 1 - x),
            Self::Half => (width - 1 - x, height - 1 - y),
            Self::ThreeQuarters => (width - 1 - y, x),
        }
    }
}

/// The rows of a display that shows a frame, from its top.
pub(super) struct Rows<'a> {
    frame: &'a Frame,
    rotation: Rotation,
    reducer: Reducer<'a>,
    y: u32,
    row: Vec<u8>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        frame: &'a Frame,
        rotation: Rotation,
        colors: &'a Colors,
        dither: Dither,
    ) -> Self {
        let (width, _) = rotation.turned(frame.size());
        Self {
            frame,
            rotation,
            reducer: Reducer::new(colors, dither, width as usize),
            y: 0,
            row: vec![0; width as usize * 3],
        }
    }

    /// The next row as RGB of the colours that there are.
    pub(super) fn next_row(&mut self) -> Option<&[u8]> {
        let size = self.frame.size();
        if self.y == self.rotation.turned(size).1 {
            return None;
        }
        for (x, pixel) in (0..).zip(self.row.as_chunks_mut().0) {
            let (x, y) = self.rotation.source(size, x, self.y);
            *pixel = self.frame.at(x, y);
        }
        self.reducer.reduce(&mut self.row);
        self.y += 1;
        Some(&self.row)
    }
}

#[cfg(test)]
mod tests {
    use embedded_graphics::pixelcolor::Rgb888;
    use embedded_graphics::prelude::*;

    use super::*;

    /// A red mark at the top left of a frame of 3x2, where it is on the display once the frame is turned clockwise.
    #[test]
    fn frames_are_turned_clockwise() {
        for (degrees, place) in [
            ("0", (0, 0)),
            ("90", (1, 0)),
            ("180", (2, 1)),
            ("270", (0, 2)),
        ] {
            let rotation: Rotation = degrees.parse().expect("a rotation");
            assert_eq!(rotation.to_string(), degrees);
            let mut frame = Frame::new((3, 2)).expect("a frame");
            let Ok(()) = Pixel(Point::zero(), Rgb888::RED).draw(&mut frame);
            let mut rows = Rows::new(&frame, rotation, &Colors::Full, Dither::None);
            let (width, height) = rotation.turned((3, 2));
            let mut red = Vec::new();
            for y in 0..height {
                let row = rows.next_row().expect("a row");
                assert_eq!(row.len() as u32, width * 3);
                red.extend(
                    (0..width)
                        .filter(|x| row[*x as usize * 3] == 255)
                        .map(|x| (x, y)),
                );
            }
            assert!(rows.next_row().is_none());
            assert_eq!(red, [place], "{degrees}");
        }
        assert!("45".parse::<Rotation>().is_err());
    }
}
