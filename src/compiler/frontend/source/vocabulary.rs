//! Tokenizers: of a folder, of a file, and CLIP's own, which comes with Kiln.

use std::path::Path;

use super::error::SourceError;
use super::files::Files;
use super::parts::Tokenizer;
use crate::frontend::tokenizer::{self, TokenizerError};

/// The merges of CLIP's vocabulary; `models/clip/README.md` says where they are from.
const MERGES: &str = include_str!("../../../../models/clip/merges.txt");

/// Tokens of CLIP's vocabulary.
pub(super) const CLIP_TOKENS: usize = 49408;

/// CLIP's tokenizer. `pad` fills a prompt, if it is not what ends it.
pub(super) fn clip(pad: Option<&str>) -> Result<Tokenizer, SourceError> {
    let error = |e: TokenizerError| SourceError::Options(format!("the built-in vocabulary: {e}"));
    let json = tokenizer::from_merges(MERGES).map_err(error)?;
    let map = pad.map(|pad| serde_json::json!({"pad_token": pad}).to_string());
    let special = tokenizer::special_tokens(&json, map.as_deref()).map_err(error)?;
    Ok((json, special))
}

/// The tokenizer of a folder with `tokenizer.json` or with `vocab.json` and `merges.txt`, or of a `tokenizer.json`.
pub(super) fn read(path: &Path, files: &mut Files) -> Result<Tokenizer, SourceError> {
    let found = path.metadata().map_err(|e| SourceError::read(path, e))?;
    let (folder, file) = match found.is_dir() {
        true => (path, path.join("tokenizer.json")),
        false => (path.parent().unwrap_or(Path::new("")), path.to_owned()),
    };
    let error = |e: TokenizerError| {
        let file = match e.file {
            "tokenizer.json" => file.clone(),
            other => folder.join(other),
        };
        SourceError::malformed(file, e.reason)
    };
    let json = match files.optional_text(&file)? {
        Some(json) => json.into_bytes(),
        None => {
            let vocabulary = files.optional_text(&folder.join("vocab.json"))?;
            let merges = files.optional_text(&folder.join("merges.txt"))?;
            let (Some(vocabulary), Some(merges)) = (vocabulary, merges) else {
                return Err(SourceError::malformed(
                    path,
                    "holds neither tokenizer.json nor vocab.json and merges.txt",
                ));
            };
            tokenizer::from_vocabulary(&vocabulary, &merges).map_err(error)?
        }
    };
    // Newer versions of transformers write the second alone.
    let mut map = files.optional_text(&folder.join("special_tokens_map.json"))?;
    if map.is_none() {
        map = files.optional_text(&folder.join("tokenizer_config.json"))?;
    }
    let special = tokenizer::special_tokens(&json, map.as_deref()).map_err(error)?;
    Ok((json, special))
}
