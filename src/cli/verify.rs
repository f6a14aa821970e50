//! `kiln verify`: is a package as it was written?

use std::path::PathBuf;

use super::error::CliError;
use super::{model, output};

/// Check every checksum of a package
#[derive(clap::Args)]
pub struct Args {
    /// The package [default: the built-in model]
    file: Option<PathBuf>,
}

pub fn verify(args: &Args) -> Result<(), CliError> {
    let model = model::open(args.file.as_deref())?;
    model.verify()?;
    let blocks = model.package().weight_blocks();
    output::print(&format!(
        "{}: intact, {blocks} blocks of weights\n",
        model.origin()
    ))
}
