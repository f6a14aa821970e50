use super::*;
use crate::{codes_bytes, dequantize, registry::Random, run_alone};

#[test]
fn a_band_stands_for_the_same_values() {
    let mut random = Random::new(3);
    for (rows, c, first, count) in [
        (7, 5, 2, 3),
        (1, 1, 0, 1),
        (900, 300, 1, 899),
        (64, 64, 63, 1),
    ] {
        let mut x: Vec<u8> = (0..codes_bytes(rows, c, false))
            .map(|_| random.below(256) as u8)
            .collect();
        x[..4].copy_from_slice(&0.25f32.to_le_bytes());
        x[4..8].copy_from_slice(&17i32.to_le_bytes());
        let mut out = vec![0; codes_bytes(count, c, false)];
        let params = CodesRowsParams {
            rows,
            c,
            first,
            count,
        };
        for kernels in Kernels::all() {
            out.fill(0xa5);
            run_alone(
                &mut CodesRows::new(kernels, params, &x, &mut out).unwrap(),
                &mut [],
            );
            let whole = dequantize(&x, rows, c, false).unwrap();
            assert_eq!(
                dequantize(&out, count, c, false).unwrap(),
                whole[first * c..(first + count) * c]
            );
        }
    }
}

#[test]
fn rows_must_be_inside() {
    let kernels = Kernels::all().next().unwrap();
    let x = vec![0; codes_bytes(4, 3, false)];
    let mut out = vec![0; codes_bytes(2, 3, false)];
    for (first, count) in [(3, 2), (0, 0), (usize::MAX, 2), (0, 3)] {
        let params = CodesRowsParams {
            rows: 4,
            c: 3,
            first,
            count,
        };
        assert!(CodesRows::new(kernels, params, &x, &mut out).is_err());
    }
}
