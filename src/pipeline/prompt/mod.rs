//! The language of prompts.
//!
//! ```text
//! prompt --schedule--> texts, and when each is said --attention--> parts with weights --chunks--> tokens with weights
//! ```
//!
//! - `schedule`: `[from:to:when]` and `[a|b]`.
//! - `attention`: `(word:1.2)` and its like.
//! - `chunks`: as many tokens at a time as the text encoder takes.
//! - `weigh`: what a weight does to the text encoder's answer.

mod attention;
mod chunks;
mod schedule;
#[cfg(test)]
mod tests;
mod weigh;

use std::fmt;
use std::str::FromStr;

use super::{SectionError, Tokenizer};

use attention::Part;
pub use chunks::{Chunk, Chunks};
use schedule::Scheduled;
pub(super) use weigh::{Answers, weigh};

/// The most bytes of a prompt.
pub const MAX_BYTES: usize = 1 << 16;
/// The most texts that a prompt may say in turn.
pub const MAX_TEXTS: usize = 64;

/// Whose language a prompt is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PromptStyle {
    /// That of the WebUI: emphasis, `BREAK`, `[from:to:when]`, `[a|b]`. Weights keep the mean of the text encoder's answer.
    #[default]
    Webui,
    /// That of ComfyUI: emphasis by parentheses alone. Weights go from the empty prompt's answer through the text's.
    Comfy,
    /// None, as in diffusers: every character stands for itself, and there is one chunk.
    Plain,
}

impl PromptStyle {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Webui, Self::Comfy, Self::Plain];

    /// The name that users type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webui => "webui",
            Self::Comfy => "comfy",
            Self::Plain => "plain",
        }
    }
}

impl fmt::Display for PromptStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no prompt style has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown prompt style `{0}`, there are: {names}", names = PromptStyle::ALL.map(PromptStyle::name).join(", "))]
pub struct UnknownStyle(pub String);

impl FromStr for PromptStyle {
    type Err = UnknownStyle;

    fn from_str(name: &str) -> Result<Self, UnknownStyle> {
        Self::ALL
            .into_iter()
            .find(|style| style.name() == name)
            .ok_or_else(|| UnknownStyle(name.into()))
    }
}

/// What is wrong with a prompt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// It is too long to be read.
    #[error("the prompt has {0} bytes, the most is {MAX_BYTES}")]
    Bytes(usize),
    /// A weight is no number, or too large for one.
    #[error("`{0}` in the prompt is no weight: a finite number expected")]
    Weight(String),
    /// It asks for a LoRA.
    #[error(
        "`<{kind}:{name}>` in the prompt: a LoRA becomes part of the model once, by kiln compile --lora {name}.safetensors"
    )]
    Lora {
        /// `lora` or `lyco`.
        kind: &'static str,
        /// What it is called.
        name: String,
    },
    /// It is made of several that are guided each on its own.
    #[error(
        "`AND` in the prompt: prompts that are combined by AND are not drawn; write `and`, or --prompt-style plain"
    )]
    And,
    /// Its alternatives make too many texts.
    #[error("the prompt says more than {MAX_TEXTS} different texts in turn")]
    Texts,
}

/// A prompt as it is said over the evaluations of a drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    style: PromptStyle,
    texts: Vec<Text>,
    /// The last evaluation, from 1, and the text.
    schedule: Vec<(usize, usize)>,
}

/// One of the texts that a prompt says.
#[derive(Clone, Debug, PartialEq)]
struct Text {
    text: String,
    parts: Vec<Part>,
}

impl Prompt {
    /// Reads a prompt for a drawing of `evaluations` evaluations of the UNet.
    pub fn parse(
        prompt: &str,
        style: PromptStyle,
        evaluations: usize,
    ) -> Result<Self, PromptError> {
        if prompt.len() > MAX_BYTES {
            return Err(PromptError::Bytes(prompt.len()));
        }
        let mut read = Prompt {
            style,
            texts: Vec::new(),
            schedule: Vec::new(),
        };
        if style != PromptStyle::Plain {
            refuse_loras(prompt)?;
        }
        match style {
            PromptStyle::Webui => {
                if has_word(prompt, "AND") {
                    return Err(PromptError::And);
                }
                let scheduled = Scheduled::parse(prompt);
                for end in scheduled.ends(evaluations) {
                    let text = scheduled.at(end, evaluations);
                    let known = read.texts.iter().position(|known| known.text == text);
                    if known.is_none() {
                        let parts = attention::webui(&text)?;
                        read.add(text, parts)?;
                    }
                    read.schedule
                        .push((end, known.unwrap_or(read.texts.len() - 1)));
                }
            }
            PromptStyle::Comfy => read.add_only(prompt, attention::comfy(prompt)?, evaluations)?,
            PromptStyle::Plain => {
                let part = Part {
                    text: prompt.to_owned(),
                    weight: 1.0,
                };
                read.add_only(prompt, vec![part], evaluations)?;
            }
        }
        Ok(read)
    }

    fn add(&mut self, text: String, parts: Vec<Part>) -> Result<(), PromptError> {
        if self.texts.len() == MAX_TEXTS {
            return Err(PromptError::Texts);
        }
        self.texts.push(Text { text, parts });
        Ok(())
    }

    fn add_only(
        &mut self,
        text: &str,
        parts: Vec<Part>,
        evaluations: usize,
    ) -> Result<(), PromptError> {
        self.schedule.push((evaluations, 0));
        self.add(text.to_owned(), parts)
    }

    /// The texts that it says, each once, in the order of their first time.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|text| text.text.as_str())
    }

    /// Which text is said until which evaluation, from 1, as the WebUI lists it.
    pub fn schedule(&self) -> &[(usize, usize)] {
        &self.schedule
    }

    /// The text of an evaluation, from 0. As in the WebUI, which counts its evaluations from 0 and those of a prompt's
    /// schedule from 1, the first text is said once more than the schedule has it.
    pub fn text_at(&self, evaluation: usize) -> usize {
        let found = self.schedule.iter().find(|(end, _)| evaluation <= *end);
        found.or(self.schedule.last()).map_or(0, |(_, text)| *text)
    }

    /// Each text in chunks, at most `most`.
    pub fn chunks(&self, tokenizer: &Tokenizer, most: usize) -> Result<Vec<Chunks>, SectionError> {
        let chunks = |text: &Text| match self.style {
            PromptStyle::Webui => chunks::webui(&text.parts, tokenizer, most),
            PromptStyle::Comfy => chunks::comfy(&text.parts, tokenizer, most),
            PromptStyle::Plain => chunks::webui(&text.parts, tokenizer, 1),
        };
        self.texts.iter().map(chunks).collect()
    }
}

/// Finds `<lora:` and the like, which the WebUI takes out of the prompt and adds to the model.
fn refuse_loras(prompt: &str) -> Result<(), PromptError> {
    for kind in ["lora", "lyco"] {
        for (at, open) in prompt.match_indices(&format!("<{kind}:")) {
            let rest = &prompt[at + open.len()..];
            if let Some(end) = rest.find('>') {
                let name = rest[..end].split(':').next().unwrap_or_default();
                return Err(PromptError::Lora {
                    kind,
                    name: name.to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// Whether the text has that word, with no letter, digit or underscore beside it.
fn has_word(text: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word)
    })
}
