use super::*;
use crate::{Activation, F16, Isa, Residual, pack, registry::Random, run_alone};

/// The largest difference from `exact`, relative to its largest value.
fn error(found: &[f32], exact: &[f64]) -> f64 {
    let largest = exact.iter().fold(1e-30, |m: f64, x| m.max(x.abs()));
    assert_eq!(found.len(), exact.len());
    found
        .iter()
        .zip(exact)
        .fold(0.0, |m: f64, (f, e)| m.max((f64::from(*f) - e).abs()))
        / largest
}

fn plain(random: &mut Random, len: usize) -> Vec<f32> {
    (0..len).map(|_| random.plain()).collect()
}

fn gelu(x: f64) -> f64 {
    x * 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

/// A Linear of two sources with everything on, against `f64`.
#[test]
fn linear_is_what_it_says() {
    let (rows, k, k2, n) = (7, 30, 21, 35);
    for (activation, halves) in [(Activation::Silu, 1), (Activation::Geglu, 2)] {
        let mut r = Random::new(3);
        let (x, x2) = (plain(&mut r, rows * k), plain(&mut r, rows * k2));
        let matrix = plain(&mut r, halves * n * (k + k2));
        let (bias, shift) = (plain(&mut r, halves * n), plain(&mut r, n));
        let residual = plain(&mut r, rows * n);
        let weight: Vec<f32> = if halves == 2 {
            pack::pack_geglu_panels(n, k + k2, &matrix)
        } else {
            pack::pack_panels(n, k + k2, &matrix)
        };
        let mut exact = vec![0.0f64; rows * n];
        for (i, exact) in exact.iter_mut().enumerate() {
            let (row, column) = (i / n, i % n);
            let sum = |column: usize| {
                let w = &matrix[column * (k + k2)..][..k + k2];
                let left = x[row * k..][..k].iter().chain(&x2[row * k2..][..k2]);
                left.zip(w).fold(f64::from(bias[column]), |sum, (x, w)| {
                    sum + f64::from(*x) * f64::from(*w)
                })
            };
            let v = if halves == 2 {
                sum(column) * gelu(sum(n + column))
            } else {
                let v = sum(column) + f64::from(shift[column]);
                v / (1.0 + libm::exp(-v))
            };
            *exact = v + f64::from(residual[i]);
        }
        for kernels in Kernels::all() {
            for in_place in [false, true] {
                let mut out = if in_place {
                    residual.clone()
                } else {
                    vec![0.0; rows * n]
                };
                let operands = LinearOperands {
                    x: &x,
                    x2: Some(&x2),
                    weight: &weight,
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
                    k2,
                    n,
                    activation,
                };
                let mut job = Linear::new(kernels, params, operands).unwrap();
                run_alone(
                    &mut job,
                    &mut vec![0; scratch_bytes(rows, k + k2, halves * n)],
                );
                assert!(
                    error(&out, &exact) < 1e-6,
                    "{activation:?} {kernels:?} {}",
                    error(&out, &exact)
                );
            }
        }
    }
}

/// Enlarging, asymmetric padding, stride and an oblong kernel, against a direct convolution in `f64`.
#[test]
fn convolution_is_what_it_says() {
    for (in_h, in_w, up_h, up_w, stride, pad_top, pad_left, out_h, out_w) in [
        (5, 7, 5, 7, 1, 1, 1, 5, 7),
        (5, 7, 5, 7, 2, 0, 0, 3, 4),
        (3, 4, 6, 8, 1, 1, 1, 6, 8),
        (3, 5, 5, 9, 1, 1, 0, 5, 9),
        (6, 6, 6, 6, 3, 2, 1, 3, 2),
    ] {
        let (in_c, out_c, kernel_h, kernel_w) = (6, 18, 3, 2);
        let mut r = Random::new(5);
        let x = plain(&mut r, in_h * in_w * in_c);
        let oihw = plain(&mut r, out_c * in_c * kernel_h * kernel_w);
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
                    let weight = oihw
                        [((o * in_c + c) * kernel_h + tap / kernel_w) * kernel_w + tap % kernel_w];
                    *exact += f64::from(x[(sy * in_w + sx) * in_c + c]) * f64::from(weight);
                }
            }
        }
        let weight: Vec<f32> = pack::pack_conv_panels(out_c, in_c, (kernel_h, kernel_w), &oihw);
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
            let mut out = vec![0.0; exact.len()];
            let residual = Residual::None;
            let operands = Conv2dOperands {
                x: &x,
                weight: &weight,
                bias: None,
                shift: None,
                residual,
                out: &mut out,
            };
            let mut job = Conv2d::new(kernels, params, operands).unwrap();
            run_alone(
                &mut job,
                &mut vec![0; scratch_bytes(out_h * out_w, kernel_h * kernel_w * in_c, out_c)],
            );
            assert!(error(&out, &exact) < 1e-6, "{params:?} {kernels:?}");
        }
    }
}

/// The order of the sum is the order of k: two large terms that cancel swallow what came before them.
#[test]
fn sums_run_over_ascending_k() {
    let (k, weight) = (20, |k: usize| if k == 17 { -1.0 } else { 1.0 });
    let mut x = vec![1.0f32; k];
    (x[16], x[17]) = (1e30, 1e30);
    let panels: Vec<f32> = pack::pack_panels_with(1, k, |_, k| weight(k));
    for kernels in Kernels::all() {
        let mut out = [0.0];
        let params = LinearParams {
            rows: 1,
            k,
            k2: 0,
            n: 1,
            activation: Activation::None,
        };
        let operands = LinearOperands {
            x: &x,
            x2: None,
            weight: &panels,
            bias: None,
            shift: None,
            residual: Residual::None,
            out: &mut out,
        };
        run_alone(
            &mut Linear::new(kernels, params, operands).unwrap(),
            &mut vec![0; scratch_bytes(1, k, 1)],
        );
        assert_eq!(out, [2.0], "{kernels:?}");
    }
}

#[test]
fn scratch_that_is_announced_suffices() {
    for (rows, k, n) in [(1, 1, 1), (5, 300, 17), (100, 256, 300), (96, 7, 256)] {
        for kernels in Kernels::all() {
            let (x, weight) = (
                vec![F16::default(); rows * k],
                vec![F16::default(); pack::panel_len(n, k)],
            );
            let mut out = vec![F16::default(); rows * n];
            let operands = LinearOperands {
                x: &x,
                x2: None,
                weight: &weight,
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
            let mut job = Linear::new(kernels, params, operands).unwrap();
            run_alone(&mut job, &mut vec![0; scratch_bytes(rows, k, n)]);
        }
    }
}

#[test]
fn work_falls_into_enough_tasks_that_cover_it_once() {
    for (rows, panels) in [
        (1, 80),
        (77, 48),
        (256, 8),
        (4096, 20),
        (1, 1),
        (7, 3),
        (65536, 1),
    ] {
        for (block, group) in [(BLOCK_ROWS, GROUP_PANELS), WIDE] {
            assert!(block * group <= BLOCK_ROWS * GROUP_PANELS);
            let split = Split::of(rows, panels, block, group);
            let tasks = split.tasks(rows, panels);
            assert!(
                rows * panels < 64 * 48 || tasks >= ENOUGH_TASKS,
                "{rows} by {panels}: {tasks}"
            );
            let covered: usize = (0..tasks)
                .map(|task| split.task(rows, panels, task))
                .map(|(rows, panels)| rows.len() * panels.len())
                .sum();
            assert_eq!(covered, rows * panels);
        }
    }
}

#[test]
fn wrong_operands_are_errors_with_names() {
    let kernels = Kernels::new(Isa::Scalar).unwrap();
    let params = LinearParams {
        rows: 2,
        k: 3,
        k2: 0,
        n: 4,
        activation: Activation::None,
    };
    let make = |params,
                x: &[f32],
                weight: &[f32],
                bias: Option<&[f32]>,
                shift: Option<&[f32]>,
                out: &mut [f32]| {
        let residual = Residual::None;
        Linear::new(
            kernels,
            params,
            LinearOperands {
                x,
                x2: None,
                weight,
                bias,
                shift,
                residual,
                out,
            },
        )
        .map(|_| ())
        .map_err(|error| error.to_string())
    };
    let (x, weight) = ([0.0; 6], [0.0; 48]);
    assert_eq!(make(params, &x, &weight, None, None, &mut [0.0; 8]), Ok(()));
    let fails = |result: Result<(), String>, what: &str| {
        let message = result.unwrap_err();
        assert!(message.contains(what), "{message}");
    };
    fails(
        make(params, &x[1..], &weight, None, None, &mut [0.0; 8]),
        "`x` has 5 elements, not 6",
    );
    fails(
        make(params, &x, &weight[1..], None, None, &mut [0.0; 8]),
        "`weight` has 47",
    );
    fails(
        make(params, &x, &weight, Some(&[0.0; 5]), None, &mut [0.0; 8]),
        "`bias`",
    );
    fails(
        make(params, &x, &weight, None, Some(&[0.0; 3]), &mut [0.0; 8]),
        "`shift`",
    );
    fails(
        make(params, &x, &weight, None, None, &mut [0.0; 9]),
        "`out`",
    );
    fails(
        make(
            LinearParams { n: 0, ..params },
            &x,
            &[],
            None,
            None,
            &mut [],
        ),
        "`n`",
    );
    fails(
        make(
            LinearParams {
                rows: usize::MAX,
                ..params
            },
            &x,
            &weight,
            None,
            None,
            &mut [],
        ),
        "`k`",
    );
    let geglu = LinearParams {
        activation: Activation::Geglu,
        ..params
    };
    fails(
        make(geglu, &x, &[0.0; 96], None, Some(&[0.0; 4]), &mut [0.0; 8]),
        "`shift`",
    );
}
