//! `kiln bench`: how fast each graph runs here.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln::pipeline::{Card, Noise};
use kiln::runtime::{
    Cancellation, Data, Model, Observer, ProgramId, Session, SessionOptions, StepInfo,
    cancel_on_signal, processor_time,
};
use kiln_package::{DType, GraphKind, Stage};
use serde_json::{Map, Value, json};

use super::error::CliError;
use super::{model, output, values};

/// Measure how fast each graph of a package runs
#[derive(clap::Args)]
pub struct Args {
    /// The package [default: the built-in model]
    file: Option<PathBuf>,
    /// Width and height in pixels [default: the model's]
    #[arg(long, value_name = "WxH", value_parser = values::size)]
    size: Option<(u32, u32)>,
    /// Lanes of the text encoder and the UNet: 2 as under guidance [default: 1, and the UNet once more with 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=2))]
    lanes: Option<u8>,
    /// Only this graph
    #[arg(long, value_name = "GRAPH", value_parser = graph)]
    graph: Option<GraphKind>,
    /// Runs of each graph after a first one that does not count; the median counts
    #[arg(long, visible_alias = "repeat", value_name = "N", default_value = "5", value_parser = values::count)]
    runs: NonZeroUsize,
    /// Show so many of each graph's slowest layers
    #[arg(long, value_name = "N", default_value = "0")]
    layers: usize,
    /// Threads [default: as many as there are physical cores]
    #[arg(long, value_name = "N", value_parser = values::threads)]
    threads: Option<NonZeroUsize>,
    /// Print JSON: an object for each graph, under its name
    #[arg(long)]
    json: bool,
}

pub fn bench(args: &Args) -> Result<(), CliError> {
    let model = model::open(args.file.as_deref())?;
    let (width, height) = match args.size {
        Some(size) => size,
        None => default_size(&model)?,
    };
    let available: Vec<_> = model.sizes(GraphKind::Unet).collect();
    if !available.is_empty() && !available.contains(&(height, width)) {
        let sizes: Vec<_> = available
            .iter()
            .map(|(height, width)| format!("{width}x{height}"))
            .collect();
        return Err(CliError::Usage(format!(
            "size {width}x{height}: the model has {}",
            sizes.join(", ")
        )));
    }
    let cancellation = Cancellation::new();
    cancel_on_signal(&cancellation)
        .map_err(|error| CliError::Failure(format!("signals: {error}")))?;
    let options = SessionOptions {
        threads: args.threads,
        cancellation,
        ..SessionOptions::default()
    };

    let mut text = format!(
        "{} threads, {}\n",
        options.thread_count(),
        model.isa().name()
    );
    let mut objects = Map::new();
    for &graph in GraphKind::ALL {
        if args.graph.is_some_and(|only| only != graph) {
            continue;
        }
        let Ok(program) = model.find(graph, height, width) else {
            continue;
        };
        for (lanes, key) in variants(graph, args.lanes) {
            let run = measure(&model, program, lanes, args.runs.get(), &options)?;
            let _ = write!(text, "\n{}", as_text(&key, &run, args.layers));
            let memory = model.memory(&[(program, lanes)], options.thread_count());
            let mut object = as_json(&run, args.layers);
            object["width"] = json!(width);
            object["height"] = json!(height);
            object["lanes"] = json!(lanes);
            object["threads"] = json!(options.thread_count());
            object["isa"] = json!(model.isa().name());
            object["arena_bytes"] = json!(memory.arena_bytes);
            objects.insert(key, object);
        }
    }
    if let Some(graph) = args.graph.filter(|_| objects.is_empty()) {
        return Err(CliError::Usage(format!(
            "the model has no {}",
            graph.name()
        )));
    }
    match args.json {
        true => output::print(&format!("{:#}\n", Value::Object(objects))),
        false => output::print(&text),
    }
}

fn default_size(model: &Model) -> Result<(u32, u32), CliError> {
    let card = Card::from_json(model.package().card())
        .map_err(|error| CliError::Failure(format!("{}: {error}", model.origin())))?;
    Ok((card.defaults.width, card.defaults.height))
}

fn graph(name: &str) -> Result<GraphKind, String> {
    let found = GraphKind::ALL.iter().find(|graph| graph.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = GraphKind::ALL.iter().map(|graph| graph.name()).collect();
        format!("not one of {}", names.join(", "))
    })
}

/// The numbers of lanes that a graph is measured with, and what each is called.
fn variants(graph: GraphKind, lanes: Option<u8>) -> Vec<(usize, String)> {
    let name = graph.name().to_owned();
    match (graph, lanes) {
        (GraphKind::Unet | GraphKind::TextEncoder, Some(lanes)) => vec![(lanes.into(), name)],
        (GraphKind::Unet, None) => vec![(1, name.clone()), (2, name + "_2_lanes")],
        _ => vec![(1, name)],
    }
}

/// One run of a graph.
#[derive(Default)]
struct Measured {
    elapsed: Duration,
    /// The time of the fastest run.
    least: Duration,
    /// What the process had been on its processors when it began, at the end of the last step, and in all of the run.
    began: Duration,
    last: Duration,
    processor: Duration,
    stages: Vec<Kind>,
    kinds: Vec<Kind>,
    layers: Vec<Kind>,
    /// The step that each of the layers is.
    steps: Vec<(Stage, usize)>,
}

/// All steps of one operator, of one stage, or one step.
struct Kind {
    name: String,
    count: usize,
    macs: u64,
    elapsed: Duration,
    /// Time on a processor, all threads together.
    processor: Duration,
}

impl Observer for Measured {
    fn step(&mut self, step: StepInfo<'_>) {
        let now = processor_time().unwrap_or_default();
        let processor = now.saturating_sub(self.last);
        self.last = now;
        let kind = match step.integers {
            true => format!("{} int8", step.op),
            false => step.op.to_owned(),
        };
        let layer = format!("{kind} {}", step.name);
        count(&mut self.stages, step.stage.name(), &step, processor);
        count(&mut self.kinds, &kind, &step, processor);
        // Where lanes take turns, a step is seen once for each.
        let seen = self
            .steps
            .iter()
            .position(|seen| *seen == (step.stage, step.index));
        let at = seen.unwrap_or_else(|| {
            self.steps.push((step.stage, step.index));
            self.layers.push(Kind::new(layer));
            self.layers.len() - 1
        });
        self.layers[at].add(&step, processor);
    }
}

fn count(kinds: &mut Vec<Kind>, name: &str, step: &StepInfo<'_>, processor: Duration) {
    let at = kinds
        .iter()
        .position(|kind| kind.name == name)
        .unwrap_or_else(|| {
            kinds.push(Kind::new(name.to_owned()));
            kinds.len() - 1
        });
    kinds[at].add(step, processor);
}

impl Kind {
    fn new(name: String) -> Self {
        Kind {
            name,
            count: 0,
            macs: 0,
            elapsed: Duration::ZERO,
            processor: Duration::ZERO,
        }
    }

    fn add(&mut self, step: &StepInfo<'_>, processor: Duration) {
        self.count += usize::from(step.lane.unwrap_or(0) == 0);
        self.macs = self.macs.saturating_add(step.macs);
        self.elapsed += step.elapsed;
        self.processor += processor;
    }
}

impl Measured {
    fn macs(&self) -> u64 {
        self.kinds
            .iter()
            .fold(0, |sum, kind| sum.saturating_add(kind.macs))
    }

    /// What passed outside of the steps: inputs stored, stages changed.
    fn between(&self) -> Duration {
        let steps = self.kinds.iter().map(|kind| kind.elapsed).sum();
        self.elapsed.saturating_sub(steps)
    }
}

/// The run whose time is the median. The first, which reads the weights, is left out.
fn measure(
    model: &Model,
    program: ProgramId,
    lanes: usize,
    runs: usize,
    options: &SessionOptions,
) -> Result<Measured, CliError> {
    let mut session = Session::new(model, &[(program, lanes)], options)?;
    let mut noise = Noise::new(0);
    // A prompt of one chunk.
    let inputs: Vec<_> = model
        .inputs(program)
        .map(|port| port.at_chunks(1, model.max_chunks(program)))
        .collect();
    let tensors: Vec<_> = inputs
        .iter()
        .map(|port| {
            let shape: Vec<usize> = port.shape().iter().map(|&size| size as usize).collect();
            let mut values = vec![0.0; port.elements() as usize];
            noise.fill(&mut values);
            let ids = vec![0_i32; values.len()];
            (shape, values, ids)
        })
        .collect();
    let mut measured = Vec::new();
    for run in 0..=runs {
        let mut evaluation = session.prepare(program, lanes)?;
        for (port, (shape, values, ids)) in inputs.iter().zip(&tensors) {
            let data = if port.dtype == DType::I32 {
                Data::I32(ids)
            } else {
                Data::F32(values)
            };
            for lane in 0..lanes {
                evaluation.input(lane, port.name, shape, data)?;
            }
        }
        let mut one = Measured::default();
        one.began = processor_time().unwrap_or_default();
        one.last = one.began;
        let start = Instant::now();
        evaluation.run(&mut one)?;
        one.elapsed = start.elapsed();
        let end = processor_time().unwrap_or_default();
        one.processor = end.saturating_sub(one.began);
        if run > 0 {
            measured.push(one);
        }
    }
    measured.sort_by_key(|run| run.elapsed);
    let least = measured[0].elapsed;
    let mut median = measured.swap_remove(measured.len() / 2);
    median.least = least;
    for kinds in [&mut median.kinds, &mut median.layers] {
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.elapsed));
    }
    Ok(median)
}

fn as_json(run: &Measured, layers: usize) -> Value {
    let objects = |kinds: &[Kind]| -> Map<String, Value> {
        let object = |kind: &Kind| {
            json!({
                "count": kind.count,
                "seconds": kind.elapsed.as_secs_f64(),
                "processor_seconds": kind.processor.as_secs_f64(),
                "share": share(kind.elapsed, run.elapsed),
                "macs": kind.macs,
                "gmac_per_s": rate(kind.macs, kind.elapsed),
            })
        };
        kinds
            .iter()
            .map(|kind| (kind.name.clone(), object(kind)))
            .collect()
    };
    let mut object = json!({
        "seconds": run.elapsed.as_secs_f64(),
        "processor_seconds": run.processor.as_secs_f64(),
        "least_seconds": run.least.as_secs_f64(),
        "between_seconds": run.between().as_secs_f64(),
        "macs": run.macs(),
        "gmac_per_s": rate(run.macs(), run.elapsed),
        "stages": objects(&run.stages),
        "operators": objects(&run.kinds),
    });
    if layers > 0 {
        object["layers"] = Value::Object(objects(&run.layers[..layers.min(run.layers.len())]));
    }
    object
}

/// The whole, its stages where there are several, its operators and what passed between them, which add up to the whole;
/// then the slowest layers.
fn as_text(name: &str, run: &Measured, layers: usize) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<28} steps       wall   share  processors       speed",
        ""
    );
    let mut lines = |indent: &str, kinds: &[Kind]| {
        for kind in kinds {
            let _ = writeln!(
                text,
                "{:<28} {:>5} {:>7.2} ms {:>5.1} % {:>8.2} ms {:>6.1} GMAC/s",
                format!("{indent}{}", kind.name),
                kind.count,
                kind.elapsed.as_secs_f64() * 1e3,
                100.0 * share(kind.elapsed, run.elapsed),
                kind.processor.as_secs_f64() * 1e3,
                rate(kind.macs, kind.elapsed)
            );
        }
    };
    let steps = run.layers.len();
    let whole = Kind {
        name: name.to_owned(),
        count: steps,
        macs: run.macs(),
        elapsed: run.elapsed,
        processor: run.processor,
    };
    lines("", &[whole]);
    if run.stages.len() > 1 {
        lines(" ", &run.stages);
    }
    lines("  ", &run.kinds);
    let steps_on_processors = run.kinds.iter().map(|kind| kind.processor).sum();
    let between = Kind {
        elapsed: run.between(),
        processor: run.processor.saturating_sub(steps_on_processors),
        ..Kind::new("(between steps)".to_owned())
    };
    lines("  ", &[between]);
    if layers > 0 {
        let shown = &run.layers[..layers.min(steps)];
        lines("    ", shown);
    }
    text
}

fn rate(macs: u64, elapsed: Duration) -> f64 {
    macs as f64 / 1e9 / elapsed.as_secs_f64().max(1e-9)
}

fn share(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64().max(1e-9)
}
