use super::*;
use crate::run_alone;

#[test]
fn the_nearest_pixel_is_the_floor() {
    let mut out = [0.0f32; 15];
    let params = UpsampleParams {
        in_h: 2,
        in_w: 3,
        out_h: 3,
        out_w: 5,
        c: 1,
    };
    let x = [0.0, 1.0, 2.0, 10.0, 11.0, 12.0];
    run_alone(
        &mut Upsample::new(Kernels::detect(), params, &x, &mut out).unwrap(),
        &mut [],
    );
    assert_eq!(
        out,
        [
            0.0, 0.0, 1.0, 1.0, 2.0, 0.0, 0.0, 1.0, 1.0, 2.0, 10.0, 10.0, 11.0, 11.0, 12.0
        ]
    );
}
