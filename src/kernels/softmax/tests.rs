use super::*;
use crate::run_alone;

#[test]
fn rows_are_distributions() {
    let x: Vec<f32> = (0..3 * 37)
        .map(|i| (i * 7919 % 101) as f32 * 0.3 - 200.0)
        .collect();
    for kernels in Kernels::all() {
        let mut out = x.clone();
        let mut job = Softmax::new(
            kernels,
            SoftmaxParams { rows: 3, cols: 37 },
            Source::InPlace,
            &mut out,
        )
        .unwrap();
        run_alone(&mut job, &mut []);
        for (x, out) in x.chunks(37).zip(out.chunks(37)) {
            let max = x.iter().fold(f64::MIN, |m, x| m.max(f64::from(*x)));
            let sum: f64 = x.iter().map(|x| libm::exp(f64::from(*x) - max)).sum();
            for (x, out) in x.iter().zip(out) {
                assert!(
                    (f64::from(*out) - libm::exp(f64::from(*x) - max) / sum).abs() < 3e-7,
                    "{kernels:?}"
                );
            }
        }
    }
}
