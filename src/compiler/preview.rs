//! A linear map from a latent's channels to colours, for previews: what the model's own decoder makes of latents, as nearly as
//! a pixel of the latent can tell by itself.

use crate::cancel::Cancel;
use crate::frontend::Checkpoint;
use crate::graph::{Graph, Tensor};
use crate::quantize::evaluate::{Evaluator, Numbers};
use crate::quantize::{LARGEST_LATENT, QuantizeError, calibrate};

/// Smooth pictures that the map is fitted to.
const PICTURES: u64 = 2;
/// A share of the mean square that keeps the map of channels that say nothing at zero.
const RIDGE: f64 = 1e-6;

/// Fits the map by least squares: red, green and blue of each channel, then what is added. Latents are as the sampler has
/// them, colours from -1 to 1.
///
/// The latents are those that the encoder makes of pictures whose colours change slowly, or smooth random ones where the
/// model has no encoder; each pixel is held against the mean of what the decoder makes of it. All of it is the same on
/// every machine. `None` if the decoder's output is no such picture or is not finite.
pub fn fit(model: &Checkpoint, cancel: &Cancel) -> Result<Option<Vec<[f64; 3]>>, QuantizeError> {
    let evaluator = Evaluator::new().cancelled_by(cancel);
    let run = |graph: &Graph, inputs: &[Vec<Tensor>]| {
        evaluator.run_all(graph, inputs, Numbers::Exact, &mut |_| ())
    };
    let size = model.latent.map(|n| n.min(LARGEST_LATENT));
    let factor = model.vae_factor;
    let scale = model.card.vae_scaling_factor;
    let decoder = model.vae_decoder.resized(size)?;
    let latents = match &model.vae_encoder {
        Some(encoder) => {
            let encoder = encoder.resized(size.map(|n| n * factor))?;
            let paintings = calibrate::paintings(&encoder, factor, PICTURES);
            let channels = model.card.latent_channels;
            let latents = |outputs: Vec<Tensor>| {
                let first = outputs.into_iter().take(1);
                first.map(|output| means(output, channels)).collect()
            };
            run(&encoder, &paintings)?
                .into_iter()
                .map(latents)
                .collect()
        }
        None => calibrate::pictures(&decoder, 1.0 / scale as f32, f32::MAX, PICTURES),
    };
    let latents: Vec<Vec<Tensor>> = latents;
    let first = latents.first().and_then(|latent| latent.first());
    let Some(channels) = first.and_then(|latent| latent.shape.last().copied()) else {
        return Ok(None);
    };
    let mut sums = Sums::new(channels + 1);
    let pictures = run(&decoder, &latents)?;
    for (latent, pictures) in latents.iter().zip(&pictures) {
        let (Some(latent), Some(picture)) = (latent.first(), pictures.first()) else {
            return Ok(None);
        };
        let [h, w] = size;
        if picture.shape != [h * factor, w * factor, 3] || latent.shape != [h, w, channels] {
            return Ok(None);
        }
        for pixel in 0..h * w {
            let mut terms: Vec<f64> = latent.data[pixel * channels..][..channels]
                .iter()
                .map(|x| f64::from(*x) * scale)
                .collect();
            terms.push(1.0);
            sums.add(&terms, mean_color(picture, w, factor, pixel));
        }
    }
    Ok(sums.solve())
}

/// The first channels: the means of the latents' distribution, or, of an encoder that gives them alone, the latents.
fn means(moments: Tensor, latents: usize) -> Tensor {
    let channels = moments.shape.last().copied().unwrap_or(latents);
    let kept = latents.min(channels);
    let data = moments
        .data
        .chunks_exact(channels.max(1))
        .flat_map(|pixel| &pixel[..kept])
        .copied()
        .collect();
    let mut shape = moments.shape;
    if let Some(last) = shape.last_mut() {
        *last = kept;
    }
    Tensor { shape, data }
}

/// The mean of a square of `factor` by `factor` pixels.
fn mean_color(picture: &Tensor, width: usize, factor: usize, pixel: usize) -> [f64; 3] {
    let (y, x) = (pixel / width * factor, pixel % width * factor);
    let mut sums = [0.0; 3];
    for (row, column) in (y..y + factor).flat_map(|row| (x..x + factor).map(move |c| (row, c))) {
        let at = (row * width * factor + column) * 3;
        for (sum, value) in sums.iter_mut().zip(&picture.data[at..at + 3]) {
            *sum += f64::from(*value);
        }
    }
    sums.map(|sum| sum / (factor * factor) as f64)
}

/// The normal equations.
struct Sums {
    /// Sums of products of terms, row by row.
    squares: Vec<f64>,
    /// Sums of each term's product with each colour.
    products: Vec<[f64; 3]>,
    count: f64,
}

impl Sums {
    fn new(terms: usize) -> Self {
        Sums {
            squares: vec![0.0; terms * terms],
            products: vec![[0.0; 3]; terms],
            count: 0.0,
        }
    }

    fn add(&mut self, terms: &[f64], color: [f64; 3]) {
        let n = terms.len();
        for (i, a) in terms.iter().enumerate() {
            for (j, b) in terms.iter().enumerate() {
                self.squares[i * n + j] += a * b;
            }
            for (sum, value) in self.products[i].iter_mut().zip(color) {
                *sum += a * value;
            }
        }
        self.count += 1.0;
    }

    /// By Gauss-Jordan elimination with the largest pivots. Rounded to a millionth.
    fn solve(mut self) -> Option<Vec<[f64; 3]>> {
        let n = self.products.len();
        let trace: f64 = (0..n).map(|i| self.squares[i * n + i]).sum();
        for i in 0..n {
            self.squares[i * n + i] += RIDGE * trace / n as f64;
        }
        for i in 0..n {
            let size = |row: &usize| self.squares[row * n + i].abs();
            let pivot = (i..n).max_by(|a, b| size(a).total_cmp(&size(b)))?;
            if size(&pivot) == 0.0 || !size(&pivot).is_finite() {
                return None;
            }
            for column in 0..n {
                self.squares.swap(i * n + column, pivot * n + column);
            }
            self.products.swap(i, pivot);
            let by = self.squares[i * n + i];
            self.squares[i * n..(i + 1) * n]
                .iter_mut()
                .for_each(|v| *v /= by);
            self.products[i].iter_mut().for_each(|v| *v /= by);
            for row in (0..n).filter(|row| *row != i) {
                let by = self.squares[row * n + i];
                for column in 0..n {
                    self.squares[row * n + column] -= by * self.squares[i * n + column];
                }
                for color in 0..3 {
                    self.products[row][color] -= by * self.products[i][color];
                }
            }
        }
        let rounded = self
            .products
            .into_iter()
            .map(|row| row.map(|v| (v * 1e6).round() / 1e6));
        let map: Vec<[f64; 3]> = rounded.collect();
        map.iter().flatten().all(|v| v.is_finite()).then_some(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_finds_the_map() {
        let map = [[0.5, -0.25, 0.0], [0.0, 1.0, -2.0], [0.125, 0.25, 0.5]];
        let mut sums = Sums::new(3);
        for i in 0..20 {
            let terms = [f64::from(i % 5) - 2.0, f64::from(i % 7) - 3.0, 1.0];
            let color = |c: usize| terms.iter().zip(&map).map(|(t, row)| t * row[c]).sum();
            sums.add(&terms, [color(0), color(1), color(2)]);
        }
        let found = sums.solve().expect("a map");
        for (found, expected) in found.iter().flatten().zip(map.iter().flatten()) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
        let mut sums = Sums::new(2);
        sums.add(&[f64::NAN, 1.0], [0.0; 3]);
        assert_eq!(sums.solve(), None);
    }
}
