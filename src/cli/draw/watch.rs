//! What is to be seen while a picture is drawn: progress, previews in a file, previews in the terminal.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kiln::Error;
use kiln::pipeline::{Checkpoint, Kiln, Picture, PictureFormat, Progress, Settings};

use super::keep;
use super::terminal::Screen;
use crate::cli::error::CliError;
use crate::cli::output::Target;

/// `FILE` or `FILE:every N`.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    pub path: PathBuf,
    pub every: usize,
}

impl Preview {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (path, every) = match text.rsplit_once(":every ") {
            Some((path, every)) => (path, every.trim().parse().map_err(|_| ())),
            None => (text, Ok(1)),
        };
        let every = every.ok().filter(|every| *every > 0);
        let every = every.ok_or("expected FILE or FILE:every N, N a whole number from 1 up")?;
        let path = PathBuf::from(path);
        match path.file_name().is_some() && PictureFormat::of(&path).is_some() {
            true => Ok(Preview { path, every }),
            false => Err("previews are written as .png, .jpg or .webp".into()),
        }
    }
}

/// How a run is watched.
pub struct Watcher<'a> {
    pub quiet: bool,
    pub preview: Option<&'a Preview>,
    pub screen: Option<Screen>,
}

impl Watcher<'_> {
    /// Draws a picture and shows how it comes along.
    pub fn draw(
        &mut self,
        kiln: &Kiln,
        settings: &Settings,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Picture, CliError> {
        let bar = bar(settings.taken(), self.quiet);
        let mut kept = None;
        let mut failed = None;
        let mut steps = Steps::default();
        let mut watch = |progress: Progress<'_>| {
            bar.inc(1);
            match progress {
                Progress::Encoded { .. } => {
                    bar.set_message("drawing");
                    steps.begin();
                }
                Progress::Denoised {
                    step,
                    steps: count,
                    latents,
                } => {
                    // Of a drawing that goes on the first steps are not seen.
                    bar.set_position(step as u64 + 1);
                    bar.set_message(match step == count {
                        true => "decoding".to_owned(),
                        false => steps.message(step, count),
                    });
                    if let Err(error) = self.look(kiln, settings, (step, count), latents, &bar) {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                    if self
                        .preview
                        .is_some_and(|preview| step % preview.every == 0)
                    {
                        kept = Some(step);
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        };
        let result = match checkpoint {
            Some(checkpoint) => kiln.draw_kept(settings, checkpoint, &mut watch),
            None => kiln.draw_settings(settings, &mut watch),
        };
        bar.finish_and_clear();
        if let Some(error) = failed {
            return Err(error);
        }
        match result {
            Err(Error::Cancelled) => {
                let preview = kept.zip(self.preview).map(|(step, preview)| {
                    let (path, steps) = (preview.path.display(), settings.taken());
                    format!("kept {path}, the preview of step {step} of {steps}")
                });
                let left: Vec<String> = [preview, checkpoint.and_then(keep::hint)]
                    .into_iter()
                    .flatten()
                    .collect();
                Err(match left.is_empty() {
                    true => CliError::Cancelled,
                    false => CliError::Interrupted(left.join("; ")),
                })
            }
            result => {
                let picture = result?;
                if let Some(screen) = &mut self.screen {
                    screen.show((picture.width(), picture.height()), picture.pixels());
                }
                Ok(picture)
            }
        }
    }

    /// Shows what there is after a step.
    fn look(
        &mut self,
        kiln: &Kiln,
        settings: &Settings,
        (step, steps): (usize, usize),
        latents: &[f32],
        bar: &ProgressBar,
    ) -> Result<(), CliError> {
        let file = self.preview.filter(|preview| step % preview.every == 0);
        // The finished picture comes at once.
        let screen = self
            .screen
            .as_mut()
            .filter(|screen| screen.is_live() && step < steps);
        if file.is_none() && screen.is_none() {
            return Ok(());
        }
        let size = settings.size_at(step);
        let Some(pixels) = kiln.preview(latents, size) else {
            return Ok(());
        };
        if let Some(preview) = file {
            let format = PictureFormat::of(&preview.path).unwrap_or(PictureFormat::Png);
            let mut bytes = Vec::new();
            format
                .encode(size, &pixels, "", &mut bytes)
                .map_err(|error| CliError::file(&preview.path, &error))?;
            Target::Replace(preview.path.clone()).write(|file| file.write_all(&bytes))?;
        }
        if let Some(screen) = screen {
            bar.suspend(|| screen.show(size, &pixels));
        }
        Ok(())
    }
}

/// Fails where previews cannot be made or written.
pub fn check(kiln: &Kiln, preview: Option<&Preview>) -> Result<(), CliError> {
    let Some(preview) = preview else {
        return Ok(());
    };
    if kiln.card().preview.is_none() {
        return Err(CliError::Usage(format!(
            "--preview {}: {} was compiled without previews",
            preview.path.display(),
            kiln.model().origin()
        )));
    }
    probe(&preview.path)
}

fn probe(path: &Path) -> Result<(), CliError> {
    Target::Replace(path.to_owned()).probe()
}

/// Steps, and one for each of the graphs before and after.
fn bar(steps: usize, quiet: bool) -> ProgressBar {
    let target = match quiet {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let bar = ProgressBar::with_draw_target(Some(steps as u64 + 2), target);
    if let Ok(style) = ProgressStyle::with_template("{msg:32} {wide_bar} {pos}/{len}") {
        bar.set_style(style);
    }
    bar.set_message("encoding");
    bar.tick();
    bar
}

/// How long steps have taken.
#[derive(Default)]
struct Steps {
    first: Option<Instant>,
    last: Option<Instant>,
    done: usize,
}

impl Steps {
    fn begin(&mut self) {
        self.first = Some(Instant::now());
    }

    /// Seconds per step and what is left of them. The first step reads the weights and computes what depends on the
    /// prompt, so once there are others they alone count.
    fn message(&mut self, step: usize, count: usize) -> String {
        let now = Instant::now();
        self.done += 1;
        if self.done == 1 {
            self.last = Some(now);
        }
        let (since, steps) = match self.done {
            1 => (self.first, 1),
            done => (self.last, done - 1),
        };
        let each = since.map_or(0.0, |since| (now - since).as_secs_f64()) / steps as f64;
        format!(
            "{} a step, {} left",
            seconds(each),
            seconds(each * (count - step) as f64)
        )
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s => format!("{} min {:02.0} s", (s / 60.0) as u64, s % 60.0),
    }
}
