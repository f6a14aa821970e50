//! CLIP's tokenizer, of a `tokenizer.json` as transformers writes it. It gives the tokens that the library gives (the tests ask
//! it), without the library, whose regular expressions and tables are a quarter of a small program.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::{Value, json};

use super::Found;
use super::bpe::Merges;
use super::normal::{Char, chars, normalize, words};
use super::trie::{Part, Trie};

/// What is written at a word's end.
const END: &str = "</w>";
/// What a word is, and what transformers 5 puts before it.
const WORD: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
const WHOLE_OR: &str = r"<\|startoftext\|>|<\|endoftext\|>|";
const WHOLE: [&str; 2] = ["<|startoftext|>", "<|endoftext|>"];

/// CLIP's tokenizer.
pub(super) struct Clip {
    vocabulary: HashMap<Box<str>, u32>,
    merges: Merges,
    /// The token of each byte within a word, and at its end.
    bytes: [[u32; 2]; 256],
    /// What is a word even though it is none.
    whole: &'static [&'static str],
    added: Vec<Added>,
    /// Added tokens that are looked for in a text as it was said, and in what [`normalize`] makes of it.
    said: Trie,
    normal: Trie,
}

/// A token that is found before there are words.
struct Added {
    id: u32,
    content: String,
    is_special: bool,
    /// As it is looked for.
    pattern: String,
}

/// Why a tokenizer of CLIP's form cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClipError {
    /// It is no JSON, or lacks something.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A token that is spoken of is none.
    #[error("{0:?} is not in the vocabulary")]
    Unknown(String),
}

/// What tells the form.
#[derive(Deserialize)]
struct Form {
    normalizer: Value,
    pre_tokenizer: Value,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: ModelForm,
}

#[derive(Deserialize)]
struct AddedToken {
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Deserialize)]
struct ModelForm {
    r#type: Option<String>,
    dropout: Option<f32>,
    unk_token: String,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: String,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

#[derive(Deserialize)]
struct Contents {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<Box<str>, u32>,
    merges: Vec<Pair>,
}

/// Older files have a text for a pair.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Two(String, String),
    One(String),
}

impl Pair {
    fn both(&self) -> (&str, &str) {
        match self {
            Self::Two(left, right) => (left, right),
            Self::One(both) => both.split_once(' ').unwrap_or((both, "")),
        }
    }
}

impl Form {
    /// What is a word even though it is none, if the form is CLIP's.
    fn whole(&self) -> Option<&'static [&'static str]> {
        let normalizer = json!({
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ],
        });
        let split = &self.pre_tokenizer["pretokenizers"][0];
        let bytes = &self.pre_tokenizer["pretokenizers"][1];
        let parts = self.pre_tokenizer["pretokenizers"].as_array();
        let model = &self.model;
        let is_clip = self.normalizer == normalizer
            && self.pre_tokenizer["type"] == "Sequence"
            && parts.is_some_and(|parts| parts.len() == 2)
            && split["type"] == "Split"
            && split["behavior"] == "Removed"
            && split["invert"] == true
            && bytes["type"] == "ByteLevel"
            && bytes["add_prefix_space"] == false
            && bytes["use_regex"].as_bool() != Some(false)
            && model.r#type.as_deref().is_none_or(|name| name == "BPE")
            && model.dropout.is_none()
            && model
                .continuing_subword_prefix
                .as_deref()
                .is_none_or(str::is_empty)
            && model.end_of_word_suffix == END
            && [model.fuse_unk, model.byte_fallback, model.ignore_merges]
                .iter()
                .all(|flag| *flag != Some(true))
            && self
                .added_tokens
                .iter()
                .all(|token| !(token.single_word || token.lstrip || token.rstrip));
        let pattern = split["pattern"]["Regex"].as_str().filter(|_| is_clip)?;
        match pattern.strip_prefix(WHOLE_OR) {
            Some(WORD) => Some(&WHOLE),
            None if pattern == WORD => Some(&[]),
            _ => None,
        }
    }
}

impl Clip {
    /// Reads `tokenizer.json`; none if its form is another's.
    pub(super) fn read(json: &[u8]) -> Result<Option<Self>, ClipError> {
        let form: Form = match serde_json::from_slice(json) {
            Ok(form) => form,
            Err(e) if e.classify() == Category::Data => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let Some(whole) = form.whole() else {
            return Ok(None);
        };
        let Contents { model } = serde_json::from_slice(json)?;
        let vocabulary = model.vocab;
        let known = |token: &str| {
            let id = vocabulary.get(token).copied();
            id.ok_or_else(|| ClipError::Unknown(token.to_owned()))
        };
        let mut pairs = Vec::with_capacity(model.merges.len());
        for pair in &model.merges {
            let (left, right) = pair.both();
            let id = known(&format!("{left}{right}"))?;
            pairs.push(((known(left)?, known(right)?), id));
        }
        let unknown = known(&form.model.unk_token)?;
        let bytes = symbols().map(|symbol| {
            let end = format!("{symbol}{END}");
            let id = |token: &str| vocabulary.get(token).copied().unwrap_or(unknown);
            [id(symbol.encode_utf8(&mut [0; 4])), id(&end)]
        });
        let mut clip = Self {
            merges: Merges::new(pairs.into_iter()),
            vocabulary,
            bytes,
            whole,
            added: Vec::new(),
            said: Trie::default(),
            normal: Trie::default(),
        };
        for token in form.added_tokens {
            clip.add(token);
        }
        Ok(Some(clip))
    }

    /// Adds a token. It is of no importance what id the file gives it: one that is in the vocabulary has its id there, others
    /// are numbered behind the vocabulary, as the library does it.
    fn add(&mut self, token: AddedToken) {
        let content = token.content;
        if content.is_empty() || self.added.iter().any(|added| added.content == content) {
            return;
        }
        let is_new = |added: &&Added| !self.vocabulary.contains_key(added.content.as_str());
        let next = self.vocabulary.len() + self.added.iter().filter(is_new).count();
        let id = self.id(&content).unwrap_or(next as u32);
        let (pattern, trie) = match token.normalized {
            true => (
                normalize(&chars(&content)).iter().map(|c| c.char).collect(),
                &mut self.normal,
            ),
            false => (content.clone(), &mut self.said),
        };
        trie.insert(&pattern, id);
        self.added.push(Added {
            id,
            content,
            is_special: token.special,
            pattern,
        });
    }

    /// The id of a token.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        let added = self.added.iter().find(|added| added.content == token);
        added
            .map(|added| added.id)
            .or_else(|| self.vocabulary.get(token).copied())
    }

    /// The token of an id; one that was added as it is looked for.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        let added = self.added.iter().find(|added| added.id == id);
        let known = || self.vocabulary.iter().find(|(_, known)| **known == id);
        added
            .map(|added| added.pattern.clone())
            .or_else(|| Some(known()?.0.to_string()))
    }

    /// The tokens that were added to the vocabulary and mean nothing to the model's code.
    pub(super) fn learnt(&self) -> Vec<(String, u32)> {
        let learnt = self.added.iter().filter(|added| !added.is_special);
        learnt
            .map(|added| (added.content.clone(), added.id))
            .collect()
    }

    /// The tokens of a text.
    pub(super) fn encode(&self, text: &str) -> Vec<Found> {
        let mut found = Vec::new();
        for part in self.said.split(&chars(text)) {
            match part {
                Part::Token(token) => found.push(token),
                Part::Between(chars) => self.encode_between(&normalize(chars), &mut found),
            }
        }
        found
    }

    /// The tokens of a normalized text.
    fn encode_between(&self, text: &[Char], found: &mut Vec<Found>) {
        for part in self.normal.split(text) {
            match part {
                Part::Token(token) => found.push(token),
                Part::Between(text) => {
                    for word in words(text, self.whole) {
                        self.encode_word(word, found);
                    }
                }
            }
        }
    }

    fn encode_word(&self, word: &[Char], found: &mut Vec<Found>) {
        let mut tokens = Vec::with_capacity(word.len());
        for c in word {
            let mut bytes = [0; 4];
            let bytes = c.char.encode_utf8(&mut bytes).bytes();
            tokens.extend(bytes.map(|byte| (byte, c.start)));
        }
        let last = tokens.len() - 1;
        let ids: Vec<(u32, usize)> = tokens
            .iter()
            .enumerate()
            .map(|(i, &(byte, start))| {
                (self.bytes[usize::from(byte)][usize::from(i == last)], start)
            })
            .collect();
        let merged = self.merges.apply(&ids).into_iter();
        found.extend(merged.map(|(id, start)| Found { id, start }));
    }
}

/// How byte-level vocabularies write the bytes: printable characters of Latin-1 as they are, the others as the characters
/// from 256 on.
fn symbols() -> [char; 256] {
    let mut next = '\u{100}'..;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae.. => char::from(byte as u8),
        _ => next.next().unwrap_or_default(),
    })
}
