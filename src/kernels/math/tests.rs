use super::*;

/// Every 997th `f32` there is.
fn samples() -> impl Iterator<Item = f32> {
    (0..=u32::MAX).step_by(997).map(f32::from_bits)
}

/// The distance from `exact` in units in the last place of the `f32` nearest to it.
fn ulps(found: f32, exact: f64) -> f64 {
    let nearest = (exact.abs() as f32).max(f32::MIN_POSITIVE);
    let unit = f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest);
    (f64::from(found) - exact).abs() / unit
}

#[test]
fn exp_is_within_its_error() {
    let mut worst = 0.0f64;
    for x in samples().filter(|x| (-87.3..88.72).contains(x)) {
        worst = worst.max(ulps(exp(x), libm::exp(x.into())));
    }
    assert!(worst < 1.5, "{worst}");
    // Subnormal results, to the unit that they have.
    for x in samples().filter(|x| (-110.0..-87.3).contains(x)) {
        let error = (f64::from(exp(x)) - libm::exp(x.into())).abs();
        assert!(error <= f64::from(f32::from_bits(1)), "{x}");
    }
}

#[test]
fn exp_of_extremes() {
    assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
    assert_eq!(exp(-1e30).to_bits(), 0);
    assert_eq!(exp(f32::INFINITY), f32::INFINITY);
    assert_eq!(exp(89.0), f32::INFINITY);
    assert_eq!(exp(1e30), f32::INFINITY);
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(-0.0), 1.0);
    assert!(exp(f32::NAN).is_nan());
}

#[test]
fn activations_are_within_their_errors() {
    for x in samples().filter(|x| x.abs() < 1e4) {
        let exact = f64::from(x);
        let scale = exact.abs().max(1.0);
        let check = |name: &str, found: f32, expected: f64, error: f64| {
            let off = (f64::from(found) - expected).abs() / scale;
            assert!(
                off < error,
                "{name}({x}) is {found}, not {expected}: {off:e}"
            );
        };
        let cdf = 0.5 * libm::erfc(-exact / std::f64::consts::SQRT_2);
        check("normal_cdf", normal_cdf(x), cdf, 2e-7);
        check("gelu", gelu(x), exact * cdf, 2e-7);
        check("sigmoid", sigmoid(x), 1.0 / (1.0 + libm::exp(-exact)), 2e-7);
        check("silu", silu(x), exact / (1.0 + libm::exp(-exact)), 2e-7);
        check(
            "quick_gelu",
            quick_gelu(x),
            exact / (1.0 + libm::exp(-1.702 * exact)),
            2e-7,
        );
    }
}

#[test]
fn activations_of_extremes() {
    for f in [gelu, silu, quick_gelu] {
        assert_eq!(f(0.0), 0.0);
        assert_eq!(f(1e30), 1e30);
        assert_eq!(f(-1e30), 0.0);
        assert_eq!(f(f32::INFINITY), f32::INFINITY);
        assert!(f(f32::NAN).is_nan());
    }
    assert_eq!((sigmoid(-1e30), sigmoid(1e30)), (0.0, 1.0));
}

#[test]
fn tanh_is_within_its_error() {
    let mut worst = 0.0f64;
    for x in samples().filter(|x| x.is_normal()) {
        worst = worst.max(ulps(tanh(x), libm::tanh(x.into())));
    }
    assert!(worst < 2.0, "{worst}");
    assert!(worst > 0.5);
    assert_eq!(
        [tanh(0.0), tanh(1e30), tanh(-1e30), tanh(f32::INFINITY)],
        [0.0, 1.0, -1.0, 1.0]
    );
    assert!(tanh(f32::NAN).is_nan());
}

#[test]
fn relu_takes_what_is_negative_away() {
    assert_eq!(
        [-1e30, -1e-40, -0.0, 0.0, 1e-40, 3.5, f32::INFINITY].map(relu),
        [0.0, 0.0, 0.0, 0.0, 1e-40, 3.5, f32::INFINITY]
    );
    assert!(relu(f32::NAN).is_nan());
}

#[test]
fn sines_are_within_their_error() {
    for i in 0..2_000_000 {
        let x = i as f32 * 5.2e-4
            + if i % 2 == 0 {
                0.0
            } else {
                1e6 * (i as f32 / 2e6)
            };
        let x = if i % 3 == 0 { -x } else { x };
        let (sin, cos) = sin_cos(x);
        assert!(ulps(sin, libm::sin(x.into())) < 1.0, "sin {x} is {sin}");
        assert!(ulps(cos, libm::cos(x.into())) < 1.0, "cos {x} is {cos}");
    }
    assert_eq!(sin_cos(0.0), (0.0, 1.0));
    assert!(sin_cos(f32::NAN).0.is_nan() && sin_cos(f32::INFINITY).1.is_nan());
}

#[test]
fn slices_are_mapped_as_single_values() {
    let values: Vec<f32> = (0..100).map(|i| i as f32 * 0.37 - 18.0).collect();
    for activation in [
        Activation::None,
        Activation::Silu,
        Activation::Gelu,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Tanh,
    ] {
        let mut mapped = values.clone();
        activate_slice(activation, &mut mapped);
        assert!(
            mapped
                .iter()
                .zip(&values)
                .all(|(y, x)| y.to_bits() == activate(activation, *x).to_bits())
        );
    }
    let mut mapped = values.clone();
    exp_slice(&mut mapped, 2.5);
    assert!(mapped.iter().zip(&values).all(|(y, x)| *y == exp(x - 2.5)));
}
