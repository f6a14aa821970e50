//! What happens, on standard error: for a terminal, for the journal or as JSON. Quiet unless something is wrong.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use clap::ValueEnum;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, time::FormatTime, time::SystemTime};
use tracing_subscriber::registry::LookupSpan;

use super::error::CliError;

/// What is logged, and how.
#[derive(clap::Args)]
#[command(next_help_heading = "Log")]
pub struct Args {
    /// What is logged to standard error: off, error, warn, info, debug or trace [default: KILN_LOG, else warn]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = level)]
    log: Option<LevelFilter>,
    /// How: a line of text or a JSON object each [default: KILN_LOG_FORMAT, else text]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<Format>,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, and for the journal.
    Text,
    /// For programs.
    Json,
}

fn level(text: &str) -> Result<LevelFilter, String> {
    LevelFilter::from_str(text)
        .map_err(|_| "expected off, error, warn, info, debug or trace".into())
}

impl Args {
    /// From now on what happens is logged.
    pub fn start(&self) -> Result<(), CliError> {
        let level = or_environment(self.log, "KILN_LOG", level)?.unwrap_or(LevelFilter::WARN);
        let format = |text: &str| Format::from_str(text, false);
        let format = or_environment(self.log_format, "KILN_LOG_FORMAT", format)?;
        let log = tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(level);
        let started = match format.unwrap_or(Format::Text) {
            Format::Json => log.json().flatten_event(true).with_target(false).try_init(),
            Format::Text => log.event_format(Text::for_stderr()).try_init(),
        };
        started.map_err(|error| CliError::Failure(format!("log: {error}")))
    }
}

/// What is said, else what the environment says.
fn or_environment<T>(
    said: Option<T>,
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, CliError> {
    match (said, std::env::var(name)) {
        (Some(said), _) => Ok(Some(said)),
        (None, Ok(text)) if !text.is_empty() => parse(&text)
            .map(Some)
            .map_err(|error| CliError::Usage(format!("{name}={text}: {error}"))),
        _ => Ok(None),
    }
}

/// Lines of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    /// As the other messages of the command.
    Terminal,
    /// With the time, for a file or a pipe.
    Dated,
    /// With a priority that the journal reads (`sd-daemon(3)`); it has the time itself.
    Journal,
}

impl Text {
    fn for_stderr() -> Self {
        match (
            std::env::var_os("JOURNAL_STREAM"),
            std::io::stderr().is_terminal(),
        ) {
            (_, true) => Self::Terminal,
            (Some(_), false) => Self::Journal,
            (None, false) => Self::Dated,
        }
    }
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (name, priority) = match *event.metadata().level() {
            Level::ERROR => ("error", 3),
            Level::WARN => ("warning", 4),
            Level::INFO => ("info", 6),
            Level::DEBUG => ("debug", 7),
            Level::TRACE => ("trace", 7),
        };
        match self {
            Self::Terminal => write!(writer, "kiln: {name}: ")?,
            Self::Dated => {
                SystemTime.format_time(&mut writer)?;
                write!(writer, " kiln: {name}: ")?;
            }
            Self::Journal => write!(writer, "<{priority}>")?,
        }
        // A line each, whatever is in it.
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        writeln!(writer, "{}", fields.replace('\n', " "))
    }
}
