use super::*;

fn all_halves() -> Vec<F16> {
    (0..=u16::MAX).map(F16::from_bits).collect()
}

/// NaNs, infinities, ties, carries and everything around the ends of the halves' range.
fn floats() -> Vec<f32> {
    let halves = all_halves().into_iter().map(F16::to_f32).map(f32::to_bits);
    // Each half, the middle between it and its neighbours, and the floats next to those.
    let near = halves.flat_map(|bits| {
        [0, 0x0fff, 0x1000, 0x1001, 0x1fff, 0x2000]
            .map(|d| [bits.wrapping_add(d), bits.wrapping_sub(d)])
            .concat()
    });
    near.chain((0..=u32::MAX).step_by(4099))
        .map(f32::from_bits)
        .collect()
}

#[test]
fn halves_load_exactly() {
    for half in all_halves() {
        let expected = half::f16::from_bits(half.to_bits()).to_f32();
        assert_eq!(
            half.to_f32().to_bits(),
            expected.to_bits(),
            "{:#06x}",
            half.to_bits()
        );
    }
}

#[test]
fn floats_are_stored_to_the_nearest_half() {
    for x in floats() {
        let expected = half::f16::from_f32_const(x).to_bits();
        assert_eq!(
            F16::from_f32(x).to_bits(),
            expected,
            "{:#010x}",
            x.to_bits()
        );
    }
}

#[test]
fn slices_convert_as_single_values_do_on_every_instruction_set() {
    let (halves, floats) = (all_halves(), floats());
    for kernels in Kernels::all() {
        for skip in 0..8 {
            let mut loaded = vec![0.0; halves.len() - skip];
            F16::load_slice(kernels, &halves[skip..], &mut loaded);
            assert!(
                loaded
                    .iter()
                    .zip(&halves[skip..])
                    .all(|(x, half)| x.to_bits() == half.to_f32().to_bits())
            );
            let mut stored = vec![F16::default(); floats.len() - skip];
            F16::store_slice(kernels, &floats[skip..], &mut stored);
            assert!(
                stored
                    .iter()
                    .zip(&floats[skip..])
                    .all(|(half, x)| *half == F16::from_f32(*x)),
                "{kernels:?}"
            );
        }
    }
}
