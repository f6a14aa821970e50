use super::mask::{MASK_SIDE, mask};
use super::palette::Mixer;
use super::*;

/// An area of one colour, reduced.
fn area(color: [u8; 3], colors: &Colors, dither: Dither, side: usize) -> Vec<[u8; 3]> {
    let mut reducer = Reducer::new(colors, dither, side);
    let mut all = Vec::new();
    for _ in 0..side {
        let mut row = vec![color; side];
        reducer.reduce(row.as_flattened_mut());
        all.extend(row);
    }
    all
}

fn mean(pixels: &[[u8; 3]], light: impl Fn([u8; 3]) -> [f64; 3]) -> [f64; 3] {
    let sums = pixels.iter().fold([0.0; 3], |sums, pixel| {
        let light = light(*pixel);
        each(|i| sums[i] + light[i])
    });
    sums.map(|sum| sum / pixels.len() as f64)
}

#[test]
fn every_rank_is_there_once_and_the_same_each_time() {
    let mut ranks = mask().to_vec();
    // FNV-1a: the mask is part of what a display shows, so it may not change by itself.
    let hash = ranks
        .iter()
        .flat_map(|rank| rank.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    assert_eq!(hash, MASK_HASH, "{hash:#018x}");
    ranks.sort_unstable();
    assert!(ranks.iter().copied().eq(0..(MASK_SIDE * MASK_SIDE) as u16));
}

const MASK_HASH: u64 = 0xda25_de43_a7b2_ae39;

/// The power of a pattern's low frequencies, as a share of what white noise would have.
fn low_power(pattern: &[bool]) -> f64 {
    let share = pattern.iter().filter(|on| **on).count() as f64 / pattern.len() as f64;
    let mut power = 0.0;
    let mut count = 0.0;
    for (v, u) in (0..6_usize).flat_map(|v| (0..6_usize).map(move |u| (v, u))) {
        if (1..36).contains(&(u * u + v * v)) {
            let (mut real, mut imaginary) = (0.0, 0.0);
            for (place, on) in pattern.iter().enumerate() {
                let turn = (u * (place % MASK_SIDE) + v * (place / MASK_SIDE)) % MASK_SIDE;
                let angle = turn as f64 * std::f64::consts::TAU / MASK_SIDE as f64;
                let value = f64::from(u8::from(*on)) - share;
                real += value * libm::cos(angle);
                imaginary += value * libm::sin(angle);
            }
            power += real * real + imaginary * imaginary;
            count += 1.0;
        }
    }
    power / count / (pattern.len() as f64 * share * (1.0 - share))
}

#[test]
fn the_noise_is_blue() {
    for share in [0.05, 0.1, 0.3, 0.5, 0.8, 0.95] {
        let below = (share * (MASK_SIDE * MASK_SIDE) as f64) as u16;
        let pattern: Vec<bool> = mask().iter().map(|rank| *rank < below).collect();
        let power = low_power(&pattern);
        assert!(power < 0.12, "{share}: {power}");
    }
    // What the measure says of noise that is white.
    let mut state = 1_u64;
    let white: Vec<bool> = (0..MASK_SIDE * MASK_SIDE)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 63 == 1
        })
        .collect();
    assert!(low_power(&white) > 0.5);
}

/// An area keeps its light, in what it is mixed in.
#[test]
fn areas_keep_their_light() {
    let linear = |pixel| Mixer::linear(pixel).map(|x| f64::from(x) / 65535.0);
    // A byte is only near its code.
    let codes = |pixel: [u8; 3]| {
        let code =
            |i: usize, bits: u32| f64::from(pixel[i] >> (8 - bits)) / f64::from((1 << bits) - 1);
        [code(0, 5), code(1, 6), code(2, 5)]
    };
    for dither in [Dither::Diffusion, Dither::BlueNoise] {
        for gray in [3, 40, 128, 188, 220, 252] {
            let pixels = area([gray; 3], &Colors::one_bit(), dither, 128);
            let (found, wanted) = (mean(&pixels, linear)[0], linear([gray; 3])[0]);
            assert!(
                (found - wanted).abs() < 0.004,
                "{dither:?} {gray}: {found}, {wanted}"
            );
            assert!(
                pixels
                    .iter()
                    .all(|pixel| [[0; 3], [255; 3]].contains(pixel))
            );
        }
        // Colours that seven pigments can mix; by the mask in sixteenths.
        for color in [[128; 3], [200, 120, 60], [120, 160, 90], [60, 60, 160]] {
            let pixels = area(color, &Colors::seven(), dither, 128);
            let (found, wanted) = (mean(&pixels, linear), linear(color));
            let most = if dither == Dither::Diffusion {
                0.01
            } else {
                0.04
            };
            assert!(
                (0..3).all(|i| (found[i] - wanted[i]).abs() < most),
                "{dither:?} {color:?}: {found:?}, {wanted:?}"
            );
        }
        for color in [
            [1, 2, 3],
            [100, 101, 102],
            [251, 254, 255],
            [255; 3],
            [0; 3],
        ] {
            let pixels = area(color, &Colors::rgb565(), dither, 128);
            let (found, wanted) = (
                mean(&pixels, codes),
                color.map(|x: u8| f64::from(x) / 255.0),
            );
            assert!(
                (0..3).all(|i| (found[i] - wanted[i]).abs() < 0.001),
                "{dither:?} {color:?}: {found:?}, {wanted:?}"
            );
        }
    }
}

/// What a display has is left as it is, and nothing else is left.
#[test]
fn colours_that_there_are_stay() {
    for dither in [Dither::None, Dither::Diffusion, Dither::BlueNoise] {
        for colors in [Colors::one_bit(), Colors::seven()] {
            let Colors::Palette(palette) = &colors else {
                unreachable!()
            };
            for color in palette.colors() {
                assert!(
                    area(*color, &colors, dither, 8)
                        .iter()
                        .all(|found| found == color),
                    "{dither:?}: {color:?}"
                );
            }
        }
        for byte in [0, 255] {
            let pixels = area([byte; 3], &Colors::rgb565(), dither, 8);
            assert!(
                pixels.iter().all(|found| *found == [byte; 3]),
                "{dither:?} {byte}"
            );
        }
        assert_eq!(area([1, 2, 3], &Colors::Full, dither, 1), [[1, 2, 3]]);
        // A colour that no mixture gives does not pile up errors without end.
        let magenta = area([255, 0, 255], &Colors::seven(), dither, 256);
        assert!(magenta.iter().all(|pixel| pixel[1] == 0), "{dither:?}");
    }
    for code in 0..32 {
        let byte = expanded(code, 31);
        assert_eq!(i32::from(byte >> 3), code);
        let pixels = area([byte; 3], &Colors::Depth([5; 3]), Dither::None, 8);
        assert!(pixels.iter().all(|found| *found == [byte; 3]), "{code}");
    }
    assert_eq!(
        area([230, 250, 90], &Colors::one_bit(), Dither::None, 1),
        [[255; 3]]
    );
    assert!("floyd".parse::<Dither>().is_err() && "8-bit".parse::<Colors>().is_err());
    assert!(Palette::new(&[[0; 3]]).is_none() && Palette::new(&[[0; 3]; 17]).is_none());
}
