//! `kiln doctor`: what this machine has for drawing, and what keeps it from being faster.
//!
//! - `machine`: what the kernel tells; `disk`: where a package lies and how fast that is; `package`: what it takes.
//! - `advice`: what follows from all that; `words`: figures as text.

mod advice;
mod disk;
mod machine;
mod package;
#[cfg(test)]
mod tests;
mod words;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use kiln::runtime::SessionOptions;
use kiln_kernels::{Isa, Kernels};
use serde_json::{Value, json};

use super::error::CliError;
use super::output;
use machine::Machine;
use package::Report;
use words::{list, megabytes};

/// Say what this machine has for drawing, what packages take of it, and what would make it faster
#[derive(clap::Args)]
pub struct Args {
    /// Packages to look at [default: the built-in model, if there is one]
    #[arg(value_name = "PACKAGE")]
    packages: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print a systemd drop-in that holds a service to what drawing with these packages takes
    #[arg(long, conflicts_with = "json")]
    unit: bool,
}

/// What a process has besides what a drawing is promised: its code, stacks, the tokenizer, pictures on their way to a file.
const PROCESS: u64 = 64 << 20;

pub fn doctor(args: &Args) -> Result<(), CliError> {
    // Before a package is opened, which takes memory and time.
    let machine = Machine::read(Path::new("/"));
    let isa = Kernels::from_env()
        .map_err(|error| CliError::Usage(format!("KILN_ISA: {error}")))?
        .isa();
    let options = SessionOptions::default();
    let mut packages = args
        .packages
        .iter()
        .map(|file| Report::of(Some(file), &options))
        .collect::<Result<Vec<_>, _>>()?;
    if packages.is_empty() && kiln::pipeline::embedded_model().is_some() {
        packages.push(Report::of(None, &options)?);
    }
    let findings = Findings {
        threads: options.thread_count().get(),
        advice: advice::advice(&machine, isa, options.thread_count().get(), &packages),
        machine,
        isa,
        packages,
    };
    match (args.json, args.unit) {
        (true, _) => output::print(&format!("{:#}\n", findings.as_json())),
        (_, true) => output::print(&unit(&findings.packages)?),
        _ => output::print(&findings.as_text()),
    }
}

/// The most that any picture of any package takes, all weights resident.
fn unit(packages: &[Report]) -> Result<String, CliError> {
    let sizes = packages.iter().flat_map(|package| &package.sizes);
    let most = sizes.map(|size| size.all).max().ok_or_else(|| {
        CliError::Usage("no package that draws is named, and none is built in".into())
    })?;
    let names = list(packages.iter().map(|package| package.name.clone()));
    Ok(format!(
        "# Drawing with {names} takes at most {}, the process {} besides.\n[Service]\nMemoryMax={}\n",
        megabytes(most),
        megabytes(PROCESS),
        most.saturating_add(PROCESS)
    ))
}

/// All that is told.
struct Findings {
    machine: Machine,
    isa: Isa,
    threads: usize,
    packages: Vec<Report>,
    advice: Vec<String>,
}

fn available() -> impl Iterator<Item = &'static str> {
    Isa::ALL
        .iter()
        .filter(|isa| isa.available())
        .map(|isa| isa.name())
}

impl Findings {
    fn as_json(&self) -> Value {
        let machine = &self.machine;
        let throttling: Vec<Value> = machine
            .throttling
            .iter()
            .map(|one| json!({ "cause": one.cause.name(), "now": one.now }))
            .collect();
        let temperatures: Vec<Value> = machine
            .temperatures
            .iter()
            .map(|(sensor, degrees)| json!({ "sensor": sensor, "celsius": degrees }))
            .collect();
        let clock = machine.clock.as_ref().map(|clock| {
            json!({
                "mhz": clock.now,
                "allowed_mhz": clock.allowed,
                "most_mhz": clock.most,
                "governor": clock.governor,
            })
        });
        json!({
            "board": machine.board,
            "cpu": machine.cpu,
            "extensions": machine.extensions,
            "isa": self.isa.name(),
            "available_isas": available().collect::<Vec<_>>(),
            "threads": self.threads,
            "cpus": machine.cpus,
            "allowed_cpus": machine.allowed,
            "cores": machine.cores,
            "cpu_quota": machine.quota,
            "load": machine.load,
            "clock": clock,
            "temperatures": temperatures,
            "throttling": throttling,
            "memory_bytes": machine.memory,
            "available_bytes": machine.available,
            "swap_bytes": machine.swap,
            "memory_limit_bytes": machine.memory_limit,
            "page_bytes": machine.page,
            "packages": self.packages.iter().map(Report::as_json).collect::<Vec<_>>(),
            "advice": self.advice,
        })
    }

    fn as_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(text, "{name:<12}{value}");
            }
        };
        let machine = &self.machine;
        line("board", machine.board.clone());
        line("CPU", self.cpu());
        line(
            "kernels",
            Some(format!(
                "{} (there are {})",
                self.isa,
                list(available().map(str::to_owned))
            )),
        );
        line("threads", Some(self.threads_line()));
        line("clock", self.clock());
        line("temperature", self.temperature());
        line("slowed down", self.throttling());
        line("memory", self.memory());
        line("pages", machine.page.map(|bytes| format!("{bytes} bytes")));
        for package in &self.packages {
            text.push_str(&package_text(package));
        }
        text.push_str("\nwhat would make it faster\n");
        if self.advice.is_empty() {
            text.push_str("  Nothing that can be seen from here.\n");
        }
        for sentence in &self.advice {
            let _ = writeln!(text, "- {sentence}");
        }
        text
    }

    fn cpu(&self) -> Option<String> {
        let machine = &self.machine;
        let name = machine.cpu.as_deref()?;
        let extensions = match machine.extensions.is_empty() {
            true => String::new(),
            false => format!(" ({})", machine.extensions.join(" ")),
        };
        Some(format!("{name}{extensions}"))
    }

    fn threads_line(&self) -> String {
        let machine = &self.machine;
        let mut text = format!("{}", self.threads);
        if !machine.allowed.is_empty() {
            let _ = write!(
                text,
                "; {} of {} CPUs are allowed, which are {} cores",
                machine.allowed.len(),
                machine.cpus.len().max(machine.allowed.len()),
                machine.cores
            );
        }
        if let Some(quota) = machine.quota {
            let _ = write!(text, ", and the time of {quota:.1}");
        }
        if let Some(load) = machine.load {
            let _ = write!(text, "; load {load:.1}");
        }
        text
    }

    fn clock(&self) -> Option<String> {
        let clock = self.machine.clock.as_ref()?;
        let now = match clock.now {
            Some(now) => format!("{now} MHz of {}", clock.allowed),
            None => format!("up to {} MHz", clock.allowed),
        };
        let most = match clock.allowed < clock.most {
            true => format!(", {} would be possible", clock.most),
            false => String::new(),
        };
        Some(format!("{now}{most}, governor {}", clock.governor))
    }

    fn temperature(&self) -> Option<String> {
        let temperatures = &self.machine.temperatures;
        let each = temperatures
            .iter()
            .map(|(sensor, degrees)| format!("{degrees:.1} °C ({sensor})"));
        (!temperatures.is_empty()).then(|| each.collect::<Vec<_>>().join(", "))
    }

    fn throttling(&self) -> Option<String> {
        let throttling = &self.machine.throttling;
        let each = throttling.iter().map(|one| {
            let when = if one.now { "now" } else { "since the start" };
            format!("{} {when}", one.cause.name())
        });
        (!throttling.is_empty()).then(|| each.collect::<Vec<_>>().join(", "))
    }

    fn memory(&self) -> Option<String> {
        let machine = &self.machine;
        let mut text = megabytes(machine.memory?);
        if let Some(available) = machine.available {
            let _ = write!(text, ", {} available", megabytes(available));
        }
        if let Some(swap) = machine.swap.filter(|swap| *swap > 0) {
            let _ = write!(text, ", swap {}", megabytes(swap));
        }
        if let Some(limit) = machine.memory_limit {
            let _ = write!(text, ", limited to {} by a control group", megabytes(limit));
        }
        Some(text)
    }
}

fn package_text(package: &Report) -> String {
    let mut text = format!("\n{} ({})\n", package.name, package.precision);
    if let Some(place) = &package.place {
        let speed = package.speed.map_or_else(
            || "reading speed unknown: it cannot be read past the system's cache".to_owned(),
            |speed| format!("read at {} a second", megabytes(speed as u64)),
        );
        let _ = writeln!(text, "  on {} ({}), {speed}", place.device, place.kind);
    }
    for size in &package.sizes {
        let _ = writeln!(
            text,
            "{:>13} at most {} of memory, {} of it weights that may be dropped; --ram from {} up",
            format!("{}x{}", size.width, size.height),
            megabytes(size.all),
            megabytes(size.all - size.allocated),
            megabytes(size.least)
        );
    }
    text
}
