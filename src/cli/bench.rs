//! `kiln bench`: how fast each graph runs here.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln::pipeline::{Card, Noise};
use kiln::runtime::{
    Cancellation, Data, Model, Observer, ProgramId, Session, SessionOptions, StepInfo,
    cancel_on_signal,
};
use kiln_package::{DType, GraphKind};
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
    /// Lanes of the text encoder and the UNet: 2 as under guidance
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=2))]
    lanes: u8,
    /// Runs of each graph after a first one that does not count; the median counts
    #[arg(long, value_name = "N", default_value = "5", value_parser = values::count)]
    runs: NonZeroUsize,
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
        let Ok(program) = model.find(graph, height, width) else {
            continue;
        };
        let lanes = match graph {
            GraphKind::TextEncoder | GraphKind::Unet => usize::from(args.lanes),
            GraphKind::VaeDecoder | GraphKind::VaeEncoder => 1,
        };
        let run = measure(&model, program, lanes, args.runs.get(), &options)?;
        let _ = write!(text, "\n{}", as_text(&model, program, &run));
        let memory = model.memory(&[(program, lanes)], options.thread_count());
        let mut object = as_json(&run);
        object["width"] = json!(width);
        object["height"] = json!(height);
        object["lanes"] = json!(lanes);
        object["threads"] = json!(options.thread_count());
        object["isa"] = json!(model.isa().name());
        object["arena_bytes"] = json!(memory.arena_bytes);
        objects.insert(graph.name().to_owned(), object);
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

/// One run of a graph.
#[derive(Default)]
struct Measured {
    elapsed: Duration,
    stages: Vec<Kind>,
    kinds: Vec<Kind>,
}

/// All steps of one operator, or of one stage.
struct Kind {
    name: &'static str,
    count: usize,
    macs: u64,
    elapsed: Duration,
}

impl Observer for Measured {
    fn step(&mut self, step: StepInfo<'_>) {
        count(&mut self.stages, step.stage.name(), &step);
        count(&mut self.kinds, step.op, &step);
    }
}

fn count(kinds: &mut Vec<Kind>, name: &'static str, step: &StepInfo<'_>) {
    let at = kinds
        .iter()
        .position(|kind| kind.name == name)
        .unwrap_or_else(|| {
            kinds.push(Kind {
                name,
                count: 0,
                macs: 0,
                elapsed: Duration::ZERO,
            });
            kinds.len() - 1
        });
    let kind = &mut kinds[at];
    kind.count += 1;
    kind.macs = kind.macs.saturating_add(step.macs);
    kind.elapsed += step.elapsed;
}

impl Measured {
    fn macs(&self) -> u64 {
        self.kinds
            .iter()
            .fold(0, |sum, kind| sum.saturating_add(kind.macs))
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
        let start = Instant::now();
        evaluation.run(&mut one)?;
        one.elapsed = start.elapsed();
        if run > 0 {
            measured.push(one);
        }
    }
    measured.sort_by_key(|run| run.elapsed);
    let mut median = measured.swap_remove(measured.len() / 2);
    median
        .kinds
        .sort_by_key(|kind| std::cmp::Reverse(kind.elapsed));
    Ok(median)
}

fn as_json(run: &Measured) -> Value {
    let objects = |kinds: &[Kind]| -> Map<String, Value> {
        let object = |kind: &Kind| {
            json!({
                "count": kind.count,
                "seconds": kind.elapsed.as_secs_f64(),
                "macs": kind.macs,
                "gmac_per_s": rate(kind.macs, kind.elapsed),
            })
        };
        kinds
            .iter()
            .map(|kind| (kind.name.to_owned(), object(kind)))
            .collect()
    };
    json!({
        "seconds": run.elapsed.as_secs_f64(),
        "macs": run.macs(),
        "gmac_per_s": rate(run.macs(), run.elapsed),
        "stages": objects(&run.stages),
        "operators": objects(&run.kinds),
    })
}

fn as_text(model: &Model, program: ProgramId, run: &Measured) -> String {
    let mut text = String::new();
    let name = model.program(program).graph().name();
    let mut line = |name: &str, count: usize, elapsed: Duration, macs: u64| {
        let milliseconds = elapsed.as_secs_f64() * 1e3;
        let _ = writeln!(
            text,
            "{name:<20} {count:>5} {milliseconds:>10.2} ms {:>9.1} GMAC/s",
            rate(macs, elapsed)
        );
    };
    line(
        name,
        run.kinds.iter().map(|kind| kind.count).sum(),
        run.elapsed,
        run.macs(),
    );
    for stage in run.stages.iter().filter(|_| run.stages.len() > 1) {
        line(
            &format!(" {}", stage.name),
            stage.count,
            stage.elapsed,
            stage.macs,
        );
    }
    for kind in &run.kinds {
        line(
            &format!("  {}", kind.name),
            kind.count,
            kind.elapsed,
            kind.macs,
        );
    }
    text
}

fn rate(macs: u64, elapsed: Duration) -> f64 {
    macs as f64 / 1e9 / elapsed.as_secs_f64().max(1e-9)
}
