use super::*;
use crate::run_alone;

#[test]
fn halves_are_sines_and_cosines() {
    let frequencies: Vec<f32> = (0..32)
        .map(|i| libm::powf(10000.0, -(i as f32) / 32.0))
        .collect();
    for cos_first in [false, true] {
        let mut out = [0.0f32; 64];
        let params = TimestepEmbeddingParams {
            half: 32,
            cos_first,
        };
        run_alone(
            &mut TimestepEmbedding::new(Kernels::detect(), params, 999.0, &frequencies, &mut out)
                .unwrap(),
            &mut [],
        );
        let (first, second) = out.split_at(32);
        let (sin, cos) = if cos_first {
            (second, first)
        } else {
            (first, second)
        };
        for (i, frequency) in frequencies.iter().enumerate() {
            let angle = f64::from(999.0 * frequency);
            assert!((f64::from(sin[i]) - libm::sin(angle)).abs() < 1e-7);
            assert!((f64::from(cos[i]) - libm::cos(angle)).abs() < 1e-7);
        }
    }
}
