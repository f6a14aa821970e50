//! From a prompt to the token ids that the text encoder takes.

use super::card::TextCard;
use super::error::SectionError;
use super::words::Words;

mod bpe;
mod clip;
#[cfg(feature = "tokenizers")]
mod library;
mod normal;
#[cfg(all(test, feature = "tokenizers"))]
mod tests;
mod trie;

/// A CLIP-style tokenizer, read from a package's `tokenizer.json`.
///
/// It is several times as large in memory as in the file, so it lives only while prompts are encoded.
pub struct Tokenizer {
    inner: Inner,
    words: Words,
    text: TextCard,
}

/// CLIP's own is read here, whatever is built in. All others need the library.
enum Inner {
    Clip(Box<clip::Clip>),
    #[cfg(feature = "tokenizers")]
    Library(Box<library::Library>),
}

/// A prompt as the text encoder takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The begin token, the prompt's, the end token, and padding up to the model's length.
    pub ids: Vec<i32>,
    /// The words, or ends of words, that the model's length left no room for.
    pub cut: Vec<String>,
}

/// A token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its id.
    pub id: i32,
    /// The byte of the text that it begins at.
    pub start: usize,
    /// Tokens from this one on that are of one learnt word; 1 for all others.
    pub together: usize,
}

/// A token before learnt words are taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    id: u32,
    /// The byte of the text that it begins at.
    start: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`. `text` has the length and the begin, end and padding tokens.
    pub fn from_json(json: &[u8], text: TextCard) -> Result<Self, SectionError> {
        let inner = match clip::Clip::read(json).map_err(|e| error(&e.to_string()))? {
            Some(clip) => Inner::Clip(Box::new(clip)),
            None => other(json)?,
        };
        let words = match &inner {
            Inner::Clip(clip) => Words::of(&clip.learnt()),
            #[cfg(feature = "tokenizers")]
            Inner::Library(library) => Words::of(&library.learnt()),
        };
        Ok(Self { inner, words, text })
    }

    /// The text encoder's input.
    pub fn text(&self) -> TextCard {
        self.text
    }

    /// The id of a comma that ends a word, if there is one.
    pub fn comma(&self) -> Option<i32> {
        let id = [",</w>", ","].iter().find_map(|comma| match &self.inner {
            Inner::Clip(clip) => clip.id(comma),
            #[cfg(feature = "tokenizers")]
            Inner::Library(library) => library.id(comma),
        })?;
        i32::try_from(id).ok()
    }

    /// The token of an id as the vocabulary has it.
    pub fn token(&self, id: i32) -> Option<String> {
        let id = u32::try_from(id).ok()?;
        match &self.inner {
            Inner::Clip(clip) => clip.token(id),
            #[cfg(feature = "tokenizers")]
            Inner::Library(library) => library.token(id),
        }
    }

    /// The tokens of a text, however many: no begin, no end, no padding.
    pub fn pieces(&self, text: &str) -> Result<Vec<Piece>, SectionError> {
        let found = match &self.inner {
            Inner::Clip(clip) => clip.encode(text),
            #[cfg(feature = "tokenizers")]
            Inner::Library(library) => library.encode(text).map_err(|e| error(&e))?,
        };
        let mut pieces = Vec::with_capacity(found.len());
        for Found { id, start } in found {
            let own = self.words.expand(id).count();
            for (nth, id) in self.words.expand(id).enumerate() {
                pieces.push(Piece {
                    id: i32::try_from(id)
                        .map_err(|_| error(&format!("token id {id} is too large")))?,
                    start: text.floor_char_boundary(start.min(text.len())),
                    together: own - nth,
                });
            }
        }
        Ok(pieces)
    }

    /// Encodes a text as diffusers does: nothing in it has a meaning of its own, and what finds no room is cut off.
    pub fn encode(&self, prompt: &str) -> Result<Tokens, SectionError> {
        let pieces = self.pieces(prompt)?;
        let room = self.text.max_length - 2;
        let mut ids = Vec::with_capacity(self.text.max_length);
        ids.push(self.text.bos);
        ids.extend(pieces.iter().take(room).map(|piece| piece.id));
        ids.push(self.text.eos);
        ids.resize(self.text.max_length, self.text.pad);
        let cut = pieces
            .get(room)
            .map(|piece| prompt[piece.start..].split_whitespace());
        Ok(Tokens {
            ids,
            cut: cut.into_iter().flatten().map(str::to_owned).collect(),
        })
    }
}

#[cfg(feature = "tokenizers")]
fn other(json: &[u8]) -> Result<Inner, SectionError> {
    let library = library::Library::read(json).map_err(|e| error(&e))?;
    Ok(Inner::Library(Box::new(library)))
}

#[cfg(not(feature = "tokenizers"))]
fn other(_: &[u8]) -> Result<Inner, SectionError> {
    Err(error(
        "is not CLIP's, and this program was built without the others (the feature `tokenizers`)",
    ))
}

fn error(reason: &str) -> SectionError {
    SectionError {
        section: "tokenizer",
        reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}
