//! The command line: a file for each command. What they print goes to standard output, everything else to standard error.
//!
//! - `draw`, `kiosk`, `tokens`, `show_info`, `compile`, `info`, `run`, `verify`, `bench`, `doctor`: the commands.
//! - `model`: which package is meant; `layers`: what it is made of; `ceilings`: the memory that drawing takes; `plan`: an arena as text; `values`: what options are parsed to.
//! - `log`: what happens, to a terminal, a file or the journal.
//! - `output`: standard output, and files that are complete or not there; `error`: one line, and the exit code.

mod bench;
mod ceilings;
#[cfg(feature = "compile")]
mod compile;
mod doctor;
mod draw;
mod error;
mod info;
mod init;
#[cfg(feature = "kiosk")]
mod kiosk;
mod layers;
mod log;
mod model;
mod output;
#[cfg(feature = "pages")]
mod pages;
mod plan;
mod run;
mod sampling;
mod show_info;
mod tokens;
mod values;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use error::CliError;

/// Stable Diffusion for small computers
#[derive(Parser)]
#[command(name = "kiln", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    log: log::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Draw(draw::Args),
    #[cfg(feature = "kiosk")]
    Kiosk(kiosk::Args),
    Tokens(tokens::Args),
    ShowInfo(show_info::Args),
    #[cfg(feature = "compile")]
    Compile(compile::Args),
    Info(info::Args),
    Run(run::Args),
    Verify(verify::Args),
    Bench(bench::Args),
    Doctor(doctor::Args),
    #[cfg(feature = "pages")]
    Pages(pages::Args),
}

/// Does what the command line says and gives the exit code.
pub fn main() -> ExitCode {
    let result = match parse() {
        Ok(cli) => cli.log.start().and_then(|()| match cli.command {
            Command::Draw(args) => draw::draw(&args),
            #[cfg(feature = "kiosk")]
            Command::Kiosk(args) => kiosk::kiosk(&args),
            Command::Tokens(args) => tokens::tokens(&args),
            Command::ShowInfo(args) => show_info::show_info(&args),
            #[cfg(feature = "compile")]
            Command::Compile(args) => compile::compile(&args),
            Command::Info(args) => info::info(&args),
            Command::Run(args) => run::run(&args),
            Command::Verify(args) => verify::verify(&args),
            Command::Bench(args) => bench::bench(&args),
            Command::Doctor(args) => doctor::doctor(&args),
            #[cfg(feature = "pages")]
            Command::Pages(args) => pages::pages(&args),
        }),
        Err(end) => end,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

/// The command line, with what `draw` is told elsewhere. Where there is nothing to do but to tell something, such as the
/// help, that is what the command ends with.
fn parse() -> Result<Cli, Result<(), CliError>> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let command = Cli::command();
    let mut matches = command
        .clone()
        .try_get_matches_from(&words)
        .map_err(|error| usage(&error))?;
    let draw = command.find_subcommand("draw");
    if let (Some(("draw", said)), Some(draw)) = (matches.subcommand(), draw) {
        let completed = draw::defaults::complete(draw, &words, said).map_err(Err)?;
        matches = command
            .clone()
            .try_get_matches_from(&completed.words)
            .map_err(|error| Err(completed.error(&error)))?;
    }
    Cli::from_arg_matches(&matches).map_err(|error| usage(&error))
}

/// Help and version are printed as they are; of an error, the part that says what is wrong, on one line.
fn usage(error: &clap::Error) -> Result<(), CliError> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::print(&error.render().to_string())
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Err(CliError::Usage(
            "a command is missing, such as draw; see kiln --help".into(),
        )),
        _ => Err(CliError::Usage(match left_out(error) {
            Some(command) => format!("this program was built without `kiln {command}`"),
            None => error::line(error),
        })),
    }
}

/// The command that was asked for, if it comes with a feature that this program was built without.
fn left_out(error: &clap::Error) -> Option<&'static str> {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let features = [
        ("compile", cfg!(feature = "compile")),
        ("kiosk", cfg!(feature = "kiosk")),
    ];
    features
        .into_iter()
        .filter(|(_, is_there)| !is_there)
        .map(|(command, _)| command)
        .find(|command| command == name)
}
