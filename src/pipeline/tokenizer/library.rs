//! Any `tokenizer.json`, by the library that defines what is in it.

use tokenizers::Tokenizer;

use super::Found;

/// A tokenizer of the library.
pub(super) struct Library(Tokenizer);

impl Library {
    /// Reads `tokenizer.json`. Neither padding nor truncation is the tokenizer's affair.
    pub(super) fn read(json: &[u8]) -> Result<Self, String> {
        let mut inner = Tokenizer::from_bytes(json).map_err(|e| e.to_string())?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| e.to_string())?;
        Ok(Self(inner))
    }

    /// The id of a token.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.0.token_to_id(token)
    }

    /// The token of an id.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        self.0.id_to_token(id)
    }

    /// The tokens that were added to the vocabulary and mean nothing to the model's code.
    pub(super) fn learnt(&self) -> Vec<(String, u32)> {
        let added = self.0.get_added_tokens_decoder().into_iter();
        added
            .filter(|(_, token)| !token.special)
            .map(|(id, token)| (token.content, id))
            .collect()
    }

    /// The tokens of a text.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<Found>, String> {
        let encoding = self.0.encode(text, false).map_err(|e| e.to_string())?;
        let starts = encoding.get_offsets().iter().map(|(start, _)| *start);
        let found = encoding.get_ids().iter().zip(starts);
        Ok(found.map(|(&id, start)| Found { id, start }).collect())
    }
}
