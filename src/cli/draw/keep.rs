//! `--checkpoint` and `--resume`: a drawing that can be broken off.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use kiln::pipeline::{Background, Checkpoint, Kiln, Request};
use serde::{Deserialize, Serialize};

use super::options::{PictureOptions, Said};
use super::{Args, Job};
use crate::cli::error::CliError;
use crate::cli::init::Pictures;

/// What is said of a drawing beside its settings, kept in its checkpoint. What is no UTF-8 is left out, and has to be said
/// again.
#[derive(Default, Deserialize, Serialize)]
struct Note {
    model: Option<PathBuf>,
    output: Option<PathBuf>,
    init: Option<PathBuf>,
    mask: Option<PathBuf>,
}

impl Note {
    fn of(checkpoint: &Checkpoint) -> Self {
        // The library's users may write what they like.
        serde_json::from_str(checkpoint.read_note()).unwrap_or_default()
    }
}

/// The checkpoint that the command line asks for. A new one never takes the place of a file.
pub fn open(args: &Args) -> Result<Option<Checkpoint>, CliError> {
    if let Some(path) = &args.resume {
        let checkpoint = Checkpoint::open(path)?;
        return Ok(Some(match &args.checkpoint {
            Some(other) if other != path => checkpoint.write_to(fresh(other)?),
            _ => checkpoint,
        }));
    }
    match &args.checkpoint {
        Some(path) => Ok(Some(Checkpoint::new(fresh(path)?))),
        None => Ok(None),
    }
}

fn fresh(path: &Path) -> Result<&Path, CliError> {
    if !path.exists() {
        return Ok(path);
    }
    let shown = path.display();
    Err(CliError::Failure(match Checkpoint::open(path) {
        Ok(there) => {
            let (step, steps) = there.progress().unwrap_or_default();
            format!(
                "{shown}: holds a drawing at step {step} of {steps}: go on with --resume {shown}, or remove it"
            )
        }
        Err(_) => format!("{shown}: is there already, and is no checkpoint of a drawing"),
    }))
}

/// The model that the drawing was begun with, if it was said.
pub fn model(args: &Args, checkpoint: Option<&Checkpoint>) -> Option<PathBuf> {
    let noted = checkpoint.and_then(|checkpoint| Note::of(checkpoint).model);
    args.model.clone().or(noted)
}

/// The drawing that a checkpoint holds. Of a picture's options only where it is written to, and where the pictures are that
/// it begins with, can be said anew.
pub fn job(kiln: &Kiln, checkpoint: &Checkpoint, said: &Said) -> Result<Job, CliError> {
    const ANEW: [&str; 3] = ["output", "init", "mask"];
    if let Some(name) = said.names().find(|name| !ANEW.contains(name)) {
        return Err(CliError::Usage(format!(
            "--resume: the file says what is drawn, --{name} does not go with it"
        )));
    }
    let note = Note::of(checkpoint);
    let mut all = Said::default();
    for (name, value) in [
        ("output", note.output),
        ("init", note.init),
        ("mask", note.mask),
    ] {
        if let Some(value) = value {
            all.say(name, OsString::from(value));
        }
    }
    let options = all.then(said).parse()?;
    let request = checkpoint.request().unwrap_or_default();
    let request = with_pictures(checkpoint, request, &options)?;
    let settings = kiln.settings(&request)?;
    checkpoint.check(kiln, &settings)?;
    Ok(Job {
        options,
        settings,
        count: 1,
    })
}

/// The request with the pictures that the drawing begins with.
fn with_pictures(
    checkpoint: &Checkpoint,
    request: Request,
    options: &PictureOptions,
) -> Result<Request, CliError> {
    let (needs_picture, needs_mask) = checkpoint.needs();
    if !needs_picture {
        return Ok(request);
    }
    let mut pictures = Pictures::default();
    let (init, mask) = options.init.paths();
    let missing = |name: &str| {
        CliError::Usage(format!(
            "{}: the drawing begins with a picture that the file does not hold: say --{name} PICTURE again",
            checkpoint.path().display()
        ))
    };
    let init = init.ok_or_else(|| missing("init"))?;
    let picture = pictures.open(init, Background::White)?;
    let mask = match (needs_mask, mask) {
        (false, _) => None,
        (true, None) => return Err(missing("mask")),
        (true, Some(mask)) => Some(pictures.open(mask, Background::Black)?),
    };
    Ok(checkpoint.begin_with(request, picture, mask))
}

/// Keeps a new drawing: one picture, with all that [`job`] will want to know.
pub fn keep(
    kiln: &Kiln,
    checkpoint: Checkpoint,
    args: &Args,
    jobs: &[Job],
) -> Result<Checkpoint, CliError> {
    let [
        Job {
            count: 1,
            options,
            settings,
        },
    ] = jobs
    else {
        return Err(CliError::Usage(
            "--checkpoint: a file holds one drawing; draw one picture at a time, each with a file of its own".into(),
        ));
    };
    let (init, mask) = options.init.paths();
    let path = |path: Option<&Path>| {
        path.filter(|path| path.to_str().is_some())
            .map(PathBuf::from)
    };
    let note = Note {
        model: path(args.model.as_deref()),
        output: path(options.output.as_deref()),
        init: path(init),
        mask: path(mask),
    };
    let note = serde_json::to_string(&note)
        .map_err(|error| CliError::Failure(format!("checkpoint: {error}")))?;
    let checkpoint = checkpoint.note(note);
    checkpoint.check(kiln, settings)?;
    Ok(checkpoint)
}

/// How to go on, if there is something to go on from.
pub fn hint(checkpoint: &Checkpoint) -> Option<String> {
    let path = checkpoint.path();
    path.exists()
        .then(|| format!("go on with: kiln draw --resume {}", quoted(path)))
}

/// As a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:=@%".contains(c);
    match text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}
