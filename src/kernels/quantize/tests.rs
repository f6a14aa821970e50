use super::*;
use crate::{F16, codes_bytes, dequantize, ranges_len, registry::Random, run_alone};

fn quantize<T: Element>(
    kernels: Kernels,
    params: QuantizeParams,
    x: &[T],
    x2: Option<&[T]>,
) -> Vec<u8> {
    let QuantizeParams {
        rows,
        c,
        c2,
        per_row,
    } = params;
    let mut out = vec![0xee; codes_bytes(rows, c + c2, per_row)];
    let ranges = &mut vec![f32::NAN; ranges_len(rows, per_row)];
    run_alone(
        &mut Quantize::new(kernels, params, x, x2, ranges, &mut out).unwrap(),
        &mut [],
    );
    out
}

/// Each row (or all) by its own range, of two sources side by side.
#[test]
fn codes_stand_for_the_values_within_half_a_step() {
    let (rows, c, c2) = (150, 30, 7);
    let mut r = Random::new(4);
    let x: Vec<f32> = (0..rows * c)
        .map(|i| r.plain() * if i / c == 70 { 1e4 } else { 1.0 })
        .collect();
    let x2: Vec<f32> = (0..rows * c2).map(|_| r.plain() + 3.0).collect();
    let value = |row: usize, i: usize| {
        if i < c {
            x[row * c + i]
        } else {
            x2[row * c2 + i - c]
        }
    };
    for (per_row, kernels) in [true, false]
        .into_iter()
        .flat_map(|p| Kernels::all().map(move |k| (p, k)))
    {
        let out = quantize(
            kernels,
            QuantizeParams {
                rows,
                c,
                c2,
                per_row,
            },
            &x,
            Some(&x2),
        );
        let found = dequantize(&out, rows, c + c2, per_row).unwrap();
        for row in 0..rows {
            let of = if per_row { row..row + 1 } else { 0..rows };
            let all = of.flat_map(|row| (0..c + c2).map(move |i| value(row, i)));
            let (lo, hi) = all.fold((0.0f32, 0.0f32), |(lo, hi), x| (lo.min(x), hi.max(x)));
            for i in 0..c + c2 {
                let error = (found[row * (c + c2) + i] - value(row, i)).abs();
                assert!(
                    error <= (hi - lo) / 255.0 * 0.51,
                    "{kernels:?} per row {per_row}: {error}"
                );
            }
        }
    }
}

#[test]
fn rows_without_a_range_are_zeros_and_nan_is_passed_over() {
    let nan = f32::NAN;
    let x: Vec<F16> = [0.0, -0.0, 0.0, nan, nan, nan, 2.0, nan, 1.0]
        .map(F16::store)
        .to_vec();
    for kernels in Kernels::all() {
        let params = QuantizeParams {
            rows: 3,
            c: 3,
            c2: 0,
            per_row: true,
        };
        let found = dequantize(&quantize(kernels, params, &x, None), 3, 3, true).unwrap();
        assert_eq!(found[..6], [0.0; 6]);
        assert_eq!((found[6], found[7]), (2.0, 0.0));
    }
}

#[test]
fn sizes_are_checked() {
    let kernels = Kernels::detect();
    let make = |params, x2: Option<&[f32]>, ranges: usize, out: usize| {
        let (ranges, out) = (&mut vec![0.0; ranges][..], &mut vec![0; out][..]);
        Quantize::new(kernels, params, &[0.0; 6], x2, ranges, out)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let params = QuantizeParams {
        rows: 2,
        c: 3,
        c2: 1,
        per_row: false,
    };
    assert_eq!(make(params, Some(&[0.0; 2]), 2, 72), Ok(()));
    for (result, what) in [
        (make(params, None, 2, 72), "`x2` has 0 elements, not 2"),
        (make(params, Some(&[0.0; 2]), 3, 72), "`ranges`"),
        (
            make(params, Some(&[0.0; 2]), 2, 71),
            "`out` has 71 elements, not 72",
        ),
        (
            make(
                QuantizeParams {
                    rows: usize::MAX,
                    ..params
                },
                None,
                2,
                72,
            ),
            "out of range",
        ),
        (
            make(
                QuantizeParams {
                    c2: usize::MAX,
                    ..params
                },
                None,
                2,
                72,
            ),
            "out of range",
        ),
        (
            make(QuantizeParams { rows: 0, ..params }, None, 2, 72),
            "`rows`",
        ),
    ] {
        let message = result.unwrap_err();
        assert!(message.contains(what), "{message}");
    }
}
