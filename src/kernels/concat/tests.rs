use super::*;
use crate::run_alone;

#[test]
fn rows_stand_side_by_side() {
    let mut out = [0.0f32; 6];
    let params = ConcatParams {
        rows: 2,
        c: 2,
        c2: 1,
    };
    run_alone(
        &mut Concat::new(
            Kernels::detect(),
            params,
            &[1.0, 2.0, 3.0, 4.0],
            &[5.0, 6.0],
            &mut out,
        )
        .unwrap(),
        &mut [],
    );
    assert_eq!(out, [1.0, 2.0, 5.0, 3.0, 4.0, 6.0]);
}
