use super::*;
use crate::{codes_bytes, dequantize, registry::Random, run_alone};

/// Against `f64`, with means from none to a hundred deviations.
#[test]
fn normalization_is_accurate_also_far_from_zero() {
    let (rows, c, c2, groups) = (300, 20, 12, 4);
    let channels = c + c2;
    for offset in [0.0f32, 3.0, -100.0] {
        let mut r = Random::new(1);
        let mut values =
            |len, offset: f32| (0..len).map(|_| r.plain() + offset).collect::<Vec<f32>>();
        let (x, x2) = (values(rows * c, offset), values(rows * c2, offset));
        let (gamma, beta) = (values(channels, 1.0), values(channels, 0.0));
        let at = |row: usize, channel: usize| {
            f64::from(if channel < c {
                x[row * c + channel]
            } else {
                x2[row * c2 + channel - c]
            })
        };
        for activation in [Activation::None, Activation::Silu] {
            let params = GroupNormParams {
                rows,
                c,
                c2,
                groups,
                eps: 1e-5,
                activation,
            };
            for kernels in Kernels::all() {
                let mut out = vec![0.0f32; rows * channels];
                let operands = GroupNormOperands {
                    x: &x,
                    x2: Some(&x2),
                    gamma: Some(&gamma),
                    beta: Some(&beta),
                    stats: &mut vec![f32::NAN; stats_len(rows, channels)],
                    out: &mut out,
                };
                run_alone(
                    &mut GroupNorm::new(kernels, params, operands).unwrap(),
                    &mut [],
                );
                let size = channels / groups;
                for group in 0..groups {
                    let members = || {
                        (0..rows).flat_map(|row| (0..size).map(move |i| (row, group * size + i)))
                    };
                    let count = (rows * size) as f64;
                    let mean = members()
                        .map(|(row, channel)| at(row, channel))
                        .sum::<f64>()
                        / count;
                    let var = members()
                        .map(|(row, channel)| (at(row, channel) - mean).powi(2))
                        .sum::<f64>()
                        / count;
                    for (row, channel) in members() {
                        let y = (at(row, channel) - mean) / (var + 1e-5).sqrt()
                            * f64::from(gamma[channel])
                            + f64::from(beta[channel]);
                        let y = if activation == Activation::Silu {
                            y / (1.0 + libm::exp(-y))
                        } else {
                            y
                        };
                        let error = (f64::from(out[row * channels + channel]) - y).abs();
                        assert!(
                            error < 1e-5 * y.abs().max(1.0),
                            "{kernels:?} offset {offset}: {error:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_constant_picture_becomes_beta() {
    let (x, beta) = ([7.25f32; 130 * 2], [0.5, -1.0]);
    let params = GroupNormParams {
        rows: 130,
        c: 2,
        c2: 0,
        groups: 1,
        eps: 1e-6,
        activation: Activation::None,
    };
    let (mut out, mut stats) = ([0.0; 260], vec![0.0; stats_len(130, 2)]);
    let operands = GroupNormOperands {
        x: &x,
        x2: None,
        gamma: None,
        beta: Some(&beta),
        stats: &mut stats,
        out: &mut out,
    };
    run_alone(
        &mut GroupNorm::new(Kernels::detect(), params, operands).unwrap(),
        &mut [],
    );
    assert!(out.as_chunks::<2>().0.iter().all(|pixel| *pixel == beta));
}

#[test]
fn groups_must_divide_channels() {
    let params = GroupNormParams {
        rows: 1,
        c: 3,
        c2: 0,
        groups: 2,
        eps: 0.0,
        activation: Activation::None,
    };
    let operands = GroupNormOperands {
        x: &[0.0; 3],
        x2: None,
        gamma: None,
        beta: None,
        stats: &mut [0.0; 12],
        out: &mut [0.0; 3],
    };
    let error = GroupNorm::new(Kernels::detect(), params, operands).err();
    assert_eq!(
        error,
        Some(ArgumentError::Attribute {
            op: "GroupNorm",
            attribute: "groups"
        })
    );
}

/// The codes stand for the float results, within half a step of the range's bound; without a bend the bound is the
/// range itself, and under SiLU it reaches no further than its least value.
#[test]
fn codes_are_the_results_within_half_a_step() {
    let (rows, c, c2, groups) = (300, 20, 12, 4);
    let channels = c + c2;
    let mut r = Random::new(1);
    let mut values = |len, offset: f32| (0..len).map(|_| r.plain() + offset).collect::<Vec<f32>>();
    let (x, x2) = (values(rows * c, 1.0), values(rows * c2, -3.0));
    let (gamma, beta) = (values(channels, 0.0), values(channels, 0.0));
    for (activation, kernels) in [Activation::None, Activation::Silu]
        .into_iter()
        .flat_map(|a| Kernels::all().map(move |k| (a, k)))
    {
        let params = GroupNormParams {
            rows,
            c,
            c2,
            groups,
            eps: 1e-5,
            activation,
        };
        let mut float = vec![0.0f32; rows * channels];
        let operands = GroupNormOperands {
            x: &x,
            x2: Some(&x2),
            gamma: Some(&gamma),
            beta: Some(&beta),
            stats: &mut vec![f32::NAN; stats_len(rows, channels)],
            out: &mut float,
        };
        run_alone(
            &mut GroupNorm::new(kernels, params, operands).unwrap(),
            &mut [],
        );
        let mut codes = vec![0xee; codes_bytes(rows, channels, false)];
        let operands = GroupNormCodesOperands {
            x: &x,
            x2: Some(&x2),
            gamma: Some(&gamma),
            beta: Some(&beta),
            stats: &mut vec![f32::NAN; codes_stats_len(rows, channels)],
            out: &mut codes,
        };
        run_alone(
            &mut GroupNormCodes::new(kernels, params, operands).unwrap(),
            &mut [],
        );
        let (lo, hi) = float
            .iter()
            .fold((0.0f32, 0.0f32), |(lo, hi), x| (lo.min(*x), hi.max(*x)));
        let lo = if activation == Activation::Silu {
            lo.min(-0.278_464_56)
        } else {
            lo
        };
        let scale = f32::from_le_bytes([codes[0], codes[1], codes[2], codes[3]]);
        assert_eq!(scale, (hi - lo) / 255.0, "{kernels:?} {activation:?}");
        for (found, exact) in dequantize(&codes, rows, channels, false)
            .unwrap()
            .iter()
            .zip(&float)
        {
            assert!(
                (found - exact).abs() <= scale * 0.51,
                "{kernels:?} {activation:?} {found} {exact}"
            );
        }
    }
}

/// What is measured of an input and given back gives the same bits; what is given of another one is what counts.
#[test]
fn given_moments_replace_the_inputs_own() {
    let (rows, c, groups) = (130, 8, 2);
    let mut r = Random::new(3);
    let x: Vec<f32> = (0..rows * c).map(|_| r.plain() + 2.0).collect();
    let params = GroupNormParams {
        rows,
        c,
        c2: 0,
        groups,
        eps: 1e-5,
        activation: Activation::None,
    };
    let moments = || [Moment::default(), Moment::default()];
    for kernels in Kernels::all() {
        let run = |moments: Moments<'_>| {
            let mut out = vec![0.0f32; rows * c];
            let operands = GroupNormOperands {
                x: &x,
                x2: None,
                gamma: None,
                beta: None,
                stats: &mut vec![f32::NAN; stats_len(rows, c)],
                out: &mut out,
            };
            let norm = GroupNorm::new(kernels, params, operands).unwrap();
            run_alone(&mut norm.with_moments(moments).unwrap(), &mut []);
            out
        };
        let run_codes = |moments: Moments<'_>| {
            let mut out = vec![0; codes_bytes(rows, c, false)];
            let operands = GroupNormCodesOperands {
                x: &x,
                x2: None,
                gamma: None,
                beta: None,
                stats: &mut vec![f32::NAN; codes_stats_len(rows, c)],
                out: &mut out,
            };
            let norm = GroupNormCodes::new(kernels, params, operands).unwrap();
            run_alone(&mut norm.with_moments(moments).unwrap(), &mut []);
            out
        };
        let own = moments();
        let measured = Moments {
            measured: &own,
            given: &[],
        };
        let expected = run(Moments::default());
        assert_eq!(run(measured), expected, "{kernels:?}");
        let codes = run_codes(Moments::default());
        assert_eq!(run_codes(measured), codes, "{kernels:?}");
        let given = Moments {
            measured: &[],
            given: &own,
        };
        assert_eq!(run(given), expected, "{kernels:?}");
        assert_eq!(run_codes(given), codes, "{kernels:?}");

        let other = moments();
        other.iter().for_each(|moment| moment.set([1.0, 4.0]));
        let given = Moments {
            measured: &own,
            given: &other,
        };
        let factor = 1.0 / (4.0f64 + 1e-5).sqrt();
        for (y, x) in run(given).iter().zip(&x) {
            assert!((f64::from(*y) - (f64::from(*x) - 1.0) * factor).abs() < 1e-6);
        }
        let [mean, _] = own[0].get();
        assert!((mean - 2.0).abs() < 0.5, "{mean}");
    }
    let operands = GroupNormOperands {
        x: &x,
        x2: None,
        gamma: None,
        beta: None,
        stats: &mut vec![0.0; stats_len(rows, c)],
        out: &mut vec![0.0f32; rows * c],
    };
    let norm = GroupNorm::new(Kernels::detect(), params, operands).unwrap();
    let three = [Moment::default(), Moment::default(), Moment::default()];
    let wrong = norm.with_moments(Moments {
        measured: &[],
        given: &three,
    });
    assert!(matches!(wrong, Err(ArgumentError::Length { .. })));
}

/// The three operators on bands, with borders that every other band shares with the next, against the whole picture.
#[test]
fn bands_give_the_bits_of_the_whole() {
    fn check<T: Element + PartialEq + std::fmt::Debug>(seed: u64) {
        let mut r = Random::new(seed);
        let (rows, groups) = (r.pick(&[64, 200, 640, 700]), r.pick(&[1, 4]));
        let c = groups * r.pick(&[1, 3, 20]);
        let activation = r.pick(&[Activation::None, Activation::Silu]);
        let params = GroupNormParams {
            rows,
            c,
            c2: 0,
            groups,
            eps: 1e-5,
            activation,
        };
        let x: Vec<T> = r.values(rows * c);
        let (gamma, beta) = (r.maybe_values(c), r.maybe_values(c));
        let (gamma, beta) = (gamma.as_deref(), beta.as_deref());
        let scalar = Kernels::new(crate::Isa::Scalar).unwrap();
        let mut whole = vec![T::store(0.0); rows * c];
        let mut stats = vec![f32::NAN; stats_len(rows, c)];
        let operands = GroupNormOperands {
            x: &x,
            x2: None,
            gamma,
            beta,
            stats: &mut stats,
            out: &mut whole,
        };
        run_alone(
            &mut GroupNorm::new(scalar, params, operands).unwrap(),
            &mut [],
        );
        let mut codes = vec![0; codes_bytes(rows, c, false)];
        let mut stats = vec![f32::NAN; codes_stats_len(rows, c)];
        let operands = GroupNormCodesOperands {
            x: &x,
            x2: None,
            gamma,
            beta,
            stats: &mut stats,
            out: &mut codes,
        };
        run_alone(
            &mut GroupNormCodes::new(scalar, params, operands).unwrap(),
            &mut [],
        );
        let start = codes_bytes(0, c, false);
        for kernels in Kernels::all() {
            for ranges in [false, true] {
                let record = c * if ranges { 4 } else { 2 };
                let mut blocks = vec![f32::NAN; rows.div_ceil(NORM_BLOCK) * record];
                for first in (0..rows).step_by(2 * NORM_BLOCK) {
                    let band = first..rows.min(first + 2 * NORM_BLOCK);
                    let at = first / NORM_BLOCK * record;
                    let to = at..at + band.len().div_ceil(NORM_BLOCK) * record;
                    let (x, out) = (&x[band.start * c..band.end * c], &mut blocks[to]);
                    let size = (band.len(), c, ranges);
                    let mut job = GroupNormBlocks::new(kernels, size, x, out).unwrap();
                    run_alone(&mut job, &mut []);
                }
                let mut moments = vec![f32::NAN; record];
                let parameters = (gamma, beta);
                let mut job =
                    GroupNormMerge::new(kernels, params, ranges, &blocks, parameters, &mut moments)
                        .unwrap();
                run_alone(&mut job, &mut []);
                for first in (0..rows).step_by(50) {
                    let band = first..rows.min(first + 53);
                    let params = GroupNormParams {
                        rows: band.len(),
                        ..params
                    };
                    let part = band.start * c..band.end * c;
                    let x = &x[part.clone()];
                    if ranges {
                        let mut out = vec![1; codes_bytes(band.len(), c, false)];
                        let mut job =
                            GroupNormApplyCodes::new(kernels, params, x, &moments, beta, &mut out)
                                .unwrap();
                        run_alone(&mut job, &mut []);
                        assert_eq!(out[..start], codes[..start], "{kernels:?}, seed {seed}");
                        let expected = &codes[start..][part];
                        assert!(out[start..] == *expected, "{kernels:?}, seed {seed}");
                    } else {
                        let mut out = vec![T::store(0.0); x.len()];
                        let mut job =
                            GroupNormApply::new(kernels, params, x, &moments, beta, &mut out)
                                .unwrap();
                        run_alone(&mut job, &mut []);
                        let bits = |values: &[T]| -> Vec<u32> {
                            values.iter().map(|x| x.load().to_bits()).collect()
                        };
                        assert_eq!(bits(&out), bits(&whole[part]), "{kernels:?}, seed {seed}");
                    }
                }
            }
        }
    }
    for seed in 0..12 {
        check::<f32>(seed);
        check::<crate::F16>(seed);
    }
}
