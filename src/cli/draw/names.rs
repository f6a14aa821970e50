//! What the files of pictures are called.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln::pipeline::{PictureFormat, Settings};

use crate::cli::error::CliError;
use crate::cli::output::{self, Target};

/// The words in braces that a file's name may have.
const WORDS: [&str; 8] = [
    "seed", "n", "prompt", "date", "model", "sampler", "steps", "size",
];
/// The most bytes that a prompt adds to a file's name.
const MOST_BYTES: usize = 64;

/// The files of a run.
pub struct Names {
    /// Pictures of the whole run.
    pub count: u64,
    /// The model's name.
    pub model: String,
}

impl Names {
    /// The file of picture `number`, from 1, and its format. Without a pattern it is named after the prompt.
    pub fn target(
        &self,
        pattern: Option<&Path>,
        number: u64,
        settings: &Settings,
    ) -> Result<(Target, PictureFormat), CliError> {
        let Some(pattern) = pattern else {
            let target = Target::Fresh {
                folder: PathBuf::new(),
                stem: output::slug(&settings.prompt),
                extension: "png",
            };
            return Ok((target, PictureFormat::Png));
        };
        let (path, is_numbered) = self.fill(pattern, number, settings)?;
        let path = match self.count > 1 && !is_numbered {
            true => beside(&path, &number.to_string()),
            false => path,
        };
        let format = match output::is_special(&path) {
            true => Some(PictureFormat::Png),
            false => PictureFormat::of(&path),
        };
        let format = format.ok_or_else(|| {
            CliError::Usage(format!(
                "{}: pictures are written as .png, .jpg or .webp",
                path.display()
            ))
        })?;
        Ok((Target::Replace(path), format))
    }

    /// Puts what the words in braces stand for in their place. Also tells whether the number is among them.
    fn fill(
        &self,
        pattern: &Path,
        number: u64,
        settings: &Settings,
    ) -> Result<(PathBuf, bool), CliError> {
        // A name that is no Unicode has no words.
        let Some(text) = pattern.to_str() else {
            return Ok((pattern.to_owned(), false));
        };
        let mut filled = String::new();
        let mut is_numbered = false;
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((word, after)) = after.split_once('}') else {
                break;
            };
            filled.push_str(before);
            match word {
                "seed" => filled.push_str(&settings.seed.to_string()),
                "n" => {
                    is_numbered = true;
                    filled.push_str(&number.to_string());
                }
                "prompt" => filled.push_str(&sanitised(&settings.prompt)),
                "date" => filled.push_str(&date(SystemTime::now())),
                "model" => filled.push_str(&sanitised(&self.model)),
                "sampler" => filled.push_str(settings.sampler.name()),
                "steps" => filled.push_str(&settings.steps.to_string()),
                "size" => {
                    let (width, height) = settings.size();
                    filled.push_str(&format!("{width}x{height}"));
                }
                _ => {
                    return Err(CliError::Usage(format!(
                        "{text}: nothing is called {{{word}}}, there are: {}",
                        WORDS.map(|word| format!("{{{word}}}")).join(", ")
                    )));
                }
            }
            rest = after;
        }
        filled.push_str(rest);
        Ok((filled.into(), is_numbered))
    }
}

/// `FILE-WORD.png` of `FILE.png`.
pub fn beside(path: &Path, word: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{word}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// A text as a part of a file's name: what no system has in names, and what leads to other folders, is an underscore;
/// names that begin with a dot, or end with one or with a space, are none either.
fn sanitised(text: &str) -> String {
    let mut name: String = text
        .chars()
        .map(|c| match c {
            '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => '_',
            c if c.is_control() => '_',
            c => c,
        })
        .collect();
    name.truncate(name.floor_char_boundary(MOST_BYTES));
    let name = name.trim_matches(['.', ' ']);
    match name.is_empty() {
        true => "picture".into(),
        false => name.to_owned(),
    }
}

/// The day in UTC, as `2026-01-31` (the algorithm is Howard Hinnant's `civil_from_days`).
fn date(now: SystemTime) -> String {
    let days = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() / 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates() {
        let at = |days: u64| date(UNIX_EPOCH + Duration::from_secs(days * 86_400 + 5));
        assert_eq!(at(0), "1970-01-01");
        assert_eq!(at(19_782), "2024-02-29");
        assert_eq!(at(20_782), "2026-11-25");
    }

    #[test]
    fn prompts_become_harmless() {
        assert_eq!(sanitised("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(sanitised(" a \"cat\":\n5? "), "a _cat___5_");
        assert_eq!(sanitised(".."), "picture");
        assert_eq!(sanitised(&"ä".repeat(100)).len(), 64);
    }
}
