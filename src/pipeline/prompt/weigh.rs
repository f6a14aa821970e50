//! What weights do to the text encoder's answers.

use std::collections::HashMap;

use super::{Chunk, PromptStyle};

/// The text encoder's answer to each chunk that it was asked, `rows * dim` numbers each, by the chunk's ids.
pub(in crate::pipeline) struct Answers {
    pub index: HashMap<Vec<i32>, usize>,
    pub values: Vec<f32>,
    /// Numbers of an answer.
    pub len: usize,
}

impl Answers {
    fn of(&self, chunk: &Chunk) -> &[f32] {
        let at = self.index[&chunk.ids] * self.len;
        &self.values[at..at + self.len]
    }
}

/// Writes the weighted answers to chunks that stand at the same place of the texts of one prompt, each `times` said, into
/// `outs`. `empty` is the chunk of the empty text.
///
/// - WebUI: each token's row times its weight, then all of them times one number that restores their mean
///   (`EmphasisOriginal` of its `modules/sd_emphasis.py`). As there, the mean is that over all texts of the prompt.
/// - ComfyUI: `empty + (row - empty) * weight` where the weight is not 1 (`encode_token_weights` of its
///   `comfy/sd1_clip.py`).
///
/// Sums are in `f64`, in the order of the numbers.
pub(in crate::pipeline) fn weigh(
    style: PromptStyle,
    answers: &Answers,
    chunks: &[(&Chunk, usize)],
    empty: &Chunk,
    outs: &mut [&mut [f32]],
) {
    for ((chunk, _), out) in chunks.iter().zip(&mut *outs) {
        out.copy_from_slice(answers.of(chunk));
    }
    let is_weighted = |chunk: &Chunk| chunk.weights.iter().any(|weight| *weight != 1.0);
    if !chunks.iter().any(|(chunk, _)| is_weighted(chunk)) {
        return;
    }
    let before = mean(chunks, outs);
    for ((chunk, _), out) in chunks.iter().zip(&mut *outs) {
        let dim = (out.len() / chunk.weights.len()).max(1);
        let rows = out.chunks_exact_mut(dim).zip(&chunk.weights).enumerate();
        for (at, (row, &weight)) in rows.filter(|(_, (_, weight))| **weight != 1.0) {
            match style {
                PromptStyle::Comfy => {
                    let origin = &answers.of(empty)[at * dim..][..dim];
                    for (value, origin) in row.iter_mut().zip(origin) {
                        *value = (*value - origin) * weight + origin;
                    }
                }
                PromptStyle::Webui | PromptStyle::Plain => {
                    row.iter_mut().for_each(|value| *value *= weight);
                }
            }
        }
    }
    let restored = (before / mean(chunks, outs)) as f32;
    if style == PromptStyle::Webui && restored.is_finite() {
        for out in outs {
            out.iter_mut().for_each(|value| *value *= restored);
        }
    }
}

fn mean(chunks: &[(&Chunk, usize)], outs: &[&mut [f32]]) -> f64 {
    let mut sum = 0.0;
    let mut count = 0.0;
    for ((_, times), out) in chunks.iter().zip(outs) {
        let own: f64 = out.iter().fold(0.0, |sum, value| sum + f64::from(*value));
        sum += own * *times as f64;
        count += (out.len() * times) as f64;
    }
    sum / count
}
