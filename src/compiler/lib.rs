//! From a checkpoint to a `.kiln` file.
//!
//! - `frontend/`: sources of models; each gives graphs of *source* operators.
//! - `graph/`: the graph, its text form, its rules, its meaning.
//! - `passes/`: from source operators to the operators of a program.
//! - `quantize/`: which products are of 8-bit integers, measured on the model itself.
//! - `preview`: a map from latents to colours, fitted to the decoder.
//! - `tile`: parts of a picture that the VAE works on.
//! - `plan/`: the arena, the packed weights, the file.
//!
//! [`compile`] is the whole way.

#![forbid(unsafe_code)]

mod cancel;
pub mod frontend;
pub mod graph;
mod output;
pub mod passes;
pub mod plan;
mod preview;
pub mod quantize;
pub mod report;
mod tile;

#[cfg(test)]
mod tests;

pub use cancel::Cancel;

use frontend::source::{Changes, Reading, Source, SourceError};
use frontend::tensors::{OpenFile, read_file};
use frontend::{Checkpoint, source};
use graph::Graph;
use kiln_package::{GraphKind, Stage};
use passes::{PassReport, clip_skip, staging};
use plan::{PackageParts, Part, Precision};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What to compile, into what.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// What the model is read from.
    pub source: Source,
    /// What is to be other than there.
    pub changes: Changes,
    /// How files of tensors are opened. Mapped ones take no memory of their own.
    pub open_file: OpenFile,
    /// Ends the work with [`CompileError::Cancelled`].
    pub cancel: Cancel,
    /// The file to write. It is replaced at once when everything is done, or left alone.
    pub output: PathBuf,
    /// Picture sizes, width and height in pixels; empty for the model's own. The first is the package's default, unless
    /// the model's card names another one of them.
    pub sizes: Vec<(usize, usize)>,
    /// Type of weights and activations.
    pub precision: Precision,
    /// For [`Precision::Int8`]: a UNet's layer stays in f16 if its part of the noise in the result is this many times as large
    /// as its part of the multiplications and weights; the less, the more exact and the slower. `None` for what the model's
    /// card says, or [`quantize::LEAST_GAIN`].
    pub f16_gain: Option<f64>,
    /// Where to write why each layer has its precision: JSON if it ends in `.json`, else text. Only for
    /// [`Precision::Int8`].
    pub report: Option<PathBuf>,
    /// The most chunks of context, each of as many tokens as the text encoder takes, that a prompt may have.
    pub max_chunks: u32,
    /// The side of the VAE's tiles in pixels; `None` for the largest that fits in 40 MB with any picture.
    pub tile: Option<usize>,
    /// Runs only that many passes and writes nothing: [`Progress::Graph`] gives what they made.
    pub stop_after: Option<usize>,
    /// A pass after which [`Progress::Graph`] gives every graph.
    pub dump: Option<String>,
}

impl CompileOptions {
    /// The model in `source`, at its own size, in `int8`, to `output`.
    pub fn new(source: impl Into<Source>, output: impl Into<PathBuf>) -> Self {
        CompileOptions {
            source: source.into(),
            changes: Changes::default(),
            open_file: read_file,
            cancel: Cancel::default(),
            output: output.into(),
            sizes: Vec::new(),
            precision: Precision::Int8,
            f16_gain: None,
            report: None,
            max_chunks: 3,
            tile: None,
            stop_after: None,
            dump: None,
        }
    }
}

/// How far the work is.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A part of the model is being read, such as `unet`.
    Reading(&'a str),
    /// A pass has run on a graph.
    Pass {
        /// The graph's name.
        graph: &'a str,
        /// How it went.
        report: &'a PassReport,
    },
    /// A graph that was asked for by `dump` or `stop_after`; it prints as text.
    Graph {
        /// The last pass that ran.
        pass: &'a str,
        /// The graph after it.
        graph: &'a Graph,
    },
    /// Something that whoever compiles should know.
    Warning(&'a str),
    /// The source's files are being hashed.
    Hashed {
        /// Bytes hashed.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The map from latents to the colours of previews is being fitted.
    Preview,
    /// A part of the model is being measured.
    Measuring(quantize::Measured<'a>),
    /// A program is being planned, or weights are being written.
    Plan(plan::Progress),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Picture sizes, width and height in pixels.
    pub sizes: Vec<(usize, usize)>,
    /// Bytes of the package; 0 when `stop_after` kept it from being written.
    pub bytes: u64,
}

/// Why a model could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The source cannot be read.
    #[cfg(feature = "onnx")]
    #[error(transparent)]
    Onnx(#[from] frontend::onnx::OnnxError),
    /// The source, or what is to be changed in it, is not what it should be.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An ONNX folder's graphs are what they are.
    #[error("{path}: an ONNX folder is compiled as it is: {options} cannot be used with it", path = .path.display())]
    Fixed {
        /// The folder.
        path: PathBuf,
        /// The options that cannot be used.
        options: String,
    },
    /// Someone asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// This build has no frontend for the source.
    #[error("{path}: this build of kiln cannot read ONNX folders (build it with the feature `onnx`)", path = .0.display())]
    NoFrontend(PathBuf),
    /// Sizes that the model cannot have.
    #[error("size {}: width and height must be multiples of {multiple}, from {multiple} to {MAX_SIZE}", list(.sizes))]
    Size {
        /// The sizes that do not fit.
        sizes: Vec<(usize, usize)>,
        /// What they must be multiples of.
        multiple: usize,
    },
    /// `dump` names no pass.
    #[error("no pass is called {name:?}; the passes are {}", .known.join(", "))]
    UnknownPass {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<&'static str>,
    },
    /// `stop_after` is more than there are passes.
    #[error("there are {count} passes, cannot stop after {asked}")]
    StopAfter {
        /// The number asked for.
        asked: usize,
        /// The number of passes.
        count: usize,
    },
    /// The passes could not make a program of a graph.
    #[error(transparent)]
    Pass(#[from] passes::PassError),
    /// A graph has no form at a size.
    #[error(transparent)]
    Resize(#[from] graph::ResizeError),
    /// The model could not be measured.
    #[error(transparent)]
    Quantize(#[from] quantize::QuantizeError),
    /// A report is asked for of what is not measured.
    #[error("only --precision int8 has a report")]
    Report,
    /// A gain is named where nothing is measured.
    #[error("only --precision int8 has an f16 gain")]
    GainOfNothing,
    /// `f16_gain` is no number from 0.
    #[error("an f16 gain of {0}: must be a number from 0")]
    Gain(f64),
    /// `max_chunks` is none or too many.
    #[error("{0} chunks of context: must be from 1 to {MAX_CHUNKS}")]
    Chunks(u32),
    /// Tiles that the VAE cannot have.
    #[error("tile {side}: a multiple of {multiple} expected, {least} to {MAX_SIZE}")]
    Tile {
        /// The side asked for.
        side: usize,
        /// The least that there can be.
        least: usize,
        /// What it must be a multiple of.
        multiple: usize,
    },
    /// The programs could not be planned.
    #[error(transparent)]
    Plan(plan::PlanError),
    /// The package could not be written.
    #[error("{path}: cannot be written: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The largest width and height of a picture.
const MAX_SIZE: usize = 1 << 16;
/// The most chunks of context that a package can be compiled for.
const MAX_CHUNKS: u32 = 64;
/// What the UNet calls its context.
const CONTEXT: &str = "encoder_hidden_states";

fn list(sizes: &[(usize, usize)]) -> String {
    let sizes: Vec<String> = sizes.iter().map(|(w, h)| format!("{w}x{h}")).collect();
    sizes.join(", ")
}

/// Compiles a model: reads it, runs the passes, shapes the graphs for each size, plans and writes the package.
pub fn compile(
    options: &CompileOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Compiled, CompileError> {
    // Whoever was interrupted says so in words of its own.
    compile_all(options, progress).map_err(|error| match options.cancel.asked() {
        true => CompileError::Cancelled,
        false => error,
    })
}

fn compile_all(
    options: &CompileOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Compiled, CompileError> {
    check_passes(options)?;
    let mut model = open(options, &mut |reading| {
        progress(match reading {
            Reading::Part(part) => Progress::Reading(part),
            Reading::Hashed(done, total) => Progress::Hashed { done, total },
            Reading::Warning(text) => Progress::Warning(text),
        });
        !options.cancel.asked()
    })?;
    let sizes = sizes(options, &model)?;

    for graph in [
        &mut model.text_encoder,
        &mut model.unet,
        &mut model.vae_decoder,
    ]
    .into_iter()
    .chain(&mut model.vae_encoder)
    .chain(&mut model.taesd_decoder)
    {
        run_passes(graph, options, progress)?;
    }
    if options.stop_after.is_some() {
        return Ok(Compiled { sizes, bytes: 0 });
    }

    progress(Progress::Preview);
    // A part of the card that the source cannot say.
    model.card.own.remove("preview");
    if let Some(map) = preview::fit(&model, &options.cancel)? {
        model
            .card
            .own
            .insert("preview".into(), serde_json::json!(map));
    }

    if options.precision == Precision::Int8 {
        if let Some(gain) = options.f16_gain {
            let key = frontend::card::F16_GAIN.to_owned();
            model.card.own.insert(key, serde_json::json!(gain));
        }
        let gain = model.card.f16_gain().unwrap_or(quantize::LEAST_GAIN);
        let reports = quantize::quantize(&mut model, gain, &options.cancel, &mut |measured| {
            progress(Progress::Measuring(measured));
        })?;
        if let Some(path) = &options.report {
            let text = report::report(path, &reports);
            output::replace(path, &options.cancel, |file| {
                Ok(file
                    .write_all(text.as_bytes())
                    .map_err(kiln_package::WriteError::Io)?)
            })?;
        }
        let graphs = [&model.text_encoder, &model.unet, &model.vae_decoder]
            .into_iter()
            .chain(&model.vae_encoder)
            .chain(&model.taesd_decoder);
        dump(options, QUANTIZE, graphs, progress);
    }

    let tile = tile::side(&model, options)?;
    model.card.own.remove("tile");
    if let Some(side) = tile {
        model.card.own.insert("tile".into(), side.into());
    }
    let card = model
        .card
        .to_json(options.precision.name(), default_size(&model, &sizes));
    let mut graphs = parts(&model, &sizes, options)?;
    for size in tile.map_or(Vec::new(), |side| tile::sizes(&sizes, side)) {
        graphs.extend(tile::parts(&model, size, options.precision)?);
    }
    dump(
        options,
        STAGING,
        graphs.iter().map(|part| &part.graph),
        progress,
    );
    let Checkpoint {
        tokenizer,
        scheduler,
        ..
    } = model;
    let parts = PackageParts {
        card,
        tokenizer,
        scheduler,
        graphs,
        bands: plan::Bands::default(),
        lanes: plan::Lanes::default(),
        cancel: options.cancel.clone(),
    };
    let bytes = output::replace(&options.output, &options.cancel, |file| {
        plan::emit(parts, options.precision, file, &mut |p| {
            progress(Progress::Plan(p))
        })
    })?;
    Ok(Compiled { sizes, bytes })
}

/// What [`CompileOptions::dump`] calls the graphs after quantization, and the stages of each size.
const QUANTIZE: &str = "quantize";
const STAGING: &str = "staging";

fn dump<'a>(
    options: &CompileOptions,
    pass: &'static str,
    graphs: impl Iterator<Item = &'a Graph>,
    progress: &mut dyn FnMut(Progress<'_>),
) {
    if options.dump.as_deref() == Some(pass) {
        graphs.for_each(|graph| progress(Progress::Graph { pass, graph }));
    }
}

/// An ONNX folder is the only source with a frontend of its own.
fn open(
    options: &CompileOptions,
    hear: &mut dyn FnMut(Reading<'_>) -> bool,
) -> Result<Checkpoint, CompileError> {
    match &options.source {
        Source::Path(path) if source::is_onnx(path) => {
            let named = options.changes.named();
            if !named.is_empty() {
                return Err(CompileError::Fixed {
                    path: path.clone(),
                    options: named.join(", "),
                });
            }
            open_onnx(path, &mut |part| {
                hear(Reading::Part(part));
            })
        }
        other => {
            let changes = &options.changes;
            Ok(source::open(other, changes, options.open_file, hear)?)
        }
    }
}

#[cfg(feature = "onnx")]
fn open_onnx(source: &Path, progress: &mut dyn FnMut(&str)) -> Result<Checkpoint, CompileError> {
    Ok(frontend::onnx::open(source, progress)?)
}

#[cfg(not(feature = "onnx"))]
fn open_onnx(source: &Path, _: &mut dyn FnMut(&str)) -> Result<Checkpoint, CompileError> {
    Err(CompileError::NoFrontend(source.to_owned()))
}

fn check_passes(options: &CompileOptions) -> Result<(), CompileError> {
    let mut known: Vec<&'static str> = passes::list().iter().map(|(name, _)| *name).collect();
    let passes = known.len();
    known.extend([QUANTIZE, STAGING]);
    if let Some(name) = options
        .dump
        .as_ref()
        .filter(|name| !known.contains(&name.as_str()))
    {
        return Err(CompileError::UnknownPass {
            name: name.clone(),
            known,
        });
    }
    if options.report.is_some() && options.precision != Precision::Int8 {
        return Err(CompileError::Report);
    }
    if let Some(gain) = options.f16_gain {
        if options.precision != Precision::Int8 {
            return Err(CompileError::GainOfNothing);
        }
        if !gain.is_finite() || gain < 0.0 {
            return Err(CompileError::Gain(gain));
        }
    }
    if !(1..=MAX_CHUNKS).contains(&options.max_chunks) {
        return Err(CompileError::Chunks(options.max_chunks));
    }
    match options.stop_after {
        Some(asked) if asked > passes => Err(CompileError::StopAfter {
            asked,
            count: passes,
        }),
        _ => Ok(()),
    }
}

/// The sizes to compile for: those asked for, each once, or the model's own.
fn sizes(
    options: &CompileOptions,
    model: &Checkpoint,
) -> Result<Vec<(usize, usize)>, CompileError> {
    if options.sizes.is_empty() {
        let [h, w] = model.latent.map(|n| n * model.vae_factor);
        return Ok(vec![(w, h)]);
    }
    // Pictures are of multiples of 8 whatever the model, as in diffusers.
    let multiple = if model.vae_factor > 8 || 8 % model.vae_factor != 0 {
        model.vae_factor
    } else {
        8
    };
    let fits = |n: usize| (1..=MAX_SIZE).contains(&n) && n.is_multiple_of(multiple);
    let wrong: Vec<_> = options
        .sizes
        .iter()
        .copied()
        .filter(|(w, h)| !fits(*w) || !fits(*h))
        .collect();
    if !wrong.is_empty() {
        return Err(CompileError::Size {
            sizes: wrong,
            multiple,
        });
    }
    let mut sizes: Vec<(usize, usize)> = Vec::new();
    for size in &options.sizes {
        if !sizes.contains(size) {
            sizes.push(*size);
        }
    }
    Ok(sizes)
}

/// The size that the model's card names, if it is one of those, else the first.
fn default_size(model: &Checkpoint, sizes: &[(usize, usize)]) -> (usize, usize) {
    let named = |key: &str| {
        model
            .card
            .own
            .get("defaults")?
            .get(key)?
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
    };
    let own = named("width").zip(named("height"));
    own.filter(|own| sizes.contains(own)).unwrap_or(sizes[0])
}

fn run_passes(
    graph: &mut Graph,
    options: &CompileOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), CompileError> {
    let mut last = "the frontend";
    let name = graph.name.clone();
    passes::run(graph, options.stop_after, &mut |report, graph| {
        progress(Progress::Pass {
            graph: &name,
            report,
        });
        if options.dump.as_deref() == Some(report.name) {
            progress(Progress::Graph {
                pass: report.name,
                graph,
            });
        }
        last = report.name;
    })?;
    if options.stop_after.is_some() && options.dump.is_none() {
        progress(Progress::Graph { pass: last, graph });
    }
    Ok(())
}

/// Every graph at every size that it has one for, the UNet in stages.
fn parts(
    model: &Checkpoint,
    sizes: &[(usize, usize)],
    options: &CompileOptions,
) -> Result<Vec<Part>, CompileError> {
    let part = |kind, stage, max_chunks, (width, height): (usize, usize), graph| {
        // Sizes are at most `MAX_SIZE`.
        Part {
            kind,
            stage,
            max_chunks,
            height: height as u32,
            width: width as u32,
            clip_skip: 0,
            graph,
        }
    };
    let mut parts = Vec::new();
    for (skipped, graph) in clip_skip::forms(&model.text_encoder)
        .into_iter()
        .enumerate()
    {
        parts.push(Part {
            clip_skip: skipped as u32 + 1,
            ..part(GraphKind::TextEncoder, Stage::Whole, 1, (0, 0), graph)
        });
    }
    for (width, height) in sizes.iter().copied() {
        let latent = [height / model.vae_factor, width / model.vae_factor];
        parts.extend(tile::parts(model, (width, height), options.precision)?);
        let mut graph = model.unet.resized(latent)?;
        if options.precision == Precision::Int8 {
            quantize::integer_attention(&mut graph);
        }
        let (stages, max_chunks) = stages(&graph, options.max_chunks);
        let early = [
            (Stage::Prompt, stages.prompt),
            (Stage::Timestep, stages.timestep),
        ];
        for (stage, graph) in early.into_iter().chain([(Stage::Step, Some(stages.step))]) {
            let unet = |graph| {
                let size = (width, height);
                part(GraphKind::Unet, stage, max_chunks, size, graph)
            };
            parts.extend(graph.map(unet));
        }
    }
    Ok(parts)
}

/// The UNet's stages for as many chunks of context as it can have, up to `most`, and how many those are.
fn stages(unet: &Graph, most: u32) -> (staging::Stages, u32) {
    let one = staging::split(unet);
    let context = unet
        .inputs
        .iter()
        .find(|id| unet.value(**id).name == CONTEXT);
    let Some(rows) = context.and_then(|id| unet.shape(*id).first().copied()) else {
        return (one, 1);
    };
    if most == 1 || !one.follows_context() {
        return (one, 1);
    }
    match unet.with_rows(CONTEXT, rows * most as usize) {
        Ok(grown) => (staging::split(&grown), most),
        Err(_) => (one, 1),
    }
}
