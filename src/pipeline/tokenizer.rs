//! From a prompt to the token ids that the text encoder takes.

use tokenizers::Tokenizer as Inner;

use super::card::TextCard;
use super::error::SectionError;
use super::words::Words;

/// A CLIP-style tokenizer, read from a package's `tokenizer.json`.
///
/// It is several times as large in memory as in the file, so it lives only while prompts are encoded.
pub struct Tokenizer {
    inner: Inner,
    words: Words,
    text: TextCard,
}

/// A prompt as the text encoder takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The begin token, the prompt's, the end token, and padding up to the model's length.
    pub ids: Vec<i32>,
    /// The words, or ends of words, that the model's length left no room for.
    pub cut: Vec<String>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`. `text` has the length and the begin, end and padding tokens.
    pub fn from_json(json: &[u8], text: TextCard) -> Result<Self, SectionError> {
        let mut inner = Inner::from_bytes(json).map_err(|e| error(&e.to_string()))?;
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|e| error(&e.to_string()))?;
        let words = Words::of(&inner);
        Ok(Self { inner, words, text })
    }

    /// Encodes a prompt.
    pub fn encode(&self, prompt: &str) -> Result<Tokens, SectionError> {
        let encoding = self
            .inner
            .encode(prompt, false)
            .map_err(|e| error(&e.to_string()))?;
        let room = self.text.max_length - 2;
        let pieces = encoding.get_ids().iter().zip(encoding.get_offsets());
        let pieces: Vec<(u32, usize)> = pieces
            .flat_map(|(&id, &(start, _))| self.words.expand(id).map(move |id| (id, start)))
            .collect();
        let mut ids = Vec::with_capacity(self.text.max_length);
        ids.push(self.text.bos);
        for &(id, _) in pieces.iter().take(room) {
            ids.push(i32::try_from(id).map_err(|_| error(&format!("token id {id} is too large")))?);
        }
        ids.push(self.text.eos);
        ids.resize(self.text.max_length, self.text.pad);
        let cut = match pieces.get(room) {
            Some(&(_, start)) => {
                let start = prompt.floor_char_boundary(start.min(prompt.len()));
                prompt[start..]
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect()
            }
            None => Vec::new(),
        };
        Ok(Tokens { ids, cut })
    }
}

fn error(reason: &str) -> SectionError {
    SectionError {
        section: "tokenizer",
        reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}
