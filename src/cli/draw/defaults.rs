//! What `kiln draw` is told by the environment and by a file, where the command line is silent.
//!
//! Each long option has a variable, `--guidance-scale` `KILN_GUIDANCE_SCALE`, and a key of its own name in the file that
//! `KILN_CONFIG` names, or in `/etc/kiln.toml` if there is one. The command line wins over the environment, the environment
//! over the file. What contradicts something said at a higher place is left out. They are put before the command line as
//! words of their own, so that they mean what they would mean there.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

use super::options::{Said, unknown};
use crate::cli::error::{self, CliError};

/// Where the file is unless `KILN_CONFIG` names another.
const FILE: &str = "/etc/kiln.toml";
/// No file of options is larger.
const MOST_BYTES: u64 = 1 << 20;

/// An option that is said outside the command line.
#[derive(Debug, PartialEq)]
struct Default {
    /// The option's long name.
    name: String,
    /// Where it is said, as errors name it.
    origin: String,
    /// As on the command line.
    words: Vec<OsString>,
}

/// The words of `kiln draw` with what environment and file add to them. `said` is what they were
/// parsed to by `draw`.
pub fn complete(
    draw: &Command,
    words: &[OsString],
    said: &ArgMatches,
) -> Result<Completed, CliError> {
    let file = match env::var_os("KILN_CONFIG") {
        Some(named) => (!named.is_empty()).then(|| (PathBuf::from(named), true)),
        None => Some((PathBuf::from(FILE), false)),
    };
    let file = match file {
        Some((path, needed)) => match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => Vec::new(),
            Err(error) => return Err(CliError::file(&path, &error)),
            Ok(text) => of_file(draw, &path, &text)?,
        },
        None => Vec::new(),
    };
    let environment = of_environment(draw, |name| env::var_os(name))?;
    Ok(merge(draw, words, said, [environment, file]))
}

/// A command line that says everything.
#[derive(Debug, PartialEq)]
pub struct Completed {
    /// Its words.
    pub words: Vec<OsString>,
    added: Vec<Default>,
}

impl Completed {
    /// The error of parsing these words, with the place that the words are from.
    pub fn error(&self, error: &clap::Error) -> CliError {
        let about = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(name)) => name.as_str(),
            _ => "",
        };
        let name = about.split_whitespace().next().unwrap_or_default();
        let name = name.trim_start_matches("--");
        let origin = self.added.iter().find(|one| one.name == name);
        let line = error::line(error);
        CliError::Usage(match origin {
            Some(one) => format!("{}: {line}", one.origin),
            None => line,
        })
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(MOST_BYTES + 1)
        .read_to_string(&mut text)?;
    match read as u64 <= MOST_BYTES {
        true => Ok(text),
        false => Err(io::Error::other("is larger than 1 MiB: no file of options")),
    }
}

/// The options that can be said elsewhere: all that have a value or can be switched on.
fn options(draw: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    let usual = |arg: &&Arg| {
        let action = arg.get_action();
        matches!(
            action,
            ArgAction::Set | ArgAction::Append | ArgAction::SetTrue
        )
    };
    draw.get_arguments()
        .filter(usual)
        .filter_map(|arg| Some((arg.get_long()?, arg)))
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// `--name=value` as one word, so that a value may begin with a hyphen.
fn word(name: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(format!("--{name}="));
    word.push(value);
    word
}

/// An empty variable says nothing.
fn of_environment(
    draw: &Command,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Default>, CliError> {
    let mut defaults = Vec::new();
    for (name, arg) in options(draw) {
        let origin = format!("KILN_{}", name.to_uppercase().replace('-', "_"));
        let Some(value) = variable(&origin).filter(|value| !value.is_empty()) else {
            continue;
        };
        let words = match (is_switch(arg), value.to_str()) {
            (false, _) => vec![word(name, &value)],
            (true, Some("1" | "true" | "yes" | "on")) => vec![format!("--{name}").into()],
            (true, Some("0" | "false" | "no" | "off")) => Vec::new(),
            (true, _) => {
                return Err(CliError::Usage(format!(
                    "{origin}={}: expected true or false",
                    value.to_string_lossy()
                )));
            }
        };
        let name = name.to_owned();
        defaults.push(Default {
            name,
            origin,
            words,
        });
    }
    Ok(defaults)
}

fn of_file(draw: &Command, path: &Path, text: &str) -> Result<Vec<Default>, CliError> {
    let path = path.display();
    let wrong = |reason: String| CliError::Usage(format!("{path}: {reason}"));
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| wrong(place(text, &error)))?;
    let mut defaults = Vec::new();
    for (key, value) in &table {
        let name = key.replace('_', "-");
        let Some((_, arg)) = options(draw).find(|(known, _)| *known == name) else {
            let names: Vec<&str> = options(draw).map(|(known, _)| known).collect();
            return Err(wrong(unknown(key, &names)));
        };
        let origin = format!("{path}: {key}");
        let words = match (value, arg.get_action()) {
            (Value::Boolean(true), ArgAction::SetTrue) => vec![format!("--{name}").into()],
            (Value::Boolean(false), ArgAction::SetTrue) => Vec::new(),
            (_, ArgAction::SetTrue) => {
                return Err(wrong(format!("{key}: expected true or false")));
            }
            (Value::Array(values), ArgAction::Append) => {
                let texts = values.iter().map(scalar).collect::<Option<Vec<_>>>();
                let texts =
                    texts.ok_or_else(|| wrong(format!("{key}: expected a list of texts")))?;
                texts
                    .iter()
                    .map(|text| word(&name, OsStr::new(text)))
                    .collect()
            }
            (value, _) => match scalar(value) {
                Some(text) => vec![word(&name, OsStr::new(&text))],
                None => return Err(wrong(format!("{key}: expected a text or a number"))),
            },
        };
        defaults.push(Default {
            name,
            origin,
            words,
        });
    }
    Ok(defaults)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What the parser says, with the line.
fn place(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    format!("line {line}: {}", error.message())
}

/// Adds what each place says, the first of them winning over the second and the command line over both.
fn merge(
    draw: &Command,
    words: &[OsString],
    said: &ArgMatches,
    places: [Vec<Default>; 2],
) -> Completed {
    let arg = |name: &str| options(draw).find(|(known, _)| *known == name);
    let mut taken: Vec<String> = draw
        .get_arguments()
        .map(|arg| arg.get_id().to_string())
        .filter(|id| said.value_source(id) == Some(ValueSource::CommandLine))
        .collect();
    let mut added = Vec::new();
    for place in places {
        let mut here = Vec::new();
        for default in place {
            let Some((_, option)) = arg(&default.name) else {
                continue;
            };
            let id = option.get_id().to_string();
            // Which of two conflicting options names the other is its own affair.
            let contradicts = draw.get_arguments().any(|other| {
                let taken = taken.iter().any(|id| other.get_id() == id.as_str());
                let conflict = |one: &Arg, other: &Arg| {
                    let conflicts = draw.get_arg_conflicts_with(one);
                    conflicts
                        .iter()
                        .any(|found| found.get_id() == other.get_id())
                };
                taken && (conflict(option, other) || conflict(other, option))
            });
            // A picture or a checkpoint whose settings are to be taken says them all; the checkpoint its file and model too.
            let says_all = |id: &str| taken.iter().any(|taken| taken == id);
            let of_picture = Said::check_name(&default.name).is_ok();
            let of_other = says_all("resume") && (of_picture || default.name == "model")
                || says_all("like") && of_picture && default.name != "output";
            if of_other || contradicts || taken.contains(&id) {
                continue;
            }
            here.push(id);
            added.push(default);
        }
        taken.extend(here);
    }
    // Options that all commands have may stand before the command's name; none of them has a value of that name.
    let name = words.iter().position(|word| word == "draw").unwrap_or(0);
    let (before, after) = words.split_at((name + 1).min(words.len()));
    let more = added.iter().flat_map(|one| &one.words);
    let words = before.iter().chain(more).chain(after).cloned().collect();
    Completed { words, added }
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::cli::draw::Args;

    fn draw() -> Command {
        Args::augment_args(Command::new("draw"))
    }

    /// What `kiln draw MORE` becomes with these variables and this file.
    fn completed(
        more: &[&str],
        variables: &[(&str, &str)],
        file: &str,
    ) -> Result<Completed, String> {
        let draw = draw();
        let words: Vec<OsString> = ["kiln", "draw"]
            .iter()
            .chain(more)
            .map(OsString::from)
            .collect();
        let said = draw
            .clone()
            .try_get_matches_from(&words[1..])
            .expect("right by itself");
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        };
        let environment = of_environment(&draw, variable).map_err(|error| error.to_string())?;
        let file = of_file(&draw, Path::new("kiln.toml"), file).map_err(|e| e.to_string())?;
        Ok(merge(&draw, &words, &said, [environment, file]))
    }

    fn words(more: &[&str], variables: &[(&str, &str)], file: &str) -> String {
        let completed = completed(more, variables, file).expect("right");
        let texts: Vec<_> = completed
            .words
            .iter()
            .map(|w| w.to_string_lossy())
            .collect();
        texts.join(" ")
    }

    #[test]
    fn the_nearer_place_wins() {
        let variables = [
            ("KILN_STEPS", "7"),
            ("KILN_SIZE", "64x64"),
            ("KILN_ISA", "x"),
        ];
        let file = "steps = 8\nsize = \"32x32\"\nguidance_scale = 2.5\nthreads = 3\n";
        assert_eq!(
            words(&["panda", "--steps", "9"], &variables, file),
            "kiln draw --size=64x64 --guidance-scale=2.5 --threads=3 panda --steps 9"
        );
        assert_eq!(
            words(&["panda"], &[("KILN_STEPS", "")], ""),
            "kiln draw panda"
        );
    }

    #[test]
    fn switches_are_on_or_off() {
        let file = "json = true\nquiet = true";
        assert_eq!(
            words(&[], &[("KILN_QUIET", "no"), ("KILN_SHOW", "1")], file),
            "kiln draw --show --json"
        );
    }

    #[test]
    fn what_contradicts_something_nearer_is_left_out() {
        let file = "prompts = \"list.txt\"\nthreads = 2";
        assert_eq!(words(&["panda"], &[], file), "kiln draw --threads=2 panda");
        assert_eq!(
            words(&["--grid", "steps=1,2", "--prompt", "a"], &[], file),
            "kiln draw --threads=2 --grid steps=1,2 --prompt a"
        );
        let file = "steps = 8\noutput = \"{n}.png\"\nram = \"1G\"";
        assert_eq!(
            words(&["--like", "panda.png"], &[("KILN_SEED", "1")], file),
            "kiln draw --output={n}.png --ram=1G --like panda.png"
        );
    }

    #[test]
    fn lists_are_for_options_that_repeat() {
        let file = "grid = [\"steps=1,2\", \"seed=1,2\"]";
        assert_eq!(
            words(&["a"], &[], file),
            "kiln draw --grid=steps=1,2 --grid=seed=1,2 a"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let fails = |variables: &[(&str, &str)], file: &str, parts: &[&str]| {
            let error = completed(&["a"], variables, file).expect_err(file);
            for part in parts {
                assert!(error.contains(part), "{part}: {error}");
            }
        };
        fails(&[], "stepz = 3", &["kiln.toml", "`stepz`", "`steps`"]);
        fails(
            &[],
            "zzzzzz = 3",
            &["`zzzzzz`", "there are", "guidance-scale"],
        );
        fails(&[], "steps = 3\nseed = ", &["kiln.toml: line 2"]);
        fails(
            &[],
            "steps = [1, 2]",
            &["kiln.toml: steps", "a text or a number"],
        );
        fails(&[], "grid = [true]", &["grid", "list of texts"]);
        fails(&[], "quiet = 1", &["quiet", "true or false"]);
        fails(
            &[("KILN_QUIET", "perhaps")],
            "",
            &["KILN_QUIET=perhaps", "true or false"],
        );
    }

    #[test]
    fn a_wrong_value_is_told_with_its_place() {
        for (variables, file, origin) in [
            (&[("KILN_STEPS", "many")][..], "", "KILN_STEPS: "),
            (&[], "steps = \"many\"", "kiln.toml: steps: "),
        ] {
            let completed = completed(&["a"], variables, file).expect("read");
            let error = draw()
                .try_get_matches_from(&completed.words[1..])
                .expect_err("not a number");
            let line = completed.error(&error).to_string();
            assert!(line.starts_with(origin) && line.contains("many"), "{line}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kiln.toml");
        std::fs::write(&path, vec![b'#'; 2 << 20]).expect("written");
        assert!(
            read(&path)
                .expect_err("too large")
                .to_string()
                .contains("1 MiB")
        );
        std::fs::write(&path, "steps = 1").expect("written");
        assert_eq!(read(&path).expect("read"), "steps = 1");
    }
}
