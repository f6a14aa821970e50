//! `kiln pages`: what an archive holds besides the command. Not a part of the command that is given away.

use std::fs;
use std::path::PathBuf;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::error::CliError;

/// Write man pages and shell completions into a folder
#[derive(clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// The folder
    folder: PathBuf,
}

pub fn pages(args: &Args) -> Result<(), CliError> {
    let failed = |error| CliError::file(&args.folder, &error);
    let (man, completions) = (args.folder.join("man"), args.folder.join("completions"));
    fs::create_dir_all(&man).map_err(failed)?;
    fs::create_dir_all(&completions).map_err(failed)?;
    clap_mangen::generate_to(given(), &man).map_err(failed)?;
    for shell in [
        Shell::Bash,
        Shell::Elvish,
        Shell::Fish,
        Shell::PowerShell,
        Shell::Zsh,
    ] {
        clap_complete::generate_to(shell, &mut given(), "kiln", &completions).map_err(failed)?;
    }
    Ok(())
}

/// The command as it is given away: without this one.
fn given() -> Command {
    let all = Cli::command();
    let commands: Vec<Command> = all.get_subcommands().cloned().collect();
    let seen = commands
        .into_iter()
        .filter(|command| !command.is_hide_set());
    Command::new("kiln")
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .subcommands(seen)
}
