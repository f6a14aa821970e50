use super::*;
use crate::run_alone;

#[test]
fn each_element_is_scaled_then_moved() {
    let mut out: Vec<f32> = (0..300).map(|i| i as f32).collect();
    let params = AffineParams {
        len: 300,
        scale: 0.5,
        offset: -1.0,
    };
    run_alone(
        &mut Affine::new(Kernels::detect(), params, Source::InPlace, &mut out).unwrap(),
        &mut [],
    );
    assert!(
        out.iter()
            .enumerate()
            .all(|(i, out)| *out == i as f32 * 0.5 - 1.0)
    );
}
