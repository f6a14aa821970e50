//! What CLIP does to a text before it looks for words, and the words.

use unicode_normalization_alignments::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// A character, and the byte of the text as it was said that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Char {
    pub(super) char: char,
    pub(super) start: usize,
}

/// The characters of a text.
pub(super) fn chars(text: &str) -> Vec<Char> {
    text.char_indices()
        .map(|(start, char)| Char { char, start })
        .collect()
}

/// Unicode's NFC, one space for any run of white space, lower case.
pub(super) fn normalize(said: &[Char]) -> Vec<Char> {
    let mut from = 0_usize;
    let mut composed = Vec::with_capacity(said.len());
    for (char, change) in said.iter().map(|c| c.char).nfc() {
        // A character that was added is where the one before it is; one that was composed is where its first part is.
        let part = match change {
            1.. => from.saturating_sub(1),
            _ => from,
        };
        let start = said.get(part).or(said.last()).map_or(0, |c| c.start);
        if change <= 0 {
            from += 1 + change.unsigned_abs();
        }
        composed.push(Char { char, start });
    }
    let mut normal: Vec<Char> = Vec::with_capacity(composed.len());
    for Char { char, start } in composed {
        match char.is_whitespace() {
            true if normal.last().is_some_and(|last| last.char == ' ') => {}
            true => normal.push(Char { char: ' ', start }),
            false => normal.extend(char.to_lowercase().map(|char| Char { char, start })),
        }
    }
    normal
}

/// What the expression matches that transformers gives CLIP's tokenizer: `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll`, `'d`, letters, a
/// digit, or what is neither of these nor white space. `whole` are matched before anything else, and then divided as
/// GPT-2 divides.
pub(super) fn words<'a>(
    mut text: &'a [Char],
    whole: &'a [&str],
) -> impl Iterator<Item = &'a [Char]> {
    // Characters left of what is divided.
    let mut divided = 0;
    std::iter::from_fn(move || {
        loop {
            let first = kind(text.first()?.char);
            if divided == 0
                && let Some(whole) = whole.iter().find(|whole| begins_with(text, whole))
            {
                divided = whole.chars().count();
            }
            let run = match first {
                Kind::Digit => 1,
                _ => text.iter().take_while(|c| kind(c.char) == first).count(),
            };
            let len = match divided {
                0 => contraction(text).unwrap_or(run),
                left => run.min(left),
            };
            divided -= len.min(divided);
            let (word, rest) = text.split_at(len);
            text = rest;
            if first != Kind::Space {
                return Some(word);
            }
        }
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letter,
    Digit,
    Space,
    Other,
}

fn kind(char: char) -> Kind {
    if char.is_ascii_alphabetic() {
        return Kind::Letter;
    }
    if char.is_whitespace() {
        return Kind::Space;
    }
    match char.general_category_group() {
        GeneralCategoryGroup::Letter => Kind::Letter,
        GeneralCategoryGroup::Number => Kind::Digit,
        _ => Kind::Other,
    }
}

fn begins_with(text: &[Char], with: &str) -> bool {
    let mut chars = text.iter().map(|c| c.char);
    with.chars().all(|char| chars.next() == Some(char))
}

/// The length of a contraction that the text begins with.
fn contraction(text: &[Char]) -> Option<usize> {
    let all = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    let found = all.iter().find(|ending| begins_with(text, ending));
    found.map(|ending| ending.len())
}
