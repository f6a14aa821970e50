//! Displays, by what comes out of them: framebuffers of each depth, PNGs, `embedded-graphics`' simulator, panels on SPI.
//!
//! `KILN_BLESS=1 cargo test --release --workspace --test displays` writes `tests/goldens/display` anew.

#![cfg(feature = "kiosk")]

use std::path::{Path, PathBuf};
use std::{env, fs};

use embedded_graphics::pixelcolor::{BinaryColor, Rgb565, Rgb888};
use embedded_graphics::prelude::*;
use embedded_graphics_simulator::{OutputSettings, SimulatorDisplay};
use kiln::display::{
    Colors, Display, Dither, Fit, Frame, Framebuffer, Geometry, Look, Panel, PngFile, Rotation,
    Screen,
};

#[path = "../src/display/examples/panels.rs"]
mod panels;

const SIZE: (u32, u32) = (120, 92);

/// A picture with smooth colours and sharp edges.
fn picture() -> ((u32, u32), Vec<u8>) {
    let (width, height) = (48, 32);
    let pixel = |x: u32, y: u32| match (x / 8 + y / 8) % 4 {
        0 => [255, 255, 255],
        _ => [(x * 5) as u8, (y * 8) as u8, (255 - x * 3 - y * 2) as u8],
    };
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y)));
    ((width, height), pixels.collect())
}

/// Everything that can be on a screen.
fn screen(size: (u32, u32), look: Look) -> Screen {
    let mut screen = Screen::new(size, look).expect("a screen");
    let (size, pixels) = picture();
    screen.set_picture(size, &pixels);
    screen.set_caption("Żółw à la plage — crème brûlée, 2 łyżki");
    screen.set_progress(Some((7, 20)));
    screen.set_preview(Some((
        (2, 2),
        &[250, 10, 10, 10, 250, 10, 10, 10, 250, 250, 250, 10],
    )));
    screen
}

fn read(path: &Path) -> ((u32, u32), Vec<u8>) {
    let picture = image::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let picture = picture.into_rgb8();
    (picture.dimensions(), picture.into_raw())
}

/// Compares pixels with `goldens/display/NAME.png`.
fn golden(name: &str, size: (u32, u32), pixels: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/display");
    let path = folder.join(format!("{name}.png"));
    if env::var_os("KILN_BLESS").is_some() {
        let picture =
            image::RgbImage::from_raw(size.0, size.1, pixels.to_vec()).expect("a picture");
        picture.save(&path).expect("written");
    }
    let (found, expected) = read(&path);
    assert_eq!(found, size, "{name}");
    let differing = expected
        .chunks(3)
        .zip(pixels.chunks(3))
        .position(|(a, b)| a != b);
    if let Some(place) = differing {
        let (x, y) = (place as u32 % size.0, place as u32 / size.0);
        panic!(
            "{name}: at {x},{y}: {:?}, not {:?}",
            &pixels[place * 3..place * 3 + 3],
            &expected[place * 3..place * 3 + 3]
        );
    }
}

fn path(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}

/// A framebuffer's file as RGB, read independently of how it is written.
fn decoded(path: &Path, (width, height): (u32, u32), bits: u32, stride: usize) -> Vec<u8> {
    let bytes = fs::read(path).expect("a file");
    assert_eq!(bytes.len(), stride * height as usize);
    let mut pixels = Vec::new();
    for row in bytes.chunks_exact(stride) {
        let size = bits as usize / 8;
        for pixel in row[..width as usize * size].chunks_exact(size) {
            let word = pixel
                .iter()
                .rev()
                .fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
            pixels.extend(match bits {
                16 => [
                    ((word >> 11) * 255 / 31) as u8,
                    ((word >> 5 & 63) * 255 / 63) as u8,
                    ((word & 31) * 255 / 31) as u8,
                ],
                _ => [(word >> 16) as u8, (word >> 8) as u8, word as u8],
            });
        }
    }
    pixels
}

#[test]
fn framebuffers_of_each_depth() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut screen = screen(SIZE, Look::default());
    let frame = screen.compose().clone();
    golden("screen", SIZE, frame.pixels());
    for (bits, gap) in [(16, 0), (16, 10), (24, 7), (32, 64)] {
        let file = path(&folder, "fb");
        let _ = fs::remove_file(&file);
        let stride = SIZE.0 * bits / 8 + gap;
        let geometry =
            Geometry::new(SIZE.0, SIZE.1, bits).and_then(|geometry| geometry.stride(stride));
        let geometry = geometry.expect("a geometry");
        Framebuffer::plain(&file, geometry)
            .expect("opened")
            .show(&frame)
            .expect("shown");
        let found = decoded(&file, SIZE, bits, stride as usize);
        match bits {
            16 => golden("framebuffer-16", SIZE, &found),
            _ => assert!(found == frame.pixels(), "{bits}"),
        }
    }
}

#[test]
fn fewer_colours() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut screen = screen(SIZE, Look::default());
    let frame = screen.compose().clone();
    for (colors, name) in [
        (Colors::one_bit(), "1-bit"),
        (Colors::seven(), "7-color"),
        (Colors::rgb565(), "rgb565"),
    ] {
        for (dither, way) in [
            (Dither::Diffusion, "diffusion"),
            (Dither::BlueNoise, "blue-noise"),
        ] {
            let file = path(&folder, "now.png");
            let mut display = PngFile::new(&file, SIZE).colors(colors.clone(), dither);
            display.show(&frame).expect("shown");
            let (size, pixels) = read(&file);
            golden(&format!("{name}-{way}"), size, &pixels);
        }
    }
}

#[test]
fn a_display_that_hangs_otherwise() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = path(&folder, "now.png");
    let mut display = PngFile::new(&file, SIZE).rotation(Rotation::Quarter);
    assert_eq!(display.size(), (SIZE.1, SIZE.0));
    let look = Look {
        letterbox: [240, 230, 200],
        fit: Fit::Cover,
        ..Look::default()
    };
    let mut screen = screen(display.size(), look);
    display.show(screen.compose()).expect("shown");
    let (size, pixels) = read(&file);
    golden("quarter-turn", size, &pixels);
}

/// The simulator is a `DrawTarget` as drivers are: what it shows is what the PNG shows.
#[test]
fn the_simulator_shows_the_same() {
    let mut screen = screen(SIZE, Look::default());
    let frame = screen.compose().clone();
    let settings = OutputSettings::default();
    fn shown<C>(
        mut panel: Panel<SimulatorDisplay<C>>,
        frame: &Frame,
        settings: &OutputSettings,
    ) -> Vec<u8>
    where
        C: PixelColor + Into<Rgb888> + From<BinaryColor>,
    {
        panel.show(frame).expect("shown");
        panel
            .target()
            .to_rgb_output_image(settings)
            .as_image_buffer()
            .into_raw()
            .to_vec()
    }
    let size = Size::new(SIZE.0, SIZE.1);
    let full = Panel::rgb(SimulatorDisplay::<Rgb888>::new(size));
    assert!(shown(full, &frame, &settings) == frame.pixels());
    let high = Panel::rgb(SimulatorDisplay::<Rgb565>::new(size));
    golden("rgb565-diffusion", SIZE, &shown(high, &frame, &settings));
    let inks = vec![([0; 3], BinaryColor::Off), ([255; 3], BinaryColor::On)];
    let bits = Panel::inks(SimulatorDisplay::<BinaryColor>::new(size), inks).expect("a panel");
    golden(
        "1-bit-blue-noise",
        SIZE,
        &shown(bits.dither(Dither::BlueNoise), &frame, &settings),
    );
}

/// The example's panels are sent every pixel.
#[test]
fn panels_on_a_bus() {
    use panels::Nothing;
    let spi = Nothing::default();
    let pin = Nothing::default;
    let mut paper = panels::e_paper(spi.clone(), pin(), pin(), pin(), pin()).expect("a panel");
    assert_eq!(paper.size(), (600, 448));
    let before = spi.sent();
    paper
        .show(screen((600, 448), Look::default()).compose())
        .expect("shown");
    // Half a byte a pixel.
    assert!(spi.sent() - before >= 600 * 448 / 2);

    let spi = Nothing::default();
    let mut tft = panels::tft(spi.clone(), pin(), pin(), pin()).expect("a panel");
    assert_eq!(tft.size(), (320, 240));
    let before = spi.sent();
    tft.show(screen((320, 240), Look::default()).compose())
        .expect("shown");
    assert!(spi.sent() - before >= 320 * 240 * 2);
    let error = tft
        .show(screen((240, 320), Look::default()).compose())
        .expect_err("another size");
    assert_eq!(
        error.to_string(),
        "a frame of 240x320 for a display of 320x240"
    );
}
