use super::*;
use crate::{registry::Random, run_alone};

/// Against `f64` with the whole matrix of scores, over several tiles of keys.
#[test]
fn attention_is_what_it_says() {
    let (q_rows, kv_rows, heads, head_dim) = (100, 210, 2, 24);
    let width = heads * head_dim;
    let mut r = Random::new(9);
    let mut values = |len: usize| (0..len).map(|_| r.plain() * 2.0).collect::<Vec<f32>>();
    let (q, k, v) = (
        values(q_rows * width),
        values(kv_rows * width),
        values(kv_rows * width),
    );
    let mask = values(q_rows * kv_rows);
    for (causal, mask) in [
        (false, None),
        (true, None),
        (false, Some(&mask[..])),
        (true, Some(&mask[..])),
    ] {
        let params = AttentionParams {
            q_rows,
            kv_rows,
            heads,
            head_dim,
            q_stride: width,
            k_stride: width,
            v_stride: width,
            scale: 0.3,
            causal,
        };
        let mut exact = vec![0.0f64; q_rows * width];
        for (row, head) in (0..q_rows).flat_map(|row| (0..heads).map(move |head| (row, head))) {
            let part =
                |x: &[f32], row: usize, i: usize| f64::from(x[row * width + head * head_dim + i]);
            let scores: Vec<f64> = (0..if causal {
                kv_rows.min(row + 1)
            } else {
                kv_rows
            })
                .map(|key| {
                    let dot: f64 = (0..head_dim)
                        .map(|i| part(&q, row, i) * part(&k, key, i))
                        .sum();
                    dot * f64::from(0.3f32)
                        + mask.map_or(0.0, |mask| f64::from(mask[row * kv_rows + key]))
                })
                .collect();
            let max = scores.iter().fold(f64::MIN, |m, s| m.max(*s));
            let sum: f64 = scores.iter().map(|s| libm::exp(s - max)).sum();
            for i in 0..head_dim {
                exact[row * width + head * head_dim + i] = scores
                    .iter()
                    .enumerate()
                    .map(|(key, s)| libm::exp(s - max) / sum * part(&v, key, i))
                    .sum();
            }
        }
        for kernels in Kernels::all() {
            let mut out = vec![0.0; q_rows * width];
            let operands = AttentionOperands {
                q: &q,
                k: &k,
                v: &v,
                mask,
                out: &mut out,
            };
            let mut job = Attention::new(kernels, params, operands).unwrap();
            run_alone(&mut job, &mut vec![0; scratch_bytes(&params)]);
            let error = out
                .iter()
                .zip(&exact)
                .fold(0.0, |m: f64, (o, e)| m.max((f64::from(*o) - e).abs()));
            assert!(
                error < 1e-5,
                "{kernels:?} causal {causal} mask {}: {error:e}",
                mask.is_some()
            );
        }
    }
}

#[test]
fn a_stride_below_the_heads_width_is_an_error() {
    let params = AttentionParams {
        q_rows: 1,
        kv_rows: 1,
        heads: 2,
        head_dim: 2,
        q_stride: 4,
        k_stride: 3,
        v_stride: 4,
        scale: 1.0,
        causal: false,
    };
    let operands = AttentionOperands {
        q: &[0.0; 4],
        k: &[0.0; 4],
        v: &[0.0; 4],
        mask: None,
        out: &mut [0.0f32; 4],
    };
    let error = Attention::new(Kernels::detect(), params, operands).err();
    assert_eq!(
        error,
        Some(ArgumentError::Attribute {
            op: "Attention",
            attribute: "stride"
        })
    );
}
