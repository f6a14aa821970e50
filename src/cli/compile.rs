//! `kiln compile`: a package from a model's folder.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kiln_compiler::plan::{Precision, Progress as Planning};
use kiln_compiler::{CompileError, CompileOptions, Progress};

use super::error::CliError;
use super::output::{self, Target};
use super::values;

/// Compile an ONNX folder, as optimum exports it, into a package
#[derive(clap::Args)]
pub struct Args {
    /// The folder with text_encoder, unet, vae_decoder, tokenizer and scheduler
    folder: PathBuf,
    /// The package to write; replaces what is there
    #[arg(
        short,
        long,
        value_name = "FILE.kiln",
        required_unless_present = "stop_after"
    )]
    output: Option<PathBuf>,
    /// Widths and heights in pixels, the default one first [default: the model's own]
    #[arg(long, value_name = "WxH,...", value_delimiter = ',', value_parser = values::size)]
    size: Vec<(u32, u32)>,
    /// int8, f16 or f32; int8 keeps layers in f16 where 8 bits would cost too much
    #[arg(long, value_name = "TYPE", default_value = "int8", value_parser = precision)]
    precision: Precision,
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
    let options = CompileOptions {
        sizes: args
            .size
            .iter()
            .map(|(width, height)| (*width as usize, *height as usize))
            .collect(),
        precision: args.precision,
        report: args.report.clone(),
        max_chunks: args.max_chunks,
        stop_after: args.stop_after,
        dump: args.dump.clone(),
        ..CompileOptions::new(&args.folder, output.unwrap_or_default())
    };
    let bar = ProgressBar::with_draw_target(
        None,
        if args.quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        },
    );
    let mut printed = Ok(());
    let compiled = kiln_compiler::compile(&options, &mut |progress| match progress {
        Progress::Reading(part) => bar.set_message(format!("reading {part}")),
        Progress::Pass { graph, report } => {
            bar.set_message(format!("{graph}: {} ({})", report.name, report.fired))
        }
        Progress::Graph { pass, graph } if printed.is_ok() => {
            printed = output::print(&format!("# after {pass}\n{graph}\n"));
        }
        Progress::Graph { .. } => {}
        Progress::Measuring(measured) => {
            let percent = 100 * measured.done / measured.total.max(1);
            bar.set_message(format!("measuring {} {percent} %", measured.part));
        }
        Progress::Plan(Planning::Program {
            graph,
            height,
            width,
        }) => {
            bar.set_message(format!("planning {graph} {width}x{height}"));
        }
        Progress::Plan(Planning::Weights { done, total }) => written(&bar, done, total),
    });
    bar.finish_and_clear();
    let compiled = compiled.map_err(|error| match error {
        CompileError::Size { .. }
        | CompileError::UnknownPass { .. }
        | CompileError::StopAfter { .. }
        | CompileError::Report
        | CompileError::Chunks(_) => CliError::Usage(error.to_string()),
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

/// The weights are what takes long to write: from here on there is an end in sight.
fn written(bar: &ProgressBar, done: u64, total: u64) {
    if bar.length() != Some(total) {
        bar.set_length(total);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}") {
            bar.set_style(style);
        }
        bar.set_message("writing");
    }
    bar.set_position(done);
}
