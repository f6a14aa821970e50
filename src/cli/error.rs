//! What a command ends with, and the exit code that says so.

use std::path::Path;
use std::process::ExitCode;
use std::{fmt, io};

use kiln::pipeline::Error;
use kiln::runtime::RuntimeError;

/// Why a command failed, as one line.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line asks for something that there is not.
    #[error("{0}")]
    Usage(String),
    /// Everything else.
    #[error("{0}")]
    Failure(String),
    /// A signal asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The same, and there is something left of what was being done.
    #[error("cancelled; {0}")]
    Interrupted(String),
    /// Nobody reads the output any more.
    #[error("the output was closed")]
    Closed,
}

impl CliError {
    /// A failure with a file.
    pub fn file(path: &Path, error: &impl fmt::Display) -> Self {
        Self::Failure(format!("{}: {error}", path.display()))
    }

    /// Tells the user, on one line, and gives the exit code: 2 for usage, 130 as a shell does after SIGINT, 1 for the
    /// rest. A closed output is not an error: `kiln info | head -1` succeeds.
    pub fn report(&self) -> ExitCode {
        if matches!(self, Self::Closed) {
            return ExitCode::SUCCESS;
        }
        let line = self
            .to_string()
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .collect::<Vec<_>>()
            .join("; ");
        // Where standard error is gone too, there is nobody left to tell.
        let _ = io::Write::write_all(&mut io::stderr(), format!("kiln: {line}\n").as_bytes());
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Cancelled | Self::Interrupted(_) => ExitCode::from(130),
            Self::Failure(_) | Self::Closed => ExitCode::FAILURE,
        }
    }
}

/// What is wrong with a command line, on one line.
pub fn line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let said = text.split("\n\n").next().unwrap_or_default();
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        match error {
            Error::Request(error) => Self::Usage(error.to_string()),
            Error::Cancelled => Self::Cancelled,
            other => Self::Failure(other.to_string()),
        }
    }
}

impl From<RuntimeError> for CliError {
    fn from(error: RuntimeError) -> Self {
        Self::from(Error::from(error))
    }
}
