//! A room with a display and without anybody: pictures are drawn, shown and kept, one after another, for years.
//!
//! ```text
//! prompts -> Kiosk: draw, show, keep, wait, again
//! ```
//!
//! - [`Config`] is a file of TOML (`config`); `prompts` are its sources.
//! - `run`: the loop; `drawing`: one picture, gone on with after the power has failed.
//! - `stage`: the displays, which may come and go; `state`: what is kept on the disk.
//! - [`Outside`]: the clock and the signals; `notify`: what systemd is told.
//!
//! Nothing that happens outside ends it but a request to: a prompt that cannot be drawn, a full disk, a display that is not there are said
//! once, in the log, and it goes on.

mod config;
mod drawing;
mod notify;
mod outside;
mod prompts;
mod run;
mod stage;
mod state;

pub use config::{Config, ConfigError, DisplayConfig, Surface};
pub use notify::{Notifier, Watchdog};
pub use outside::{Outside, System};
pub use prompts::{Order, Prompts};
pub use run::{Kiosk, Studio};
