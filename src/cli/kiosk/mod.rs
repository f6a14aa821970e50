//! `kiln kiosk`: pictures, one after another, for a room without anybody.

mod options;

use std::env;
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
use options::{Options, instead};

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

/// What draws with the options of `[draw]` and of the environment.
fn studio(section: &Map<String, Value>, cancellation: &Cancellation) -> Result<Studio, String> {
    let Options {
        model,
        threads,
        ram,
        pictures: said,
    } = Options::read(section, |name| env::var_os(name))?;
    let ram = draw::budget(ram).map_err(|error| error.to_string())?;
    let model = model::open(model.as_deref()).map_err(|error| error.to_string())?;
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
            // A line is a prompt; where it goes and how often is not its own to say.
            let foreign = own.names().filter(|name| *name != "prompt");
            if let Some((name, instead)) = foreign.filter_map(|n| Some((n, instead(n)?))).next() {
                return Err(format!("`{name}`: {instead}"));
            }
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
