//! `kiln show-info`: how a picture was drawn.

use std::fmt::Write;
use std::path::PathBuf;

use kiln::pipeline::Remembered;
use serde_json::{Map, Value, json};

use super::error::CliError;
use super::output;

/// Show how a picture was drawn: Kiln's, the WebUI's, ComfyUI's, InvokeAI's or NovelAI's, as PNG, JPEG or WebP
#[derive(clap::Args)]
pub struct Args {
    /// The picture
    picture: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn show_info(args: &Args) -> Result<(), CliError> {
    let found =
        Remembered::open(&args.picture).map_err(|error| CliError::file(&args.picture, &error))?;
    if !args.json {
        let mut text = format!(
            "{} x {}, written by {}\n",
            found.width,
            found.height,
            match found.tool {
                "WebUI" => "Kiln, the WebUI or a program like it",
                tool => tool,
            }
        );
        for (key, value) in found.options.iter().chain(&found.others) {
            let _ = writeln!(text, "{key}: {}", value.replace('\n', "\n    "));
        }
        return output::print(&text);
    }
    let object = |pairs: &[(String, String)]| {
        let pairs = pairs
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.clone())));
        Value::Object(pairs.collect::<Map<_, _>>())
    };
    output::print(&format!(
        "{:#}\n",
        json!({
            "width": found.width,
            "height": found.height,
            "tool": found.tool,
            "options": object(&found.options),
            "others": object(&found.others),
            "text": found.text,
        })
    ))
}
