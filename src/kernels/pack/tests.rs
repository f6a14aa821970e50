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
    assert_eq!((panels[0], panels[15], panels[16], panels[31]), (0.0, 15.0, 17.0, 32.0));
    assert_eq!((panels[32], panels[33], panels[48], panels[49]), (16.0, 0.0, 33.0, 0.0));
}

#[test]
fn convolution_panels_run_over_taps_then_channels() {
    // One output channel, two input channels, a kernel of 1 by 3: weight[channel][tap] = 10 channel + tap.
    let panels: Vec<f32> = pack_conv_panels(1, 2, (1, 3), &[0.0, 1.0, 2.0, 10.0, 11.0, 12.0]);
    let column: Vec<f32> = panels.chunks(PANEL).map(|row| row[0]).collect();
    assert_eq!(column, [0.0, 10.0, 1.0, 11.0, 2.0, 12.0]);
}

proptest! {
    #[test]
    fn unpacking_gives_back_what_was_packed(n in 1usize..40, k in 1usize..20, seed: u32) {
        let rows: Vec<f32> = (0..n * k).map(|i| (seed.wrapping_mul(i as u32 + 1) >> 21) as f32).collect();
        prop_assert_eq!(unpack_panels(n, k, &pack_panels::<f32>(n, k, &rows)), rows.clone());
        prop_assert_eq!(unpack_panels(n, k, &pack_panels::<F16>(n, k, &rows)), rows);
    }
}
