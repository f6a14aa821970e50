//! How much each part of a text weighs.

use super::PromptError;

/// A part of a text and its weight.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub text: String,
    pub weight: f64,
}

impl Part {
    fn new(text: &str) -> Self {
        Part {
            text: text.to_owned(),
            weight: 1.0,
        }
    }

    /// Whether a new chunk begins here. Inside of emphasis `BREAK` is a word, as in the WebUI.
    pub fn is_break(&self) -> bool {
        self.text == BREAK && self.weight == BREAKS
    }
}

const BREAK: &str = "BREAK";
/// The weight of a `BREAK` that is one.
const BREAKS: f64 = -1.0;

/// The WebUI's emphasis, as `parse_prompt_attention` of its `modules/prompt_parser.py` reads it:
///
/// - `(text)`: 1.1 times the weight; `(text:1.3)`: 1.3 times; `[text]`: divided by 1.1; all may be nested;
/// - a backslash before a bracket or a backslash takes its meaning away;
/// - what is not closed ends with the text, and what was not opened is text;
/// - `BREAK` as a word ends a chunk.
///
/// Neighbours of one weight are joined.
pub(super) fn webui(text: &str) -> Result<Vec<Part>, PromptError> {
    const MORE: f64 = 1.1;
    const LESS: f64 = 1.0 / 1.1;
    let mut parts: Vec<Part> = Vec::new();
    let (mut round, mut square) = (Vec::new(), Vec::new());
    let multiply = |parts: &mut [Part], by: f64| parts.iter_mut().for_each(|p| p.weight *= by);

    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut len = c.len_utf8();
        match c {
            '\\' => {
                let escaped = rest[1..].starts_with(['(', ')', '[', ']', '\\']);
                len += usize::from(escaped);
                parts.push(Part::new(&rest[1..len]));
            }
            '(' => round.push(parts.len()),
            '[' => square.push(parts.len()),
            ':' => {
                let weight = weight(rest);
                match (weight, round.last()) {
                    (Some((number, written)), Some(&start)) => {
                        let by = number
                            .parse()
                            .ok()
                            .filter(|by: &f64| by.is_finite())
                            .ok_or_else(|| PromptError::Weight(number.to_owned()))?;
                        multiply(&mut parts[start..], by);
                        round.pop();
                        len = written;
                    }
                    (Some((_, written)), None) => {
                        len = written;
                        parts.push(Part::new(&rest[..len]));
                    }
                    _ => parts.push(Part::new(":")),
                }
            }
            ')' | ']' => {
                let (open, by) = match c {
                    ')' => (&mut round, MORE),
                    _ => (&mut square, LESS),
                };
                match open.pop() {
                    Some(start) => multiply(&mut parts[start..], by),
                    None => parts.push(Part::new(&rest[..len])),
                }
            }
            _ => {
                let special = |c| matches!(c, '\\' | '(' | ')' | '[' | ']' | ':');
                len = rest.find(special).unwrap_or(rest.len());
                cut_at_breaks(&rest[..len], &mut parts);
            }
        }
        rest = &rest[len..];
    }
    for start in round {
        multiply(&mut parts[start..], MORE);
    }
    for start in square {
        multiply(&mut parts[start..], LESS);
    }
    if parts.is_empty() {
        parts.push(Part::new(""));
    }
    parts.dedup_by(|next, last| {
        let same = next.weight == last.weight;
        if same {
            last.text.push_str(&next.text);
        }
        same
    });
    if let Some(part) = parts.iter().find(|part| !(part.weight as f32).is_finite()) {
        return Err(PromptError::Weight(part.weight.to_string()));
    }
    Ok(parts)
}

/// The number of `:number)`, and the length of the whole.
fn weight(text: &str) -> Option<(&str, usize)> {
    let after = text.strip_prefix(':')?.trim_start();
    let sign = usize::from(after.starts_with(['+', '-']));
    let digits = after[sign..]
        .find(|c: char| c != '.' && !c.is_ascii_digit())
        .filter(|len| *len > 0)?;
    let (number, rest) = after.split_at(sign + digits);
    let rest = rest.trim_start().strip_prefix(')')?;
    Some((number, text.len() - rest.len()))
}

/// Adds a text, `BREAK`s apart, with the spaces around those left out.
fn cut_at_breaks(text: &str, parts: &mut Vec<Part>) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut start = 0;
    let mut from = 0;
    while let Some(found) = text[from..].find(BREAK) {
        let (at, end) = (from + found, from + found + BREAK.len());
        from = end;
        if text[..at].ends_with(is_word) || text[end..].starts_with(is_word) {
            continue;
        }
        parts.push(Part::new(text[start..at].trim_end()));
        parts.push(Part {
            text: BREAK.into(),
            weight: BREAKS,
        });
        start = text.len() - text[end..].trim_start().len();
        from = start;
    }
    parts.push(Part::new(&text[start..]));
}

/// ComfyUI's emphasis, as `token_weights` of its `comfy/sd1_clip.py` reads it: `(text)` and `(text:1.3)`, nested too, where
/// a number replaces the weight around it; `\(` and `\)` are brackets of the text. Nothing else has a meaning. What is
/// not closed is text.
pub(super) fn comfy(text: &str) -> Result<Vec<Part>, PromptError> {
    let escaped = text
        .replace("\\)", "\u{0}\u{1}")
        .replace("\\(", "\u{0}\u{2}");
    let mut parts = Vec::new();
    // What is still to be read, the next one last: a text, its weight, and whether it may have groups in it.
    let mut left = vec![(escaped.as_str(), 1.0, true)];
    while let Some((text, weight, has_groups)) = left.pop() {
        if !(weight as f32).is_finite() {
            return Err(PromptError::Weight(weight.to_string()));
        }
        if !has_groups {
            parts.push(Part {
                text: text.replace("\u{0}\u{1}", ")").replace("\u{0}\u{2}", "("),
                weight,
            });
            continue;
        }
        left.extend(at_parentheses(text).into_iter().rev().map(|piece| {
            let Some(inside) = piece.strip_prefix('(').and_then(|p| p.strip_suffix(')')) else {
                return (piece, weight, false);
            };
            let colon = inside.rfind(':').filter(|at| *at > 0);
            let given = colon.and_then(|at| {
                let weight = inside[at + 1..].trim().parse().ok()?;
                Some((&inside[..at], weight, true))
            });
            given.unwrap_or((inside, weight * 1.1, true))
        }));
    }
    Ok(parts)
}

/// `parse_parentheses` of the same file: outermost groups and what is between them.
fn at_parentheses(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut depth) = (0, 0_i64);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => {
                if depth == 0 && start < at {
                    pieces.push(&text[start..at]);
                    start = at;
                }
                depth += 1;
            }
            b')' => {
                depth -= 1;
                if depth == 0 {
                    pieces.push(&text[start..=at]);
                    start = at + 1;
                }
            }
            _ => {}
        }
    }
    if start < text.len() {
        pieces.push(&text[start..]);
    }
    pieces
}
