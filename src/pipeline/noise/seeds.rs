//! The noise of a picture.

use super::{Noise, Rng};

/// What the noise of a picture is made from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seeds {
    /// The generator.
    pub rng: Rng,
    /// The picture's number.
    pub seed: u64,
    /// Another number, and how far to turn the initial noise from the seed's towards its: 0 to 1.
    pub subseed: Option<(u64, f32)>,
    /// Added to the seed of the noise that a sampler adds, if it is not 0: the WebUI's eta noise seed delta.
    pub eta_seed_delta: u64,
}

impl Seeds {
    /// Fills `latents`, planes of `height` times `width`, with the initial noise, and returns the stream of the noise that a
    /// sampler adds: what follows the initial noise, unless there is a delta.
    pub fn begin(&self, latents: &mut [f32], size: [usize; 2]) -> Noise {
        self.begin_after(self.stream(), latents, size)
    }

    /// The stream that the initial noise is taken from.
    pub fn stream(&self) -> Noise {
        Noise::from_rng(self.rng, self.seed)
    }

    /// As [`Seeds::begin`], where something has been drawn from [`Seeds::stream`] before.
    pub fn begin_after(
        &self,
        mut noise: Noise,
        latents: &mut [f32],
        [height, width]: [usize; 2],
    ) -> Noise {
        noise.fill(latents);
        if let Some((subseed, strength)) = self.subseed.filter(|(_, strength)| *strength != 0.0) {
            let mut other = vec![0.0; latents.len()];
            Noise::from_rng(self.rng, subseed).fill(&mut other);
            turn(latents, &other, [height, width], f64::from(strength));
        }
        match self.eta_seed_delta {
            0 => noise,
            delta => Noise::from_rng(self.rng, self.seed.wrapping_add(delta)),
        }
    }
}

/// The WebUI's `slerp`: turns each column of each plane of `from` by a share of the angle to that of `to`,
/// ```text
/// from = sin((1 - share) angle) / sin(angle) from + sin(share angle) / sin(angle) to
/// ```
/// Where almost all is parallel it mixes linearly, `share` of `from`, as the WebUI does.
fn turn(from: &mut [f32], to: &[f32], [height, width]: [usize; 2], share: f64) {
    let plane = height * width;
    let columns = from.len() / height.max(1);
    // The places of column `i`, from the top.
    let column = |i: usize| {
        let top = i / width * plane + i % width;
        (0..height).map(move |row| top + row * width)
    };
    let cosine = |from: &[f32], i: usize| {
        let product = |a: &[f32], b: &[f32]| -> f64 {
            column(i)
                .map(|at| f64::from(a[at]) * f64::from(b[at]))
                .sum()
        };
        product(from, to) / libm::sqrt(product(from, from) * product(to, to))
    };
    let mean = (0..columns).map(|i| cosine(from, i)).sum::<f64>() / columns as f64;
    if mean > 0.9995 {
        for (x, y) in from.iter_mut().zip(to) {
            *x = (f64::from(*x) * share + f64::from(*y) * (1.0 - share)) as f32;
        }
        return;
    }
    for i in 0..columns {
        let angle = libm::acos(cosine(from, i).clamp(-1.0, 1.0));
        let sine = libm::sin(angle);
        // Of parallel columns neither weight is a number.
        let (own, other) = match sine > 1e-9 {
            true => (
                libm::sin((1.0 - share) * angle) / sine,
                libm::sin(share * angle) / sine,
            ),
            false => (1.0 - share, share),
        };
        for at in column(i) {
            from[at] = (own * f64::from(from[at]) + other * f64::from(to[at])) as f32;
        }
    }
}
