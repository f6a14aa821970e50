//! `kiln info`: what a package holds and what running it takes.

use std::fmt::Write;
use std::path::PathBuf;

use kiln::runtime::{MemoryPlan, Model, SessionOptions};
use kiln_package::{GraphKind, Program};
use serde_json::{Value, json};

use super::error::CliError;
use super::{model, output, plan};

/// Show what a package holds and the memory that drawing takes
#[derive(clap::Args)]
pub struct Args {
    /// The package [default: the built-in model]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Draw each program's arena over time
    #[arg(long, conflicts_with = "json")]
    plan: bool,
}

pub fn info(args: &Args) -> Result<(), CliError> {
    let model = model::open(args.file.as_deref())?;
    let card: Value = serde_json::from_str(model.package().card())
        .map_err(|error| CliError::Failure(format!("{}: card: {error}", model.origin())))?;
    match (args.json, args.plan) {
        (true, _) => output::print(&format!("{:#}\n", as_json(&model, &card))),
        (_, true) => output::print(&plans(&model)),
        _ => output::print(&as_text(&model, &card)),
    }
}

/// The memory that drawing at a size takes at most: with guidance, and as many threads as there are cores. `None` if
/// the package has not all graphs for it.
fn ceiling(model: &Model, height: u32, width: u32) -> Option<MemoryPlan> {
    let programs = [
        (model.find(GraphKind::TextEncoder, height, width).ok()?, 2),
        (model.find(GraphKind::Unet, height, width).ok()?, 2),
        (model.find(GraphKind::VaeDecoder, height, width).ok()?, 1),
    ];
    Some(model.memory(&programs, SessionOptions::default().thread_count()))
}

fn as_json(model: &Model, card: &Value) -> Value {
    let graphs: Vec<Value> = model
        .programs()
        .map(|(_, program)| {
            json!({
                "graph": program.graph().name(),
                "width": program.width(),
                "height": program.height(),
                "steps": program.len(),
                "macs": program.macs(),
                "arena_bytes": program.arena_bytes(),
                "thread_scratch_bytes": program.thread_scratch_bytes(),
                "inputs": ports(program.inputs()),
                "outputs": ports(program.outputs()),
            })
        })
        .collect();
    let sizes: Vec<Value> = model
        .sizes(GraphKind::Unet)
        .filter_map(|(height, width)| {
            let memory = ceiling(model, height, width)?;
            Some(json!({
                "width": width,
                "height": height,
                "arena_bytes": memory.arena_bytes,
                "scratch_bytes": memory.scratch_bytes,
                "weight_bytes": memory.weight_bytes,
                "total_bytes": memory.total_bytes(),
            }))
        })
        .collect();
    json!({
        "card": card,
        "graphs": graphs,
        "sizes": sizes,
        "weight_bytes": model.package().weights().len(),
        "weight_blocks": model.package().weight_blocks(),
        "threads": SessionOptions::default().thread_count(),
        "isa": model.isa().name(),
    })
}

fn ports<'a>(ports: impl Iterator<Item = kiln_package::Port<'a>>) -> Value {
    ports.map(|port| (port.name.to_owned(), json!(port.shape()))).collect::<serde_json::Map<_, _>>().into()
}

fn as_text(model: &Model, card: &Value) -> String {
    let mut text = String::new();
    let field = |name: &str| card.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    let weights = model.package().weights().len() as u64;
    let _ = writeln!(text, "{}", field("name"));
    if !field("description").is_empty() {
        let _ = writeln!(text, "{}", field("description"));
    }
    let _ = writeln!(text, "licence     {}", field("license"));
    let _ = writeln!(text, "weights     {}, {}", megabytes(weights), field("precision"));
    if let Some(defaults) = card.get("defaults").and_then(Value::as_object) {
        let defaults: Vec<_> = defaults.iter().map(|(name, value)| format!("{name} {}", bare(value))).collect();
        let _ = writeln!(text, "defaults    {}", defaults.join(", "));
    }
    let _ = writeln!(text, "\n{:<13} {:>10} {:>6} {:>9} {:>10}", "graph", "size", "steps", "GMAC", "arena");
    for (_, program) in model.programs() {
        let _ = writeln!(
            text,
            "{:<13} {:>10} {:>6} {:>9.3} {:>10}",
            program.graph().name(),
            size(&program),
            program.len(),
            program.macs() as f64 / 1e9,
            megabytes(program.arena_bytes()),
        );
    }
    let _ =
        writeln!(text, "\nmemory of a drawing with guidance and {} threads", SessionOptions::default().thread_count());
    for (height, width) in model.sizes(GraphKind::Unet) {
        if let Some(memory) = ceiling(model, height, width) {
            let _ = writeln!(
                text,
                "{:>13} at most {}: arena {}, scratch {}, weights {}",
                format!("{width}x{height}"),
                megabytes(memory.total_bytes()),
                megabytes(memory.arena_bytes),
                megabytes(memory.scratch_bytes),
                megabytes(memory.weight_bytes),
            );
        }
    }
    text
}

fn plans(model: &Model) -> String {
    let mut text = String::new();
    for (_, program) in model.programs() {
        let _ = writeln!(text, "{} {}\n{}", program.graph(), size(&program), plan::draw(&program));
    }
    text
}

fn size(program: &Program<'_>) -> String {
    match (program.width(), program.height()) {
        (0, 0) => "any".into(),
        (width, height) => format!("{width}x{height}"),
    }
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
