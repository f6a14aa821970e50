//! Pictures along one or two options, beside each other in one labelled picture.

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::FONT_9X15;
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Alignment, Baseline, Text};

use super::options::Said;
use crate::cli::error::CliError;

/// The most pictures of a grid, and the most pixels of the whole.
const MAX_CELLS: usize = 1024;
const MAX_PIXELS: u64 = 1 << 27;
/// Between pictures, and around labels.
const GAP: u32 = 4;
/// The widest that labels beside rows may make the picture wider.
const MAX_LABEL: u32 = 360;

/// An option and the values that it takes in turn.
#[derive(Clone, Debug)]
pub struct Axis {
    name: String,
    values: Vec<String>,
}

impl Axis {
    /// `NAME=VALUE,VALUE`. A comma that belongs to a value has a backslash before it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, list) = text
            .split_once('=')
            .ok_or("expected NAME=VALUE,VALUE such as sampler=ddim,euler")?;
        let name = name.trim().replace('_', "-");
        Said::check_name(&name)?;
        if ["count", "output"].contains(&name.as_str()) {
            return Err(format!("`{name}` is no option that a grid can go along"));
        }
        let mut values = vec![String::new()];
        let mut characters = list.chars().peekable();
        while let Some(c) = characters.next() {
            let last = values.len() - 1;
            match c {
                '\\' if characters.next_if_eq(&',').is_some() => values[last].push(','),
                ',' => values.push(String::new()),
                _ => values[last].push(c),
            }
        }
        if values.len() > MAX_CELLS {
            return Err(format!("more than {MAX_CELLS} values"));
        }
        Ok(Axis { name, values })
    }

    fn label(&self, index: usize) -> String {
        format!("{}: {}", self.name, self.values[index].trim())
    }
}

/// The axes of a grid: from left to right, then from top to bottom.
pub struct Grid<'a> {
    across: &'a Axis,
    down: Option<&'a Axis>,
}

impl<'a> Grid<'a> {
    pub fn new(axes: &'a [Axis]) -> Result<Self, CliError> {
        let (across, down) = match axes {
            [across] => (across, None),
            [across, down] if across.name != down.name => (across, Some(down)),
            [across, _] => {
                let name = &across.name;
                return Err(CliError::Usage(format!("--grid: both go along {name}")));
            }
            _ => return Err(CliError::Usage("--grid: a picture has two axes".into())),
        };
        let grid = Grid { across, down };
        let cells = grid.columns() * grid.rows();
        match cells > MAX_CELLS {
            true => Err(CliError::Usage(format!(
                "--grid: {cells} pictures, {MAX_CELLS} are the most"
            ))),
            false => Ok(grid),
        }
    }

    fn columns(&self) -> usize {
        self.across.values.len()
    }

    fn rows(&self) -> usize {
        self.down.map_or(1, |down| down.values.len())
    }

    /// The options of each picture, row by row.
    pub fn cells(&self, said: &Said) -> Vec<Said> {
        let mut cells = Vec::new();
        for row in 0..self.rows() {
            for value in &self.across.values {
                let mut cell = said.clone();
                cell.say(&self.across.name, value.trim());
                if let Some(down) = self.down {
                    cell.say(&down.name, down.values[row].trim());
                }
                cells.push(cell);
            }
        }
        cells
    }
}

/// The grid's picture, filled cell by cell.
pub struct Sheet {
    columns: usize,
    cell: (u32, u32),
    origin: (u32, u32),
    canvas: Canvas,
}

impl Sheet {
    /// A white sheet with its labels, for pictures no larger than `cell`.
    pub fn new(grid: &Grid<'_>, cell: (u32, u32)) -> Result<Self, CliError> {
        let font = FONT_9X15.character_size;
        let rows: Vec<String> = match grid.down {
            Some(down) => (0..grid.rows()).map(|row| down.label(row)).collect(),
            None => Vec::new(),
        };
        let longest = rows.iter().map(|label| label.chars().count() as u32).max();
        let left = longest.map_or(0, |len| (len * font.width).min(MAX_LABEL) + 2 * GAP);
        let top = font.height + 2 * GAP;
        let side = |origin: u32, cell: u32, count: usize| {
            u64::from(origin) + (u64::from(cell) + u64::from(GAP)) * count as u64
        };
        let (width, height) = (
            side(left, cell.0, grid.columns()),
            side(top, cell.1, grid.rows()),
        );
        if width * height > MAX_PIXELS {
            return Err(CliError::Usage(format!(
                "--grid: a picture of {width}x{height}, {MAX_PIXELS} pixels are the most"
            )));
        }
        let mut sheet = Sheet {
            columns: grid.columns(),
            cell,
            origin: (left, top),
            canvas: Canvas {
                size: Size::new(width as u32, height as u32),
                pixels: vec![255; (width * height * 3) as usize],
            },
        };
        for column in 0..grid.columns() {
            let (x, _) = sheet.place(column);
            let label = fitting(&grid.across.label(column), cell.0 / font.width);
            sheet.write(&label, (x + cell.0 / 2, GAP), Alignment::Center);
        }
        for (row, label) in rows.iter().enumerate() {
            let (_, y) = sheet.place(row * sheet.columns);
            let label = fitting(label, MAX_LABEL / font.width);
            let middle = y + cell.1.saturating_sub(font.height) / 2;
            sheet.write(&label, (left - GAP, middle), Alignment::Right);
        }
        Ok(sheet)
    }

    /// Where a cell's picture lies.
    fn place(&self, index: usize) -> (u32, u32) {
        let (column, row) = ((index % self.columns) as u32, (index / self.columns) as u32);
        (
            self.origin.0 + column * (self.cell.0 + GAP),
            self.origin.1 + row * (self.cell.1 + GAP),
        )
    }

    fn write(&mut self, text: &str, (x, y): (u32, u32), alignment: Alignment) {
        let style = MonoTextStyle::new(&FONT_9X15, Rgb888::BLACK);
        let at = Point::new(x as i32, y as i32);
        let mut text = Text::with_baseline(text, at, style, Baseline::Top);
        text.text_style.alignment = alignment;
        // A canvas of memory takes everything.
        let Ok(_) = text.draw(&mut self.canvas);
    }

    /// Puts a picture into its cell.
    pub fn put(&mut self, index: usize, (width, height): (u32, u32), pixels: &[u8]) {
        let (x, y) = self.place(index);
        let (width, whole) = (width.min(self.cell.0) as usize * 3, width as usize * 3);
        for row in 0..height.min(self.cell.1) {
            let from = &pixels[row as usize * whole..][..width];
            let at = ((y + row) as usize * self.canvas.size.width as usize + x as usize) * 3;
            self.canvas.pixels[at..at + width].copy_from_slice(from);
        }
    }

    pub fn size(&self) -> (u32, u32) {
        (self.canvas.size.width, self.canvas.size.height)
    }

    pub fn pixels(&self) -> &[u8] {
        &self.canvas.pixels
    }
}

/// A label of at most `most` characters.
fn fitting(label: &str, most: u32) -> String {
    let most = most as usize;
    match label.chars().count() > most {
        true => label
            .chars()
            .take(most.saturating_sub(2))
            .chain("..".chars())
            .collect(),
        false => label.to_owned(),
    }
}

/// A picture that can be drawn on.
struct Canvas {
    size: Size,
    pixels: Vec<u8>,
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        self.size
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Self::Error>
    where
        I: IntoIterator<Item = Pixel<Self::Color>>,
    {
        let bounds = self.bounding_box();
        for Pixel(at, color) in pixels
            .into_iter()
            .filter(|Pixel(at, _)| bounds.contains(*at))
        {
            let index = at.y as usize * self.size.width as usize + at.x as usize;
            let bytes = [color.r(), color.g(), color.b()];
            self.pixels[index * 3..][..3].copy_from_slice(&bytes);
        }
        Ok(())
    }
}
