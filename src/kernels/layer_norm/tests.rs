use super::*;
use crate::{Quantizer, codes_bytes, codes_start, registry::Random, run_alone};

#[test]
fn normalization_is_accurate_also_far_from_zero() {
    let (rows, c) = (3, 333);
    for offset in [0.0f32, 50.0] {
        let mut r = Random::new(1);
        let x: Vec<f32> = (0..rows * c).map(|_| r.plain() + offset).collect();
        let (gamma, beta): (Vec<f32>, Vec<f32>) = (0..c).map(|_| (r.plain(), r.plain())).unzip();
        for kernels in Kernels::all() {
            let mut out = vec![0.0; rows * c];
            let params = LayerNormParams { rows, c, eps: 1e-5 };
            let mut job =
                LayerNorm::new(kernels, params, &x, Some(&gamma), Some(&beta), &mut out).unwrap();
            run_alone(&mut job, &mut []);
            for (x, out) in x.chunks(c).zip(out.chunks(c)) {
                let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / c as f64;
                let var = x
                    .iter()
                    .map(|x| (f64::from(*x) - mean).powi(2))
                    .sum::<f64>()
                    / c as f64;
                for (i, (x, out)) in x.iter().zip(out).enumerate() {
                    let y = (f64::from(*x) - mean) / (var + 1e-5).sqrt() * f64::from(gamma[i])
                        + f64::from(beta[i]);
                    assert!(
                        (f64::from(*out) - y).abs() < 1e-5,
                        "{kernels:?} offset {offset}"
                    );
                }
            }
        }
    }
}

/// The codes are those of the float results, by each row's own range.
#[test]
fn codes_are_the_results_quantized() {
    let (rows, c) = (30, 333);
    let mut r = Random::new(1);
    let x: Vec<f32> = (0..rows * c).map(|_| r.plain()).collect();
    let (gamma, beta): (Vec<f32>, Vec<f32>) = (0..c).map(|_| (r.plain(), r.plain())).unzip();
    let params = LayerNormParams { rows, c, eps: 1e-5 };
    for kernels in Kernels::all() {
        let mut float = vec![0.0; rows * c];
        run_alone(
            &mut LayerNorm::new(kernels, params, &x, Some(&gamma), Some(&beta), &mut float)
                .unwrap(),
            &mut [],
        );
        let mut out = vec![0xee; codes_bytes(rows, c, true)];
        let mut job =
            LayerNormCodes::new(kernels, params, &x, Some(&gamma), Some(&beta), &mut out).unwrap();
        run_alone(&mut job, &mut vec![0; codes_scratch_bytes(c)]);
        let start = codes_start(rows, true);
        for (values, codes) in float.chunks(c).zip(out[start..].chunks(c)) {
            let quantizer = Quantizer::of(values);
            assert!(
                values
                    .iter()
                    .zip(codes)
                    .all(|(x, code)| quantizer.code(*x) == *code),
                "{kernels:?}"
            );
        }
    }
}
