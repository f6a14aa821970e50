use std::fs;

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;

use super::ioctl::{Bits, Fixed, Variable};
use super::*;

fn bits(offset: u32, length: u32) -> Bits {
    Bits {
        offset,
        length,
        msb_right: 0,
    }
}

/// What a Pi's driver says of a display of 800x480.
fn screen(depth: u32) -> (Fixed, Variable) {
    let mut fixed = Fixed::default();
    (fixed.visual, fixed.line_length) = (2, 800 * depth / 8);
    let mut variable = Variable::default();
    (variable.xres, variable.yres, variable.bits_per_pixel) = (800, 480, depth);
    (variable.red, variable.green, variable.blue) = match depth {
        16 => (bits(11, 5), bits(5, 6), bits(0, 5)),
        _ => (bits(16, 8), bits(8, 8), bits(0, 8)),
    };
    (fixed, variable)
}

#[test]
fn drivers_are_believed() {
    for depth in [16, 24, 32] {
        let (fixed, variable) = screen(depth);
        assert_eq!(
            Geometry::of_screen(&fixed, &variable),
            Ok(Geometry::new(800, 480, depth).expect("a geometry"))
        );
    }
    // The half of a double buffer that is shown; red lowest.
    let (mut fixed, mut variable) = screen(32);
    (fixed.line_length, variable.yoffset, variable.xoffset) = (4096, 480, 2);
    (variable.red, variable.blue) = (bits(0, 8), bits(16, 8));
    let geometry = Geometry::of_screen(&fixed, &variable).expect("a geometry");
    assert_eq!((geometry.stride, geometry.start), (4096, 480 * 4096 + 8));
    let mut pixel = [0; 8];
    geometry.pack(&[1, 2, 3, 4, 5, 6], &mut pixel);
    assert_eq!(pixel, [1, 2, 3, 0, 4, 5, 6, 0]);
}

#[test]
fn what_is_not_written_is_named() {
    let refused = |change: &dyn Fn(&mut Fixed, &mut Variable), part: &str| {
        let (mut fixed, mut variable) = screen(32);
        change(&mut fixed, &mut variable);
        let error = Geometry::of_screen(&fixed, &variable).expect_err("refused");
        assert!(error.contains(part), "{error}");
    };
    refused(&|_, variable| variable.bits_per_pixel = 8, "8 bits");
    refused(&|_, variable| variable.bits_per_pixel = 1, "1 bits");
    refused(&|fixed, _| fixed.visual = 3, "visual 3");
    refused(&|fixed, _| fixed.kind = 2, "type 2");
    refused(&|_, variable| variable.grayscale = 0x3231_5659, "grayscale");
    refused(&|_, variable| variable.nonstd = 1, "nonstd 1");
    refused(
        &|_, variable| variable.red.msb_right = 1,
        "highest bit last",
    );
    refused(&|_, variable| variable.red.length = 0, "0 bits");
    refused(
        &|_, variable| variable.red.offset = u32::MAX,
        "from bit 4294967295",
    );
    let error = Framebuffer::open("/dev/null").expect_err("no framebuffer");
    assert!(
        error
            .to_string()
            .starts_with("/dev/null: is no framebuffer: "),
        "{error}"
    );
    let error = Framebuffer::open("/dev/no-such-display").expect_err("not there");
    assert!(
        error.to_string().starts_with("/dev/no-such-display: "),
        "{error}"
    );
    for (width, height, bits) in [
        (0, 1, 16),
        (1, 0, 16),
        (1 << 20, 1, 16),
        (1, 1, 8),
        (u32::MAX, u32::MAX, 32),
    ] {
        assert!(
            Geometry::new(width, height, bits).is_err(),
            "{width}x{height}x{bits}"
        );
    }
    let geometry = Geometry::new(10, 10, 32).expect("a geometry");
    assert!(geometry.stride(39).is_err() && geometry.stride(u32::MAX).is_err());
}

/// Red, green, blue and gray in the corners of 4x2, with a gap behind each row: every byte of the file.
#[test]
fn pixels_lie_where_they_should() {
    let folder = tempfile::tempdir().expect("a folder");
    let corners = [
        ((0, 0), Rgb888::RED),
        ((3, 0), Rgb888::GREEN),
        ((0, 1), Rgb888::BLUE),
        ((3, 1), Rgb888::new(0x80, 0x81, 0x82)),
    ];
    let mut frame = Frame::new((4, 2)).expect("a frame");
    for ((x, y), color) in corners {
        let Ok(()) = Pixel(Point::new(x, y), color).draw(&mut frame);
    }
    let pixels: [(u32, [&[u8]; 4]); 3] = [
        (16, [&[0, 0xf8], &[0xe0, 7], &[0x1f, 0], &[0x10, 0x84]]),
        (
            24,
            [
                &[0, 0, 255],
                &[0, 255, 0],
                &[255, 0, 0],
                &[0x82, 0x81, 0x80],
            ],
        ),
        (
            32,
            [
                &[0, 0, 255, 0],
                &[0, 255, 0, 0],
                &[255, 0, 0, 0],
                &[0x82, 0x81, 0x80, 0],
            ],
        ),
    ];
    for (depth, expected) in pixels {
        let path = folder.path().join(format!("{depth}.raw"));
        let size = depth as usize / 8;
        let stride = 4 * size + 6;
        let geometry = Geometry::new(4, 2, depth).and_then(|g| g.stride(stride as u32));
        let geometry = geometry.expect("a geometry");
        for (rotation, order) in [
            (Rotation::None, [0, 1, 2, 3]),
            (Rotation::Half, [3, 2, 1, 0]),
        ] {
            let display = Framebuffer::plain(&path, geometry).expect("a file");
            let mut display = display
                .rotation(rotation)
                .colors(Colors::Full, Dither::None);
            display.show(&frame).expect("shown");
            let bytes = fs::read(&path).expect("read");
            assert_eq!(bytes.len(), stride * 2);
            for (place, corner) in [0, 3 * size, stride, stride + 3 * size]
                .into_iter()
                .zip(order)
            {
                assert_eq!(
                    &bytes[place..place + size],
                    expected[corner],
                    "{depth} {rotation} {place}"
                );
            }
            assert!(bytes[4 * size..stride].iter().all(|byte| *byte == 0));
        }
        let turned = Framebuffer::plain(&path, geometry)
            .expect("a file")
            .rotation(Rotation::Quarter);
        assert_eq!(turned.size(), (2, 4));
        let mut turned = turned;
        let error = turned.show(&frame).expect_err("another size");
        assert_eq!(error.to_string(), "a frame of 4x2 for a display of 2x4");
    }
}

/// Emulated framebuffers do not show a row that is written alone.
#[test]
fn rows_are_written_together() {
    for height in [1, 2, 3, 5, 479, 480, 1080, 4001] {
        for stride in [1, 64, 2560, 7680, 30_000, 60_000, 1 << 20] {
            let mut next = 0;
            for block in blocks(height, stride) {
                assert_eq!(block.start, next);
                assert!(
                    block.len() >= 2.min(height as usize),
                    "{height} {stride}: {block:?}"
                );
                let most = (2 * u64::from(BLOCK)).max(3 * u64::from(stride));
                assert!(
                    block.len() as u64 * u64::from(stride) <= most,
                    "{height} {stride}: {block:?}"
                );
                next = block.end;
            }
            assert_eq!(next, height);
        }
    }
}

/// 16 bits are dithered without being asked for, and by what is asked for.
#[test]
fn few_bits_are_dithered() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fb");
    let geometry = Geometry::new(32, 32, 16).expect("a geometry");
    let mut frame = Frame::new((32, 32)).expect("a frame");
    let Ok(()) = frame.clear(Rgb888::new(0x84, 0x82, 0x84));
    let shown = |dither| {
        let display = Framebuffer::plain(&path, geometry).expect("a file");
        display
            .colors(Colors::Full, dither)
            .show(&frame)
            .expect("shown");
        let words: Vec<u16> = fs::read(&path)
            .expect("read")
            .as_chunks()
            .0
            .iter()
            .map(|b| u16::from_le_bytes(*b))
            .collect();
        let mut kinds = words.clone();
        kinds.sort_unstable();
        kinds.dedup();
        (words, kinds.len())
    };
    assert_eq!(shown(Dither::None).1, 1);
    let (diffused, masked) = (shown(Dither::Diffusion), shown(Dither::BlueNoise));
    assert!(diffused.1 > 1 && masked.1 > 1 && diffused.0 != masked.0);
    let display = Framebuffer::plain(&path, geometry).expect("a file");
    display
        .colors(Colors::one_bit(), Dither::Diffusion)
        .show(&frame)
        .expect("shown");
    let words = fs::read(&path).expect("read");
    assert!(
        words
            .as_chunks::<2>()
            .0
            .iter()
            .all(|word| [[0; 2], [255; 2]].contains(word))
    );
}
