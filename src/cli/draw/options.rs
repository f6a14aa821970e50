//! The options that each picture of a run may have of its own: on the command line, in a line of JSON, from another
//! picture, or along a grid. Later ones win over earlier ones of the same name.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

#[cfg(feature = "kiosk")]
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches};
use kiln::pipeline::samplers::{SamplerKind, ScheduleKind};
use kiln::pipeline::{Decoder, PromptStyle, Request, Tile};
use serde_json::Value;

use crate::cli::error::{self, CliError};
use crate::cli::{init, sampling, values};

/// Tiles, or none.
#[derive(Clone, Copy, Debug)]
pub struct TileValue(Option<Tile>);

impl TileValue {
    fn parse(text: &str) -> Result<Self, String> {
        values::tile(text).map(TileValue)
    }
}

/// What a picture is to be.
#[derive(Args, Clone, Debug)]
pub struct PictureOptions {
    /// What the picture should show
    #[arg(
        id = "prompt_option",
        long = "prompt",
        hide = true,
        allow_hyphen_values = true
    )]
    pub prompt: Option<String>,
    /// What it should not show
    #[arg(long, value_name = "PROMPT", allow_hyphen_values = true)]
    pub negative: Option<String>,
    /// Whose language prompts are in: webui, comfy or plain [default: webui]
    #[arg(long, value_name = "NAME", value_parser = values::prompt_style)]
    pub prompt_style: Option<PromptStyle>,
    /// Steps of the sampler; more is slower [default: the model's]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub steps: Option<NonZeroUsize>,
    /// The picture's number: same seed, same picture [default: random]
    #[arg(long, value_name = "N", value_parser = values::seed)]
    pub seed: Option<u64>,
    /// Width and height in pixels [default: the model's]
    #[arg(long, value_name = "WxH", value_parser = values::size)]
    pub size: Option<(u32, u32)>,
    /// How closely to follow the prompt; 1 is fastest [default: the model's]
    #[arg(long, value_name = "X", value_parser = values::finite, allow_hyphen_values = true)]
    pub guidance_scale: Option<f32>,
    /// How to go from noise to the picture: euler-a, dpmpp-2m, "DPM++ 2M Karras" and so on [default: the model's]
    #[arg(long, value_name = "NAME", value_parser = values::sampler)]
    pub sampler: Option<(SamplerKind, Option<ScheduleKind>)>,
    #[command(flatten)]
    pub sampling: sampling::Args,
    #[command(flatten)]
    pub init: init::Args,
    /// Leave out the last N - 1 layers of the text encoder, as the WebUI's "clip skip" (diffusers counts from 0) [default: the model's]
    #[arg(long, value_name = "N", value_parser = values::clip_skip)]
    pub clip_skip: Option<u32>,
    /// What makes the picture of the latents: vae, or taesd, which is faster and smaller and less faithful [default: vae, or
    /// what the package has]
    #[arg(long, value_name = "NAME", value_parser = values::decoder)]
    pub decoder: Option<Decoder>,
    /// Let the VAE work on overlapping tiles of so many pixels: less memory, more time, almost the same picture [without SIZE:
    /// what fits in 40 MB]
    #[arg(
        long,
        value_name = "SIZE|auto|off",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "auto",
        value_parser = TileValue::parse
    )]
    pub tile: Option<TileValue>,
    /// Pictures to draw, with seeds that count up [default: 1]
    #[arg(short = 'n', long, value_name = "N", value_parser = values::pictures)]
    pub count: Option<u64>,
    /// Write to this file (.png, .jpg or .webp) and replace what is there; {seed}, {n}, {prompt}, {date} and more stand for
    /// what they say. With several pictures of one name, to FILE-1.png, FILE-2.png and so on
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Take prompt and settings from a picture that says them (Kiln's, the WebUI's, ComfyUI's); what is said beside it wins
    #[arg(long, value_name = "PICTURE")]
    pub like: Option<PathBuf>,
}

impl PictureOptions {
    /// The request without a seed of its own.
    pub fn request(&self, seed: u64, pictures: &mut init::Pictures) -> Result<Request, CliError> {
        let mut request = Request::new(self.prompt.as_deref().unwrap_or_default())
            .negative(self.negative.as_deref().unwrap_or_default())
            .seed(seed);
        if let Some(style) = self.prompt_style {
            request = request.prompt_style(style);
        }
        if let Some(steps) = self.steps {
            request = request.steps(steps.get());
        }
        if let Some((width, height)) = self.size {
            request = request.size(width, height);
        }
        if let Some(scale) = self.guidance_scale {
            request = request.guidance_scale(scale);
        }
        if let Some((sampler, schedule)) = self.sampler {
            request = request.sampler(sampler);
            if let Some(schedule) = schedule {
                request = request.schedule(schedule);
            }
        }
        if let Some(clip_skip) = self.clip_skip {
            request = request.clip_skip(clip_skip);
        }
        if let Some(TileValue(Some(tile))) = self.tile {
            request = request.tile(tile);
        }
        if let Some(decoder) = self.decoder {
            request = request.decoder(decoder);
        }
        self.init.apply(self.sampling.apply(request), pictures)
    }
}

/// Options as they were said: long names and values, in order. A switch has no value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said(Vec<(String, Option<OsString>)>);

/// A command that has the options of a picture and nothing else.
fn command() -> Command {
    PictureOptions::augment_args(Command::new("kiln"))
        .no_binary_name(true)
        .args_override_self(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
}

/// The long names of the options that a picture may have.
pub fn picture_options() -> Vec<String> {
    command()
        .get_arguments()
        .filter_map(|arg| Some(arg.get_long()?.to_owned()))
        .collect()
}

/// What is wrong with a name that is none of these: names the one that is the fewest slips of a finger away.
pub fn unknown(name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness >= 0.5);
    match nearest {
        Some((_, known)) => format!("unknown option `{name}`, did you mean `{known}`?"),
        None => format!("unknown option `{name}`, there are: {}", known.join(", ")),
    }
}

impl Said {
    /// Adds an option, which wins over those of its name before it.
    pub fn say(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push((name.to_owned(), Some(value.into())));
    }

    /// Adds the options of another, which win.
    pub fn then(mut self, others: &Said) -> Said {
        self.0.extend(others.0.iter().cloned());
        self
    }

    /// The names of the options.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Fails with the nearest name if no picture has the option.
    pub fn check_name(name: &str) -> Result<(), String> {
        let options = picture_options();
        let names: Vec<&str> = options.iter().map(|name| &**name).collect();
        match names.contains(&name) {
            true => Ok(()),
            false => Err(unknown(name, &names)),
        }
    }

    /// Adds an option from JSON. `-` and `_` are alike in names.
    pub fn say_json(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let name = name.replace('_', "-");
        Self::check_name(&name)?;
        let is_switch = command().get_arguments().any(|arg| {
            arg.get_long() == Some(&name) && matches!(arg.get_action(), ArgAction::SetTrue)
        });
        match (value, is_switch) {
            (Value::Bool(true), true) => self.0.push((name, None)),
            (Value::Bool(false), true) => self.0.retain(|(own, _)| *own != name),
            (Value::String(text), false) => self.say(&name, text),
            (Value::Number(number), false) => self.say(&name, number.to_string()),
            (_, true) => return Err(format!("`{name}`: expected true or false")),
            _ => return Err(format!("`{name}`: expected a text or a number")),
        }
        Ok(())
    }

    /// The words of a command line that says it.
    fn words(&self) -> impl Iterator<Item = OsString> {
        self.0.iter().map(|(name, value)| {
            let mut word = OsString::from(format!("--{name}"));
            if let Some(value) = value {
                word.push("=");
                word.push(value);
            }
            word
        })
    }

    /// Fails if a value is none that its option takes. What options want of each other is not looked at.
    #[cfg(feature = "kiosk")]
    pub fn check_values(&self) -> Result<(), String> {
        let of_others = [
            ErrorKind::MissingRequiredArgument,
            ErrorKind::ArgumentConflict,
        ];
        match command().try_get_matches_from(self.words()) {
            Err(error) if !of_others.contains(&error.kind()) => Err(error::line(&error)),
            _ => Ok(()),
        }
    }

    /// What was said, each option once.
    pub fn parse(&self) -> Result<PictureOptions, CliError> {
        command()
            .try_get_matches_from(self.words())
            .and_then(|matches| PictureOptions::from_arg_matches(&matches))
            .map_err(|error| CliError::Usage(error::line(&error)))
    }
}

impl FromArgMatches for Said {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut said = Said::default();
        for arg in command().get_arguments() {
            let (id, Some(name)) = (arg.get_id().as_str(), arg.get_long()) else {
                continue;
            };
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            match arg.get_action() {
                ArgAction::SetTrue => said.0.push((name.to_owned(), None)),
                _ => {
                    for value in matches.get_raw(id).into_iter().flatten() {
                        said.say(name, value);
                    }
                }
            }
        }
        Ok(said)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Said {
    fn augment_args(command: Command) -> Command {
        PictureOptions::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        PictureOptions::augment_args_for_update(command)
    }
}
