//! What happens outside: the clocks and the signals.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::runtime::{
    Cancellation, cancel_on_signal, minute_of_day, note_requests, take_draw_now, take_reload,
};

/// What a kiosk knows of the world.
pub trait Outside {
    /// Whether it is to end.
    fn ends(&self) -> bool;
    /// Whether somebody has asked since the last time to read the configuration again.
    fn takes_reload(&mut self) -> bool;
    /// Whether somebody has asked since the last time to draw at once.
    fn takes_draw_now(&mut self) -> bool;
    /// A clock that never jumps: intervals are measured by it.
    fn monotonic(&self) -> Duration;
    /// The clock on the wall, since 1970: somebody may set it at any time.
    fn wall(&self) -> Duration;
    /// Minutes since midnight, where the machine is.
    fn minute(&self) -> u32;
    /// Waits.
    fn sleep(&mut self, time: Duration);
}

/// The machine's clocks. TERM and INT ask to end, HUP to read the configuration again, USR1 to draw at once.
pub struct System {
    cancellation: Cancellation,
    start: Instant,
}

impl System {
    /// Listens to signals from now on. The first TERM or INT also sets `cancellation`, which the drawing is to look at.
    pub fn new(cancellation: &Cancellation) -> io::Result<Self> {
        cancel_on_signal(cancellation)?;
        note_requests()?;
        Ok(Self {
            cancellation: cancellation.clone(),
            start: Instant::now(),
        })
    }
}

impl Outside for System {
    fn ends(&self) -> bool {
        self.cancellation.is_cancelled()
    }

    fn takes_reload(&mut self) -> bool {
        take_reload()
    }

    fn takes_draw_now(&mut self) -> bool {
        take_draw_now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }

    fn minute(&self) -> u32 {
        minute_of_day()
    }

    fn sleep(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}
