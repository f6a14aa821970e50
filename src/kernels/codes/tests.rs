use proptest::prelude::*;

use super::*;

/// The map's definition in `f64`, which holds every step within its rounding.
fn near(quantizer: Quantizer, x: f32) -> bool {
    let exact = f64::from(x) / f64::from(quantizer.scale()) + f64::from(quantizer.zero_point());
    (f64::from(quantizer.code(x)) - exact.clamp(0.0, 255.0)).abs() <= 0.5001
}

#[test]
fn zero_has_a_code_of_its_own() {
    for (lo, hi) in [
        (-1.0, 2.0),
        (0.5, 3.0),
        (-7.0, -2.0),
        (-1e-20, 1e20),
        (-3e-30, 0.0),
        (0.0, 255.0),
    ] {
        let quantizer = Quantizer::of_range(lo, hi);
        assert_eq!(i32::from(quantizer.code(0.0)), quantizer.zero_point());
        assert_eq!(i32::from(quantizer.code(-0.0)), quantizer.zero_point());
        assert_eq!(quantizer.value(quantizer.code(0.0)), 0.0);
    }
}

#[test]
fn ranges_without_extent_give_zeros() {
    let inf = f32::INFINITY;
    for (lo, hi) in [
        (0.0, 0.0),
        (-1e-40, 1e-31),
        (-inf, inf),
        (0.0, inf),
        (f32::NAN, 0.0),
        (f32::MIN, f32::MAX),
    ] {
        let quantizer = Quantizer::of_range(lo, hi);
        assert_eq!(
            (quantizer.scale(), quantizer.zero_point()),
            (0.0, 0),
            "{lo} {hi}"
        );
        for x in [0.0, 1.0, -1e30, inf, -inf, f32::NAN] {
            assert_eq!(quantizer.code(x), 0);
        }
    }
}

#[test]
fn values_outside_the_range_get_its_ends_and_nan_zero() {
    let quantizer = Quantizer::of_range(-1.0, 3.0);
    assert_eq!(quantizer.zero_point(), 64);
    assert_eq!(
        [-1.0, -9.0, -1e38, f32::NEG_INFINITY, f32::NAN].map(|x| quantizer.code(x)),
        [0; 5]
    );
    assert_eq!(
        [3.0, 3.1, 1e38, f32::INFINITY].map(|x| quantizer.code(x)),
        [255; 4]
    );
}

#[test]
fn ties_go_to_even() {
    // A step of one, no zero point.
    let quantizer = Quantizer::of_range(0.0, 255.0);
    assert_eq!(
        [0.5, 1.5, 2.5, 254.5, 2.500_001].map(|x| quantizer.code(x)),
        [0, 2, 2, 254, 3]
    );
}

#[test]
fn a_buffer_starts_with_pairs_in_whole_lines() {
    assert_eq!(
        [0, 1, 8, 9, 77].map(|rows| codes_start(rows, true)),
        [0, 64, 64, 128, 640]
    );
    assert_eq!(codes_start(1000, false), 64);
    assert_eq!(codes_bytes(9, 10, true), 128 + 90);
    let mut buffer = vec![7; codes_bytes(3, 2, true)];
    let quantizer = Quantizer::of_range(-1.0, 1.0);
    for row in 0..3 {
        // SAFETY: nothing else is borrowed of the output.
        unsafe { write_pair(&Output::new(&mut buffer), 3, true, row, quantizer) };
    }
    assert_eq!(buffer[24..64], [0; 40]);
    buffer[64..].copy_from_slice(&[0, 128, 255, 1, 2, 3]);
    let expected: Vec<f32> = buffer[64..]
        .iter()
        .map(|code| quantizer.value(*code))
        .collect();
    assert_eq!(dequantize(&buffer, 3, 2, true), Ok(expected));
    assert!(
        dequantize(&buffer, 3, 3, true).is_err()
            && dequantize(&buffer, usize::MAX, 3, true).is_err()
    );
}

proptest! {
    #[test]
    fn codes_are_the_nearest(values in prop::collection::vec(-1e3f32..1e3, 1..40), outlier in prop::option::of(Just(1e4))) {
        let values: Vec<f32> = values.into_iter().chain(outlier).collect();
        let quantizer = Quantizer::of(&values);
        for x in values {
            prop_assert!(near(quantizer, x), "{x} {quantizer:?}");
            prop_assert!((quantizer.value(quantizer.code(x)) - x).abs() <= quantizer.scale() * 0.51);
        }
    }

    #[test]
    fn equal_values_are_an_end(x in prop::num::f32::NORMAL) {
        prop_assume!(x.abs() >= 1e-30 && x.abs() < 1e38);
        let quantizer = Quantizer::of(&[x; 20]);
        prop_assert_eq!(quantizer.code(x), if x > 0.0 { 255 } else { 0 });
        prop_assert_eq!(quantizer.zero_point(), if x > 0.0 { 0 } else { 255 });
    }

    #[test]
    fn the_range_is_that_of_the_numbers(values in prop::collection::vec(prop::num::f32::ANY, 0..70)) {
        let mut range = Range::default();
        range.widen(&values);
        let numbers = || values.iter().copied().filter(|x| !x.is_nan());
        prop_assert_eq!(range.ends(), (numbers().fold(0.0, f32::min), numbers().fold(0.0, f32::max)));
    }
}

/// Many at a time as one by one, ends, ties and NaNs among them.
#[test]
fn every_set_gives_the_same_codes() {
    let mut values: Vec<f32> = (-1200..1200).map(|i| i as f32 * 0.25).collect();
    values.extend([f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001)]);
    values.extend([f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, 3e38, -3e38]);
    for (lo, hi) in [
        (0.0, 255.0),
        (-127.5, 127.5),
        (-1.0, 3.0),
        (-1e30, 1e-3),
        (0.0, 0.0),
    ] {
        let quantizer = Quantizer::of_range(lo, hi);
        let expected: Vec<u8> = values.iter().map(|x| quantizer.code(*x)).collect();
        for kernels in Kernels::all() {
            let mut codes = vec![0; values.len()];
            quantizer.codes(kernels, &values, &mut codes);
            assert_eq!(codes, expected, "{kernels:?} {lo} {hi}");
        }
    }
}
