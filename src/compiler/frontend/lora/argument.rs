//! `FILE[:WEIGHT]`

use std::path::PathBuf;
use std::str::FromStr;

/// A LoRA as a command line names it.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraArgument {
    /// The file.
    pub file: PathBuf,
    /// How much of it is added; 1 if not said.
    pub weight: f32,
}

/// Text that names no LoRA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// There is no file's name.
    #[error("expected FILE or FILE:WEIGHT")]
    NoFile,
    /// The weight is `inf` or `nan`, or too large.
    #[error("the weight {0} is not a finite number")]
    Weight(String),
}

impl FromStr for LoraArgument {
    type Err = ArgumentError;

    /// What follows the last colon is the weight if it is a number; else it belongs to the file's name, as in `C:\style`.
    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let weight = |text: &str| text.parse::<f32>().ok();
        let split = text
            .rsplit_once(':')
            .and_then(|(file, tail)| Some((file, weight(tail)?, tail)));
        let (file, weight) = match split {
            Some((_, weight, tail)) if !weight.is_finite() => {
                return Err(ArgumentError::Weight(tail.into()));
            }
            Some((file, weight, _)) => (file, weight),
            None => (text, 1.0),
        };
        if file.is_empty() {
            return Err(ArgumentError::NoFile);
        }
        Ok(LoraArgument {
            file: file.into(),
            weight,
        })
    }
}
