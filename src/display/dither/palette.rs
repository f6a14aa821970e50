//! Displays of a few colours.

use std::sync::OnceLock;

use super::mask::MASK_SIDE;

/// The most colours of a palette.
const MOST: usize = 16;
/// Colours that a pixel's is mixed of, where there are more than two.
const MIXED: usize = 16;
/// One, in linear light.
const ONE: i32 = 65_535;

/// A few colours, as sRGB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Palette(Vec<[u8; 3]>);

impl Palette {
    /// 2 to 16 colours; `None` of any other number.
    pub fn new(colors: &[[u8; 3]]) -> Option<Self> {
        (2..=MOST)
            .contains(&colors.len())
            .then(|| Self(colors.to_vec()))
    }

    /// One bit.
    pub fn black_and_white() -> Self {
        Self(vec![[0; 3], [255; 3]])
    }

    /// Advanced Color ePaper of seven pigments: black, white, green, blue, red, yellow, orange, in the order of the codes that its
    /// controllers take (0 to 6).
    pub fn acep() -> Self {
        Self(vec![
            [0, 0, 0],
            [255, 255, 255],
            [0, 255, 0],
            [0, 0, 255],
            [255, 0, 0],
            [255, 255, 0],
            [255, 128, 0],
        ])
    }

    /// The colours, as they were given.
    pub fn colors(&self) -> &[[u8; 3]] {
        &self.0
    }
}

/// Finds colours of a palette in linear light.
pub(super) struct Mixer<'a> {
    palette: &'a Palette,
    linear: Vec<[i32; 3]>,
    /// The colour that was mixed last, and what of.
    last: Option<([u8; 3], [u8; MIXED])>,
}

impl<'a> Mixer<'a> {
    pub(super) fn new(palette: &'a Palette) -> Self {
        let linear = palette.0.iter().map(|color| Self::linear(*color));
        Self {
            palette,
            linear: linear.collect(),
            last: None,
        }
    }

    /// A colour in linear light, 0 to 65535 (IEC 61966-2-1).
    pub(super) fn linear(color: [u8; 3]) -> [i32; 3] {
        static TABLE: OnceLock<[i32; 256]> = OnceLock::new();
        let table = TABLE.get_or_init(|| {
            std::array::from_fn(|byte| {
                let value = byte as f64 / 255.0;
                let light = match value <= 0.04045 {
                    true => value / 12.92,
                    false => libm::pow((value + 0.055) / 1.055, 2.4),
                };
                libm::round(light * f64::from(ONE)) as i32
            })
        });
        color.map(|byte| table[usize::from(byte)])
    }

    pub(super) fn color(&self, index: u8) -> [u8; 3] {
        self.palette.0[usize::from(index)]
    }

    /// The colour nearest in linear light, channels weighed roughly as the eye does; the first of equals.
    pub(super) fn nearest(&self, wanted: [i32; 3]) -> u8 {
        let distance = |color: &[i32; 3]| -> i64 {
            let square = |i: usize| i64::from(wanted[i] - color[i]).pow(2);
            3 * square(0) + 6 * square(1) + square(2)
        };
        let colors = self.linear.iter().enumerate();
        let nearest = colors.min_by_key(|(_, color)| distance(color));
        nearest.map_or(0, |(index, _)| index as u8)
    }

    /// A pixel by error diffusion. What no mixture of the colours gives would pile up: it is cut off at half a step beyond black and
    /// white.
    pub(super) fn diffused(&self, pixel: [u8; 3], errors: [i32; 3]) -> ([u8; 3], [i32; 3]) {
        let light = Self::linear(pixel);
        let wanted: [i32; 3] =
            std::array::from_fn(|i| (light[i] + errors[i]).clamp(-ONE / 2, ONE + ONE / 2));
        let index = self.nearest(wanted);
        let color = self.linear[usize::from(index)];
        (
            self.color(index),
            std::array::from_fn(|i| wanted[i] - color[i]),
        )
    }

    /// A pixel by the mask's rank there.
    pub(super) fn chosen(&mut self, pixel: [u8; 3], rank: u32) -> u8 {
        let elements = (MASK_SIDE * MASK_SIDE) as u32;
        if let [dark, light] = self.linear[..] {
            return self.one_of_two(Self::linear(pixel), dark, light, rank, elements);
        }
        let mixture = match self.last {
            Some((color, mixture)) if color == pixel => mixture,
            _ => {
                let mixture = self.mixture(pixel);
                self.last = Some((pixel, mixture));
                mixture
            }
        };
        mixture[(rank * MIXED as u32 / elements) as usize]
    }

    /// How far from the first towards the second a colour lies is the share of elements that take the second.
    fn one_of_two(
        &self,
        wanted: [i32; 3],
        first: [i32; 3],
        second: [i32; 3],
        rank: u32,
        elements: u32,
    ) -> u8 {
        let weights = [2126, 7152, 722];
        let sum = |f: &dyn Fn(usize) -> i64| (0..3).map(|i| weights[i] * f(i)).sum::<i64>();
        let across = |i: usize| i64::from(second[i] - first[i]);
        let along = sum(&|i| i64::from(wanted[i] - first[i]) * across(i));
        let whole = sum(&|i| across(i) * across(i)).max(1);
        u8::from(along * i64::from(2 * elements) > i64::from(2 * rank + 1) * whole)
    }

    /// Colours whose mean is a pixel's, or near it, from dark to light: each is the nearest to what those before it left over
    /// (Knoll's pattern dithering, US patent 6606166, expired).
    fn mixture(&self, pixel: [u8; 3]) -> [u8; MIXED] {
        let light = Self::linear(pixel);
        let mut left = [0; 3];
        let mut mixture = [0; MIXED];
        for index in &mut mixture {
            let wanted: [i32; 3] =
                std::array::from_fn(|i| (light[i] + left[i]).clamp(-ONE, 2 * ONE));
            *index = self.nearest(wanted);
            let color = self.linear[usize::from(*index)];
            left = std::array::from_fn(|i| wanted[i] - color[i]);
        }
        mixture.sort_by_key(|index| {
            let [red, green, blue] = self.linear[usize::from(*index)].map(i64::from);
            (2126 * red + 7152 * green + 722 * blue, *index)
        });
        mixture
    }
}
