//! Pixels in memory.

use std::convert::Infallible;

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;

use super::DisplayError;

/// The longest side of a frame.
const MAX_SIDE: u32 = 1 << 14;
/// The most pixels of a frame.
const MAX_PIXELS: u64 = 1 << 26;

/// A screen's pixels: red, green and blue, row by row from the top left. `embedded-graphics` draws on it.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Frame {
    /// A black frame. Fails before memory is taken if it has no pixels, or more than any screen.
    pub fn new((width, height): (u32, u32)) -> Result<Self, DisplayError> {
        check_size(width, height)?;
        Ok(Self {
            width,
            height,
            pixels: vec![0; width as usize * height as usize * 3],
        })
    }

    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Red, green and blue of each pixel.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// A pixel that there is.
    pub(super) fn at(&self, x: u32, y: u32) -> [u8; 3] {
        let at = (y as usize * self.width as usize + x as usize) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// Lays a picture of RGB over it; what is outside is left out.
    pub(super) fn lay((left, top): (i32, i32), size: (u32, u32), pixels: &[u8], onto: &mut Self) {
        let area = Rectangle::new(Point::new(left, top), Size::new(size.0, size.1));
        let colors = pixels.as_chunks::<3>().0.iter();
        let colors = colors.map(|&[red, green, blue]| Rgb888::new(red, green, blue));
        let Ok(()) = onto.fill_contiguous(&area, colors);
    }
}

/// Fails where a frame of the size would not be made.
pub(super) fn check_size(width: u32, height: u32) -> Result<(), DisplayError> {
    let pixels = u64::from(width) * u64::from(height);
    match width <= MAX_SIDE && height <= MAX_SIDE && (1..=MAX_PIXELS).contains(&pixels) {
        true => Ok(()),
        false => Err(DisplayError::Geometry {
            width,
            height,
            stride: None,
            reason: format!("1 to {MAX_SIDE} pixels on a side and {MAX_PIXELS} in all expected"),
        }),
    }
}

impl OriginDimensions for Frame {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Frame {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        for Pixel(point, color) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(point.x), usize::try_from(point.y)) else {
                continue;
            };
            if x < self.width as usize && y < self.height as usize {
                let at = (y * self.width as usize + x) * 3;
                self.pixels[at..at + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, color: Rgb888) -> Result<(), Infallible> {
        let area = area.intersection(&self.bounding_box());
        let color = [color.r(), color.g(), color.b()];
        let (left, columns) = (area.top_left.x as usize, area.size.width as usize);
        for y in area.rows() {
            let start = (y as usize * self.width as usize + left) * 3;
            for pixel in self.pixels[start..start + columns * 3].as_chunks_mut().0 {
                *pixel = color;
            }
        }
        Ok(())
    }
}
