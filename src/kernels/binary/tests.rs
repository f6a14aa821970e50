use super::*;
use crate::run_alone;

#[test]
fn operands_meet_as_the_broadcast_says() {
    let a = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let run = |kind, broadcast, b: &[f32]| {
        let mut out = [0.0; 6];
        let params = BinaryParams {
            rows: 2,
            cols: 3,
            kind,
            broadcast,
        };
        run_alone(
            &mut Binary::new(Kernels::detect(), params, Source::Other(&a), b, &mut out).unwrap(),
            &mut [],
        );
        out
    };
    use {BinaryKind::*, Broadcast::*};
    assert_eq!(
        run(Add, Same, &[10.0, 20.0, 30.0, 40.0, 50.0, 60.0]),
        [11.0, 22.0, 33.0, 44.0, 55.0, 66.0]
    );
    assert_eq!(
        run(Sub, Row, &[1.0, 2.0, 3.0]),
        [0.0, 0.0, 0.0, 3.0, 3.0, 3.0]
    );
    assert_eq!(run(Mul, Scalar, &[2.0]), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
    assert_eq!(
        run(Div, Row, &[1.0, 2.0, 4.0]),
        [1.0, 1.0, 0.75, 4.0, 2.5, 1.5]
    );
}
