//! The displays, which may come and go.

use std::fmt;
use std::time::Duration;

use super::config::DisplayConfig;
use crate::display::{Display, DisplayError, Look, Screen};

/// How long to wait before a display that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a frame is left to itself on a display that others write on.
const REFRESH: Duration = Duration::from_secs(10);
/// The least time between two frames of a picture that is being drawn.
const BETWEEN: Duration = Duration::from_millis(100);

type Open = Box<dyn FnMut() -> Result<Box<dyn Display>, DisplayError>>;

/// A display and what is on it.
struct Place {
    name: String,
    open: Open,
    look: Look,
    there: Option<(Box<dyn Display>, Screen)>,
    /// Whether it was given open: then nobody but its giver can open it again, and it is kept whatever it says.
    is_given: bool,
    tried: Option<Duration>,
    complained: bool,
    /// When it took a frame last.
    shown: Duration,
}

/// What is to be seen.
#[derive(Default)]
struct Seen {
    picture: Option<((u32, u32), Vec<u8>)>,
    caption: String,
}

/// All displays of a kiosk, with the same on each.
#[derive(Default)]
pub(super) struct Stage {
    places: Vec<Place>,
    seen: Seen,
    shown: Duration,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.places.iter().map(|place| &place.name))
            .finish()
    }
}

impl Stage {
    /// Takes other displays; what is to be seen stays. Those that the kiosk was given in other ways than by its configuration stay too.
    pub(super) fn set(&mut self, configs: &[DisplayConfig], given: usize) {
        self.places.drain(given..);
        for config in configs {
            let config = config.clone();
            let (name, look) = (config.path().display().to_string(), config.look.clone());
            self.places
                .push(Place::new(name, look, Box::new(move || config.open())));
        }
    }

    /// Adds a display that is there and stays.
    pub(super) fn give(
        &mut self,
        name: &str,
        look: Look,
        display: Box<dyn Display>,
    ) -> Result<(), DisplayError> {
        let screen = Screen::new(display.size(), look.clone())?;
        let gone = || Err(DisplayError::Panel("it is not there".into()));
        let mut place = Place::new(name.to_owned(), look, Box::new(gone));
        place.there = Some((display, screen));
        place.is_given = true;
        self.places.insert(0, place);
        Ok(())
    }

    /// Sizes of the displays that are there.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (u32, u32)> {
        let there = self.places.iter().filter_map(|place| place.there.as_ref());
        there.map(|(display, _)| display.size())
    }

    /// Whether anybody wants to see previews.
    pub(super) fn wants_preview(&self) -> bool {
        self.places.iter().any(|place| place.look.preview)
    }

    /// Shows a picture that is finished.
    pub(super) fn picture(
        &mut self,
        now: Duration,
        size: (u32, u32),
        pixels: &[u8],
        caption: &str,
    ) {
        self.seen.picture = Some((size, pixels.to_vec()));
        caption.clone_into(&mut self.seen.caption);
        let seen = &self.seen;
        for place in &mut self.places {
            if let Some((_, screen)) = &mut place.there {
                seen.put(screen);
                screen.set_progress(None);
                screen.set_preview(None);
            }
            place.show(now, seen);
        }
        self.shown = now;
    }

    /// Whether it is time for another frame of a picture that is being drawn.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.shown) >= BETWEEN && self.places.iter().any(Place::is_lively)
    }

    /// Shows how the next picture comes along.
    pub(super) fn progress(
        &mut self,
        now: Duration,
        progress: Option<(usize, usize)>,
        preview: Option<((u32, u32), &[u8])>,
    ) {
        for place in self.places.iter_mut().filter(|place| place.is_lively()) {
            if let Some((_, screen)) = &mut place.there {
                screen.set_progress(progress);
                screen.set_preview(preview);
            }
            place.show(now, &self.seen);
        }
        self.shown = now;
    }

    /// Tries displays that are not there once more, and shows again what others may have written over.
    pub(super) fn keep_up(&mut self, now: Duration) {
        for place in &mut self.places {
            if place.tried.is_some() || place.there.is_none() || place.is_stale(now) {
                place.show(now, &self.seen);
            }
        }
    }
}

impl Seen {
    fn put(&self, screen: &mut Screen) {
        if let Some((size, pixels)) = &self.picture {
            screen.set_picture(*size, pixels);
            screen.set_caption(&self.caption);
        }
    }
}

impl Place {
    fn new(name: String, look: Look, open: Open) -> Self {
        Self {
            name,
            open,
            look,
            there: None,
            is_given: false,
            tried: None,
            complained: false,
            shown: Duration::ZERO,
        }
    }

    /// Whether something of a picture that is being drawn is seen on it.
    fn is_lively(&self) -> bool {
        self.look.progress || self.look.preview
    }

    /// Whether its frame may have been written over.
    fn is_stale(&self, now: Duration) -> bool {
        let is_shared = |(display, _): &(Box<dyn Display>, _)| display.is_shared();
        self.there.as_ref().is_some_and(is_shared) && now.saturating_sub(self.shown) >= REFRESH
    }

    fn show(&mut self, now: Duration, seen: &Seen) {
        // `tried` is when it failed last.
        if self
            .tried
            .is_some_and(|tried| now.saturating_sub(tried) < AGAIN)
        {
            return;
        }
        if self.there.is_none() {
            self.tried = Some(now);
            let opened = (self.open)().and_then(|display| {
                let mut screen = Screen::new(display.size(), self.look.clone())?;
                seen.put(&mut screen);
                Ok((display, screen))
            });
            match opened {
                Ok(there) => self.there = Some(there),
                Err(error) => return self.complain(&error),
            }
        }
        let Some((display, screen)) = &mut self.there else {
            return;
        };
        match display.show(screen.compose()) {
            Ok(()) => {
                self.tried = None;
                self.shown = now;
                if std::mem::take(&mut self.complained) {
                    tracing::info!("{}: the display is there", self.name);
                }
            }
            Err(error) => {
                self.tried = Some(now);
                if !self.is_given {
                    self.there = None;
                }
                self.complain(&error);
            }
        }
    }

    /// Says once that a display is gone.
    fn complain(&mut self, error: &DisplayError) {
        if !std::mem::replace(&mut self.complained, true) {
            let text = error.to_string();
            let named = text.starts_with(&self.name);
            let name = if named {
                String::new()
            } else {
                format!("{}: ", self.name)
            };
            tracing::error!(
                "{name}{text}; the kiosk goes on without this display and tries it again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::display::Frame;

    /// Counts what it is shown.
    struct Counting {
        frames: Rc<Cell<u32>>,
        is_shared: bool,
    }

    impl Display for Counting {
        fn size(&self) -> (u32, u32) {
            (32, 16)
        }

        fn show(&mut self, _: &Frame) -> Result<(), DisplayError> {
            self.frames.set(self.frames.get() + 1);
            Ok(())
        }

        fn is_shared(&self) -> bool {
            self.is_shared
        }
    }

    #[test]
    fn what_others_write_on_is_shown_again() {
        let mut stage = Stage::default();
        let counts = [true, false].map(|is_shared| {
            let frames = Rc::new(Cell::new(0));
            let display = Counting {
                frames: frames.clone(),
                is_shared,
            };
            let given = stage.give("counting", Look::default(), Box::new(display));
            given.expect("a display of that size");
            frames
        });
        let seconds = Duration::from_secs;
        stage.picture(seconds(100), (1, 1), &[255, 0, 0], "red");
        let shown = || counts.each_ref().map(|frames| frames.get());
        assert_eq!(shown(), [1, 1]);
        stage.keep_up(seconds(109));
        assert_eq!(shown(), [1, 1]);
        stage.keep_up(seconds(110));
        assert_eq!(shown(), [2, 1]);
        stage.keep_up(seconds(119));
        assert_eq!(shown(), [2, 1]);
        stage.keep_up(seconds(120));
        assert_eq!(shown(), [3, 1]);
    }
}
