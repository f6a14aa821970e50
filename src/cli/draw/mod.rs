//! `kiln draw`: pictures of prompts.
//!
//! - `options`: what each picture may have of its own; `batch`: prompts from a file; `grid`: pictures side by side.
//! - `keep`: a drawing that can be broken off.
//! - `names`: what files are called; `watch`: progress and previews; `terminal`: pictures as text.

pub(super) mod batch;
mod grid;
mod keep;
mod names;
pub(super) mod options;
mod terminal;
mod watch;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kiln::pipeline::{Kiln, Picture, PictureFormat, Remembered, Settings, random_seed};
use kiln::runtime::{Cancellation, cancel_on_signal, exit_on_bus_error};
use serde_json::json;

use super::error::CliError;
use super::init::Pictures;
use super::output::{self, Target};
use super::values::Ram;
use super::{model, values};
use grid::{Axis, Grid, Sheet};
use names::Names;
use options::{PictureOptions, Said};
use terminal::Screen;
use watch::{Preview, Watcher};

/// Draw a picture of a prompt
///
/// Writes a PNG that says how it was drawn, as the WebUI's pictures do. Its name is made of the prompt, with -2, -3 and so on
/// where that is taken.
///
/// Prompts are in the WebUI's language: (word), (word:1.2), [word], BREAK, [from:to:when], [a|b]; a backslash makes a bracket
/// a bracket.
#[derive(clap::Args)]
pub struct Args {
    /// What the picture should show
    prompt: Option<String>,
    #[command(flatten)]
    said: Said,
    /// Draw the prompts of a file, or of standard input for `-`: one a line, or a JSON object of options a line
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,
    /// Draw along an option's values, such as sampler=ddim,euler, and once more for the other direction; also writes all in
    /// one labelled picture
    #[arg(long, value_name = "NAME=A,B", value_parser = Axis::parse, conflicts_with = "prompts")]
    grid: Vec<Axis>,
    /// Threads [default: as many as there are physical cores]
    #[arg(long, value_name = "N", value_parser = values::threads)]
    threads: Option<NonZeroUsize>,
    /// Keep the whole process within so much memory (256M, 1G; auto: what there is), reading weights as they are needed
    /// [default: KILN_RAM, else no limit]
    #[arg(long, value_name = "BYTES", value_parser = values::ram)]
    ram: Option<Ram>,
    /// The model [default: the built-in one]
    #[arg(short, long, value_name = "FILE.kiln")]
    model: Option<PathBuf>,
    /// Write how the picture comes along to this file after each step, or `FILE:every N` of them
    #[arg(long, value_name = "FILE", value_parser = Preview::parse)]
    preview: Option<Preview>,
    /// Write after each step to this file what it takes to go on from there; it is removed when the picture is written
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompts", "grid"])]
    checkpoint: Option<PathBuf>,
    /// Go on with the drawing of a checkpoint, whose file is written to as before
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "prompts", "grid"])]
    resume: Option<PathBuf>,
    /// Show pictures in the terminal
    #[arg(long)]
    show: bool,
    /// Print a JSON object for each picture, on one line
    #[arg(long)]
    json: bool,
    /// Show no progress and print no names
    #[arg(short, long)]
    quiet: bool,
}

/// Pictures that differ in their seeds alone.
struct Job {
    options: PictureOptions,
    /// The first one's settings.
    settings: Settings,
    count: u64,
}

pub fn draw(args: &Args) -> Result<(), CliError> {
    let axes = match args.grid.is_empty() {
        true => None,
        false => Some(Grid::new(&args.grid)?),
    };
    let said = said(args, axes.as_ref())?;
    let checkpoint = keep::open(args)?;
    let cancellation = Cancellation::new();
    let path = keep::model(args, checkpoint.as_ref());
    let mut kiln =
        Kiln::from_model(model::open(path.as_deref())?)?.cancellation(cancellation.clone());
    exit_on_bus_error(kiln.model())
        .map_err(|error| CliError::Failure(format!("signals: {error}")))?;
    if let Some(threads) = args.threads {
        kiln = kiln.threads(threads);
    }
    if let Some(bytes) = budget(args.ram)?.and_then(Ram::bytes) {
        kiln = kiln.ram(bytes);
    }
    let jobs = match &checkpoint {
        Some(checkpoint) if args.resume.is_some() => {
            vec![keep::job(&kiln, checkpoint, &args.said)?]
        }
        _ => jobs(&kiln, &said, axes.is_some())?,
    };
    let checkpoint = match checkpoint {
        Some(new) if args.resume.is_none() => Some(keep::keep(&kiln, new, args, &jobs)?),
        other => other,
    };
    let names = Names {
        count: jobs.iter().map(|job| job.count).sum(),
        model: kiln.card().name.clone(),
    };
    let mut number = 1;
    for job in &jobs {
        let (target, _) = names.target(job.options.output.as_deref(), number, &job.settings)?;
        target.probe()?;
        number += job.count;
    }
    let mut sheet = match &axes {
        Some(axes) => Some(sheet(axes, &jobs)?),
        None => None,
    };
    watch::check(&kiln, args.preview.as_ref())?;
    cancel_on_signal(&cancellation)
        .map_err(|error| CliError::Failure(format!("signals: {error}")))?;

    let mut watcher = Watcher {
        quiet: args.quiet,
        preview: args.preview.as_ref(),
        screen: args.show.then(Screen::new),
    };
    let mut number = 0;
    for job in &jobs {
        let mut settings = job.settings.clone();
        for seed in settings.seed..=settings.seed + (job.count - 1) {
            settings.seed = seed;
            number += 1;
            let start = Instant::now();
            let picture = watcher.draw(&kiln, &settings, checkpoint.as_ref())?;
            let seconds = start.elapsed().as_secs_f64();
            if seed == job.settings.seed && !args.quiet {
                warn_of_cut(&picture);
            }
            let (target, format) =
                names.target(job.options.output.as_deref(), number, &settings)?;
            let encode = |out: &mut Vec<u8>| picture.encode(format, out);
            let path = write(&target, encode)?;
            if let Some(checkpoint) = &checkpoint {
                checkpoint.remove()?;
            }
            told(args, &picture, &path, seconds)?;
            if let Some(sheet) = &mut sheet {
                let size = (picture.width(), picture.height());
                sheet.put((number - 1) as usize, size, picture.pixels());
            }
        }
    }
    match sheet {
        Some(sheet) => write_sheet(args, &kiln, &names, &jobs[0], &sheet),
        None => Ok(()),
    }
}

/// What is said of each picture: by the command line, and by its line or its place in the grid, which win.
fn said(args: &Args, axes: Option<&Grid<'_>>) -> Result<Vec<Said>, CliError> {
    let mut said = args.said.clone();
    if let Some(prompt) = &args.prompt {
        said.say("prompt", prompt);
    }
    Ok(match (&args.prompts, axes) {
        (Some(path), _) => {
            let lines = batch::read(path)?;
            lines.iter().map(|line| said.clone().then(line)).collect()
        }
        (None, Some(axes)) => axes.cells(&said),
        (None, None) => vec![said],
    })
}

/// Everything that can be told without drawing is told here, for all pictures.
fn jobs(kiln: &Kiln, said: &[Said], is_grid: bool) -> Result<Vec<Job>, CliError> {
    let chance = random_seed();
    let mut jobs = Vec::with_capacity(said.len());
    let mut pictures = Pictures::default();
    for (said, line) in said.iter().zip(0_u64..) {
        let options = with_like(said)?;
        if options.prompt.is_none() {
            return Err(CliError::Usage(
                "a prompt is missing: kiln draw PROMPT, or --prompts FILE, or --like PICTURE"
                    .into(),
            ));
        }
        let count = options.count.unwrap_or(1);
        if is_grid && count > 1 {
            return Err(CliError::Usage(
                "--grid: each place has one picture, not -n".into(),
            ));
        }
        // Lines are pictures of their own; what stands side by side is to be compared.
        let otherwise = if is_grid {
            chance
        } else {
            chance.wrapping_add(line) & 0xffff_ffff
        };
        let seed = options.seed.unwrap_or(otherwise);
        if seed.checked_add(count - 1).is_none() {
            return Err(CliError::Usage(format!(
                "seed {seed}: {count} pictures would count past {}",
                u64::MAX
            )));
        }
        let settings = kiln.settings(&options.request(seed, &mut pictures)?)?;
        jobs.push(Job {
            options,
            settings,
            count,
        });
    }
    Ok(jobs)
}

/// The options, with those of a picture that is named where they are silent.
pub(super) fn with_like(said: &Said) -> Result<PictureOptions, CliError> {
    let options = said.parse()?;
    let Some(path) = &options.like else {
        return Ok(options);
    };
    let picture = Remembered::open(path).map_err(|error| CliError::file(path, &error))?;
    let mut like = Said::default();
    for (name, value) in &picture.options {
        // Those of parts that this Kiln has not are no options of its own.
        if Said::check_name(name).is_ok() {
            like.say(name, value);
        }
    }
    like.clone().then(said).parse().map_err(|error| {
        let here = format!("{}: {error}", path.display());
        // The picture's if it is wrong by itself.
        match like.parse() {
            Err(_) => CliError::Failure(here),
            Ok(_) => error,
        }
    })
}

/// Writes a picture whole or not at all.
fn write(
    target: &Target,
    encode: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>,
) -> Result<PathBuf, CliError> {
    let mut bytes = Vec::new();
    encode(&mut bytes).map_err(|error| CliError::Failure(format!("picture: {error}")))?;
    target.write(|file| file.write_all(&bytes))
}

/// Says what was written.
fn told(args: &Args, picture: &Picture, path: &Path, seconds: f64) -> Result<(), CliError> {
    if args.json {
        return output::print(&format!("{}\n", describe(picture, path, seconds)));
    }
    if args.quiet {
        return Ok(());
    }
    let seed = picture.settings().seed;
    output::print(&format!(
        "{} (seed {seed}, {seconds:.1} s)\n",
        path.display()
    ))
}

/// The budget that is said: as an option, else in the environment.
pub(super) fn budget(said: Option<Ram>) -> Result<Option<Ram>, CliError> {
    match (said, std::env::var("KILN_RAM")) {
        (Some(ram), _) => Ok(Some(ram)),
        (None, Ok(text)) if !text.is_empty() => values::ram(&text)
            .map(Some)
            .map_err(|error| CliError::Usage(format!("KILN_RAM={text}: {error}"))),
        _ => Ok(None),
    }
}

/// A sheet for the pictures of a grid.
fn sheet(axes: &Grid<'_>, jobs: &[Job]) -> Result<Sheet, CliError> {
    let sides = |side: fn(&Settings) -> u32| jobs.iter().map(move |job| side(&job.settings)).max();
    let width = sides(|settings| settings.size().0).unwrap_or(0);
    let height = sides(|settings| settings.size().1).unwrap_or(0);
    Sheet::new(axes, (width, height))
}

/// Writes the grid beside its pictures. It says what the first of them says.
fn write_sheet(
    args: &Args,
    kiln: &Kiln,
    names: &Names,
    first: &Job,
    sheet: &Sheet,
) -> Result<(), CliError> {
    let alone = Names {
        count: 1,
        model: names.model.clone(),
    };
    let pattern = first.options.output.as_deref();
    let (target, format) = match alone.target(pattern, 0, &first.settings)? {
        (Target::Replace(path), format) if !output::is_special(&path) => {
            (Target::Replace(names::beside(&path, "grid")), format)
        }
        (
            Target::Fresh {
                folder,
                stem,
                extension,
            },
            format,
        ) => {
            let stem = format!("{stem}-grid");
            (
                Target::Fresh {
                    folder,
                    stem,
                    extension,
                },
                format,
            )
        }
        special => special,
    };
    let text = first.settings.parameters(&kiln.card().model_name());
    let encode =
        |out: &mut Vec<u8>| PictureFormat::encode(format, sheet.size(), sheet.pixels(), &text, out);
    let path = write(&target, encode)?;
    let (width, height) = sheet.size();
    match (args.json, args.quiet) {
        (true, _) => {
            let object = json!({"grid": path.to_string_lossy(), "width": width, "height": height});
            output::print(&format!("{object}\n"))
        }
        (false, true) => Ok(()),
        (false, false) => output::print(&format!("{}\n", path.display())),
    }
}

fn warn_of_cut(picture: &Picture) {
    if !picture.cut().is_empty() {
        let line = format!(
            "kiln: the prompt is too long for the model, cut off: {}\n",
            picture.cut().join(" ")
        );
        // Where standard error is gone, nobody needs the warning.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

fn describe(picture: &Picture, path: &Path, seconds: f64) -> serde_json::Value {
    let settings = picture.settings();
    let mut description = json!({
        "file": path.to_string_lossy(),
        "prompt": settings.prompt,
        "negative": settings.negative,
        "prompt_style": settings.prompt_style.name(),
        "cut": picture.cut(),
        "seed": settings.seed,
        "steps": settings.steps,
        "sampler": settings.sampler.name(),
        "guidance_scale": settings.guidance_scale,
        "clip_skip": settings.clip_skip,
        "width": picture.width(),
        "height": picture.height(),
        "model": picture.model(),
        "seconds": seconds,
    });
    for (name, value) in settings.chosen() {
        description[name.replace('-', "_")] =
            serde_json::from_str(&value).unwrap_or_else(|_| value.into());
    }
    description
}
