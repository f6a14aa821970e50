//! What drawing with a package takes.

use std::path::Path;

use kiln::pipeline::{Kiln, Request};
use kiln::runtime::SessionOptions;
use kiln_package::{GraphKind, Space};
use serde_json::{Value, json};

use super::disk::{self, Place};
use crate::cli::error::CliError;
use crate::cli::model;

/// A package on this machine.
#[derive(Debug, Default, PartialEq)]
pub struct Report {
    /// Its file, or `embedded model`.
    pub name: String,
    /// What its card says of its weights.
    pub precision: String,
    /// Where it lies; an embedded one lies where the program does.
    pub place: Option<Place>,
    /// Bytes in a second that the disk there gives.
    pub speed: Option<f64>,
    /// Bytes of weights that each step reads, when they do not stay in memory.
    pub step_weights: u64,
    /// The pictures that it draws.
    pub sizes: Vec<Size>,
}

/// What a drawing of a size, as the card would have it, takes of memory.
#[derive(Debug, Default, PartialEq)]
pub struct Size {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Bytes of its own, at most, as promised.
    pub allocated: u64,
    /// The same with all weights resident.
    pub all: u64,
    /// The least `--ram`.
    pub least: u64,
}

impl Report {
    /// The package in `file`, or the embedded one.
    pub fn of(file: Option<&Path>, options: &SessionOptions) -> Result<Self, CliError> {
        let kiln = Kiln::from_model(model::open(file)?)?.threads(options.thread_count());
        let model = kiln.model();
        let program = std::env::current_exe();
        let lies = match file {
            Some(file) => file,
            None => program
                .as_deref()
                .map_err(|error| CliError::Failure(format!("the program's file: {error}")))?,
        };
        let mut sizes = Vec::new();
        for (width, height) in kiln.sizes() {
            let settings = kiln.settings(&Request::new("").size(width, height).seed(0))?;
            let allocated = kiln.promise(&settings)?.total_bytes();
            let weights = kiln.memory(&settings)?.weight_bytes;
            sizes.push(Size {
                width,
                height,
                allocated,
                all: allocated.saturating_add(weights),
                least: kiln.least_ram(&settings)?,
            });
        }
        Ok(Report {
            name: model.origin().to_owned(),
            precision: kiln.card().precision.clone(),
            place: disk::place(Path::new("/"), lies),
            speed: disk::read_speed(lies).map_err(|error| CliError::file(lies, &error))?,
            step_weights: step_weights(&kiln),
            sizes,
        })
    }

    /// As JSON.
    pub fn as_json(&self) -> Value {
        let sizes: Vec<Value> = self
            .sizes
            .iter()
            .map(|size| {
                json!({
                    "width": size.width,
                    "height": size.height,
                    "allocated_bytes": size.allocated,
                    "total_bytes": size.all,
                    "least_ram_bytes": size.least,
                })
            })
            .collect();
        json!({
            "package": self.name,
            "precision": self.precision,
            "device": self.place.as_ref().map(|place| &place.device),
            "file_system": self.place.as_ref().map(|place| &place.kind),
            "read_bytes_per_second": self.speed,
            "step_weight_bytes": self.step_weights,
            "sizes": sizes,
        })
    }
}

/// Bytes of the weights that an evaluation of the UNet reads, each as often as it is read.
fn step_weights(kiln: &Kiln) -> u64 {
    let steps = kiln
        .model()
        .programs()
        .filter(|(_, program)| program.graph() == GraphKind::Unet)
        .map(|(_, program)| {
            let operands = program.steps().flat_map(|step| step.operands());
            operands
                .filter(|operand| operand.space == Space::Weights)
                .map(|operand| operand.bytes)
                .sum()
        });
    steps.max().unwrap_or(0)
}
