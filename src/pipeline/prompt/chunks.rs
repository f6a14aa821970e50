//! Weighted text to chunks: as many tokens at a time as the text encoder takes.

use crate::pipeline::{Piece, SectionError, TextCard, Tokenizer};

use super::attention::Part;

/// What the text encoder takes at once, with a weight for each token.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// The begin token, the text's, the end token, and padding up to the model's length.
    pub ids: Vec<i32>,
    /// How much each weighs; 1 for the begin and end tokens and the padding.
    pub weights: Vec<f32>,
    /// Tokens of the text.
    pub len: usize,
}

/// A text in chunks, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunks {
    /// The chunks, in order.
    pub chunks: Vec<Chunk>,
    /// The words, or ends of words, that found no room.
    pub cut: Vec<String>,
}

/// How far back a chunk may end at a comma instead of in the middle of a phrase: the WebUI's default.
const BACKTRACK: usize = 20;
/// Words of so many tokens may be divided between chunks: ComfyUI's `max_word_length`.
const LARGE: usize = 8;

/// Fills chunks, at most `most`.
struct Filler {
    text: TextCard,
    most: usize,
    done: Vec<Chunk>,
    ids: Vec<i32>,
    weights: Vec<f32>,
    cut: Vec<String>,
}

impl Filler {
    fn new(text: TextCard, most: usize) -> Self {
        Filler {
            text,
            most: most.max(1),
            done: Vec::new(),
            ids: Vec::new(),
            weights: Vec::new(),
            cut: Vec::new(),
        }
    }

    /// Tokens of a chunk, begin and end left out.
    fn room(&self) -> usize {
        self.text.max_length - 2
    }

    fn push(&mut self, id: i32, weight: f64) {
        self.ids.push(id);
        self.weights.push(weight as f32);
    }

    /// Whether the chunk that is being filled is the last there can be.
    fn is_last(&self) -> bool {
        self.done.len() + 1 == self.most
    }

    fn is_out_of_room(&self) -> bool {
        self.done.len() == self.most
    }

    /// Ends the chunk that is being filled.
    fn end(&mut self) {
        let TextCard {
            max_length,
            bos,
            eos,
            pad,
        } = self.text;
        let len = self.ids.len();
        let mut ids = Vec::with_capacity(max_length);
        ids.push(bos);
        ids.append(&mut self.ids);
        ids.push(eos);
        ids.resize(max_length, pad);
        let mut weights = Vec::with_capacity(max_length);
        weights.push(1.0);
        weights.append(&mut self.weights);
        weights.resize(max_length, 1.0);
        self.done.push(Chunk { ids, weights, len });
    }

    fn cut(&mut self, text: &str) {
        self.cut.extend(text.split_whitespace().map(str::to_owned));
    }

    fn finish(mut self) -> Chunks {
        if self.done.is_empty() || !self.ids.is_empty() {
            self.end();
        }
        Chunks {
            chunks: self.done,
            cut: self.cut,
        }
    }
}

/// As the WebUI's `tokenize_line`: a chunk that is full ends at its last comma, if that is among its last
/// 20 tokens, and the rest moves to the next; `BREAK` ends one early. The last chunk there can be is filled to its end.
pub(super) fn webui(
    parts: &[Part],
    tokenizer: &Tokenizer,
    most: usize,
) -> Result<Chunks, SectionError> {
    let mut filler = Filler::new(tokenizer.text(), most);
    let comma = tokenizer.comma();
    let mut last_comma = None;
    for part in parts {
        if part.is_break() {
            if !filler.is_out_of_room() {
                filler.end();
                last_comma = None;
            }
            continue;
        }
        for piece in tokenizer.pieces(&part.text)? {
            let Piece {
                id,
                start,
                together,
            } = piece;
            let is_full = filler.ids.len() == filler.room();
            if Some(id) == comma {
                last_comma = Some(filler.ids.len());
            } else if let Some(at) =
                last_comma.filter(|at| is_full && filler.ids.len() - at <= BACKTRACK)
                && !filler.is_last()
            {
                let ids = filler.ids.split_off(at + 1);
                let weights = filler.weights.split_off(at + 1);
                filler.end();
                (filler.ids, filler.weights) = (ids, weights);
                last_comma = None;
            }
            // A learnt word stays whole where there is another chunk for it.
            let is_too_long = together > 1
                && together <= filler.room()
                && filler.ids.len() + together > filler.room()
                && !filler.is_last();
            let is_full = filler.ids.len() == filler.room();
            if (is_full || is_too_long) && !filler.is_out_of_room() {
                filler.end();
                last_comma = None;
            }
            if filler.is_out_of_room() {
                filler.cut(&part.text[start..]);
                break;
            }
            filler.push(id, part.weight);
        }
    }
    Ok(filler.finish())
}

/// As ComfyUI's `tokenize_with_weights`: what is of one weight stays together if it has fewer than 8 tokens, else it is
/// divided where the chunk ends.
pub(super) fn comfy(
    parts: &[Part],
    tokenizer: &Tokenizer,
    most: usize,
) -> Result<Chunks, SectionError> {
    let mut filler = Filler::new(tokenizer.text(), most);
    for part in parts {
        let pieces = tokenizer.pieces(&part.text)?;
        let mut left = &pieces[..];
        let is_large = left.len() >= LARGE;
        while !left.is_empty() && !filler.is_out_of_room() {
            let room = filler.room() - filler.ids.len();
            let taken = match left.len() <= room {
                true => left.len(),
                false if is_large || filler.ids.is_empty() || filler.is_last() => room,
                false => 0,
            };
            for piece in &left[..taken] {
                filler.push(piece.id, part.weight);
            }
            left = &left[taken..];
            if !left.is_empty() {
                filler.end();
            }
        }
        if let Some(piece) = left.first() {
            filler.cut(&part.text[piece.start..]);
        }
    }
    Ok(filler.finish())
}
