//! Which package a command is about.

use std::path::Path;

use kiln::pipeline;
use kiln::runtime::Model;

use super::error::CliError;

/// The package in `file`, or the embedded one.
pub fn open(file: Option<&Path>) -> Result<Model, CliError> {
    match file {
        Some(file) => Ok(Model::open(file)?),
        None => match pipeline::embedded_model() {
            Some(model) => Ok(model?),
            None => Err(CliError::Usage(
                "no model is built into this program: name a .kiln file".into(),
            )),
        },
    }
}
