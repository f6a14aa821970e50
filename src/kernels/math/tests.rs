use super::*;
use crate::F16;

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
    for x in samples().filter(|x| (-64.8..88.72).contains(x)) {
        worst = worst.max(ulps(exp(x), libm::exp(x.into())));
    }
    assert!(worst < 1.5, "{worst}");
    for x in samples().filter(|x| *x < -64.82) {
        assert_eq!(exp(x).to_bits(), 0, "{x}");
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

/// [`exp`] as far as `f32` goes, subnormal results and all.
fn full_exp(x: f32) -> f32 {
    if exp(x) != 0.0 {
        return exp(x);
    }
    libm::exp(x.into()) as f32
}

/// [`activate`] by [`full_exp`].
fn full(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + full_exp(-x)),
        Activation::QuickGelu => x / (1.0 + full_exp(-1.702 * x)),
        Activation::Gelu if x < 0.0 && normal_cdf(x) == 0.0 => {
            (f64::from(x) * 0.5 * libm::erfc(f64::from(-x) / std::f64::consts::SQRT_2)) as f32
        }
        Activation::Tanh if x.abs() > 16.0 => {
            (1.0 - 2.0 / (1.0 + full_exp(2.0 * x.abs()))).copysign(x)
        }
        activation => activate(activation, x),
    }
}

const ACTIVATIONS: [Activation; 4] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::QuickGelu,
    Activation::Tanh,
];

#[test]
fn small_powers_that_are_zero_change_no_half() {
    let halves = (0..=u16::MAX).map(|bits| F16::from_bits(bits).to_f32());
    for x in halves.chain(samples()).filter(|x| x.is_finite()) {
        for activation in ACTIVATIONS {
            let (found, expected) = (activate(activation, x), full(activation, x));
            let halves = [found, expected].map(|y| F16::from_f32(y).to_bits());
            assert_eq!(halves[0], halves[1], "{activation:?} of {x}");
            if activation != Activation::Gelu {
                assert_eq!(found.to_bits(), expected.to_bits(), "{activation:?} of {x}");
            }
            assert!((found - expected).abs() < 1e-25, "{activation:?} of {x}");
        }
        assert!((exp(x) - full_exp(x)).abs() < 1.1e-28 || exp(x) == f32::INFINITY);
    }
}

/// The flags that tell of a subnormal operand and of a result that underflowed, since they were last asked for.
#[cfg(target_arch = "x86_64")]
fn subnormals() -> bool {
    const FLAGS: u32 = 0b11_1111;
    let mut state = 0u32;
    let at: *mut u32 = &mut state;
    // SAFETY: the register goes to and comes from a variable; only its flags, which nothing else here reads, are changed.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) at);
        let cleared = state & !FLAGS;
        std::arch::asm!("ldmxcsr [{}]", in(reg) &cleared);
    }
    state & 0b01_0010 != 0
}

#[test]
#[cfg(target_arch = "x86_64")]
fn no_step_is_subnormal() {
    use crate::{Kernels, Softmax, SoftmaxParams, Source, Unary, UnaryParams, job};
    use std::hint::black_box;

    // All halves, then numbers of all magnitudes, then more of them where functions change.
    let halves = (0..=u16::MAX).map(|bits| F16::from_bits(bits).to_f32());
    let magnitudes = samples().filter(|x| x.abs() >= 1e-9);
    let changes = (0..400_000).map(|i| (i - 200_000) as f32 * 6e-4);
    let mut values: Vec<f32> = halves
        .chain(magnitudes)
        .chain(changes)
        .filter(|x| x.is_finite())
        .collect();
    values.resize(values.len().next_multiple_of(64), 0.0);
    subnormals();
    assert_eq!(black_box(black_box(1e-30f32) * 1e-15), 1e-45);
    assert!(subnormals(), "the flags do not tell");

    let mut results = values.clone();
    let mut scratch = vec![0; 1 << 16];
    for kernels in Kernels::all() {
        for activation in ACTIVATIONS {
            for (x, out) in values.chunks(1 << 13).zip(results.chunks_mut(1 << 13)) {
                let params = UnaryParams {
                    len: x.len(),
                    activation,
                };
                let mut job = Unary::new(kernels, params, Source::Other(x), out).unwrap();
                subnormals();
                job::run_alone(&mut job, &mut scratch);
                if subnormals() {
                    let at = |x: &f32| {
                        subnormals();
                        black_box(activate(activation, black_box(*x)));
                        subnormals()
                    };
                    let x = x.iter().find(|x| at(x));
                    panic!("{activation:?} by {kernels:?}, of {x:?}");
                }
            }
            assert!(results.iter().all(|y| !y.is_subnormal()), "{activation:?}");
        }
        for x in values.chunks(64) {
            let params = SoftmaxParams { rows: 1, cols: 64 };
            let mut job =
                Softmax::new(kernels, params, Source::Other(x), &mut results[..64]).unwrap();
            subnormals();
            job::run_alone(&mut job, &mut scratch);
            assert!(!subnormals(), "softmax by {kernels:?} of {x:?}");
        }
    }
    for x in values {
        subnormals();
        black_box(sigmoid(black_box(x)));
        assert!(!subnormals(), "sigmoid of {x}");
    }
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
