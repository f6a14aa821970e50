use super::*;
use crate::{AttentionOperands, registry::Random, run_alone};

/// Normal deviates.
fn normal(r: &mut Random, len: usize) -> Vec<f32> {
    let sum = |r: &mut Random| (0..12).map(|_| r.plain() / 4.0).sum::<f32>();
    (0..len).map(|_| sum(r)).collect()
}

fn params(rows: usize, heads: usize, head_dim: usize, extra: usize) -> AttentionParams {
    let stride = heads * head_dim + extra;
    AttentionParams {
        q_rows: rows,
        kv_rows: rows,
        heads,
        head_dim,
        q_stride: stride,
        k_stride: stride,
        v_stride: stride,
        scale: 1.0 / (head_dim as f32).sqrt(),
        causal: false,
    }
}

fn attention(
    kernels: Kernels,
    params: AttentionParams,
    q: &[f32],
    k: &[f32],
    v: &[f32],
) -> Vec<f32> {
    let mut out = vec![0.0; params.q_rows * params.heads * params.head_dim];
    let codes = &mut vec![f32::NAN; codes_len(&params)];
    let mut job = AttentionInt8::new(
        kernels,
        params,
        AttentionInt8Operands {
            q,
            k,
            v,
            codes,
            out: &mut out,
        },
    )
    .unwrap();
    run_alone(&mut job, &mut vec![0xff; scratch_bytes(&params)]);
    out
}

/// Decibels of `exact` over the difference.
fn snr(found: &[f32], exact: &[f32]) -> f64 {
    let power =
        |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x) * f64::from(x)).sum::<f64>();
    let noise = power(&mut found.iter().zip(exact).map(|(f, e)| f - e));
    10.0 * libm::log10(power(&mut exact.iter().copied()) / noise)
}

#[test]
fn it_is_near_attention_in_float() {
    for (rows, heads, dim, spread, least) in [
        (1024, 1, 64, 1.0, 37.0),
        (600, 2, 40, 3.0, 33.0),
        (300, 1, 130, 1.0, 37.0),
    ] {
        let params = params(rows, heads, dim, 5);
        let mut r = Random::new(7);
        let len = rows * params.q_stride;
        let (mut q, mut k, v) = (
            normal(&mut r, len),
            normal(&mut r, len),
            normal(&mut r, len),
        );
        q.iter_mut().for_each(|q| *q *= spread);
        // A mean far larger than the differences, which the softmax does not see.
        k.iter_mut()
            .enumerate()
            .for_each(|(i, k)| *k += (i % params.k_stride % 7) as f32 * 3.0);
        let mut exact = vec![0.0; rows * heads * dim];
        let operands = AttentionOperands {
            q: &q,
            k: &k,
            v: &v,
            mask: None,
            out: &mut exact,
        };
        let mut job = Attention::new(Kernels::detect(), params, operands).unwrap();
        run_alone(&mut job, &mut vec![0; super::super::scratch_bytes(&params)]);
        let found = attention(Kernels::detect(), params, &q, &k, &v);
        assert!(
            snr(&found, &exact) > least,
            "{rows} {dim}: {} dB",
            snr(&found, &exact)
        );
    }
}

/// One key is chosen so clearly that the result is its value, coded.
#[test]
fn a_clear_choice_gives_its_value() {
    let params = AttentionParams {
        scale: 100.0,
        ..params(200, 1, 16, 0)
    };
    let mut r = Random::new(2);
    let (k, v) = (normal(&mut r, 200 * 16), normal(&mut r, 200 * 16));
    for kernels in Kernels::all() {
        let found = attention(kernels, params, &k, &k, &v);
        for (column, row) in (0..16).flat_map(|column| (0..200).map(move |row| (column, row))) {
            let own = |row: usize| {
                (0..16)
                    .map(|i| k[row * 16 + i] * k[row * 16 + i])
                    .sum::<f32>()
            };
            let clear = (0..200).all(|other| {
                let dot: f32 = (0..16).map(|i| k[row * 16 + i] * k[other * 16 + i]).sum();
                other == row || own(row) - dot > 2.0
            });
            let largest = (0..200)
                .map(|row| v[row * 16 + column].abs())
                .fold(0.0, f32::max);
            let error = (found[row * 16 + column] - v[row * 16 + column]).abs();
            assert!(
                !clear || error < 0.6 * largest / 127.0,
                "{kernels:?} {row} {column} {error}"
            );
        }
    }
}

#[test]
fn equal_keys_give_the_mean() {
    let params = params(130, 1, 8, 0);
    let (q, k) = (vec![3.0; 130 * 8], vec![5.0; 130 * 8]);
    let v: Vec<f32> = (0..130 * 8)
        .map(|i| if i / 8 < 65 { 1.0 } else { -1.0 })
        .collect();
    for kernels in Kernels::all() {
        assert!(
            attention(kernels, params, &q, &k, &v)
                .iter()
                .all(|x| x.abs() < 1e-6)
        );
    }
}

#[test]
fn weights_are_near_the_power() {
    for i in 0..=4000 {
        let x = -(i as f32) / 250.0;
        let exact = 255.0 * libm::exp2(f64::from(x));
        assert!((f64::from(weight(x)) - exact).abs() <= 0.525, "{x}");
    }
    assert_eq!([0.0, -0.0].map(weight), [255; 2]);
    assert_eq!([-16.5, f32::NEG_INFINITY, f32::NAN].map(weight), [0; 3]);
}

#[test]
fn operands_are_checked() {
    let make = |params, codes: usize| {
        let x = &[0.0; 8];
        let codes = &mut vec![0.0; codes];
        let operands = AttentionInt8Operands {
            q: x,
            k: x,
            v: x,
            codes,
            out: &mut [0.0f32; 8],
        };
        AttentionInt8::new(Kernels::detect(), params, operands)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let params = params(2, 1, 4, 0);
    let len = 128 * (4 + 16) / 4 + 2 * 128 + 16;
    assert_eq!(make(params, len), Ok(()));
    for (result, what) in [
        (make(params, len - 1), "`codes`"),
        (
            make(
                AttentionParams {
                    causal: true,
                    ..params
                },
                len,
            ),
            "`causal`",
        ),
        (
            make(
                AttentionParams {
                    kv_rows: usize::MAX,
                    ..params
                },
                len,
            ),
            "out of range",
        ),
        (
            make(
                AttentionParams {
                    head_dim: usize::MAX,
                    ..params
                },
                len,
            ),
            "out of range",
        ),
    ] {
        let message = result.unwrap_err();
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn the_result_may_take_the_queries_place() {
    let params = params(200, 3, 20, 0);
    let mut r = Random::new(11);
    let len = 200 * params.q_stride;
    let [q, k, v] = [0; 3].map(|_| normal(&mut r, len));
    for kernels in Kernels::all() {
        let expected = attention(kernels, params, &q, &k, &v);
        let mut out = q.clone();
        let codes = &mut vec![f32::NAN; codes_len(&params)];
        let operands = AttentionInt8Operands {
            q: &[],
            k: &k,
            v: &v,
            codes,
            out: &mut out,
        };
        let mut job = AttentionInt8::new(kernels, params, operands).unwrap();
        run_alone(&mut job, &mut vec![0xff; scratch_bytes(&params)]);
        assert_eq!(out, expected, "{kernels:?}");
    }
}
