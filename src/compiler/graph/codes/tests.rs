use super::*;

fn represented(values: &[f32]) -> Vec<f32> {
    let mut values = values.to_vec();
    let c = values.len();
    represent_rows(&mut values, c);
    values
}

#[test]
fn codes_stand_for_what_they_should() {
    // range 255: the scale is one, and the zero point 100.
    assert_eq!(
        represented(&[-100.0, 155.0, 0.0, 3.4, 3.5, 4.5, -0.5]),
        [-100.0, 155.0, 0.0, 3.0, 4.0, 4.0, 0.0]
    );
    // A range holds zero, whatever the values.
    assert_eq!(represented(&[255.0, 254.6]), [255.0, 255.0]);
    assert_eq!(represented(&[-255.0, -254.6]), [-255.0, -255.0]);
    assert_eq!(represented(&[0.0, 0.0]), [0.0, 0.0]);
    assert_eq!(represented(&[1e-31, -1e-32]), [0.0, 0.0]);
    // A range that overflows has no codes that mean anything, but they are the same everywhere.
    assert!(
        represented(&[f32::MAX, f32::MIN])
            .iter()
            .all(|x| x.is_nan())
    );
}

#[test]
fn each_row_has_its_own_range() {
    let mut values = [0.0, 255.0, 0.0, 2.55, 1.0, 1.0];
    represent_rows(&mut values, 2);
    assert_eq!(values[..2], [0.0, 255.0]);
    assert!((values[3] - 2.55).abs() < 1e-6 && (values[4] - 1.0).abs() < 1e-6);
}

#[test]
fn errors_are_at_most_half_a_step() {
    let values = crate::graph::random(3, 1000);
    let range = Range::of(values.iter().copied());
    for (a, b) in values.iter().zip(represented(&values)) {
        // The zero point is rounded too, which moves the ends by half a step.
        assert!(
            (a - b).abs() <= 1.01 * (range.hi - range.lo) / 255.0,
            "{a} {b}"
        );
    }
}

#[test]
fn a_norms_range_is_a_bound() {
    let silu = |x: f32| x / (1.0 + libm::expf(-x));
    // The second channel's ends are on both sides of SiLU's least value, which no value has.
    let mut values = [4.0, -5.0, 3.0, 1.0];
    let (lo, hi) = (-0.278_464_56_f32, silu(4.0));
    let mut expected: Vec<f32> = values.iter().map(|v| silu(*v)).collect();
    Range { lo, hi }.represent(&mut expected);
    represent_norm(&mut values, 2, silu);
    assert_eq!(values.to_vec(), expected);
    // Without an activation the ends themselves.
    let mut values = [4.0, -5.0, 3.0, 1.0];
    let expected = represented(&values);
    represent_norm(&mut values, 2, |x| x);
    assert_eq!(values.to_vec(), expected);
}

#[test]
fn weights_have_a_scale_for_each_column() {
    let mut weight = [
        127.0, 0.4, 0.6, -127.0, 0.0, 0.0, 0.0, 0.0, 1.27, 0.005, 0.016, -1.27,
    ];
    represent_weight(&mut weight, 4);
    assert_eq!(weight[..8], [127.0, 0.0, 1.0, -127.0, 0.0, 0.0, 0.0, 0.0]);
    let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
    assert!(
        close(weight[8], 1.27) && close(weight[10], 0.02) && close(weight[11], -1.27),
        "{weight:?}"
    );
}
