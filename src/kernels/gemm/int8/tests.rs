use proptest::prelude::*;

use super::*;
use crate::{
    Activation, Conv2dParams, F16, LinearParams, Quantize, QuantizeParams, Residual, codes_bytes,
    codes_start, dequantize, pack::QuantizedWeights, ranges_len, registry::Random, run_alone,
};

fn plain(random: &mut Random, len: usize) -> Vec<f32> {
    (0..len).map(|_| random.plain()).collect()
}

fn quantize(x: &[f32], rows: usize, c: usize, per_row: bool) -> Vec<u8> {
    let mut out = vec![0; codes_bytes(rows, c, per_row)];
    let (params, ranges) = (
        QuantizeParams {
            rows,
            c,
            c2: 0,
            per_row,
        },
        &mut vec![0.0; ranges_len(rows, per_row)],
    );
    run_alone(
        &mut Quantize::new(Kernels::detect(), params, x, None, ranges, &mut out).unwrap(),
        &mut [],
    );
    out
}

fn gelu(x: f64) -> f64 {
    x * 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

/// A Linear with everything on, against `f64` on the values that codes and weights stand for, and against those they
/// were made from.
#[test]
fn linear_is_what_it_says() {
    let (rows, k, n) = (7, 530, 35);
    for (activation, halves) in [(Activation::Silu, 1), (Activation::Geglu, 2)] {
        let mut r = Random::new(3);
        let x = plain(&mut r, rows * k);
        let matrix: Vec<f32> = (0..halves * n * k).map(|_| r.plain() / 20.0).collect();
        let (bias, shift) = (plain(&mut r, halves * n), plain(&mut r, n));
        let residual = plain(&mut r, rows * n);
        let QuantizedWeights { codes, scale, sums } =
            pack::quantize_weights(halves * n, k, &matrix);
        let weight = if halves == 2 {
            pack::pack_i8_geglu_panels(n, k, &codes)
        } else {
            pack::pack_i8_panels(n, k, &codes)
        };
        let x_codes = quantize(&x, rows, k, true);
        let rounded_x = dequantize(&x_codes, rows, k, true).unwrap();
        let rounded: Vec<f32> = codes
            .iter()
            .enumerate()
            .map(|(i, code)| f32::from(*code) * scale[i / k])
            .collect();
        let exact = |x: &[f32], matrix: &[f32]| -> Vec<f64> {
            let value = |i: usize| {
                let (row, column) = (i / n, i % n);
                let sum = |column: usize| {
                    let terms = x[row * k..][..k].iter().zip(&matrix[column * k..][..k]);
                    terms.fold(f64::from(bias[column]), |sum, (x, w)| {
                        sum + f64::from(*x) * f64::from(*w)
                    })
                };
                let v = if halves == 2 {
                    sum(column) * gelu(sum(n + column))
                } else {
                    let v = sum(column) + f64::from(shift[column]);
                    v / (1.0 + libm::exp(-v))
                };
                v + f64::from(residual[i])
            };
            (0..rows * n).map(value).collect()
        };
        let (of_codes, of_values) = (exact(&rounded_x, &rounded), exact(&x, &matrix));
        for (kernels, in_place) in
            Kernels::all().flat_map(|kernels| [(kernels, false), (kernels, true)])
        {
            let mut out = if in_place {
                residual.clone()
            } else {
                vec![0.0; rows * n]
            };
            let operands = LinearInt8Operands {
                x: &x_codes,
                weight: &weight,
                scale: &scale,
                sums: &sums,
                bias: Some(&bias),
                shift: Some(&shift[..]).filter(|_| halves == 1),
                residual: if in_place {
                    Residual::InPlace
                } else {
                    Residual::Other(&residual)
                },
                out: &mut out,
            };
            let params = LinearParams {
                rows,
                k,
                k2: 0,
                n,
                activation,
            };
            let mut job = LinearInt8::new(kernels, params, operands).unwrap();
            run_alone(&mut job, &mut vec![0; scratch_bytes(rows, k, halves * n)]);
            for (i, out) in out.iter().map(|out| f64::from(*out)).enumerate() {
                let large = of_codes[i].abs().max(1.0);
                assert!(
                    (out - of_codes[i]).abs() < 3e-5 * large,
                    "{kernels:?} {activation:?} {out} {}",
                    of_codes[i]
                );
                // Half a step of 4 / 255 and of 0.1 / 127 in each of 530 terms, three deviations, and GEGLU's slope.
                assert!(
                    (out - of_values[i]).abs() < 0.15 * large,
                    "{activation:?} {out} {}",
                    of_values[i]
                );
            }
        }
    }
}

/// Padding at every border, enlarging and stride, against the convolution of what the codes stand for, zeros outside.
#[test]
fn convolution_is_what_it_says() {
    for (in_h, in_w, up_h, up_w, stride, pad_top, pad_left, out_h, out_w) in [
        (5, 7, 5, 7, 1, 1, 1, 5, 7),
        (5, 7, 5, 7, 1, 2, 2, 8, 10),
        (5, 7, 5, 7, 2, 0, 0, 3, 4),
        (3, 4, 6, 8, 1, 1, 1, 6, 8),
        (3, 5, 5, 9, 1, 1, 0, 5, 9),
        (1, 1, 1, 1, 1, 1, 1, 1, 1),
    ] {
        let (in_c, out_c, kernel_h, kernel_w) = (6, 18, 3, 3);
        let mut r = Random::new(5);
        let k = in_c * kernel_h * kernel_w;
        // Far from zero, so that a wrong code in the padding is no small error.
        let x: Vec<f32> = (0..in_h * in_w * in_c).map(|_| r.plain() - 1.0).collect();
        let x_codes = quantize(&x, in_h * in_w, in_c, false);
        let x = dequantize(&x_codes, in_h * in_w, in_c, false).unwrap();
        let oihw = plain(&mut r, out_c * k);
        let QuantizedWeights { codes, scale, sums } = pack::quantize_weights(out_c, k, &oihw);
        let mut exact = vec![0.0f64; out_h * out_w * out_c];
        for (i, exact) in exact.iter_mut().enumerate() {
            let (y, x_at, o) = (i / out_c / out_w, i / out_c % out_w, i % out_c);
            for (tap, c) in
                (0..kernel_h * kernel_w).flat_map(|tap| (0..in_c).map(move |c| (tap, c)))
            {
                let sy = (y * stride + tap / kernel_w) as isize - pad_top as isize;
                let sx = (x_at * stride + tap % kernel_w) as isize - pad_left as isize;
                if (0..up_h as isize).contains(&sy) && (0..up_w as isize).contains(&sx) {
                    let (sy, sx) = (sy as usize * in_h / up_h, sx as usize * in_w / up_w);
                    let code = codes
                        [((o * in_c + c) * kernel_h + tap / kernel_w) * kernel_w + tap % kernel_w];
                    let weight = f64::from(code) * f64::from(scale[o]);
                    *exact += f64::from(x[(sy * in_w + sx) * in_c + c]) * weight;
                }
            }
        }
        let weight = pack::pack_i8_conv_panels(out_c, in_c, (kernel_h, kernel_w), &codes);
        let activation = Activation::None;
        let params = Conv2dParams {
            in_h,
            in_w,
            in_c,
            up_h,
            up_w,
            out_h,
            out_w,
            out_c,
            kernel_h,
            kernel_w,
            stride,
            pad_top,
            pad_left,
            activation,
        };
        for kernels in Kernels::all() {
            let mut out = vec![0.0f32; exact.len()];
            let operands = Conv2dInt8Operands {
                x: &x_codes,
                weight: &weight,
                scale: &scale,
                sums: &sums,
                bias: None,
                shift: None,
                residual: Residual::None,
                out: &mut out,
            };
            let mut job = Conv2dInt8::new(kernels, params, operands).unwrap();
            run_alone(&mut job, &mut vec![0; conv2d_scratch_bytes(&params)]);
            for (out, exact) in out.iter().zip(&exact) {
                assert!(
                    (f64::from(*out) - exact).abs() < 1e-4,
                    "{params:?} {kernels:?}: {out} {exact}"
                );
            }
        }
    }
}

/// A Linear of these codes with a scale of one, without more.
fn product(
    kernels: Kernels,
    rows: usize,
    k: usize,
    n: usize,
    x: &[u8],
    zero_point: i32,
    weights: &[i8],
) -> Vec<f32> {
    let mut codes = vec![0; codes_bytes(rows, k, true)];
    for row in 0..rows {
        codes[8 * row..8 * row + 4].copy_from_slice(&1.0f32.to_le_bytes());
        codes[8 * row + 4..8 * row + 8].copy_from_slice(&zero_point.to_le_bytes());
    }
    codes[codes_start(rows, true)..].copy_from_slice(x);
    let sums: Vec<i32> = weights
        .chunks(k)
        .map(|row| row.iter().map(|w| i32::from(*w)).sum())
        .collect();
    let mut out = vec![0.0; rows * n];
    let operands = LinearInt8Operands {
        x: &codes,
        weight: &pack::pack_i8_panels(n, k, weights),
        scale: &vec![1.0; n],
        sums: &sums,
        bias: None,
        shift: None,
        residual: Residual::None,
        out: &mut out,
    };
    let params = LinearParams {
        rows,
        k,
        k2: 0,
        n,
        activation: Activation::None,
    };
    run_alone(
        &mut LinearInt8::new(kernels, params, operands).unwrap(),
        &mut vec![0; scratch_bytes(rows, k, n)],
    );
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn sums_are_exact(rows in 1usize..30, k in 1usize..40, n in 1usize..40, zero_point in 0i32..256, seed: u64, ends: bool) {
        let mut r = Random::new(seed);
        let x: Vec<u8> = (0..rows * k).map(|_| if ends { r.pick(&[0, 255]) } else { r.below(256) as u8 }).collect();
        let weights: Vec<i8> =
            (0..n * k).map(|_| if ends { r.pick(&[-127, 127]) } else { (r.below(255) as i32 - 127) as i8 }).collect();
        let exact: Vec<f32> = (0..rows * n)
            .map(|i| (&x[i / n * k..][..k], &weights[i % n * k..][..k]))
            .map(|(x, w)| x.iter().zip(w).map(|(x, w)| (i64::from(*x) - i64::from(zero_point)) * i64::from(*w)).sum())
            .map(|sum: i64| sum as f32)
            .collect();
        for kernels in Kernels::all() {
            prop_assert_eq!(&product(kernels, rows, k, n, &x, zero_point, &weights), &exact);
        }
    }
}

#[test]
fn the_longest_sums_of_the_largest_terms_are_exact() {
    let k = MAX_K;
    for (weight, zero_point) in [(127, 0), (-127, 0), (127, 255), (-127, 255)] {
        let (x, weights) = (vec![255 - zero_point as u8; 2 * k], vec![weight; k]);
        let exact =
            (k as i64 * i64::from(weight) * if zero_point == 0 { 255 } else { -255 }) as f32;
        for kernels in Kernels::all() {
            assert_eq!(
                product(kernels, 2, k, 1, &x, zero_point, &weights),
                [exact; 2],
                "{kernels:?}"
            );
        }
    }
}

/// What each instruction set gives for a convolution of these codes and weights with scales of one, and the scalar
/// reference's.
fn convolutions(params: Conv2dParams, x: &[u8], zero_point: i32, weights: &[i8]) -> Vec<Vec<f32>> {
    let p = params;
    let k = p.kernel_h * p.kernel_w * p.in_c;
    let mut codes = vec![0; codes_bytes(p.in_h * p.in_w, p.in_c, false)];
    codes[..4].copy_from_slice(&1.0f32.to_le_bytes());
    codes[4..8].copy_from_slice(&zero_point.to_le_bytes());
    codes[codes_start(p.in_h * p.in_w, false)..].copy_from_slice(x);
    let weight = pack::pack_i8_conv_panels(p.out_c, p.in_c, (p.kernel_h, p.kernel_w), weights);
    let sums: Vec<i32> = weights
        .chunks(k)
        .map(|row| row.iter().map(|w| i32::from(*w)).sum())
        .collect();
    let scale = vec![1.0; p.out_c];
    let run = |kernels| {
        let mut out = vec![f32::NAN; p.out_h * p.out_w * p.out_c];
        let operands = Conv2dInt8Operands {
            x: &codes,
            weight: &weight,
            scale: &scale,
            sums: &sums,
            bias: None,
            shift: None,
            residual: Residual::None,
            out: &mut out,
        };
        let mut job = Conv2dInt8::new(kernels, params, operands).unwrap();
        run_alone(&mut job, &mut vec![0; conv2d_scratch_bytes(&params)]);
        out
    };
    Kernels::all().map(run).collect()
}

fn three_by_three(size: (usize, usize), up: usize, in_c: usize, out_c: usize) -> Conv2dParams {
    let (in_h, in_w) = size;
    Conv2dParams {
        in_h,
        in_w,
        in_c,
        up_h: in_h * up,
        up_w: in_w * up,
        out_h: in_h * up,
        out_w: in_w * up,
        out_c,
        kernel_h: 3,
        kernel_w: 3,
        stride: 1,
        pad_top: 1,
        pad_left: 1,
        activation: Activation::None,
    }
}

/// Blocks of channels of different lengths, runs of tiles, groups of panels, odd edges, enlarging, an activation; numbers
/// from all there are, then from the ends.
#[test]
fn convolutions_in_tiles_are_the_direct_sums() {
    let mut r = Random::new(11);
    let problems = [
        ((4, 4), 1, 16, 16),
        ((5, 7), 1, 80, 33),
        ((9, 9), 1, 144, 16),
        ((17, 19), 1, 32, 70),
        ((8, 8), 1, 320, 150),
        ((5, 6), 2, 208, 20),
        ((40, 31), 1, 16, 5),
    ];
    let twice = [false, true]
        .into_iter()
        .flat_map(|ends| problems.map(|problem| (ends, problem)));
    for (ends, (size, up, in_c, out_c)) in twice {
        let activation = r.pick(&[Activation::None, Activation::Silu]);
        let params = Conv2dParams {
            activation,
            ..three_by_three(size, up, in_c, out_c)
        };
        let x: Vec<u8> = (0..size.0 * size.1 * in_c)
            .map(|_| {
                if ends {
                    r.pick(&[0, 255])
                } else {
                    r.below(256) as u8
                }
            })
            .collect();
        let weights: Vec<i8> = (0..out_c * 9 * in_c)
            .map(|_| match ends {
                true => r.pick(&[-127, 127]),
                false => (r.below(255) as i32 - 127) as i8,
            })
            .collect();
        let results = convolutions(params, &x, r.below(256) as i32, &weights);
        for result in &results {
            assert_eq!(result, &results[0], "{params:?}");
        }
    }
}

/// Sums as large as they can be, of one block of channels and of as many channels as there can be.
#[test]
fn the_largest_sums_of_convolutions_in_tiles_are_exact() {
    for in_c in [128, 7280] {
        for (code, weight) in [(0, 127), (255, 127), (0, -127), (255, -127)] {
            for zero_point in [0, 255] {
                let params = three_by_three((4, 4), 1, in_c, 1);
                let (x, weights) = (vec![code; 16 * in_c], vec![weight; 9 * in_c]);
                let results = convolutions(params, &x, zero_point, &weights);
                let inner = 9 * in_c as i64 * (i64::from(code) - i64::from(zero_point));
                assert_eq!(results[0][5], (inner * i64::from(weight)) as f32);
                for result in &results {
                    assert_eq!(result, &results[0], "{in_c} {code} {weight}");
                }
            }
        }
    }
}

#[test]
fn scratch_that_is_announced_suffices() {
    for (rows, k, n) in [
        (1, 1, 1),
        (5, 300, 17),
        (100, 1030, 300),
        (96, 7, 256),
        (97, 513, 33),
    ] {
        for kernels in Kernels::all() {
            assert_eq!(
                product(kernels, rows, k, n, &vec![1; rows * k], 0, &vec![1; n * k]),
                vec![k as f32; rows * n]
            );
        }
    }
}

#[test]
fn wrong_operands_are_errors_with_names() {
    let params = LinearParams {
        rows: 2,
        k: 3,
        k2: 0,
        n: 4,
        activation: Activation::None,
    };
    let make = |params, x: usize, weight: usize, scale: usize, sums: usize| {
        let operands = LinearInt8Operands {
            x: &vec![0; x],
            weight: &vec![0; weight],
            scale: &vec![0.0; scale],
            sums: &vec![0; sums],
            bias: None,
            shift: None,
            residual: Residual::None,
            out: &mut [F16::default(); 8],
        };
        LinearInt8::new(Kernels::detect(), params, operands)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(make(params, 70, 128, 4, 4), Ok(()));
    for (result, what) in [
        (make(params, 69, 128, 4, 4), "`x` has 69 elements, not 70"),
        (
            make(params, 70, 48, 4, 4),
            "`weight` has 48 elements, not 128",
        ),
        (make(params, 70, 128, 3, 4), "`scale`"),
        (make(params, 70, 128, 4, 5), "`sums`"),
        (
            make(LinearParams { k2: 1, ..params }, 70, 128, 4, 4),
            "`k2`",
        ),
        (
            make(
                LinearParams {
                    k: MAX_K + 1,
                    ..params
                },
                64 + 2 * (MAX_K + 1),
                128,
                4,
                4,
            ),
            "`k`",
        ),
        (
            make(
                LinearParams {
                    rows: usize::MAX,
                    ..params
                },
                70,
                128,
                4,
                4,
            ),
            "out of range",
        ),
    ] {
        let message = result.unwrap_err();
        assert!(message.contains(what), "{message}");
    }
}
