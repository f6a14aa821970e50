//! Prompts from a file or from standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::options::Said;
use crate::cli::error::CliError;

/// The most bytes of a line: a prompt and a negative prompt of the longest kind, as JSON may write them.
const MAX_LINE: u64 = 1 << 20;
/// The most lines.
const MAX_LINES: usize = 1 << 20;

/// The pictures that a file asks for: each line is a prompt, or an object of options; empty lines are left out. `-` is
/// standard input.
pub fn read(path: &Path) -> Result<Vec<Said>, CliError> {
    let (name, file): (String, Box<dyn BufRead>) = match path == Path::new("-") {
        true => ("standard input".into(), Box::new(io::stdin().lock())),
        false => {
            let file = File::open(path).map_err(|error| CliError::file(path, &error))?;
            (path.display().to_string(), Box::new(BufReader::new(file)))
        }
    };
    lines(file).map_err(|error| CliError::Failure(format!("{name}: {error}")))
}

fn lines(mut file: impl BufRead) -> Result<Vec<Said>, String> {
    let mut pictures = Vec::new();
    for number in 1.. {
        let mut line = Vec::new();
        let len = file
            .by_ref()
            .take(MAX_LINE + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| error.to_string())?;
        if len == 0 {
            break;
        }
        let here = |error: String| format!("line {number}: {error}");
        if len as u64 > MAX_LINE {
            return Err(here(format!("more than {MAX_LINE} bytes")));
        }
        let text = std::str::from_utf8(&line)
            .map_err(|error| here(format!("byte {} is no UTF-8", error.valid_up_to() + 1)))?
            .trim();
        if text.is_empty() {
            continue;
        }
        if pictures.len() == MAX_LINES {
            return Err(here(format!("more than {MAX_LINES} pictures")));
        }
        pictures.push(picture(text).map_err(here)?);
    }
    match pictures.is_empty() {
        true => Err("has no prompts".into()),
        false => Ok(pictures),
    }
}

/// The options of a line.
pub fn picture(line: &str) -> Result<Said, String> {
    let mut said = Said::default();
    if !line.starts_with('{') {
        said.say("prompt", line);
        return Ok(said);
    }
    let object: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| format!("no JSON object: {error}"))?;
    for (name, value) in &object {
        said.say_json(name, value)?;
    }
    // What an option does not take is told with its line too.
    said.parse().map_err(|error| error.to_string())?;
    Ok(said)
}
