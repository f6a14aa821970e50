//! Text on a screen: fonts of a fixed width, enlarged by whole numbers.
//!
//! `embedded-graphics` has the characters of the ISO 8859 family: Latin with every accent of Europe, Greek and Cyrillic. Accents that
//! come as characters of their own are put together with their letters first; what no font has is a question mark.

use embedded_graphics::mono_font::{
    MonoFont, MonoTextStyle, iso_8859_1, iso_8859_2, iso_8859_3, iso_8859_4, iso_8859_5,
    iso_8859_7, iso_8859_9, iso_8859_10, iso_8859_14, iso_8859_16, mapping::Mapping,
};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::text::{Baseline, Text};
use unicode_normalization_alignments::UnicodeNormalization;

/// The characters of a set, and fonts of 6x10 and 10x20 pixels.
type Set = (
    Mapping,
    &'static MonoFont<'static>,
    &'static MonoFont<'static>,
);

macro_rules! sets {
    ($($mapping:ident $module:ident),*) => {
        [$((Mapping::$mapping, &$module::FONT_6X10, &$module::FONT_10X20)),*]
    };
}

const SETS: [Set; 10] = sets![
    Iso8859_1 iso_8859_1, Iso8859_2 iso_8859_2, Iso8859_16 iso_8859_16, Iso8859_9 iso_8859_9, Iso8859_4 iso_8859_4,
    Iso8859_3 iso_8859_3, Iso8859_10 iso_8859_10, Iso8859_14 iso_8859_14, Iso8859_5 iso_8859_5, Iso8859_7 iso_8859_7
];

/// A size of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Face {
    is_small: bool,
    factor: u32,
}

impl Face {
    /// One that can be read on a screen of the size from where its picture is looked at.
    pub(super) fn for_screen((width, height): (u32, u32)) -> Self {
        let side = width.min(height);
        Self {
            is_small: side < 200,
            factor: (side / 480).max(1),
        }
    }

    /// Width and height of a character, in pixels.
    pub(super) fn cell(self) -> (u32, u32) {
        let (width, height) = if self.is_small { (6, 10) } else { (10, 20) };
        (width * self.factor, height * self.factor)
    }

    /// A text as lines of so many pixels, broken between words; of what needs more than `most` lines the rest is dots.
    pub(super) fn lines(self, text: &str, width: u32, most: usize) -> Vec<String> {
        let columns = (width / self.cell().0) as usize;
        let mut lines: Vec<String> = Vec::new();
        if columns < 4 || most == 0 {
            return lines;
        }
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        let mut line = String::new();
        let mut len = 0;
        let mut is_cut = false;
        'all: for word in words.by_ref() {
            let mut word: Vec<char> = word.chars().collect();
            loop {
                let gap = usize::from(len > 0);
                if len + gap + word.len() <= columns {
                    line.extend(std::iter::repeat_n(' ', gap));
                    line.extend(&word);
                    len += gap + word.len();
                    break;
                }
                // A word that no line holds is broken.
                if len == 0 {
                    line.extend(word.drain(..columns));
                }
                lines.push(std::mem::take(&mut line));
                len = 0;
                if lines.len() == most {
                    is_cut = true;
                    break 'all;
                }
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
        if let (true, Some(last)) = (is_cut, lines.last_mut()) {
            let keep = last.chars().count().min(columns - 3);
            *last = last.chars().take(keep).chain("...".chars()).collect();
        }
        lines
    }

    /// Draws a line of text with its top left at a place.
    pub(super) fn draw<T>(self, target: &mut T, line: &str, at: Point, color: Rgb888)
    where
        T: DrawTarget<Color = Rgb888>,
    {
        let width = self.cell().0 as i32;
        for (c, i) in line.chars().zip(0..) {
            let font = self.font(c);
            let mut large = Enlarged {
                target,
                at: at + Point::new(i * width, 0),
                factor: self.factor,
            };
            let mut buffer = [0; 4];
            let text = c.encode_utf8(&mut buffer);
            let style = MonoTextStyle::new(font, color);
            // A frame takes every pixel.
            let _ = Text::with_baseline(text, Point::zero(), style, Baseline::Top).draw(&mut large);
        }
    }

    fn font(self, c: char) -> &'static MonoFont<'static> {
        let set = SETS.iter().find(|set| has(set, c)).unwrap_or(&SETS[0]);
        if self.is_small { set.1 } else { set.2 }
    }
}

fn has(set: &Set, c: char) -> bool {
    set.0.glyph_mapping().contains(c)
}

/// A text in characters that the fonts have: on one line, accents with their letters, and typographers' marks as typewriters have
/// them. No more than so many characters are looked at.
pub(super) fn plain(text: &str, most: usize) -> String {
    let mut plain = String::new();
    for (c, _) in text.chars().take(most).nfc() {
        match c {
            c if c.is_whitespace() || c.is_control() => plain.push(' '),
            '\u{2018}' | '\u{2019}' => plain.push('\''),
            '\u{201c}' | '\u{201d}' | '\u{201e}' => plain.push('"'),
            '\u{2010}'..='\u{2015}' => plain.push('-'),
            '\u{2026}' => plain.push_str("..."),
            '\u{200b}'..='\u{200f}' | '\u{fe0f}' | '\u{feff}' => {}
            c if SETS.iter().any(|set| has(set, c)) => plain.push(c),
            _ => plain.push('?'),
        }
    }
    plain
}

/// Pixels as squares of `factor` pixels, from a place on.
struct Enlarged<'a, T> {
    target: &'a mut T,
    at: Point,
    factor: u32,
}

impl<T: DrawTarget> Dimensions for Enlarged<'_, T> {
    fn bounding_box(&self) -> Rectangle {
        let whole = self.target.bounding_box();
        Rectangle::new(Point::zero(), whole.size / self.factor)
    }
}

impl<T: DrawTarget> DrawTarget for Enlarged<'_, T> {
    type Color = T::Color;
    type Error = T::Error;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), T::Error>
    where
        I: IntoIterator<Item = Pixel<T::Color>>,
    {
        for Pixel(point, color) in pixels {
            let corner = self.at + point * self.factor as i32;
            let area = Rectangle::new(corner, Size::new_equal(self.factor));
            self.target.fill_solid(&area, color)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::Frame;

    #[test]
    fn latin_greek_and_cyrillic_are_there() {
        let all =
            "àéîõü ÆØÅ ßñç ąćęłńóśźż čďěňřšťůž őű ăâîșț ğışİ āēģīķļņūž ċġħż ĉĝĥĵŝŭ ŵŷ αβγ абвг";
        assert_eq!(plain(all, 1000), all);
        // Composed and decomposed are one.
        assert_eq!(plain("e\u{301}a\u{30a}C\u{30c}", 9), "éåČ");
        assert_eq!(
            plain("a\tb\nc \u{2019}x\u{2019} \u{2014} \u{2026} 猫\u{fe0f}", 99),
            "a b c 'x' - ... ?"
        );
        assert_eq!(plain(&"a".repeat(100), 7), "aaaaaaa");
        // They are not all the same question mark.
        let drawn = |text: &str| {
            let mut frame = Frame::new((40, 40)).expect("a frame");
            Face::for_screen((1000, 1000)).draw(&mut frame, text, Point::zero(), Rgb888::WHITE);
            frame.pixels().to_vec()
        };
        let pictures: Vec<_> = ["?", "é", "è", "ł", "ő", "ğ", "ж"].map(drawn).into();
        for (i, picture) in pictures.iter().enumerate() {
            assert!(!pictures[..i].contains(picture));
        }
        // Twice as large: squares of two pixels.
        let rows = pictures[1].chunks_exact(40 * 3);
        for pair in rows.collect::<Vec<_>>().chunks_exact(2) {
            assert_eq!(pair[0], pair[1]);
        }
    }

    #[test]
    fn lines_are_broken_between_words() {
        let face = Face::for_screen((100, 100));
        assert_eq!(face.cell(), (6, 10));
        let lines = |text, columns: u32, most| face.lines(text, columns * 6, most);
        assert_eq!(lines("a red apple", 11, 2), ["a red apple"]);
        assert_eq!(lines("a red apple", 10, 2), ["a red", "apple"]);
        assert_eq!(
            lines("a red apple on a table", 10, 2),
            ["a red", "apple o..."]
        );
        assert_eq!(lines("lighthouses", 4, 3), ["ligh", "thou", "ses"]);
        assert_eq!(lines("lighthouses at sea", 4, 1), ["l..."]);
        assert!(
            lines("", 10, 2).is_empty()
                && lines("a", 3, 2).is_empty()
                && lines("a", 9, 0).is_empty()
        );
    }
}
