//! The sigmas of exponential integrators.

use super::predict::Scaled;
use super::sigmas::Sigmas;
use super::Prediction;

/// A sigma in three forms: signal and noise of latents scaled to variance 1, and half the logarithm of the ratio of their
/// powers (`lambda`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) signal: f32,
    pub(super) noise: f32,
    pub(super) lambda: f32,
}

impl Level {
    fn new(sigma: f32) -> Self {
        let signal = 1.0 / libm::sqrtf(sigma * sigma + 1.0);
        let noise = sigma * signal;
        Self {
            signal,
            noise,
            lambda: libm::logf(signal) - libm::logf(noise),
        }
    }

    /// How to read predictions at this level.
    pub(super) fn predict(&self, prediction: Prediction) -> Scaled {
        Scaled {
            prediction,
            signal: self.signal,
            noise: self.noise,
        }
    }
}

/// The levels of a run, with one more at the end.
pub(super) fn levels(sigmas: &Sigmas) -> Vec<Level> {
    sigmas.values.iter().map(|&sigma| Level::new(sigma)).collect()
}
