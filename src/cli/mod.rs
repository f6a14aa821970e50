//! The command line: a file for each command. What they print goes to standard output, everything else to standard error.
//!
//! - `draw`, `kiosk`, `tokens`, `show_info`, `compile`, `info`, `run`, `verify`, `bench`: the commands.
//! - `model`: which package is meant; `layers`: what it is made of; `ceilings`: the memory that drawing takes; `plan`: an arena as text; `values`: what options are parsed to.
//! - `log`: what happens, to a terminal, a file or the journal.
//! - `output`: standard output, and files that are complete or not there; `error`: one line, and the exit code.

mod bench;
mod ceilings;
#[cfg(feature = "compile")]
mod compile;
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
mod plan;
mod run;
mod sampling;
mod show_info;
mod tokens;
mod values;
mod verify;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

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
}

/// Does what the command line says and gives the exit code.
pub fn main() -> ExitCode {
    let result = match Cli::try_parse() {
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
        }),
        Err(error) => usage(&error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
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
        _ => Err(CliError::Usage(error::line(error))),
    }
}
