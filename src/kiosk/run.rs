//! The loop.

use std::ops::ControlFlow;
use std::time::Duration;

use super::config::Config;
use super::drawing;
use super::notify::{Notifier, Watchdog};
use super::outside::Outside;
use super::prompts::{Feeds, Prompts, Turn};
use super::stage::Stage;
use super::state::{Running, State};
use crate::display::{Display, DisplayError, Look, Screen};
use crate::pipeline::{
    Background, Error, Kiln, PictureFormat, Progress, Raster, Request, Settings, random_seed,
};
use crate::runtime::memory;

/// The longest wait between two looks at what happens outside.
const TICK: Duration = Duration::from_millis(200);
/// The clock on the wall has jumped if it has gone so much more or less than the one that never does.
const JUMP: i128 = 30;
/// The longest wait after pictures that could not be drawn, in seconds.
const LONGEST_WAIT: u64 = 300;
/// The same where prompts are sent: each comes once, and the next one's sender waits.
const WAIT_FOR_SENT: u64 = 1;
/// Prompts, the mask of blue noise, what the system's allocator does not give back between pictures.
const BESIDE: u64 = 8 << 20;

/// What makes a request of a prompt's line and a seed, which counts where neither the line nor the options have one.
type Requests = Box<dyn FnMut(&str, u64) -> Result<Request, String>>;

/// What draws.
pub struct Studio {
    /// The model.
    pub kiln: Kiln,
    /// What makes a request of a prompt's line and a seed, which counts where nothing else says one.
    pub request: Requests,
}

/// What has come of a drawing.
enum Outcome {
    Drawn,
    Failed,
    Ended,
}

/// A kiosk.
///
/// ```no_run
/// use kiln::kiosk::{Config, Kiosk, Studio, System};
/// use kiln::runtime::Cancellation;
/// use kiln::{Kiln, Request};
///
/// let config: Config = "prompts.list = ['a red apple', 'a pear']\ndisplay.framebuffer = '/dev/fb0'".parse()?;
/// let cancellation = Cancellation::new();
/// let mut kiosk = Kiosk::new(config);
/// let studio = Studio {
///     kiln: Kiln::open("model.kiln")?.cancellation(cancellation.clone()),
///     request: Box::new(|prompt, seed| Ok(Request::new(prompt).seed(seed))),
/// };
/// let mut never = || Err("it is built in".to_owned());
/// kiosk.run(studio, &mut System::new(&cancellation)?, &mut never, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Kiosk {
    config: Config,
    state: State,
    stage: Stage,
    given: usize,
    feeds: Feeds,
    notifier: Notifier,
    watchdog: Watchdog,
    /// The line that was drawn last.
    line: Option<String>,
    promised: u64,
}

impl Kiosk {
    /// Opens the folder and the displays and shows the last picture. What fails of that is told in the log and tried again.
    pub fn new(config: Config) -> Self {
        let state = State::open(&config.folder);
        let mut stage = Stage::default();
        stage.set(&config.displays, 0);
        let mut kiosk = Self {
            config,
            state,
            stage,
            given: 0,
            feeds: Feeds::default(),
            notifier: Notifier::from_env(),
            watchdog: Watchdog::from_env(),
            line: None,
            promised: 0,
        };
        kiosk.show_last();
        kiosk
    }

    /// Shows everything on one more display, such as a [`Panel`](crate::display::Panel), beside those of the configuration.
    pub fn display(
        &mut self,
        name: &str,
        look: Look,
        display: Box<dyn Display>,
    ) -> Result<(), DisplayError> {
        self.stage.give(name, look, display)?;
        self.given += 1;
        self.show_last();
        Ok(())
    }

    /// Bytes of memory of its own that drawing with the settings and showing takes at most; mapped weights are not among them.
    pub fn promise(&self, kiln: &Kiln, settings: &Settings) -> Result<u64, Error> {
        let (width, height) = settings.size();
        // The picture's file, while it is made, and its pixels on the stage.
        let picture = u64::from(width) * u64::from(height) * 3 * 3;
        let sizes = self.stage.sizes();
        let screens: u64 = sizes
            .map(|size| Screen::memory(size, (width, height)))
            .sum();
        Ok(kiln.promise(settings)?.total_bytes() + picture + screens + BESIDE)
    }

    /// Draws, shows and keeps, until `outside` says that it is to end or so many pictures are drawn. `reload` reads the configuration again.
    /// Gives the number of pictures.
    pub fn run(
        &mut self,
        mut studio: Studio,
        outside: &mut dyn Outside,
        reload: &mut dyn FnMut() -> Result<(Config, Studio), String>,
        most: Option<u64>,
    ) -> u64 {
        self.notifier.tell("READY=1\nSTATUS=waiting");
        let mut resumed = self.state.again();
        let mut clocks = Clocks::new(outside);
        let (mut drawn, mut failures) = (0, 0);
        // When the next picture is due, and the part of the schedule that the last one was of.
        let mut due = Duration::ZERO;
        let mut slot = self.config.prompts.slot(outside.minute());
        let mut draw_now = false;
        while most.is_none_or(|most| drawn < most) && !outside.ends() {
            self.watchdog.beat();
            clocks.check(outside);
            let now = outside.monotonic();
            self.stage.keep_up(now);
            if outside.takes_reload() {
                match self.reload(reload) {
                    Some(new) => (studio, due) = (new, due.min(now + self.config.every)),
                    None => continue,
                }
            }
            draw_now |= outside.takes_draw_now();
            let changed = self.config.prompts.slot(outside.minute()) != slot && failures == 0;
            if now < due && !draw_now && !changed {
                outside.sleep(TICK.min(due - now));
                continue;
            }
            let running = match resumed.take() {
                Some(running) => running,
                None => match self.next(outside.minute(), draw_now) {
                    Some(running) => running,
                    None => {
                        outside.sleep(TICK);
                        continue;
                    }
                },
            };
            draw_now = false;
            slot = self.config.prompts.slot(outside.minute());
            match self.draw(&mut studio, outside, &running) {
                Outcome::Drawn => {
                    (drawn, failures) = (drawn + 1, 0);
                    due = now + self.config.every;
                }
                Outcome::Failed => {
                    failures = (failures + 1).min(10);
                    let longest = match self.config.prompts.are_sent(outside.minute()) {
                        true => WAIT_FOR_SENT,
                        false => LONGEST_WAIT,
                    };
                    let wait = Duration::from_secs(longest.min(1 << (failures - 1)));
                    due = outside.monotonic() + wait;
                }
                Outcome::Ended => break,
            }
            self.notifier.tell("STATUS=waiting");
        }
        self.notifier.tell("STOPPING=1");
        tracing::info!("ends after {drawn} pictures");
        drawn
    }

    /// The configuration, read again; a bad one changes nothing.
    fn reload(
        &mut self,
        reload: &mut dyn FnMut() -> Result<(Config, Studio), String>,
    ) -> Option<Studio> {
        match reload() {
            Ok((config, studio)) => {
                if config.folder != self.state.folder() {
                    self.state = State::open(&config.folder);
                }
                if config.displays != self.config.displays {
                    self.stage.set(&config.displays, self.given);
                }
                self.config = config;
                tracing::info!("the configuration was read again");
                Some(studio)
            }
            Err(error) => {
                tracing::error!("{error}; the kiosk goes on with the configuration that it has");
                None
            }
        }
    }

    /// The next drawing. Where nobody has sent a prompt, but has asked to draw at once, the last one's.
    fn next(&mut self, minute: u32, draw_now: bool) -> Option<Running> {
        let turn = Turn {
            number: self.state.begun(),
            chance: self.state.chance(),
            minute,
        };
        let sent = self.config.prompts.next(turn, &mut self.feeds);
        let line = sent.or_else(|| self.line.clone().filter(|_| draw_now))?;
        Some(self.state.begin(line, random_seed()))
    }

    fn draw(&mut self, studio: &mut Studio, outside: &dyn Outside, running: &Running) -> Outcome {
        let settings = (studio.request)(&running.line, running.seed).and_then(|request| {
            studio
                .kiln
                .settings(&request)
                .map_err(|error| error.to_string())
        });
        let settings = match settings {
            Ok(settings) => settings,
            Err(error) => return self.failed(outside.monotonic(), running, &error),
        };
        tracing::info!(
            prompt = settings.prompt,
            seed = settings.seed,
            steps = settings.steps,
            "drawing"
        );
        self.notifier
            .tell(&format!("STATUS=drawing: {}", beginning(&settings.prompt)));
        self.tell_promise(&studio.kiln, &settings);
        let checkpoint = self.state.checkpoint();
        let kept = self.config.checkpoint.then_some(&*checkpoint);
        let (stage, watchdog, kiln) = (&mut self.stage, &self.watchdog, &studio.kiln);
        let picture = drawing::draw(kiln, &settings, kept, &mut |progress| {
            watchdog.beat();
            let now = outside.monotonic();
            if let Progress::Denoised {
                step,
                steps,
                latents,
            } = progress
                && stage.is_due(now)
            {
                let size = settings.size_at(step);
                let preview = stage
                    .wants_preview()
                    .then(|| kiln.preview(latents, size))
                    .flatten();
                let preview = preview.as_deref().map(|pixels| (size, pixels));
                stage.progress(now, Some((step, steps)), preview);
            }
            match outside.ends() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let picture = match picture {
            Ok(picture) => picture,
            // What is kept is gone on with at the next start.
            Err(Error::Cancelled) => {
                self.state.set_aside();
                return Outcome::Ended;
            }
            Err(error) => return self.failed(outside.monotonic(), running, &error.to_string()),
        };
        if !picture.cut().is_empty() {
            tracing::warn!(
                cut = picture.cut().join(" "),
                "the prompt is too long for the model"
            );
        }
        let size = (picture.width(), picture.height());
        self.stage.picture(
            outside.monotonic(),
            size,
            picture.pixels(),
            &settings.prompt,
        );
        let mut png = Vec::new();
        match picture.encode(PictureFormat::Png, &mut png) {
            Ok(()) => self
                .state
                .end(running, &settings.prompt, &png, self.config.keep),
            Err(error) => return self.failed(outside.monotonic(), running, &error.to_string()),
        }
        if kept.is_some() {
            drawing::remove(&checkpoint);
        }
        self.line = Some(running.line.clone());
        drop((picture, png));
        memory::give_back();
        Outcome::Drawn
    }

    /// A drawing that cannot be: told, and left out.
    fn failed(&mut self, now: Duration, running: &Running, error: &str) -> Outcome {
        tracing::error!(
            prompt = beginning(&running.line),
            "{error}; the next prompt is tried"
        );
        self.stage.progress(now, None, None);
        drawing::remove(&self.state.checkpoint());
        self.state.give_up();
        Outcome::Failed
    }

    /// Says what the kiosk takes when that is more than was said.
    fn tell_promise(&mut self, kiln: &Kiln, settings: &Settings) {
        let (Ok(bytes), Ok(plan)) = (self.promise(kiln, settings), kiln.memory(settings)) else {
            return;
        };
        if bytes > self.promised {
            self.promised = bytes;
            tracing::info!(
                bytes,
                mapped = plan.weight_bytes,
                "memory: at most so much of its own, and weights that are mapped"
            );
        }
    }

    /// Shows what was drawn before the power failed.
    fn show_last(&mut self) {
        let Some((path, prompt)) = self.state.last() else {
            return;
        };
        let prompt = prompt.to_owned();
        self.line.get_or_insert(prompt.clone());
        match Raster::open(&path, Background::White) {
            Ok(raster) => {
                let size = (raster.width(), raster.height());
                self.stage
                    .picture(Duration::ZERO, size, raster.pixels(), &prompt);
            }
            Err(error) => tracing::warn!(
                "{}: {error}; there is no last picture to show",
                path.display()
            ),
        }
    }
}

impl Prompts {
    /// The part of a schedule that counts at a time of day.
    fn slot(&self, minute: u32) -> usize {
        match self {
            Self::Schedule(times) => {
                let begun = times.iter().rposition(|(from, _)| *from <= minute);
                begun.unwrap_or(times.len().saturating_sub(1))
            }
            _ => 0,
        }
    }
}

/// Both clocks at some time.
struct Clocks {
    monotonic: Duration,
    wall: Duration,
}

impl Clocks {
    fn new(outside: &dyn Outside) -> Self {
        Self {
            monotonic: outside.monotonic(),
            wall: outside.wall(),
        }
    }

    /// Tells if the clock on the wall was set. Nothing but a schedule's times depends on it.
    fn check(&mut self, outside: &dyn Outside) {
        let now = Self::new(outside);
        let seconds = |from: Duration, to: Duration| to.as_secs() as i128 - from.as_secs() as i128;
        let jumped = seconds(self.wall, now.wall) - seconds(self.monotonic, now.monotonic);
        if jumped.abs() >= JUMP {
            tracing::warn!(
                "the clock was set {jumped:+} s: times of the day count anew, intervals go on"
            );
            *self = now;
        }
    }
}

/// The beginning of a text that may be long.
fn beginning(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    &line[..line.floor_char_boundary(200)]
}
