//! What is on a screen, and where.
//!
//! The picture has the screen but for a caption of a line or two below it and a progress line at the edge. While the next picture is
//! drawn, its preview stands in the picture's lower right corner; where there is no picture yet, in its place.

use std::str::FromStr;

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;

use super::text::{Face, plain};
use super::{DisplayError, Frame};
use crate::pipeline::lanczos;

/// The most lines of a caption.
const CAPTION_LINES: usize = 2;
/// The most characters of a caption that are looked at.
const CAPTION_CHARS: usize = 400;
/// A preview's sides are at most so many shares of the picture's room.
const PREVIEW_SHARE: u32 = 3;

/// How a picture is brought into its room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fit {
    /// All of it is seen, with the letterbox's colour around it.
    #[default]
    Contain,
    /// All of the room is covered; what is left over of the picture is cut off evenly.
    Cover,
}

/// A name that no fit has.
#[derive(Debug, thiserror::Error)]
#[error("expected contain or cover")]
pub struct UnknownFit;

impl FromStr for Fit {
    type Err = UnknownFit;

    fn from_str(text: &str) -> Result<Self, UnknownFit> {
        match text {
            "contain" => Ok(Self::Contain),
            "cover" => Ok(Self::Cover),
            _ => Err(UnknownFit),
        }
    }
}

/// What is to be seen on a screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The prompt, below its picture. A screen of less than eight lines has none.
    pub caption: bool,
    /// How far the picture that is being drawn is.
    pub progress: bool,
    /// What it looks like so far.
    pub preview: bool,
    /// What is around the picture: red, green and blue.
    pub letterbox: [u8; 3],
    /// How the picture is brought into its room.
    pub fit: Fit,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            caption: true,
            progress: true,
            preview: true,
            letterbox: [0; 3],
            fit: Fit::default(),
        }
    }
}

/// A picture of RGB.
#[derive(Default)]
struct Image {
    size: (u32, u32),
    pixels: Vec<u8>,
}

/// A screen: what is on it, laid out.
pub struct Screen {
    look: Look,
    frame: Frame,
    face: Face,
    picture: Option<Image>,
    /// The picture in the size that it was shown in last.
    scaled: Image,
    preview: Option<Image>,
    caption: String,
    progress: Option<(usize, usize)>,
}

impl Screen {
    /// An empty screen of a size.
    pub fn new(size: (u32, u32), look: Look) -> Result<Self, DisplayError> {
        Ok(Self {
            look,
            frame: Frame::new(size)?,
            face: Face::for_screen(size),
            picture: None,
            scaled: Image::default(),
            preview: None,
            caption: String::new(),
            progress: None,
        })
    }

    /// What is to be seen.
    pub fn look(&self) -> &Look {
        &self.look
    }

    /// The picture: width, height and RGB, row by row. One whose size is not that of its pixels is left out.
    pub fn set_picture(&mut self, size: (u32, u32), pixels: &[u8]) {
        self.picture = image(size, pixels);
        self.scaled = Image::default();
    }

    /// The text below it; an empty one takes no room.
    pub fn set_caption(&mut self, caption: &str) {
        self.caption = plain(caption, CAPTION_CHARS);
    }

    /// How many steps of how many are done; `None` while nothing is drawn.
    pub fn set_progress(&mut self, progress: Option<(usize, usize)>) {
        self.progress = progress;
    }

    /// What the picture that is being drawn looks like; `None` of other pixels than its size says, and where there is none.
    pub fn set_preview(&mut self, preview: Option<((u32, u32), &[u8])>) {
        self.preview = preview
            .filter(|_| self.look.preview)
            .and_then(|(size, pixels)| image(size, pixels));
    }

    /// The most bytes that a screen of a size takes, with a picture and a preview of another.
    pub fn memory(size: (u32, u32), picture: (u32, u32)) -> u64 {
        let bytes = |(width, height): (u32, u32)| u64::from(width) * u64::from(height) * 3;
        // The frame and the picture scaled; both sources; and what the filter has in its hands, columns first.
        let columns = (size.0, picture.1);
        let rows = (picture.0.max(size.0), picture.1.max(size.1));
        // A PNG has its pixels and its file besides.
        bytes(size) * 5 + bytes(picture) * 3 + bytes(columns) + bytes(rows)
    }

    /// Lays everything out.
    pub fn compose(&mut self) -> &Frame {
        let (width, height) = self.frame.size();
        let letterbox = self.look.letterbox;
        let Ok(()) = self.frame.clear(color(letterbox));
        let unit = (width.min(height) / 160).max(1);
        let mut below = height;
        if self.look.progress {
            below -= unit.min(below);
            self.draw_progress(below, unit);
        }
        let (_, line) = self.face.cell();
        let lines = match self.look.caption && height >= 8 * line {
            true => self
                .face
                .lines(&self.caption, width - width.min(4 * unit), CAPTION_LINES),
            false => Vec::new(),
        };
        if !lines.is_empty() {
            let room = lines.len() as u32 * line + 2 * unit;
            below -= room.min(below);
            for (text, y) in lines.iter().zip((below + unit..).step_by(line as usize)) {
                let long = text.chars().count() as u32 * self.face.cell().0;
                let at = Point::new((width.saturating_sub(long) / 2) as i32, y as i32);
                self.face
                    .draw(&mut self.frame, text, at, contrast(letterbox));
            }
        }
        let room = (width, below.max(1));
        if let Some(picture) = &self.picture {
            let (size, part) = fitted(picture.size, room, self.look.fit);
            if self.scaled.size != size {
                self.scaled = Image {
                    size,
                    pixels: lanczos(&picture.pixels, 3, picture.size, part, size).into_owned(),
                };
            }
            let at = ((room.0 - size.0) as i32 / 2, (room.1 - size.1) as i32 / 2);
            Frame::lay(at, size, &self.scaled.pixels, &mut self.frame);
        }
        if let Some(preview) = &self.preview {
            let is_alone = self.picture.is_none();
            let share = if is_alone { 1 } else { PREVIEW_SHARE };
            let most = ((room.0 / share).max(1), (room.1 / share).max(1));
            let (size, part) = fitted(preview.size, most, Fit::Contain);
            let pixels = lanczos(&preview.pixels, 3, preview.size, part, size).into_owned();
            let at = match is_alone {
                true => ((room.0 - size.0) as i32 / 2, (room.1 - size.1) as i32 / 2),
                false => {
                    let left = room.0.saturating_sub(size.0 + 2 * unit) as i32;
                    let top = room.1.saturating_sub(size.1 + 2 * unit) as i32;
                    let edge = Size::new(size.0 + 2 * unit, size.1 + 2 * unit);
                    let corner = Point::new(left - unit as i32, top - unit as i32);
                    let edge = Rectangle::new(corner, edge);
                    let Ok(()) = self.frame.fill_solid(&edge, contrast(letterbox));
                    (left, top)
                }
            };
            Frame::lay(at, size, &pixels, &mut self.frame);
        }
        &self.frame
    }

    /// The line at the lower edge: what is done in the text's colour, the rest a quarter of it.
    fn draw_progress(&mut self, top: u32, unit: u32) {
        let Some((done, of)) = self.progress else {
            return;
        };
        let width = self.frame.size().0;
        let done = (u64::from(width) * done.min(of) as u64 / of.max(1) as u64) as u32;
        let line = |from: u32, to: u32| {
            Rectangle::new(
                Point::new(from as i32, top as i32),
                Size::new(to - from, unit),
            )
        };
        let text = contrast(self.look.letterbox);
        let behind = color(self.look.letterbox);
        let mix = |a: u8, b: u8| ((u16::from(a) + 3 * u16::from(b)) / 4) as u8;
        let rest = Rgb888::new(
            mix(text.r(), behind.r()),
            mix(text.g(), behind.g()),
            mix(text.b(), behind.b()),
        );
        let Ok(()) = self.frame.fill_solid(&line(0, done), text);
        let Ok(()) = self.frame.fill_solid(&line(done, width), rest);
    }
}

fn image(size: (u32, u32), pixels: &[u8]) -> Option<Image> {
    let bytes = u64::from(size.0) * u64::from(size.1) * 3;
    (bytes > 0 && bytes == pixels.len() as u64).then(|| Image {
        size,
        pixels: pixels.to_vec(),
    })
}

fn color([red, green, blue]: [u8; 3]) -> Rgb888 {
    Rgb888::new(red, green, blue)
}

/// White on what is dark, black on what is light.
fn contrast([red, green, blue]: [u8; 3]) -> Rgb888 {
    let luma = 299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue);
    match luma < 128_000 {
        true => Rgb888::WHITE,
        false => Rgb888::BLACK,
    }
}

/// The size that a picture is shown in, and the part of it that is.
fn fitted(own: (u32, u32), room: (u32, u32), fit: Fit) -> ((u32, u32), [f64; 4]) {
    let (w, h) = (f64::from(own.0), f64::from(own.1));
    let (room_w, room_h) = (f64::from(room.0), f64::from(room.1));
    match fit {
        Fit::Contain => {
            let scale = (room_w / w).min(room_h / h);
            let side = |own: f64, room: u32| (libm::round(own * scale) as u32).clamp(1, room);
            ((side(w, room.0), side(h, room.1)), [0.0, 0.0, w, h])
        }
        Fit::Cover => {
            let scale = (room_w / w).max(room_h / h);
            let (part_w, part_h) = ((room_w / scale).min(w), (room_h / scale).min(h));
            let (left, top) = ((w - part_w) / 2.0, (h - part_h) / 2.0);
            (room, [left, top, left + part_w, top + part_h])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(size: (u32, u32), look: Look) -> Screen {
        let mut screen = Screen::new(size, look).expect("a screen");
        screen.set_picture((2, 1), &[255, 0, 0, 255, 0, 0]);
        screen.set_caption("a red apple");
        screen.set_progress(Some((1, 2)));
        screen.set_preview(Some(((1, 1), &[0, 0, 255])));
        screen
    }

    /// Left, top, right and bottom of what has a colour.
    fn extent(frame: &Frame, color: [u8; 3]) -> Option<(u32, u32, u32, u32)> {
        let (width, height) = frame.size();
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        places
            .filter(|(x, y)| frame.at(*x, *y) == color)
            .fold(None, |found, (x, y)| {
                let (left, top, right, bottom) = found.unwrap_or((x, y, x, y));
                Some((left.min(x), top.min(y), right.max(x), bottom.max(y)))
            })
    }

    const RED: [u8; 3] = [255, 0, 0];
    const BLUE: [u8; 3] = [0, 0, 255];
    const WHITE: [u8; 3] = [255; 3];

    #[test]
    fn everything_can_be_turned_off() {
        let off = Look {
            caption: false,
            progress: false,
            preview: false,
            letterbox: [9, 8, 7],
            fit: Fit::Contain,
        };
        let mut bare = screen((320, 240), off.clone());
        let frame = bare.compose();
        assert_eq!(extent(frame, RED), Some((0, 40, 319, 199)));
        assert_eq!(extent(frame, BLUE), None);
        assert_eq!(extent(frame, WHITE), None);
        assert_eq!(extent(frame, [9, 8, 7]), Some((0, 0, 319, 239)));
        let with = |change: &dyn Fn(&mut Look)| {
            let mut look = off.clone();
            change(&mut look);
            screen((320, 240), look).compose().clone()
        };
        let frame = with(&|look| look.fit = Fit::Cover);
        assert_eq!(extent(&frame, RED), Some((0, 0, 319, 239)));
        // Half of a line of one pixel.
        let frame = with(&|look| look.progress = true);
        assert_eq!(extent(&frame, WHITE), Some((0, 239, 159, 239)));
        let frame = with(&|look| look.caption = true);
        let (left, top, right, bottom) = extent(&frame, WHITE).expect("a text");
        assert!(left > 90 && right < 230 && top > 215 && bottom < 240);
        let frame = with(&|look| look.preview = true);
        assert_eq!(extent(&frame, BLUE), Some((238, 158, 317, 237)));
        let light = with(&|look| (look.caption, look.letterbox) = (true, [255; 3]));
        assert!(extent(&light, [0; 3]).is_some());
    }

    #[test]
    fn screens_of_any_size_are_filled() {
        for size in [(1, 1), (1, 50), (16, 4), (128, 64), (600, 20), (1080, 1920)] {
            let mut screen = screen(size, Look::default());
            assert_eq!(screen.compose().size(), size);
            screen.set_preview(None);
            screen.set_caption(&"long ".repeat(100));
            assert_eq!(screen.compose().size(), size);
        }
        assert!(Screen::new((0, 5), Look::default()).is_err());
        assert!(Screen::new((1 << 15, 1), Look::default()).is_err());
        // Nothing to be seen yet but a preview, in the picture's place; pixels that are too few are none.
        let mut screen = Screen::new((200, 200), Look::default()).expect("a screen");
        screen.set_picture((5, 5), &[0; 74]);
        screen.set_preview(Some(((1, 1), &BLUE)));
        assert_eq!(extent(screen.compose(), BLUE), Some((0, 0, 198, 198)));
    }
}
