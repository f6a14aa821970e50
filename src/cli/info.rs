//! `kiln info`: what a package holds and what running it takes.

use std::fmt::Write;
use std::path::PathBuf;

use kiln::runtime::{MemoryPlan, Model, ProgramId, SessionOptions};
use kiln_package::{GraphKind, Program, Stage};
use serde_json::{Map, Value, json};

use super::error::CliError;
use super::layers::{self, Layers, Use};
use super::{ceilings, model, output, plan};

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

/// The memory that drawing at a size takes at most with a decoder, perhaps in tiles: with guidance, and as many threads as
/// there are cores. `None` if the package has not all graphs for it.
fn ceiling(
    model: &Model,
    (height, width): (u32, u32),
    (decoder, tile): (GraphKind, Option<u32>),
) -> Option<MemoryPlan> {
    let side = tile.unwrap_or(u32::MAX);
    let decoder = model.find(decoder, height.min(side), width.min(side));
    let programs = [
        (model.find(GraphKind::TextEncoder, height, width).ok()?, 2),
        (model.find(GraphKind::Unet, height, width).ok()?, 2),
        (decoder.ok()?, 1),
    ];
    Some(model.memory(&programs, SessionOptions::default().thread_count()))
}

/// The side of the VAE's tiles that the compiler has chosen.
fn tile(card: &Value) -> Option<u32> {
    card["tile"].as_u64()?.try_into().ok()
}

/// The programs but for those of a text encoder without its last layers.
fn whole(model: &Model) -> impl Iterator<Item = (ProgramId, Program<'_>)> {
    model
        .programs()
        .filter(|(_, program)| program.clip_skip() <= 1)
}

fn as_json(model: &Model, card: &Value) -> Value {
    let graphs: Vec<Value> = whole(model)
        .map(|(id, program)| {
            let stages: Vec<Value> = model.stages(id).map(|program| stage_json(&program)).collect();
            json!({
                "graph": program.graph().name(),
                "width": program.width(),
                "height": program.height(),
                "steps": program.len(),
                "macs": layers::macs(&program, 1),
                "arena_bytes": model.stages(id).map(|program| program.arena_bytes()).max(),
                "bound_bytes": model.stages(id).map(|program| program.bound_bytes(1)).max(),
                "thread_scratch_bytes": model.stages(id).map(|program| program.thread_scratch_bytes()).max(),
                "two_lanes": two_lanes(model, id),
                "pinned_bytes": program.pinned_bytes(),
                "max_chunks": program.max_chunks(),
                "inputs": ports(model.inputs(id)),
                "outputs": ports(program.outputs()),
                "stages": stages,
            })
        })
        .collect();
    let sizes: Vec<Value> = model
        .sizes(GraphKind::Unet)
        .filter_map(|(height, width)| {
            let of = |decoder, tile| ceiling(model, (height, width), (decoder, tile));
            let vae = GraphKind::VaeDecoder;
            let mut size = memory_json(&of(vae, None).or(of(vae, tile(card)))?);
            size["width"] = json!(width);
            size["height"] = json!(height);
            for (name, decoder, tile) in [
                ("tiled", vae, tile(card)),
                ("taesd", GraphKind::TaesdDecoder, None),
            ] {
                if let Some(memory) = of(decoder, tile) {
                    size[name] = memory_json(&memory);
                }
            }
            Some(size)
        })
        .collect();
    json!({
        "card": card,
        "graphs": graphs,
        "clip_skips": model.text_encoders().map(|(skip, _)| skip).collect::<Vec<_>>(),
        "sizes": sizes,
        "ceilings": ceilings::as_json(model),
        "layers": layers_json(&Layers::of(model)),
        "weight_bytes": model.package().weights().len(),
        "weight_blocks": model.package().weight_blocks(),
        "threads": SessionOptions::default().thread_count(),
        "isa": model.isa().name(),
    })
}

/// What guidance takes of a UNet.
fn two_lanes(model: &Model, id: ProgramId) -> Option<Value> {
    let unet = model.program(id).graph() == GraphKind::Unet;
    let (arena, bound) = of_two(model, id);
    unet.then(|| json!({ "arena_bytes": arena, "bound_bytes": bound }))
}

fn memory_json(memory: &MemoryPlan) -> Value {
    json!({
        "arena_bytes": memory.arena_bytes,
        "scratch_bytes": memory.scratch_bytes,
        "weight_bytes": memory.weight_bytes,
        "total_bytes": memory.total_bytes(),
    })
}

fn stage_json(program: &Program<'_>) -> Value {
    let hoisted = matches!(program.stage(), Stage::Prompt | Stage::Timestep);
    let names: Vec<&str> = program
        .steps()
        .filter(|_| hoisted)
        .map(|step| step.name())
        .collect();
    json!({
        "stage": program.stage().name(),
        "steps": program.len(),
        "macs": layers::macs(program, 1),
        "arena_bytes": program.arena_bytes(),
        "bound_bytes": program.bound_bytes(1),
        "hoisted": names,
    })
}

fn layers_json(layers: &Layers) -> Value {
    let of = |used: &Use| json!({ "count": used.count, "weight_bytes": used.bytes });
    let products: Map<String, Value> = layers
        .products
        .iter()
        .map(|(name, used)| ((*name).into(), of(used)))
        .collect();
    json!({ "products": products, "attentions": layers.attentions, "integer_attentions": layers.integer_attentions })
}

fn ports<'a>(ports: impl Iterator<Item = kiln_package::Port<'a>>) -> Value {
    ports
        .map(|port| (port.name.to_owned(), json!(port.shape())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn as_text(model: &Model, card: &Value) -> String {
    let mut text = String::new();
    let field = |name: &str| {
        card.get(name)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let weights = model.package().weights().len() as u64;
    let _ = writeln!(text, "{}", field("name"));
    if !field("description").is_empty() {
        let _ = writeln!(text, "{}", field("description"));
    }
    let _ = writeln!(text, "licence     {}", field("license"));
    let _ = writeln!(
        text,
        "weights     {}, {}",
        megabytes(weights),
        field("precision")
    );
    if let Some(defaults) = card.get("defaults").and_then(Value::as_object) {
        let defaults: Vec<_> = defaults
            .iter()
            .map(|(name, value)| format!("{name} {}", bare(value)))
            .collect();
        let _ = writeln!(text, "defaults    {}", defaults.join(", "));
    }
    let layers = Layers::of(model);
    for (name, used) in &layers.products {
        let _ = writeln!(
            text,
            "  {name:<9} {} layers, {}",
            used.count,
            megabytes(used.bytes)
        );
    }
    if layers.integer_attentions > 0 {
        let (integer, all) = (layers.integer_attentions, layers.attentions);
        let _ = writeln!(text, "attention   {integer} of {all} in integers");
    }
    let _ = writeln!(
        text,
        "\n{:<13} {:>10} {:>6} {:>9} {:>10} {:>10}",
        "graph", "size", "steps", "GMAC", "arena", "bound"
    );
    for (id, program) in whole(model) {
        let staged = model.stages(id).count() > 1;
        for stage in model.stages(id) {
            let name = match stage.stage() {
                Stage::Whole | Stage::Step => program.graph().name().to_owned(),
                before => format!("  {before}"),
            };
            let _ = writeln!(
                text,
                "{name:<13} {:>10} {:>6} {:>9.3} {:>10} {:>10}",
                size(&program),
                stage.len(),
                layers::macs(&stage, 1) as f64 / 1e9,
                megabytes(stage.arena_bytes()),
                megabytes(stage.bound_bytes(1)),
            );
        }
        if program.graph() == GraphKind::Unet {
            let (arena, bound) = of_two(model, id);
            let _ = writeln!(
                text,
                "{:<42} {:>10} {:>10}",
                "  in two lanes, with guidance",
                megabytes(arena),
                megabytes(bound),
            );
        }
        if staged {
            text.push_str(&hoisted(model, id));
        }
    }
    if let Some(most) = model.text_encoders().map(|(skip, _)| skip).max() {
        let _ = writeln!(text, "clip skip     1 to {most}");
    }
    text.push_str(&ceilings::as_text(model));
    text
}

/// The arena of two lanes of a graph, all its stages, and the bound of it.
fn of_two(model: &Model, id: ProgramId) -> (u64, u64) {
    let bound = model.stages(id).map(|stage| stage.bound_bytes(2)).max();
    (model.arena_bytes(id, 2), bound.unwrap_or(0))
}

/// What the stages before the steps take from every evaluation.
fn hoisted(model: &Model, id: ProgramId) -> String {
    let mut text = String::new();
    let last = model.program(id);
    for program in model.stages(id) {
        let when = match program.stage() {
            Stage::Prompt => "once per prompt",
            Stage::Timestep => "once per step for both lanes",
            Stage::Whole | Stage::Step => continue,
        };
        let macs = layers::macs(&program, 1) as f64 / 1e6;
        let _ = writeln!(
            text,
            "  {when}, not per evaluation: {} steps ({}), {macs:.1} MMAC",
            program.len(),
            layers::kinds(&program)
        );
    }
    let context = match last.max_chunks() {
        1 => "77 tokens of context".to_owned(),
        most => format!("77 to {} tokens of context", 77 * most),
    };
    let _ = writeln!(
        text,
        "  pinned {}, {context}",
        megabytes(last.pinned_bytes())
    );
    text
}

fn plans(model: &Model) -> String {
    let mut text = String::new();
    for (id, _) in whole(model) {
        for program in model.stages(id) {
            let stage = if program.stage() == Stage::Whole {
                String::new()
            } else {
                format!(" {}", program.stage())
            };
            let _ = writeln!(
                text,
                "{}{stage} {}\n{}",
                program.graph(),
                size(&program),
                plan::draw(&program)
            );
        }
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
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
