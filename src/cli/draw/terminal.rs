//! Pictures in a terminal: by kitty's graphics protocol where the terminal says that it has it, else by half blocks, two
//! pixels a character.

use std::io::{self, IsTerminal, Write};

/// Columns of a picture of half blocks, and rows.
const COLUMNS: u32 = 64;
const ROWS: u32 = 32;

/// Standard error as a place for pictures.
pub struct Screen {
    kitty: bool,
    is_terminal: bool,
    /// Lines of the last picture, which the next one is drawn over.
    lines: u32,
}

impl Screen {
    pub fn new() -> Self {
        let says = |name: &str, values: &[&str]| {
            std::env::var(name).is_ok_and(|found| values.iter().any(|value| found.contains(value)))
        };
        Screen {
            kitty: says("TERM", &["kitty", "ghostty"])
                || says("TERM_PROGRAM", &["WezTerm", "ghostty"]),
            is_terminal: io::stderr().is_terminal(),
            lines: 0,
        }
    }

    /// Whether pictures can be drawn over each other.
    pub fn is_live(&self) -> bool {
        self.is_terminal
    }

    /// Shows a picture of RGB, over the last one where that is possible.
    pub fn show(&mut self, size: (u32, u32), pixels: &[u8]) {
        let (width, height) = fitted(size);
        let mut text = String::new();
        if self.lines > 0 && self.is_terminal {
            text.push_str(&format!("\x1b[{}A\r", self.lines));
        }
        match self.kitty {
            true => kitty(&mut text, size, pixels, (width, height / 2)),
            false => half_blocks(
                &mut text,
                (width, height),
                &shrunk(size, pixels, (width, height)),
            ),
        }
        self.lines = height / 2;
        // Where standard error is gone, nobody looks.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// The largest size with a picture's shape; the height is even.
fn fitted((width, height): (u32, u32)) -> (u32, u32) {
    let (w, h) = (u64::from(width.max(1)), u64::from(height.max(1)));
    let (most_w, most_h) = (u64::from(COLUMNS), u64::from(2 * ROWS));
    let (w, h) = match w * most_h > h * most_w {
        true => (most_w, h * most_w / w),
        false => (w * most_h / h, most_h),
    };
    (w.max(1) as u32, (h as u32).next_multiple_of(2).max(2))
}

/// The mean of the pixels under each new one.
fn shrunk((width, height): (u32, u32), pixels: &[u8], (w, h): (u32, u32)) -> Vec<u8> {
    let span = |i: u32, from: u32, to: u32| {
        let at = |i: u32| (u64::from(i) * u64::from(from) / u64::from(to)) as u32;
        let start = at(i).min(from - 1);
        start..at(i + 1).clamp(start + 1, from)
    };
    let mut out = Vec::with_capacity((w * h * 3) as usize);
    for y in 0..h {
        for x in 0..w {
            let (rows, columns) = (span(y, height, h), span(x, width, w));
            let count = rows.len() as u64 * columns.len() as u64;
            let mut sums = [0_u64; 3];
            for (row, column) in rows.flat_map(|row| columns.clone().map(move |c| (row, c))) {
                let at = (row as usize * width as usize + column as usize) * 3;
                for (sum, byte) in sums.iter_mut().zip(&pixels[at..at + 3]) {
                    *sum += u64::from(*byte);
                }
            }
            out.extend(sums.map(|sum| (sum / count) as u8));
        }
    }
    out
}

/// `U+2580`, whose upper half has the foreground's colour and whose lower half the background's.
fn half_blocks(text: &mut String, (width, height): (u32, u32), pixels: &[u8]) {
    let color = |x: u32, y: u32| {
        let at = (y * width + x) as usize * 3;
        format!("{};{};{}", pixels[at], pixels[at + 1], pixels[at + 2])
    };
    for y in (0..height).step_by(2) {
        for x in 0..width {
            let (upper, lower) = (color(x, y), color(x, y + 1));
            text.push_str(&format!("\x1b[38;2;{upper}m\x1b[48;2;{lower}m\u{2580}"));
        }
        text.push_str("\x1b[0m\n");
    }
}

/// Transmits RGB and displays it in so many columns and rows.
fn kitty(
    text: &mut String,
    (width, height): (u32, u32),
    pixels: &[u8],
    (columns, rows): (u32, u32),
) {
    let encoded = base64::encode(pixels);
    let mut pieces = encoded.as_bytes().chunks(4096).peekable();
    let mut keys = format!("a=T,i=1,q=2,f=24,s={width},v={height},c={columns},r={rows},C=1,");
    while let Some(piece) = pieces.next() {
        let more = u8::from(pieces.peek().is_some());
        let piece = String::from_utf8_lossy(piece);
        text.push_str(&format!("\x1b_G{keys}m={more};{piece}\x1b\\"));
        keys.clear();
    }
    text.push_str(&"\n".repeat(rows as usize));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_fit_and_keep_their_colours() {
        assert_eq!(fitted((512, 512)), (64, 64));
        assert_eq!(fitted((96, 64)), (64, 42));
        assert_eq!(fitted((8, 80_000)), (1, 64));
        let pixels = [[255, 0, 0], [0, 0, 255]].repeat(8).concat();
        assert_eq!(
            shrunk((2, 8), &pixels, (2, 2)),
            [255, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0, 255]
        );
        assert_eq!(shrunk((2, 8), &pixels, (1, 1)), [127, 0, 127]);
        assert_eq!(shrunk((1, 1), &[1, 2, 3], (2, 1)), [1, 2, 3, 1, 2, 3]);
        let mut text = String::new();
        half_blocks(&mut text, (1, 2), &[1, 2, 3, 4, 5, 6]);
        assert_eq!(text, "\x1b[38;2;1;2;3m\x1b[48;2;4;5;6m\u{2580}\x1b[0m\n");
        let mut text = String::new();
        kitty(&mut text, (64, 64), &vec![0; 64 * 64 * 3], (64, 32));
        assert_eq!(text.matches("\x1b_G").count(), 4);
        assert!(
            text.starts_with("\x1b_Ga=T,") && text.contains(",m=1;") && text.contains("\x1b_Gm=0;")
        );
    }
}
