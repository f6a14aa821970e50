use std::path::PathBuf;

use safetensors::SafeTensors;

use super::*;
use crate::pipeline::picture::{Background, bilinear, lanczos};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/init")
        .join(name)
}

fn source() -> Raster {
    Raster::open(&fixture("source.png"), Background::White).expect("a picture")
}

/// A tensor of `reference.safetensors`.
fn reference(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(fixture("reference.safetensors")).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensor = file.tensor(name).expect("a tensor");
    match tensor.dtype() {
        safetensors::Dtype::F16 => tensor
            .data()
            .as_chunks::<2>()
            .0
            .iter()
            .map(|bytes| half::f16::from_le_bytes(*bytes).to_f32())
            .collect(),
        _ => tensor
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect(),
    }
}

/// Every byte is Pillow's.
#[test]
fn resizes_as_pillow() {
    let source = source();
    let whole = [0.0, 0.0, 80.0, 64.0];
    for (case, size, part) in [
        ("smaller", (24, 16), whole),
        ("larger", (50, 40), [10.0, 10.0, 30.0, 26.0]),
        ("wider", (40, 20), [10.5, 4.0, 70.5, 62.0]),
    ] {
        let found = lanczos(source.pixels(), 3, (80, 64), part, size);
        let found: Vec<f32> = found.iter().copied().map(f32::from).collect();
        assert!(found == reference(&format!("resized.{case}")), "{case}");
    }
    let same = lanczos(source.pixels(), 3, (80, 64), whole, (80, 64));
    assert!(matches!(same, std::borrow::Cow::Borrowed(same) if same == source.pixels()));
}

#[test]
fn enlarges_latents_as_torch() {
    // The fixtures' `example`: SplitMix64 from the FNV-1a hash of the name.
    let seed = b"bilinear"
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |seed, byte| {
            (seed ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
    let number = |i: u64| {
        let z = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f32::from(((z ^ (z >> 31)) >> 56) as u8 as i8) / 64.0
    };
    let latents: Vec<f32> = (0..4 * 6 * 8).map(number).collect();
    let found = bilinear(&latents, [6, 8], [9, 12]);
    let expected = reference("bilinear");
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

/// A picture whose left half is red and whose right half is blue.
fn halves(width: u32, height: u32) -> Raster {
    let pixel = |i: u32| match i % width < width / 2 {
        true => [255, 0, 0],
        false => [0, 0, 255],
    };
    let pixels: Vec<u8> = (0..width * height).flat_map(pixel).collect();
    Raster::new(width, height, pixels).expect("a picture")
}

#[test]
fn pictures_are_fitted() {
    let canvas = |resize| {
        let init = Init {
            resize,
            ..Init::new(halves(64, 16))
        };
        Canvas::new(&init, (16, 16)).planes([0, 0, 16, 16])
    };
    // Red and blue of a row.
    let ends = |planes: &[f32], row: usize| {
        [0, 1, 14, 15].map(|x| (planes[row * 16 + x] > 0.0, planes[512 + row * 16 + x] > 0.0))
    };
    let both = [(true, false), (true, false), (false, true), (false, true)];
    for resize in Resize::ALL {
        let planes = canvas(resize);
        assert_eq!(planes.len(), 3 * 16 * 16, "{resize}");
        for row in [0, 8, 15] {
            assert_eq!(ends(&planes, row), both, "{resize} {row}");
        }
    }
    // The middle of 16 columns is as sharp as it was; stretched it is made of four times as many.
    assert_eq!(canvas(Resize::Crop)[7], 1.0);
    // A row of green shows where a picture lies.
    let mut pixels = halves(64, 16).pixels().to_vec();
    for pixel in pixels[..64 * 3 * 8].chunks_mut(3) {
        pixel[1] = 255;
    }
    let green = |resize| {
        let picture = Raster::new(64, 16, pixels.clone()).expect("a picture");
        let init = Init {
            resize,
            ..Init::new(picture)
        };
        let planes = Canvas::new(&init, (16, 16)).planes([0, 0, 16, 16]);
        (0..16).filter(|row| planes[256 + row * 16] > 0.0).count()
    };
    assert_eq!(Resize::ALL.map(green), [8, 8, 8]);
}

#[test]
fn masks_blend_and_are_put_back() {
    let mut mask = vec![0; 32 * 16 * 3];
    // White at columns 8 to 15 of the rows 4 to 11.
    for (i, pixel) in mask.chunks_mut(3).enumerate() {
        let (x, y) = (i % 32, i / 32);
        if (8..16).contains(&x) && (4..12).contains(&y) {
            pixel.fill(255);
        }
    }
    let mask = Mask {
        blur: 0.0,
        ..Mask::new(Raster::new(32, 16, mask).expect("a mask"))
    };
    let init = |mask: Mask| Init {
        mask: Some(mask),
        ..Init::new(halves(32, 16))
    };
    let given = init(mask.clone());
    let canvas = Canvas::new(&given, (32, 16));
    // A latent is as its first pixel.
    assert_eq!(
        canvas.latent_mask([2, 4]),
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    );
    let kept = canvas.unmasked_planes([0, 0, 16, 32]);
    assert_eq!((kept[4 * 32 + 8], kept[4 * 32 + 7]), (0.0, 1.0));
    let (size, pixels) = canvas.put_back(vec![7; 32 * 16 * 3]);
    assert_eq!(size, (32, 16));
    let changed = pixels.iter().filter(|byte| **byte == 7).count();
    assert_eq!(changed, 8 * 8 * 3);

    // Two pixels of padding, in the shape of what is drawn: 24x12, which is 16x8 twice as large as it was.
    let part = Mask {
        only_masked: Some(2),
        ..mask.clone()
    };
    let (size, pixels) = Canvas::new(&init(part.clone()), (64, 32)).put_back(vec![7; 64 * 32 * 3]);
    assert_eq!(size, (32, 16));
    let changed = pixels.iter().filter(|byte| **byte == 7).count();
    assert_eq!(changed, 8 * 8 * 3);
    let planes = Canvas::new(&init(part), (64, 32)).planes([0, 0, 32, 64]);
    // Columns 0 to 23 of it, of which 16 are red.
    let red = planes[..64].iter().filter(|x| **x > 0.0).count();
    assert!((42..=43).contains(&red), "{red}");

    // Blurred, a mask weighs as much as before and reaches further.
    let soft = Mask { blur: 1.0, ..mask };
    let (_, pixels) = Canvas::new(&init(soft), (32, 16)).put_back(vec![255; 32 * 16 * 3]);
    let green = |x: usize, y: usize| pixels[(y * 32 + x) * 3 + 1];
    assert_eq!((green(12, 8), green(4, 8)), (255, 0));
    // 0.3 and 0.7 of 255.
    assert!((74..80).contains(&green(7, 8)) && (175..181).contains(&green(8, 8)));
}

#[test]
fn what_cannot_be_is_told() {
    let refused = |init: Init| init.check().expect_err("an error").to_string();
    let strong = Init {
        strength: 1.5,
        ..Init::new(halves(8, 8))
    };
    assert_eq!(
        refused(strong),
        "strength 1.5: a number from 0 to 1 expected"
    );
    let with = |mask: Mask| Init {
        mask: Some(mask),
        ..Init::new(halves(8, 8))
    };
    assert_eq!(
        refused(with(Mask::new(halves(8, 9)))),
        "the mask is 8x9, the picture 8x8"
    );
    let black = Raster::new(8, 8, vec![0; 192]).expect("a picture");
    assert!(refused(with(Mask::new(black))).contains("nothing white"));
    let white = Raster::new(8, 8, vec![255; 192]).expect("a picture");
    let mut mask = Mask::new(white);
    mask.blur = f32::NAN;
    assert!(refused(with(mask)).starts_with("mask blur NaN"));
    for factor in [1.0, 0.5, f32::NAN, 17.0] {
        assert!(Hires::new(factor).check().is_err(), "{factor}");
    }
    assert_eq!(taken(10, 0.7), 7);
    assert_eq!((taken(100, 0.29), taken(4, 1.0), taken(4, 0.2)), (28, 4, 0));
}
