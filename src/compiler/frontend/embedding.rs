//! Textual inversion: a word of the prompt that stands for vectors of its own.
//!
//! As diffusers' `load_textual_inversion` does it: the vectors become rows at the end of the token table, and the tokenizer
//! gets a token for each, called `word`, `word_1`, `word_2` and so on. The tokenizer finds them in normalized text, so
//! upper and lower case do not matter. Whoever encodes a prompt replaces `word` by all of its tokens
//! (`src/pipeline/words.rs`).

use std::borrow::Cow;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Value, json};

use super::tensors::Tensors;
use crate::graph::{Weight, WeightData};

#[cfg(test)]
mod tests;

/// The token table under transformers' names, those of its versions up to 4 first.
const TABLES: [&str; 2] = [
    "text_model.embeddings.token_embedding.weight",
    "embeddings.token_embedding.weight",
];
/// Vectors of one word: more than a prompt has room for help nobody.
const MOST_VECTORS: usize = 1024;

/// A word and its vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    word: String,
    /// One vector after another.
    vectors: Vec<f32>,
    /// Elements of each.
    width: usize,
}

/// What [`Embedding::add_to`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extended {
    /// The new `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// Rows of the token table now: the text encoder's `vocab_size`.
    pub rows: usize,
}

/// Why a textual inversion cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmbeddingError {
    /// The command line's text is something else.
    #[error("expected NAME=FILE")]
    Argument,
    /// The word cannot stand in a prompt.
    #[error("{0:?} is no word: it must not be empty nor hold white space")]
    Word(String),
    /// The file has tensors, but none that is known to be one.
    #[error("holds no textual inversion; its tensors are {0}")]
    Unknown(String),
    /// It was made for Stable Diffusion XL.
    #[error("has vectors for two text encoders (clip_l and clip_g): it is for Stable Diffusion XL")]
    TwoEncoders,
    /// The vectors have a shape that vectors have not.
    #[error("tensor {0} is {1:?}, expected vectors: [width] or [number, width]")]
    Shape(String, Vec<usize>),
    /// A number that is none.
    #[error("tensor {0} holds a NaN or an infinity")]
    NotFinite(String),
    /// The vectors are of another model.
    #[error(
        "the vectors of {word:?} have {found} elements{}, those of the text encoder's {table} have {expected}{}",
        family(*.found),
        family(*.expected)
    )]
    Width {
        /// The word.
        word: String,
        /// Elements of its vectors.
        found: usize,
        /// The token table.
        table: &'static str,
        /// Its width.
        expected: usize,
    },
    /// The text encoder has no table.
    #[error("the text encoder has no tensor {}", TABLES[0])]
    NoTable,
    /// The word, or one of those that follow from it, is in use.
    #[error("{0:?} is already a token of this model; choose another name")]
    Taken(String),
    /// The tokenizer cannot be extended.
    #[error("tokenizer.json: {0}")]
    Tokenizer(String),
    /// There are tokens without rows.
    #[error("the tokenizer has {tokens} tokens, the text encoder's {table} only {rows} rows")]
    Rows {
        /// Tokens.
        tokens: usize,
        /// The token table.
        table: &'static str,
        /// Its rows.
        rows: usize,
    },
}

fn family(width: usize) -> &'static str {
    match width {
        768 => " (Stable Diffusion 1)",
        1024 => " (Stable Diffusion 2)",
        1280 => " (Stable Diffusion XL)",
        _ => "",
    }
}

/// A textual inversion as a command line names it: `NAME=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingArgument {
    /// The word.
    pub word: String,
    /// The file.
    pub file: PathBuf,
}

impl FromStr for EmbeddingArgument {
    type Err = EmbeddingError;

    /// The name ends at the first equals sign.
    fn from_str(text: &str) -> Result<Self, EmbeddingError> {
        let (word, file) = text.split_once('=').ok_or(EmbeddingError::Argument)?;
        check_word(word)?;
        if file.is_empty() {
            return Err(EmbeddingError::Argument);
        }
        Ok(EmbeddingArgument {
            word: word.into(),
            file: file.into(),
        })
    }
}

fn check_word(word: &str) -> Result<(), EmbeddingError> {
    if word.is_empty() || word.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(EmbeddingError::Word(word.into()));
    }
    Ok(())
}

/// Reads the vectors of `word` from a file of the WebUI (`string_to_param`, or `emb_params` in safetensors) or of diffusers
/// (one tensor, called like a word). The file's own word does not matter.
pub fn read(word: &str, file: &Tensors) -> Result<Embedding, EmbeddingError> {
    check_word(word)?;
    let names = &file.by_name;
    if names.contains_key("clip_g") {
        return Err(EmbeddingError::TwoEncoders);
    }
    let known = ["string_to_param.*", "emb_params"];
    let known = known.iter().find_map(|name| names.get_key_value(*name));
    let single = || names.iter().next().filter(|_| names.len() == 1);
    let Some((name, tensor)) = known.or_else(single) else {
        let mut listed: Vec<&str> = names.keys().take(10).map(String::as_str).collect();
        if names.len() > listed.len() {
            listed.push("...");
        }
        let listed = match listed.as_slice() {
            [] => "none".to_owned(),
            listed => listed.join(", "),
        };
        return Err(EmbeddingError::Unknown(listed));
    };
    let (rows, width) = match *tensor.shape() {
        [width] => (1, width),
        [rows, width] => (rows, width),
        _ => (0, 0),
    };
    if !(1..=MOST_VECTORS).contains(&rows) || width == 0 {
        let shape = tensor.shape().to_vec();
        return Err(EmbeddingError::Shape(name.clone(), shape));
    }
    let vectors = tensor.read().into_owned();
    if !vectors.iter().all(|x| x.is_finite()) {
        return Err(EmbeddingError::NotFinite(name.clone()));
    }
    Ok(Embedding {
        word: word.into(),
        vectors,
        width,
    })
}

impl Embedding {
    /// Adds the vectors to the text encoder's token table and their tokens to `tokenizer`, a `tokenizer.json`. Rows of the
    /// table that no token has are dropped, as diffusers does. On an error nothing has changed.
    pub fn add_to(
        &self,
        text_encoder: &mut Tensors,
        tokenizer: &[u8],
    ) -> Result<Extended, EmbeddingError> {
        let table = TABLES
            .into_iter()
            .find(|table| text_encoder.by_name.contains_key(*table));
        let table = table.ok_or(EmbeddingError::NoTable)?;
        let base = &text_encoder.by_name[table];
        let [rows, width] = *base.shape() else {
            let shape = base.shape().to_vec();
            return Err(EmbeddingError::Shape(table.into(), shape));
        };
        if width != self.width {
            return Err(EmbeddingError::Width {
                word: self.word.clone(),
                found: self.width,
                table,
                expected: width,
            });
        }
        let mut tokens = Tokens::parse(tokenizer)?;
        let first = tokens.count();
        if first > rows {
            return Err(EmbeddingError::Rows {
                tokens: first,
                table,
                rows,
            });
        }
        tokens.check_series(&self.word)?;
        let count = self.vectors.len() / width;
        for i in 0..count {
            let name = match i {
                0 => self.word.clone(),
                _ => format!("{}_{i}", self.word),
            };
            tokens.add(first + i, name)?;
        }
        let extended = Weight::new(Table {
            base: base.clone(),
            kept: first,
            shape: vec![first + count, width],
            rows: self.vectors.clone(),
        });
        text_encoder.by_name.insert(table.into(), extended);
        Ok(Extended {
            tokenizer: tokens.0.to_string().into_bytes(),
            rows: first + count,
        })
    }
}

/// A `tokenizer.json`, as far as its tokens go.
struct Tokens(Value);

impl Tokens {
    fn parse(json: &[u8]) -> Result<Self, EmbeddingError> {
        let error = |reason: &str| EmbeddingError::Tokenizer(reason.into());
        let json: Value = serde_json::from_slice(json).map_err(|e| error(&e.to_string()))?;
        if !json["model"]["vocab"].is_object() {
            return Err(error("has no vocabulary"));
        }
        if !json["added_tokens"].is_array() {
            return Err(error("has no list of added tokens"));
        }
        Ok(Tokens(json))
    }

    fn added(&self) -> impl Iterator<Item = (&str, u64)> {
        let added = self.0["added_tokens"].as_array().into_iter().flatten();
        added.filter_map(|token| Some((token["content"].as_str()?, token["id"].as_u64()?)))
    }

    /// The id that the tokenizers library gives the next added token, whatever the file says.
    fn count(&self) -> usize {
        let vocabulary = self.0["model"]["vocab"].as_object();
        let known = |token: &str| vocabulary.is_some_and(|v| v.contains_key(token));
        let added = self.added().filter(|(token, _)| !known(token)).count();
        vocabulary.map_or(0, serde_json::Map::len) + added
    }

    /// Whether the word's own tokens could be taken for another word's, or another word's for its own.
    fn check_series(&self, word: &str) -> Result<(), EmbeddingError> {
        let has = |name: &str| {
            let name = name.to_lowercase();
            self.added().any(|(token, _)| token.to_lowercase() == name)
        };
        let next = format!("{word}_1");
        if has(&next) {
            return Err(EmbeddingError::Taken(next));
        }
        match word.rsplit_once('_') {
            Some((start, number)) if number.parse::<u32>().is_ok() && has(start) => {
                Err(EmbeddingError::Taken(start.into()))
            }
            _ => Ok(()),
        }
    }

    fn add(&mut self, id: usize, name: String) -> Result<(), EmbeddingError> {
        let normalized = name.to_lowercase();
        let in_vocabulary = !self.0["model"]["vocab"][&name].is_null();
        let mut added = self.added();
        if in_vocabulary || added.any(|(token, _)| token.to_lowercase() == normalized) {
            return Err(EmbeddingError::Taken(name));
        }
        drop(added);
        if let Some(added) = self.0["added_tokens"].as_array_mut() {
            added.push(json!({
                "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": true,
                "special": false,
            }));
        }
        Ok(())
    }
}

/// The first rows of a table, then others.
struct Table {
    base: Weight,
    kept: usize,
    shape: Vec<usize>,
    rows: Vec<f32>,
}

impl WeightData for Table {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn read(&self) -> Cow<'_, [f32]> {
        let mut elements = self.base.read().into_owned();
        elements.truncate(self.kept * self.shape[1]);
        elements.extend_from_slice(&self.rows);
        elements.into()
    }
}
