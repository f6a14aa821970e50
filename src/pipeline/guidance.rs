//! Classifier-free guidance.

/// `u + scale * (c - u)`, in place of `u`.
pub(super) fn guide(unconditional: &mut [f32], conditional: &[f32], scale: f32) {
    for (u, c) in unconditional.iter_mut().zip(conditional) {
        *u += scale * (c - *u);
    }
}

/// Brings the deviation of the guided prediction back to that of the prompt's, by a share: diffusers' `rescale_noise_cfg` (Lin
/// et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", equations 15 and 16).
pub(super) fn rescale(guided: &mut [f32], conditional: &[f32], share: f32) {
    let (ours, theirs) = (deviation(guided), deviation(conditional));
    // A constant prediction has nothing to be rescaled.
    if share == 0.0 || ours == 0.0 {
        return;
    }
    let ratio = theirs / ours;
    for x in guided {
        *x = share * (*x * ratio) + (1.0 - share) * *x;
    }
}

/// The standard deviation, estimated as from a sample (`n - 1`), of sums in order in `f64`.
fn deviation(values: &[f32]) -> f32 {
    let count = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let square = |x: &f32| (f64::from(*x) - mean) * (f64::from(*x) - mean);
    libm::sqrt(values.iter().map(square).sum::<f64>() / (count - 1.0)) as f32
}

#[cfg(test)]
mod tests {
    use super::{guide, rescale};

    /// diffusers 0.42.1: `rescale_noise_cfg(u + 7.5 * (c - u), c, 0.7)`.
    #[test]
    fn rescales_as_diffusers() {
        let mut guided: Vec<f32> = (0..8).map(|i| (i * i % 7) as f32 * 0.25 - 0.5).collect();
        let conditional: Vec<f32> = (0..8).map(|i| (i * 5 % 8) as f32 * 0.125 - 0.4).collect();
        guide(&mut guided, &conditional, 7.5);
        rescale(&mut guided, &conditional, 0.7);
        let expected = [
            0.089_521_03,
            1.186_153_9,
            -1.566_618_2,
            1.275_674_8,
            0.268_563_15,
            -1.902_322_3,
            1.521_857_9,
            1.096_632_8,
        ];
        for (x, expected) in guided.iter().zip(expected) {
            assert!((x - expected).abs() < 1e-6, "{guided:?}");
        }
    }
}
