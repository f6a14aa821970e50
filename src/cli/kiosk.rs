//! `kiln kiosk`: pictures, one after another, for a room without anybody.

use std::path::{Path, PathBuf};

use kiln::kiosk::{Config, Kiosk, Studio, System};
use kiln::pipeline::{Kiln, Request};
use kiln::runtime::{Cancellation, exit_on_bus_error};
use serde_json::{Map, Value};

use super::draw::options::Said;
use super::draw::{self, batch};
use super::error::CliError;
use super::init::Pictures;
use super::{model, values};

/// Draw, show and keep pictures, one after another, as a configuration says
///
/// It goes on after the power has failed, and when a disk is full or a display is gone. TERM ends it, HUP reads the configuration again, USR1
/// draws at once. src/kiosk/README.md describes the configuration.
#[derive(clap::Args)]
pub struct Args {
    /// The configuration
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// Say what is wrong with the configuration, and draw nothing
    #[arg(long)]
    check: bool,
    /// End after so many pictures
    #[arg(long, value_name = "N", value_parser = values::pictures)]
    pictures: Option<u64>,
}

/// Options of `kiln draw` that are none of a kiosk's pictures, and what there is instead.
const OTHERS: [(&str, &str); 3] = [
    ("prompt", "[prompts] says where prompts come from"),
    ("output", "`folder` says where pictures go"),
    ("count", "a kiosk draws one picture after another"),
];

pub fn kiosk(args: &Args) -> Result<(), CliError> {
    let cancellation = Cancellation::new();
    let config = config(&args.config)?;
    let wrong = |error: String| CliError::Usage(format!("{}: {error}", args.config.display()));
    if args.check {
        return studio(&config.draw, &cancellation).map(drop).map_err(wrong);
    }
    let mut system = System::new(&cancellation)
        .map_err(|error| CliError::Failure(format!("signals: {error}")))?;
    // The last picture is there before the model is opened.
    let mut kiosk = Kiosk::new(config.clone());
    let studio_of = |config: &Config| studio(&config.draw, &cancellation);
    let studio = studio_of(&config).map_err(wrong)?;
    exit_on_bus_error(studio.kiln.model())
        .map_err(|error| CliError::Failure(format!("signals: {error}")))?;
    let mut reload = || {
        let config = self::config(&args.config).map_err(|error| error.to_string())?;
        let studio =
            studio_of(&config).map_err(|error| format!("{}: {error}", args.config.display()))?;
        Ok((config, studio))
    };
    kiosk.run(studio, &mut system, &mut reload, args.pictures);
    Ok(())
}

fn config(path: &Path) -> Result<Config, CliError> {
    Config::open(path).map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))
}

/// What draws with the options of `[draw]`.
fn studio(options: &Map<String, Value>, cancellation: &Cancellation) -> Result<Studio, String> {
    let mut options = options.clone();
    let mut text = |name: &str| match options.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(format!("`draw.{name}`: expected a text or a number")),
    };
    let path = text("model")?.map(PathBuf::from);
    let here = |name: &'static str| move |error: String| format!("`draw.{name}`: {error}");
    let threads = text("threads")?
        .map(|text| values::threads(&text))
        .transpose();
    let threads = threads.map_err(here("threads"))?;
    let ram = text("ram")?.map(|text| values::ram(&text)).transpose();
    let ram = draw::budget(ram.map_err(here("ram"))?).map_err(|error| error.to_string())?;
    let mut said = Said::default();
    for (name, value) in &options {
        if let Some((_, instead)) = OTHERS.iter().find(|(other, _)| other == name) {
            return Err(format!("`draw.{name}`: {instead}"));
        }
        said.say_json(name, value)
            .map_err(|error| format!("`draw.{name}`: {error}"))?;
    }
    let model = model::open(path.as_deref()).map_err(|error| error.to_string())?;
    let mut kiln = Kiln::from_model(model)
        .map_err(|error| error.to_string())?
        .cancellation(cancellation.clone());
    if let Some(threads) = threads {
        kiln = kiln.threads(threads);
    }
    if let Some(bytes) = ram.and_then(values::Ram::bytes) {
        kiln = kiln.ram(bytes);
    }
    let mut pictures = Pictures::default();
    // What the options alone make impossible is told now.
    let mut empty = Said::default();
    empty.say("prompt", "");
    let request =
        request(&empty, &said, 0, &mut pictures).and_then(|request| Ok(kiln.settings(&request)?));
    request.map_err(|error| format!("[draw]: {error}"))?;
    Ok(Studio {
        kiln,
        request: Box::new(move |line, seed| {
            let own = batch::picture(line)?;
            request_of(&own, &said, seed)
        }),
    })
}

/// The request of a line's options, which win over those of the configuration. Pictures to begin with are read anew each time, so that
/// they may be changed.
fn request_of(own: &Said, said: &Said, seed: u64) -> Result<Request, String> {
    request(own, said, seed, &mut Pictures::default()).map_err(|error| error.to_string())
}

fn request(
    own: &Said,
    said: &Said,
    seed: u64,
    pictures: &mut Pictures,
) -> Result<Request, CliError> {
    let options = draw::with_like(&said.clone().then(own))?;
    options.request(options.seed.unwrap_or(seed), pictures)
}
