//! What can go wrong between a prompt and its picture.

use std::fmt;
use std::path::PathBuf;

use kiln_package::GraphKind;

use crate::runtime::RuntimeError;

use super::checkpoint::CheckpointError;
use super::prompt::PromptError;
use super::samplers::ScheduleError;

/// Why a model could not be opened or a picture could not be drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The package cannot be opened or run.
    #[error(transparent)]
    Runtime(RuntimeError),
    /// A section of the package is not what it should be.
    #[error("{origin}: {source}")]
    Section {
        /// The package.
        origin: String,
        /// What is wrong with it.
        source: SectionError,
    },
    /// The package's noise schedule is damaged, or not one that the sampler can follow.
    #[error("{origin}: {source}")]
    Schedule {
        /// The package.
        origin: String,
        /// What is wrong with it.
        source: ScheduleError,
    },
    /// The request cannot be met by this model.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A graph's output has infinities or NaN in it: its numbers grew too large for the package's precision.
    #[error("{graph}{}: the output is not finite", step.map(|n| format!(", step {n}")).unwrap_or_default())]
    NotFinite {
        /// The graph.
        graph: GraphKind,
        /// The sampler's step, from 1.
        step: Option<usize>,
    },
    /// The drawing cannot be kept in a file, or gone on with from one.
    #[error("{}: {source}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CheckpointError,
    },
    /// The caller, or a signal, asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl From<PromptError> for Error {
    fn from(error: PromptError) -> Self {
        RequestError::from(error).into()
    }
}

impl From<RuntimeError> for Error {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Cancelled => Error::Cancelled,
            other => Error::Runtime(other),
        }
    }
}

/// What is wrong with a section of a package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{section}: {reason}")]
pub struct SectionError {
    /// The section's name.
    pub section: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// What a model cannot do of a request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The package has no programs for the size.
    #[error("size {width}x{height}: {}the model draws {}", multiple(*.width, *.height), Sizes(.available))]
    Size {
        /// Width asked for, in pixels.
        width: u32,
        /// Height asked for, in pixels.
        height: u32,
        /// Widths and heights that there are.
        available: Vec<(u32, u32)>,
    },
    /// The number of steps is outside the model's range.
    #[error("{steps} steps: the model takes 1 to {most}")]
    Steps {
        /// Steps asked for.
        steps: usize,
        /// The most there can be.
        most: usize,
    },
    /// The sampler cannot do what is asked of it.
    #[error(transparent)]
    Sampler(ScheduleError),
    /// A share is not one.
    #[error("{name} {value}: a number from 0 to 1 expected")]
    Share {
        /// What it is a share of, as the command line names it.
        name: &'static str,
        /// What was asked for.
        value: f32,
    },
    /// The package has nothing that makes latents of a picture.
    #[error("the model has no VAE encoder for {width}x{height}: it cannot begin with a picture")]
    NoEncoder {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Nothing is drawn.
    #[error("{name} {strength}: of {steps} steps none is taken")]
    NoSteps {
        /// What it is the strength of, as the command line names it.
        name: &'static str,
        /// The share of the steps.
        strength: f64,
        /// Steps asked for.
        steps: usize,
    },
    /// The mask is not of the picture's size.
    #[error("the mask is {}x{}, the picture {}x{}", mask.0, mask.1, picture.0, picture.1)]
    MaskSize {
        /// Width and height.
        mask: (u32, u32),
        /// Width and height.
        picture: (u32, u32),
    },
    /// The mask's blur is out of range.
    #[error("mask blur {blur}: 0 to {most} expected")]
    MaskBlur {
        /// What was asked for.
        blur: f32,
        /// The most.
        most: f32,
    },
    /// Nothing is to be repainted.
    #[error("the mask has nothing white: white is repainted, black is kept")]
    MaskBlack,
    /// The factor is out of range.
    #[error("hires {0}: a number above 1 expected, 16 at most")]
    HiresFactor(f32),
    /// Two passes begin with noise.
    #[error("hires: not with a picture to begin with; draw the picture larger instead")]
    HiresInit,
    /// The package has no programs for the second pass.
    #[error("hires {factor}: {}x{} becomes {}x{}; the model draws {}", from.0, from.1, to.0, to.1, Sizes(.available))]
    Hires {
        /// How many times as large.
        factor: f32,
        /// Width and height of the first pass.
        from: (u32, u32),
        /// Width and height of the second.
        to: (u32, u32),
        /// Widths and heights that there are.
        available: Vec<(u32, u32)>,
    },
    /// No sigma is guided.
    #[error("guidance from sigma {from} until {until}: it falls, and is no less than 0")]
    GuidanceInterval {
        /// The largest sigma guided.
        from: f32,
        /// The smallest sigma guided.
        until: f32,
    },
    /// The guidance scale is not a number.
    #[error("guidance scale {0}: a finite number expected")]
    GuidanceScale(f32),
    /// The package has no text encoder with so many layers left out.
    #[error("clip skip {clip_skip}: the model has {}", list(.available))]
    ClipSkip {
        /// The number asked for.
        clip_skip: u32,
        /// The numbers that there are.
        available: Vec<u32>,
    },
    /// The drawing does not fit in the memory that it may take.
    #[error("a drawing of that size takes at least {} MiB, {} are allowed; {}", .need.div_ceil(1 << 20), .ram >> 20, fitting(.fits))]
    Ram {
        /// Bytes that it takes.
        need: u64,
        /// Bytes that it may take.
        ram: u64,
        /// What would fit.
        fits: Vec<String>,
    },
    /// A prompt cannot be read.
    #[error(transparent)]
    Prompt(#[from] PromptError),
}

fn fitting(fits: &[String]) -> String {
    match fits.is_empty() {
        true => "no size of the package fits".into(),
        false => format!("what fits: {}", fits.join(", ")),
    }
}

fn list(numbers: &[u32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    numbers.join(", ")
}

fn multiple(width: u32, height: u32) -> &'static str {
    match width.is_multiple_of(8) && height.is_multiple_of(8) {
        true => "",
        false => "not a multiple of 8; ",
    }
}

struct Sizes<'a>(&'a [(u32, u32)]);

impl fmt::Display for Sizes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no size");
        }
        for (i, (width, height)) in self.0.iter().enumerate() {
            write!(f, "{}{width}x{height}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
