//! Words that stand for several tokens: textual inversions of several vectors.

use std::collections::HashMap;

/// The tokens that belong to a word's own. They are found as diffusers finds them: next to a token `word` that was added to
/// the vocabulary there are `word_1`, `word_2` and so on.
pub struct Words(HashMap<u32, Vec<u32>>);

impl Words {
    /// The words of a tokenizer. `learnt` are the tokens that were added to its vocabulary, but for special ones.
    pub fn of(learnt: &[(String, u32)]) -> Self {
        let ids: HashMap<&str, u32> = learnt
            .iter()
            .map(|(word, id)| (word.as_str(), *id))
            .collect();
        let rest = |word: &str| -> Vec<u32> {
            (1..)
                .map_while(|i| ids.get(format!("{word}_{i}").as_str()).copied())
                .collect()
        };
        let words = ids.iter().map(|(word, id)| (*id, rest(word)));
        Words(words.filter(|(_, rest)| !rest.is_empty()).collect())
    }

    /// All tokens that a token stands for, itself first.
    pub fn expand(&self, id: u32) -> impl Iterator<Item = u32> {
        let rest = self.0.get(&id).map_or(&[][..], Vec::as_slice);
        std::iter::once(id).chain(rest.iter().copied())
    }
}
