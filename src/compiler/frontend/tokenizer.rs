//! CLIP's tokenizer as a `tokenizer.json` of the Hugging Face tokenizers library, the same that transformers builds from
//! `vocab.json` and `merges.txt`.

use serde_json::{Map, Value, json};

const BEGIN: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// What transformers 5 splits words by.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A vocabulary that CLIP's tokenizer cannot be made of.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct TokenizerError {
    /// The file that is wrong.
    pub file: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// The special tokens' ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a prompt.
    pub bos: u32,
    /// Ends it.
    pub eos: u32,
    /// Fills the rest.
    pub pad: u32,
}

fn vocabulary(text: &str) -> Result<Map<String, Value>, TokenizerError> {
    let error = |reason: String| TokenizerError {
        file: "vocab.json",
        reason,
    };
    match serde_json::from_str(text) {
        Ok(Value::Object(vocabulary)) => Ok(vocabulary),
        Ok(_) => Err(error("is no JSON object".into())),
        Err(e) => Err(error(e.to_string())),
    }
}

fn id(vocabulary: &Map<String, Value>, token: &str) -> Result<u32, TokenizerError> {
    let id = vocabulary
        .get(token)
        .and_then(Value::as_u64)
        .and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| TokenizerError {
        file: "vocab.json",
        reason: format!("has no id for {token:?}"),
    })
}

/// Builds `tokenizer.json` from the contents of `merges.txt` alone: CLIP numbers the bytes' symbols, the same at a word's
/// end, what each merge makes, and the special tokens, in that order.
pub fn from_merges(merges: &str) -> Result<Vec<u8>, TokenizerError> {
    let symbols = byte_symbols();
    let ends = symbols.iter().map(|symbol| format!("{symbol}</w>"));
    let mut tokens: Vec<String> = symbols.iter().map(char::to_string).chain(ends).collect();
    tokens.extend(pairs(merges)?.iter().map(|(a, b)| format!("{a}{b}")));
    tokens.extend([BEGIN.to_owned(), END.to_owned()]);
    let ids = tokens.into_iter().enumerate();
    build(ids.map(|(id, token)| (token, id.into())).collect(), merges)
}

/// How byte-level vocabularies write the bytes, in the order of their ids: printable characters of Latin-1 as they are,
/// then the others as the characters from 256 on.
fn byte_symbols() -> Vec<char> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
    let plain = (0..=u8::MAX).filter(printable).map(char::from);
    let others = (0..=u8::MAX).filter(|byte| !printable(byte)).count() as u32;
    plain
        .chain((256..256 + others).filter_map(char::from_u32))
        .collect()
}

/// The pairs of a `merges.txt`, in order.
fn pairs(merges: &str) -> Result<Vec<(&str, &str)>, TokenizerError> {
    let mut pairs = Vec::new();
    for (i, line) in merges.lines().enumerate() {
        if line.trim().is_empty() || (i == 0 && line.starts_with("#version")) {
            continue;
        }
        let pair = line.trim_end().split_once(' ');
        pairs.push(pair.ok_or_else(|| TokenizerError {
            file: "merges.txt",
            reason: format!("line {} is no pair: {line:?}", i + 1),
        })?);
    }
    Ok(pairs)
}

/// Builds `tokenizer.json` from the contents of `vocab.json` and `merges.txt`.
pub fn from_vocabulary(vocab: &str, merges: &str) -> Result<Vec<u8>, TokenizerError> {
    build(vocabulary(vocab)?, merges)
}

fn build(vocabulary: Map<String, Value>, merges: &str) -> Result<Vec<u8>, TokenizerError> {
    let (bos, eos) = (id(&vocabulary, BEGIN)?, id(&vocabulary, END)?);
    let pairs: Vec<Value> = pairs(merges)?.iter().map(|(a, b)| json!([a, b])).collect();
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        })
    };
    // Sorted by id, as the library writes them.
    let mut added = [(bos, BEGIN), (eos, END)];
    added.sort_unstable();
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.map(|(id, content)| special(id, content)),
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            ],
        },
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [END, eos],
            "cls": [BEGIN, bos],
            "trim_offsets": false,
            "add_prefix_space": false,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": END,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocabulary,
            "merges": pairs,
        },
    });
    Ok(tokenizer.to_string().into_bytes())
}

/// The special tokens of a `tokenizer.json`. `special_tokens_map` is the contents of the file of that name, which names
/// the padding where it is not the end token (Stable Diffusion 2 has `!`).
pub fn special_tokens(
    tokenizer: &[u8],
    special_tokens_map: Option<&str>,
) -> Result<SpecialTokens, TokenizerError> {
    let file = "tokenizer.json";
    let json: Value = serde_json::from_slice(tokenizer).map_err(|e| TokenizerError {
        file,
        reason: e.to_string(),
    })?;
    let find = |token: &str| {
        let added = json["added_tokens"].as_array().into_iter().flatten();
        let added = added
            .filter(|t| t["content"] == token)
            .find_map(|t| t["id"].as_u64());
        let id = added
            .or_else(|| json["model"]["vocab"].get(token)?.as_u64())
            .and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| TokenizerError {
            file,
            reason: format!("has no token {token:?}"),
        })
    };
    let map: Value = match special_tokens_map {
        Some(text) => serde_json::from_str(text).map_err(|e| TokenizerError {
            file: "special_tokens_map.json",
            reason: e.to_string(),
        })?,
        None => Value::Null,
    };
    let pad = map["pad_token"]
        .as_str()
        .or_else(|| map["pad_token"]["content"].as_str())
        .unwrap_or(END);
    Ok(SpecialTokens {
        bos: find(BEGIN)?,
        eos: find(END)?,
        pad: find(pad)?,
    })
}
