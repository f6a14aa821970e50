//! Byte pair encoding: the two neighbours that come first in a list become one token, again and again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Which pairs of tokens become one.
pub(super) struct Merges(HashMap<(u32, u32), Merge>);

#[derive(Clone, Copy)]
struct Merge {
    /// Its place in the list.
    rank: u32,
    /// What comes of it.
    id: u32,
}

/// A token of a word that is being put together.
#[derive(Clone, Copy)]
struct Part<T> {
    id: u32,
    /// Where it begins.
    start: T,
    before: Option<usize>,
    after: Option<usize>,
    /// It has become a part of the one before it.
    is_gone: bool,
}

impl Merges {
    /// Pairs in order, each with what comes of it.
    pub(super) fn new(pairs: impl Iterator<Item = ((u32, u32), u32)>) -> Self {
        let merges = pairs.zip(0..);
        Self(
            merges
                .map(|((pair, id), rank)| (pair, Merge { rank, id }))
                .collect(),
        )
    }

    /// What a word's tokens become, each where the first of its parts began. Of pairs of one rank the first is merged first.
    pub(super) fn apply<T: Copy>(&self, word: &[(u32, T)]) -> Vec<(u32, T)> {
        let mut parts: Vec<Part<T>> = Vec::with_capacity(word.len());
        for (i, &(id, start)) in word.iter().enumerate() {
            parts.push(Part {
                id,
                start,
                before: i.checked_sub(1),
                after: Some(i + 1).filter(|after| *after < word.len()),
                is_gone: false,
            });
        }
        let merge = |parts: &[Part<T>], at: usize| {
            let part = parts[at];
            let merge = self.0.get(&(part.id, parts[part.after?].id))?;
            Some(Reverse((merge.rank, at, merge.id)))
        };
        let mut queue: BinaryHeap<_> = (0..parts.len())
            .filter_map(|at| merge(&parts, at))
            .collect();
        while let Some(Reverse((_, at, id))) = queue.pop() {
            // A neighbour may have become something else since.
            let still = merge(&parts, at).is_some_and(|Reverse((_, _, now))| now == id);
            let (false, true, Some(right)) = (parts[at].is_gone, still, parts[at].after) else {
                continue;
            };
            parts[right].is_gone = true;
            parts[at].id = id;
            parts[at].after = parts[right].after;
            if let Some(after) = parts[at].after {
                parts[after].before = Some(at);
            }
            let before = parts[at].before;
            queue.extend(before.and_then(|before| merge(&parts, before)));
            queue.extend(merge(&parts, at));
        }
        parts.retain(|part| !part.is_gone);
        parts.iter().map(|part| (part.id, part.start)).collect()
    }
}
