//! Tokens that are looked for in a text, wherever they stand.

use std::collections::HashMap;

use super::Found;
use super::normal::Char;

/// Tokens by their characters.
#[derive(Default)]
pub(super) struct Trie {
    /// From a node, 0 being the first, by a character.
    next: HashMap<(usize, char), usize>,
    /// The tokens that end at nodes.
    ends: HashMap<usize, u32>,
}

/// A part of a text.
pub(super) enum Part<'a> {
    Token(Found),
    Between(&'a [Char]),
}

impl Trie {
    /// Looks for `token` from now on.
    pub(super) fn insert(&mut self, token: &str, id: u32) {
        let mut node = 0;
        for char in token.chars() {
            let new = self.next.len() + 1;
            node = *self.next.entry((node, char)).or_insert(new);
        }
        self.ends.insert(node, id);
    }

    /// The longest token that a text begins with, and its characters.
    fn longest(&self, text: &[Char]) -> Option<(u32, usize)> {
        let mut node = 0;
        let mut longest = None;
        for (i, c) in text.iter().enumerate() {
            let Some(next) = self.next.get(&(node, c.char)) else {
                break;
            };
            node = *next;
            if let Some(id) = self.ends.get(&node) {
                longest = Some((*id, i + 1));
            }
        }
        longest
    }

    /// A text's tokens, the first and longest first, and what is between them.
    pub(super) fn split<'a>(&self, text: &'a [Char]) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let (mut done, mut at) = (0, 0);
        while at < text.len() {
            let Some((id, len)) = self.longest(&text[at..]) else {
                at += 1;
                continue;
            };
            if done < at {
                parts.push(Part::Between(&text[done..at]));
            }
            let start = text[at].start;
            parts.push(Part::Token(Found { id, start }));
            at += len;
            done = at;
        }
        if done < at {
            parts.push(Part::Between(&text[done..]));
        }
        parts
    }
}
