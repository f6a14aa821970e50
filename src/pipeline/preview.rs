//! What latents will look like, roughly: a linear map from their channels to colours, which the compiler has fitted to the
//! model's own decoder.

use super::Kiln;

/// Latents that deviate more from zero than this are mostly noise of a sampler that works in its own scale.
const LARGEST_DEVIATION: f64 = 1.5;

impl Kiln {
    /// A preview of `[channels, height, width]` latents, as RGB of a picture of `width` by `height` pixels whose every
    /// pixel of the latents is a square. `None` if the package has no map or the numbers do not fit it.
    ///
    /// Latents of a sampler whose noise is larger than 1 are scaled down to 1 first.
    pub fn preview(&self, latents: &[f32], (width, height): (u32, u32)) -> Option<Vec<u8>> {
        let map = self.card.preview.as_ref()?;
        let (offset, rows) = map.split_last()?;
        let (width, height) = (width as usize, height as usize);
        let pixels = latents.len().checked_div(rows.len())?;
        let side = (1..=64).find(|side| {
            width.is_multiple_of(*side)
                && height.is_multiple_of(*side)
                && (width / side) * (height / side) == pixels
        })?;
        let square: f64 = latents.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let deviation = libm::sqrt(square / latents.len().max(1) as f64);
        let scale = match deviation > LARGEST_DEVIATION {
            true => (1.0 / deviation) as f32,
            false => 1.0,
        };
        let colors: Vec<[u8; 3]> = (0..pixels)
            .map(|pixel| {
                std::array::from_fn(|color| {
                    let sum = rows
                        .iter()
                        .enumerate()
                        .fold(offset[color], |sum, (channel, row)| {
                            sum + row[color] * scale * latents[channel * pixels + pixel]
                        });
                    ((sum / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0) as u8
                })
            })
            .collect();
        let places = (0..height)
            .flat_map(|y| (0..width).map(move |x| (y / side) * (width / side) + x / side));
        Some(places.flat_map(|place| colors[place]).collect())
    }
}
