//! `kiln draw`: pictures of a prompt.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kiln::pipeline::samplers::SamplerKind;
use kiln::pipeline::{Kiln, Picture, Progress, Request, Settings, random_seed};
use kiln::runtime::{Cancellation, cancel_on_signal};
use serde_json::json;

use super::error::CliError;
use super::output::{self, Target};
use super::{model, values};

/// Draw a picture of a prompt
///
/// Writes a PNG whose text chunks hold the prompt and the settings. Its name is made of the prompt, with -2, -3 and so on where
/// that is taken.
#[derive(clap::Args)]
pub struct Args {
    /// What the picture should show
    prompt: String,
    /// What it should not show
    #[arg(
        long,
        value_name = "PROMPT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    negative: String,
    /// Evaluations of the model; more is slower [default: the model's]
    #[arg(long, value_name = "N", value_parser = values::count)]
    steps: Option<NonZeroUsize>,
    /// The picture's number: same seed, same picture [default: random]
    #[arg(long, value_name = "N", value_parser = values::seed)]
    seed: Option<u64>,
    /// Width and height in pixels [default: the model's]
    #[arg(long, value_name = "WxH", value_parser = values::size)]
    size: Option<(u32, u32)>,
    /// How closely to follow the prompt; 1 is fastest [default: the model's]
    #[arg(long, value_name = "X", value_parser = values::finite, allow_hyphen_values = true)]
    guidance_scale: Option<f32>,
    /// ddim, euler or euler-a [default: the model's]
    #[arg(long, value_name = "NAME", value_parser = values::sampler)]
    sampler: Option<SamplerKind>,
    /// Leave out the last N - 1 layers of the text encoder, as the WebUI's "clip skip" (diffusers counts from 0) [default: the model's]
    #[arg(long, value_name = "N", value_parser = values::clip_skip)]
    clip_skip: Option<u32>,
    /// Threads [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = values::threads)]
    threads: Option<NonZeroUsize>,
    /// The model [default: the built-in one]
    #[arg(short, long, value_name = "FILE.kiln")]
    model: Option<PathBuf>,
    /// Pictures to draw, with seeds that count up
    #[arg(short = 'n', long, value_name = "N", default_value = "1", value_parser = values::pictures)]
    count: u64,
    /// Write to this file and replace what is there; with -n, to FILE-1.png, FILE-2.png and so on
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print a JSON object for each picture, on one line
    #[arg(long)]
    json: bool,
    /// Show no progress and print no names
    #[arg(short, long)]
    quiet: bool,
}

pub fn draw(args: &Args) -> Result<(), CliError> {
    let cancellation = Cancellation::new();
    let mut kiln =
        Kiln::from_model(model::open(args.model.as_deref())?)?.cancellation(cancellation.clone());
    if let Some(threads) = args.threads {
        kiln = kiln.threads(threads);
    }
    let seed = args.seed.unwrap_or_else(random_seed);
    if seed.checked_add(args.count - 1).is_none() {
        return Err(CliError::Usage(format!(
            "seed {seed}: {} pictures would count past {}",
            args.count,
            u64::MAX
        )));
    }
    let mut settings = kiln.settings(&request(args, seed))?;
    target(args, 1).probe()?;
    cancel_on_signal(&cancellation)
        .map_err(|error| CliError::Failure(format!("signals: {error}")))?;

    for number in 1..=args.count {
        settings.seed = seed + (number - 1);
        let start = Instant::now();
        let picture = draw_one(&kiln, &settings, args.quiet)?;
        let seconds = start.elapsed().as_secs_f64();
        if number == 1 && !args.quiet {
            warn_of_cut(&picture);
        }
        let mut png = Vec::new();
        picture
            .encode_png(&mut png)
            .map_err(|error| CliError::Failure(format!("PNG: {error}")))?;
        let path = target(args, number).write(|file| std::io::Write::write_all(file, &png))?;
        if args.json {
            output::print(&format!("{}\n", describe(&picture, &path, seconds)))?;
        } else if !args.quiet {
            output::print(&format!(
                "{} (seed {}, {seconds:.1} s)\n",
                path.display(),
                settings.seed
            ))?;
        }
    }
    Ok(())
}

fn request(args: &Args, seed: u64) -> Request {
    let mut request = Request::new(&args.prompt)
        .negative(&args.negative)
        .seed(seed);
    if let Some(steps) = args.steps {
        request = request.steps(steps.get());
    }
    if let Some((width, height)) = args.size {
        request = request.size(width, height);
    }
    if let Some(scale) = args.guidance_scale {
        request = request.guidance_scale(scale);
    }
    if let Some(sampler) = args.sampler {
        request = request.sampler(sampler);
    }
    if let Some(clip_skip) = args.clip_skip {
        request = request.clip_skip(clip_skip);
    }
    request
}

/// The file of picture `number`, from 1.
fn target(args: &Args, number: u64) -> Target {
    match &args.output {
        Some(path) if args.count == 1 => Target::Replace(path.clone()),
        Some(path) => {
            let mut name = path.file_stem().unwrap_or_default().to_owned();
            name.push(format!("-{number}"));
            if let Some(extension) = path.extension() {
                name.push(".");
                name.push(extension);
            }
            Target::Replace(path.with_file_name(name))
        }
        None => Target::Fresh {
            folder: PathBuf::new(),
            stem: output::slug(&args.prompt),
            extension: "png",
        },
    }
}

fn draw_one(kiln: &Kiln, settings: &Settings, quiet: bool) -> Result<Picture, CliError> {
    // Steps, and one for each of the graphs before and after.
    let bar = ProgressBar::with_draw_target(
        Some(settings.steps as u64 + 2),
        if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        },
    );
    if let Ok(style) = ProgressStyle::with_template("{msg:9} {wide_bar} {pos}/{len}  {eta}") {
        bar.set_style(style);
    }
    bar.set_message("encoding");
    bar.tick();
    let result = kiln.draw_settings(settings, &mut |progress| {
        bar.inc(1);
        match progress {
            Progress::Denoised { step, steps, .. } if step == steps => bar.set_message("decoding"),
            Progress::Encoded { .. } => bar.set_message("drawing"),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    Ok(result?)
}

fn warn_of_cut(picture: &Picture) {
    if !picture.cut().is_empty() {
        let line = format!(
            "kiln: the prompt is too long for the model, cut off: {}\n",
            picture.cut().join(" ")
        );
        // Where standard error is gone, nobody needs the warning.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
}

fn describe(picture: &Picture, path: &Path, seconds: f64) -> serde_json::Value {
    let settings = picture.settings();
    json!({
        "file": path.to_string_lossy(),
        "prompt": settings.prompt,
        "negative": settings.negative,
        "cut": picture.cut(),
        "seed": settings.seed,
        "steps": settings.steps,
        "sampler": settings.sampler.name(),
        "guidance_scale": settings.guidance_scale,
        "clip_skip": settings.clip_skip,
        "width": settings.width,
        "height": settings.height,
        "model": picture.model(),
        "seconds": seconds,
    })
}
