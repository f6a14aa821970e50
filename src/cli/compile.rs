//! `kiln compile`: a package from a model as people download it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kiln::runtime::{Cancellation, cancel_on_signal, map_file};
use kiln_compiler::frontend::embedding::EmbeddingArgument;
use kiln_compiler::frontend::lora::LoraArgument;
use kiln_compiler::frontend::source::{Changes, Prediction, Source, SourceError};
use kiln_compiler::frontend::tensors::Bytes;
use kiln_compiler::plan::{Precision, Progress as Planning};
use kiln_compiler::{Cancel, CompileError, CompileOptions, Progress};

use super::error::CliError;
use super::output::{self, Target};
use super::values;

/// Compile a model into a package
#[derive(clap::Args)]
pub struct Args {
    /// A checkpoint (.safetensors, .ckpt), a folder of diffusers or of ONNX, or random:NAME
    #[arg(required_unless_present = "unet")]
    source: Option<PathBuf>,
    /// The package to write; replaces what is there
    #[arg(
        short,
        long,
        value_name = "FILE.kiln",
        required_unless_present = "stop_after"
    )]
    output: Option<PathBuf>,
    /// A UNet in place of the source's: a file in either layout, or a folder
    #[arg(long, value_name = "FILE")]
    unet: Option<PathBuf>,
    /// A text encoder in place of the source's: a file in either layout, or a folder
    #[arg(long, value_name = "FILE")]
    text_encoder: Option<PathBuf>,
    /// A VAE or a tiny autoencoder (TAESD) in place of the source's VAE: a file in either layout, or a folder
    #[arg(long, value_name = "FILE")]
    vae: Option<PathBuf>,
    /// A tiny autoencoder (TAESD) whose decoder comes beside the VAE's, for `draw --decoder taesd`
    #[arg(long, value_name = "FILE")]
    taesd: Option<PathBuf>,
    /// A tokenizer in place of the source's: a folder, or a tokenizer.json
    #[arg(long, value_name = "FOLDER|FILE")]
    tokenizer: Option<PathBuf>,
    /// A LoRA to merge, and how much of it [default: 1]; may be given more than once
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    lora: Vec<LoraArgument>,
    /// A word of prompts and the vectors that it stands for (textual inversion); may be given more than once
    #[arg(long, value_name = "NAME=FILE")]
    embedding: Vec<EmbeddingArgument>,
    /// What the UNet predicts, epsilon or v, where the source does not say or says it wrongly
    #[arg(long, value_name = "epsilon|v", value_parser = prediction)]
    prediction: Option<Prediction>,
    /// Widths and heights in pixels, the default one first [default: the model's own]
    #[arg(long, value_name = "WxH,...", value_delimiter = ',', value_parser = values::size)]
    size: Vec<(u32, u32)>,
    /// The side of the tiles of `draw --tile`, in pixels [default: the largest that fits in 40 MB with any picture]
    #[arg(long, value_name = "PIXELS")]
    tile: Option<usize>,
    /// int8, f16 or f32; int8 keeps layers in f16 where 8 bits would cost too much
    #[arg(long, value_name = "TYPE", default_value = "int8", value_parser = precision)]
    precision: Precision,
    /// int8: keep a UNet layer in f16 if its part of the noise is that many times its part of the cost; less is more exact and
    /// slower [default: 8, or what the model's card says]
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    f16_gain: Option<f64>,
    /// Write each layer's precision and why; JSON if the name ends in .json
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The most chunks of 77 tokens that a prompt may have
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    max_chunks: u32,
    /// Print every graph as text after this pass
    #[arg(long, value_name = "PASS")]
    dump: Option<String>,
    /// Run only the first N passes, print the graphs and write no package
    #[arg(long, value_name = "N")]
    stop_after: Option<usize>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

fn precision(text: &str) -> Result<Precision, String> {
    let known = [Precision::Int8, Precision::F16, Precision::F32];
    known
        .into_iter()
        .find(|precision| precision.name() == text)
        .ok_or_else(|| "expected int8, f16 or f32".into())
}

fn ratio(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number
        .filter(|number| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| "expected a number from 0".into())
}

fn prediction(text: &str) -> Result<Prediction, String> {
    match text {
        "epsilon" => Ok(Prediction::Epsilon),
        "v" | "v_prediction" => Ok(Prediction::Velocity),
        _ => Err("expected epsilon or v".into()),
    }
}

fn source(args: &Args) -> Source {
    let Some(path) = &args.source else {
        return Source::Parts;
    };
    match path.to_str().and_then(|text| text.strip_prefix("random:")) {
        Some(name) if !path.exists() => Source::Random(name.into()),
        _ => Source::from(path),
    }
}

fn open_file(path: &Path) -> std::io::Result<Bytes> {
    Ok(Arc::new(map_file(path)?))
}

pub fn compile(args: &Args) -> Result<(), CliError> {
    if let Some(output) = &args.output {
        if output::is_special(output) {
            return Err(CliError::Failure(format!(
                "{}: not a plain file",
                output.display()
            )));
        }
        Target::Replace(output.clone()).probe()?;
    }
    let output = args.output.as_deref().map(output::followed);
    let cancellation = Cancellation::new();
    cancel_on_signal(&cancellation)
        .map_err(|error| CliError::Failure(format!("signals: {error}")))?;
    let options = CompileOptions {
        changes: Changes {
            unet: args.unet.clone(),
            text_encoder: args.text_encoder.clone(),
            vae: args.vae.clone(),
            taesd: args.taesd.clone(),
            tokenizer: args.tokenizer.clone(),
            prediction: args.prediction,
            loras: args.lora.clone(),
            embeddings: args.embedding.clone(),
        },
        open_file,
        cancel: Cancel::new(move || cancellation.is_cancelled()),
        sizes: args
            .size
            .iter()
            .map(|(width, height)| (*width as usize, *height as usize))
            .collect(),
        precision: args.precision,
        f16_gain: args.f16_gain,
        report: args.report.clone(),
        tile: args.tile,
        max_chunks: args.max_chunks,
        stop_after: args.stop_after,
        dump: args.dump.clone(),
        ..CompileOptions::new(source(args), output.unwrap_or_default())
    };
    let mut bar = Bar::new(args.quiet);
    let mut printed = Ok(());
    let compiled = kiln_compiler::compile(&options, &mut |progress| match progress {
        Progress::Reading(part) => bar.say(format!("reading {part}")),
        Progress::Warning(text) => bar.0.suspend(|| {
            // Where standard error is gone, nobody needs the warning.
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("kiln: {text}\n").as_bytes(),
            );
        }),
        Progress::Hashed { done, total } => bar.bytes("hashing", done, total),
        Progress::Pass { graph, report } => {
            bar.say(format!("{graph}: {} ({})", report.name, report.fired))
        }
        Progress::Graph { pass, graph } if printed.is_ok() => {
            printed = output::print(&format!("# after {pass}\n{graph}\n"));
        }
        Progress::Graph { .. } => {}
        Progress::Preview => bar.say("fitting previews".into()),
        Progress::Measuring(measured) => {
            let what = format!("measuring {}", measured.part);
            bar.bytes(&what, measured.done, measured.total);
        }
        Progress::Plan(Planning::Program {
            graph,
            height,
            width,
        }) => bar.say(format!("packing {graph} {width}x{height}")),
        Progress::Plan(Planning::Weights { done, total }) => bar.bytes("writing", done, total),
    });
    bar.0.finish_and_clear();
    let compiled = compiled.map_err(|error| match error {
        CompileError::Size { .. }
        | CompileError::UnknownPass { .. }
        | CompileError::StopAfter { .. }
        | CompileError::Report
        | CompileError::Chunks(_)
        | CompileError::Tile { .. }
        | CompileError::Fixed { .. }
        | CompileError::Source(SourceError::Options(_)) => CliError::Usage(error.to_string()),
        CompileError::Cancelled => CliError::Cancelled,
        other => CliError::Failure(other.to_string()),
    })?;
    printed?;
    let Some(output) = args
        .output
        .as_ref()
        .filter(|_| args.stop_after.is_none() && !args.quiet)
    else {
        return Ok(());
    };
    let sizes: Vec<_> = compiled
        .sizes
        .iter()
        .map(|(width, height)| format!("{width}x{height}"))
        .collect();
    let megabytes = compiled.bytes as f64 / 1e6;
    output::print(&format!(
        "{} ({megabytes:.1} MB, {}, {})\n",
        output.display(),
        args.precision,
        sizes.join(", ")
    ))
}

/// The progress: what is done, and how much of it where that is known.
struct Bar(ProgressBar);

impl Bar {
    fn new(quiet: bool) -> Self {
        let target = match quiet {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        Bar(ProgressBar::with_draw_target(None, target))
    }

    /// Of work without a known end.
    fn say(&mut self, message: String) {
        if self.0.length().is_some() {
            self.0.unset_length();
            self.0.set_position(0);
            self.0.set_style(ProgressStyle::default_spinner());
        }
        self.0.set_message(message);
    }

    /// Of so many bytes of so many.
    fn bytes(&mut self, what: &str, done: u64, total: u64) {
        if self.0.length() != Some(total) || self.0.message() != what {
            self.0.set_length(total);
            let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}");
            if let Ok(style) = style {
                self.0.set_style(style);
            }
            self.0.set_message(what.to_owned());
        }
        self.0.set_position(done);
    }
}
