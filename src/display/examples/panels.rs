//! A kiosk on panels that hang on SPI: an e-paper of seven colours and a TFT, by the drivers `epd-waveshare` and `mipidsi`.
//!
//! Kiln's own command shows pictures on framebuffers and in PNGs. A panel that has no driver in the kernel takes a program such as
//! this one: a driver crate of `embedded-graphics`, a [`Panel`] around it, and the kiosk is given the panel as one more display.
//!
//! It is built with everything else, for a bus that nothing hangs on, so that it cannot rot:
//!
//! ```sh
//! cargo run --release --example panels -- kiosk.toml
//! ```
//!
//! On a Raspberry Pi the bus and the pins are those of `linux-embedded-hal` (the pins here are those of Waveshare's HATs); nothing
//! else changes:
//!
//! ```ignore
//! use linux_embedded_hal::gpio_cdev::{Chip, LineRequestFlags};
//! use linux_embedded_hal::spidev::{SpiModeFlags, SpidevOptions};
//! use linux_embedded_hal::{CdevPin, Delay, SpidevDevice};
//!
//! let mut spi = SpidevDevice::open("/dev/spidev0.0")?;
//! spi.configure(&SpidevOptions::new().max_speed_hz(4_000_000).mode(SpiModeFlags::SPI_MODE_0).build())?;
//! let mut chip = Chip::new("/dev/gpiochip0")?;
//! let mut pin = |line, flags| CdevPin::new(chip.get_line(line)?.request(flags, 0, "kiln")?);
//! let busy = pin(24, LineRequestFlags::INPUT)?;
//! let dc = pin(25, LineRequestFlags::OUTPUT)?;
//! let reset = pin(17, LineRequestFlags::OUTPUT)?;
//! let panel = e_paper(spi, busy, dc, reset, Delay)?;
//! ```

use std::convert::Infallible;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::{ErrorType as PinErrorType, InputPin, OutputPin};
use embedded_hal::spi::{ErrorType, Operation, SpiDevice};
use epd_waveshare::color::OctColor;
use epd_waveshare::epd5in65f::{Display5in65f, Epd5in65f};
use epd_waveshare::prelude::WaveshareDisplay;
use kiln::display::{Display, Dither, Look, Panel, Rotation};
use kiln::kiosk::{Config, Kiosk, Studio, System};
use kiln::runtime::Cancellation;
use kiln::{Kiln, Request};
use mipidsi::Builder;
use mipidsi::interface::SpiInterface;
use mipidsi::models::ST7789;
use mipidsi::options::ColorInversion;

/// Waveshare's 5.65 inch panel of 600x448 pixels. A frame takes half a minute, so nothing is shown but finished pictures, and the panel sleeps
/// in between, as its maker asks.
pub fn e_paper<S, B, D, R, W>(
    mut spi: S,
    busy: B,
    dc: D,
    reset: R,
    mut delay: W,
) -> Result<Box<dyn Display>, String>
where
    S: SpiDevice<Error: Debug> + Send + 'static,
    B: InputPin + Send + 'static,
    D: OutputPin + Send + 'static,
    R: OutputPin + Send + 'static,
    W: DelayNs + Send + 'static,
{
    let mut driver = Epd5in65f::new(&mut spi, busy, dc, reset, &mut delay, None)
        .map_err(|error| format!("{error:?}"))?;
    let inks = [
        ([0, 0, 0], OctColor::Black),
        ([255, 255, 255], OctColor::White),
        ([0, 255, 0], OctColor::Green),
        ([0, 0, 255], OctColor::Blue),
        ([255, 0, 0], OctColor::Red),
        ([255, 255, 0], OctColor::Yellow),
        ([255, 128, 0], OctColor::Orange),
    ];
    let panel = Panel::inks(Display5in65f::default(), inks.to_vec()).ok_or("2 to 16 inks")?;
    let panel = panel.dither(Dither::Diffusion).flush(move |drawn| {
        driver
            .wake_up(&mut spi, &mut delay)
            .and_then(|()| driver.update_and_display_frame(&mut spi, drawn.buffer(), &mut delay))
            .and_then(|()| driver.sleep(&mut spi, &mut delay))
            .map_err(|error| format!("{error:?}"))
    });
    Ok(Box::new(panel))
}

/// A TFT of 240x320 pixels with an ST7789, hung so that it is wide. It draws as it is told, so there is nothing to flush; its 65536 colours are
/// dithered.
pub fn tft<S, D, R, W>(spi: S, dc: D, reset: R, mut delay: W) -> Result<Box<dyn Display>, String>
where
    S: SpiDevice<Error: Debug> + Send + 'static,
    D: OutputPin<Error: Debug> + Send + 'static,
    R: OutputPin<Error: Debug> + Send + 'static,
    W: DelayNs,
{
    // As long as the program.
    let buffer = Box::leak(Box::new([0; 4096]));
    let driver = Builder::new(ST7789, SpiInterface::new(spi, dc, buffer))
        .reset_pin(reset)
        .display_size(240, 320)
        .invert_colors(ColorInversion::Inverted)
        .init(&mut delay)
        .map_err(|error| format!("{error:?}"))?;
    let panel = Panel::rgb(driver).rotation(Rotation::Quarter);
    Ok(Box::new(panel.dither(Dither::BlueNoise)))
}

/// A bus that nothing hangs on: it counts bytes. Its pins are low and high by turns, so that nobody waits for them long.
#[derive(Clone, Debug, Default)]
pub struct Nothing {
    bytes: Arc<AtomicUsize>,
    is_high: bool,
}

impl Nothing {
    /// Bytes that were sent.
    pub fn sent(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl ErrorType for Nothing {
    type Error = Infallible;
}

impl SpiDevice for Nothing {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
        for operation in operations {
            if let Operation::Write(bytes) = operation {
                self.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

impl PinErrorType for Nothing {
    type Error = Infallible;
}

impl InputPin for Nothing {
    fn is_high(&mut self) -> Result<bool, Infallible> {
        self.is_high = !self.is_high;
        Ok(self.is_high)
    }

    fn is_low(&mut self) -> Result<bool, Infallible> {
        self.is_high().map(|is_high| !is_high)
    }
}

impl OutputPin for Nothing {
    fn set_low(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl DelayNs for Nothing {
    fn delay_ns(&mut self, _: u32) {}
}

/// A kiosk with both panels.
#[allow(dead_code)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: panels CONFIG.toml")?;
    let read = || Config::open(Path::new(&path));
    let cancellation = Cancellation::new();
    let studio = || -> Result<Studio, kiln::Error> {
        Ok(Studio {
            kiln: Kiln::open("model.kiln")?.cancellation(cancellation.clone()),
            request: Box::new(|prompt, seed| Ok(Request::new(prompt).seed(seed))),
        })
    };
    let mut kiosk = Kiosk::new(read()?);
    let quiet = Look {
        progress: false,
        preview: false,
        ..Look::default()
    };
    let bus = Nothing::default;
    kiosk.display(
        "e-paper",
        quiet,
        e_paper(bus(), bus(), bus(), bus(), bus())?,
    )?;
    kiosk.display("tft", Look::default(), tft(bus(), bus(), bus(), bus())?)?;
    let mut reload = || {
        let config = read().map_err(|error| error.to_string())?;
        Ok((config, studio().map_err(|error| error.to_string())?))
    };
    kiosk.run(
        studio()?,
        &mut System::new(&cancellation)?,
        &mut reload,
        None,
    );
    Ok(())
}
