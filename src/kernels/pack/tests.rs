use proptest::prelude::*;

use super::*;
use crate::F16;

#[test]
fn panels_are_columns_by_sixteens() {
    // Two steps of k, 17 columns; column c at step k is 100 k + c.
    let panels: Vec<f32> = pack_panels_with(17, 2, |column, k| (100 * k + column) as f32);
    assert_eq!(panels.len(), panel_len(17, 2));
    assert_eq!(panels[..3], [0.0, 1.0, 2.0]);
    assert_eq!(panels[16..18], [100.0, 101.0]);
    assert_eq!(panels[32..34], [16.0, 0.0]);
    assert_eq!(panels[48..50], [116.0, 0.0]);
}

#[test]
fn geglu_panels_alternate() {
    // 17 values, then 17 gates, one step of k.
    let rows: Vec<f32> = (0..34).map(|i| i as f32).collect();
    let panels: Vec<f32> = pack_geglu_panels(17, 1, &rows);
    assert_eq!(panels.len(), geglu_panel_len(17, 1));
    assert_eq!(
        (panels[0], panels[15], panels[16], panels[31]),
        (0.0, 15.0, 17.0, 32.0)
    );
    assert_eq!(
        (panels[32], panels[33], panels[48], panels[49]),
        (16.0, 0.0, 33.0, 0.0)
    );
}

#[test]
fn convolution_panels_run_over_taps_then_channels() {
    // One output channel, two input channels, a kernel of 1 by 3: weight[channel][tap] = 10 channel + tap.
    let panels: Vec<f32> = pack_conv_panels(1, 2, (1, 3), &[0.0, 1.0, 2.0, 10.0, 11.0, 12.0]);
    let column: Vec<f32> = panels.chunks(PANEL).map(|row| row[0]).collect();
    assert_eq!(column, [0.0, 10.0, 1.0, 11.0, 2.0, 12.0]);
}

#[test]
fn i8_panels_are_fours_of_k() {
    // 17 columns, 5 steps padded to 8; column c at step k is 5 c + k.
    let codes: Vec<i8> = (0..85).collect();
    let panels = pack_i8_panels(17, 5, &codes);
    assert_eq!(panels.len(), i8_panel_len(17, 5));
    assert_eq!(panels[..6], [0, 1, 2, 3, 5, 6]);
    assert_eq!(panels[64..69], [4, 0, 0, 0, 9]);
    assert_eq!(panels[128..133], [80, 81, 82, 83, 0]);
    assert_eq!(panels[192], 84);
}

#[test]
fn i8_geglu_panels_alternate() {
    let codes: Vec<i8> = (0..34).collect();
    let panels = pack_i8_geglu_panels(17, 1, &codes);
    assert_eq!(panels.len(), i8_geglu_panel_len(17, 1));
    let first = |panel: usize, column: usize| panels[panel * 128 + 4 * column];
    assert_eq!(
        [first(0, 0), first(0, 15), first(1, 0), first(1, 15)],
        [0, 15, 17, 32]
    );
    assert_eq!(
        [first(2, 0), first(2, 1), first(3, 0), first(3, 1)],
        [16, 0, 33, 0]
    );
}

#[test]
fn i8_convolution_panels_run_over_taps_then_channels() {
    let panels = pack_i8_conv_panels(1, 2, (1, 3), &[0, 1, 2, 10, 11, 12]);
    assert_eq!(
        (&panels[..4], &panels[64..68]),
        (&[0, 10, 1, 11][..], &[2, 12, 0, 0][..])
    );
}

#[test]
fn weights_are_quantized_by_rows() {
    let quantized = quantize_weights(
        4,
        3,
        &[
            127.0, 0.5, -1.5, 0.0, -0.0, 0.0, -2.54, 1.0, 0.0, 1e-45, 0.0, 0.0,
        ],
    );
    assert_eq!(quantized.codes, [127, 0, -2, 0, 0, 0, -127, 50, 0, 0, 0, 0]);
    assert_eq!(quantized.scale, [1.0, 0.0, 0.02, 0.0]);
    assert_eq!(quantized.sums, [125, 0, -77, 0]);
    let odd = quantize_weights(2, 2, &[f32::NAN, 1.0, f32::INFINITY, 1.0]);
    assert_eq!((odd.codes, odd.scale[1]), (vec![0, 127, 0, 0], 0.0));
}

proptest! {
    #[test]
    fn i8_unpacking_gives_back_what_was_packed(n in 1usize..40, k in 1usize..20, seed: u32) {
        let codes: Vec<i8> = (0..n * k).map(|i| (seed.wrapping_mul(i as u32 + 1) >> 21) as i8).collect();
        prop_assert_eq!(unpack_i8_panels(n, k, &pack_i8_panels(n, k, &codes)), codes);
    }

    #[test]
    fn weights_are_within_half_a_step(weights in prop::collection::vec(-3.0f32..3.0, 1..50)) {
        let QuantizedWeights { codes, scale, .. } = quantize_weights(1, weights.len(), &weights);
        for (weight, code) in weights.iter().zip(codes) {
            prop_assert!((weight - f32::from(code) * scale[0]).abs() <= scale[0] * 0.5001);
        }
    }

    #[test]
    fn unpacking_gives_back_what_was_packed(n in 1usize..40, k in 1usize..20, seed: u32) {
        let rows: Vec<f32> = (0..n * k).map(|i| (seed.wrapping_mul(i as u32 + 1) >> 21) as f32).collect();
        prop_assert_eq!(unpack_panels(n, k, &pack_panels::<f32>(n, k, &rows)), rows.clone());
        prop_assert_eq!(unpack_panels(n, k, &pack_panels::<F16>(n, k, &rows)), rows);
    }
}
