//! `kiln tokens`: what a prompt is to the model.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use kiln::Kiln;
use kiln::pipeline::{Chunks, Prompt, PromptStyle, Tokenizer};
use serde_json::{Value, json};

use super::error::CliError;
use super::{model, output, values};

/// Show a prompt's texts, chunks, tokens and weights
#[derive(clap::Args)]
pub struct Args {
    /// The prompt
    #[arg(allow_hyphen_values = true)]
    prompt: String,
    /// Whose language it is in: webui, comfy or plain
    #[arg(long, value_name = "NAME", default_value = "webui", value_parser = values::prompt_style)]
    prompt_style: PromptStyle,
    /// Evaluations of the model, which [from:to:when] and [a|b] count [default: the model's steps]
    #[arg(long, value_name = "N", value_parser = values::count)]
    steps: Option<NonZeroUsize>,
    /// The model [default: the built-in one]
    #[arg(short, long, value_name = "FILE.kiln")]
    model: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn tokens(args: &Args) -> Result<(), CliError> {
    let kiln = Kiln::from_model(model::open(args.model.as_deref())?)?;
    let defaults = &kiln.card().defaults;
    let evaluations = args.steps.map_or(defaults.steps, NonZeroUsize::get);
    let prompt = Prompt::parse(&args.prompt, args.prompt_style, evaluations)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let tokenizer = kiln.tokenizer()?;
    let most = kiln.max_chunks(defaults.width, defaults.height)?;
    let chunks = prompt
        .chunks(&tokenizer, most)
        .map_err(|error| CliError::Failure(format!("{}: {error}", kiln.model().origin())))?;
    match args.json {
        true => output::print(&format!("{:#}\n", as_json(&prompt, &chunks, &tokenizer))),
        false => output::print(&as_text(&prompt, &chunks, &tokenizer)),
    }
}

/// A chunk's own tokens: id, what the vocabulary has, weight.
fn own<'a>(
    chunk: &'a kiln::pipeline::Chunk,
    tokenizer: &'a Tokenizer,
) -> impl Iterator<Item = (i32, String, f32)> + 'a {
    let tokens = chunk.ids.iter().zip(&chunk.weights).skip(1).take(chunk.len);
    tokens.map(|(id, weight)| (*id, tokenizer.token(*id).unwrap_or_default(), *weight))
}

/// The steps at which each text is said, from 1 and both included.
fn spans(prompt: &Prompt) -> Vec<(usize, usize, usize)> {
    let mut first = 1;
    let mut spans = Vec::new();
    for (end, text) in prompt.schedule() {
        spans.push((first, *end, *text));
        first = end + 1;
    }
    spans
}

fn as_text(prompt: &Prompt, chunks: &[Chunks], tokenizer: &Tokenizer) -> String {
    let mut text = String::new();
    let spans = spans(prompt);
    let room = tokenizer.text().max_length - 2;
    for (number, (said, chunks)) in prompt.texts().zip(chunks).enumerate() {
        if spans.len() > 1 {
            let at: Vec<String> = spans
                .iter()
                .filter(|(_, _, text)| *text == number)
                .map(|(first, end, _)| match first == end {
                    true => first.to_string(),
                    false => format!("{first}-{end}"),
                })
                .collect();
            let _ = writeln!(text, "steps {}: {said}", at.join(", "));
        }
        for (place, chunk) in chunks.chunks.iter().enumerate() {
            let _ = writeln!(text, "chunk {}: {} of {room} tokens", place + 1, chunk.len);
            for (id, token, weight) in own(chunk, tokenizer) {
                let _ = writeln!(text, "{id:>7}  {token:<24} {weight}");
            }
        }
        if !chunks.cut.is_empty() {
            let _ = writeln!(text, "cut off: {}", chunks.cut.join(" "));
        }
    }
    text
}

fn as_json(prompt: &Prompt, chunks: &[Chunks], tokenizer: &Tokenizer) -> Value {
    let texts: Vec<Value> = prompt
        .texts()
        .zip(chunks)
        .map(|(text, chunks)| {
            let all: Vec<Value> = chunks
                .chunks
                .iter()
                .map(|chunk| {
                    let tokens: Vec<Value> = own(chunk, tokenizer)
                        .map(|(id, token, weight)| json!({"id": id, "token": token, "weight": weight}))
                        .collect();
                    json!({"tokens": tokens, "ids": chunk.ids})
                })
                .collect();
            json!({"text": text, "chunks": all, "cut": chunks.cut})
        })
        .collect();
    let schedule: Vec<Value> = spans(prompt)
        .into_iter()
        .map(|(first, last, text)| json!({"first": first, "last": last, "text": text}))
        .collect();
    json!({"texts": texts, "schedule": schedule})
}
