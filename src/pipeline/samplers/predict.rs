//! What the UNet's output says about the picture and the noise.

use super::Prediction;

/// For latents `signal * picture + noise * epsilon` with `signal^2 + noise^2 = 1`: the picture predicted from the latents
/// `x` and the UNet's output `p`.
/// ```text
/// epsilon:  (x - noise p) / signal
/// v:        signal x - noise p
/// sample:   p
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) struct Scaled {
    pub(super) prediction: Prediction,
    pub(super) signal: f32,
    pub(super) noise: f32,
}

impl Scaled {
    /// From the share of signal in the variance.
    pub(super) fn new(prediction: Prediction, alpha: f32) -> Self {
        Self {
            prediction,
            signal: libm::sqrtf(alpha),
            noise: libm::sqrtf(1.0 - alpha),
        }
    }

    pub(super) fn picture(&self, x: f32, p: f32) -> f32 {
        match self.prediction {
            Prediction::Epsilon => (x - self.noise * p) / self.signal,
            Prediction::Velocity => self.signal * x - self.noise * p,
            Prediction::Sample => p,
        }
    }

    /// The noise predicted from the same.
    /// ```text
    /// epsilon:  p
    /// v:        signal p + noise x
    /// sample:   (x - signal p) / noise
    /// ```
    pub(super) fn epsilon(&self, x: f32, p: f32) -> f32 {
        match self.prediction {
            Prediction::Epsilon => p,
            Prediction::Velocity => self.signal * p + self.noise * x,
            Prediction::Sample => (x - self.signal * p) / self.noise,
        }
    }
}

/// For latents `picture + sigma * epsilon`: the picture predicted from the latents `x` and the UNet's output `p`, whose
/// input was `x / sqrt(sigma^2 + 1)`.
/// ```text
/// epsilon:  x - sigma p
/// v:        x / (sigma^2 + 1) - p sigma / sqrt(sigma^2 + 1)
/// sample:   p
/// ```
pub(super) fn unscaled(prediction: Prediction, sigma: f32) -> impl Fn(f32, f32) -> f32 {
    let variance = sigma * sigma + 1.0;
    let velocity = -sigma / libm::sqrtf(variance);
    move |x, p| match prediction {
        Prediction::Epsilon => x - sigma * p,
        Prediction::Velocity => p * velocity + x / variance,
        Prediction::Sample => p,
    }
}
