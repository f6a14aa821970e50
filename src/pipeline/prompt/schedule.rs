//! What of a prompt is said at which evaluation: `[from:to:when]` and `[a|b]`.
//!
//! The grammar is that of the WebUI's `modules/prompt_parser.py` (`get_learned_conditioning_prompt_schedules`):
//!
//! ```text
//! start:      (prompt | one of []():)*
//! prompt:     (emphasized | scheduled | alternate | plain)*
//! emphasized: "(" prompt ")" | "(" prompt ":" prompt ")" | "[" prompt "]"
//! scheduled:  "[" [prompt ":"] prompt ":" number "]"
//! alternate:  "[" prompt ("|" [prompt])+ "]"
//! plain:      anything but \[]():| , or a backslash and any character but a newline
//! ```
//!
//! A bracket or colon that belongs to none of these stands for itself, but only outside of all brackets that do. A `|` or
//! a backslash that belongs to none makes the whole prompt one plain text, as there. Emphasis stays in the texts: it is
//! [`super::attention`]'s.
//!
//! One pass with a stack instead of a general parser: a group whose inside does not fit can be part of no other group, so
//! it and all that are open around it stand for themselves.

use std::ops::Range;

/// A prompt cut at its brackets.
#[derive(Debug)]
pub(super) struct Scheduled<'p> {
    prompt: &'p str,
    tokens: Vec<Token>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
enum Token {
    Text(Range<usize>),
    /// The group of that number.
    Open(usize),
    /// Between two branches of the group that is open.
    Next,
    Close,
}

/// What a pair of brackets is.
enum Kind {
    /// Emphasis, which stays in the text.
    Kept,
    Group(Group),
}

#[derive(Debug)]
enum Group {
    /// The first branch up to an evaluation, the second after it. If there is one only, it is the second.
    Switch { when: Number, branches: usize },
    /// Each branch for one evaluation, in turn.
    Turns { branches: usize },
}

/// A number as it is written: a share of the evaluations if it has a point, else a count of them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Number {
    value: f64,
    is_share: bool,
}

impl Number {
    /// The last evaluation before the switch, at most `count`.
    fn of(self, count: usize) -> i64 {
        let value = if self.is_share {
            self.value * count as f64
        } else {
            self.value
        };
        (value as i64).min(count as i64)
    }
}

/// A group that is not closed yet.
struct Open {
    /// Its token.
    token: usize,
    square: bool,
    /// The tokens of its colons.
    colons: Vec<usize>,
    /// The tokens of its bars.
    bars: Vec<usize>,
}

impl<'p> Scheduled<'p> {
    pub(super) fn parse(prompt: &'p str) -> Self {
        Self::cut(prompt).unwrap_or_else(|| Scheduled {
            prompt,
            tokens: vec![Token::Text(0..prompt.len())],
            groups: Vec::new(),
        })
    }

    /// `None` if the grammar has no place for a `|` or a backslash.
    fn cut(prompt: &'p str) -> Option<Self> {
        let mut parsed = Scheduled {
            prompt,
            tokens: Vec::new(),
            groups: Vec::new(),
        };
        let mut open: Vec<Open> = Vec::new();
        let mut characters = prompt.char_indices();
        while let Some((at, c)) = characters.next() {
            let token = parsed.tokens.len();
            match c {
                '\\' => {
                    characters.next().filter(|(_, c)| *c != '\n')?;
                    parsed.text(at..characters.offset());
                    continue;
                }
                '(' | '[' => open.push(Open {
                    token,
                    square: c == '[',
                    colons: Vec::new(),
                    bars: Vec::new(),
                }),
                ')' | ']' => match open.pop() {
                    Some(group) if group.square == (c == ']') => {
                        match parsed.kind(&group) {
                            Some(kind) => {
                                parsed.close(&group, kind, at);
                                continue;
                            }
                            None => stand_for_themselves(open.drain(..).chain([group]))?,
                        };
                    }
                    Some(group) => stand_for_themselves(open.drain(..).chain([group]))?,
                    None => {}
                },
                ':' => {
                    if let Some(group) = open.last_mut() {
                        group.colons.push(token);
                    }
                }
                '|' => open.last_mut()?.bars.push(token),
                _ => {
                    parsed.text(at..at + c.len_utf8());
                    continue;
                }
            }
            // A token of its own, which may become more than text.
            parsed.tokens.push(Token::Text(at..at + 1));
        }
        stand_for_themselves(open)?;
        Some(parsed)
    }

    /// Adds text to the last token, if that is plain text too.
    fn text(&mut self, range: Range<usize>) {
        if let Some(Token::Text(last)) = self.tokens.last_mut() {
            let special = |c| matches!(c, '(' | ')' | '[' | ']' | ':' | '|');
            let stands_alone = last.len() == 1 && self.prompt[last.clone()].starts_with(special);
            if !stands_alone {
                last.end = range.end;
                return;
            }
        }
        self.tokens.push(Token::Text(range));
    }

    /// What a group is, `None` if nothing.
    fn kind(&self, group: &Open) -> Option<Kind> {
        let (colons, bars) = (group.colons.len(), group.bars.len());
        match (group.square, colons, bars) {
            (_, 0, 0) | (false, 1, 0) => Some(Kind::Kept),
            (true, 0, _) => Some(Kind::Group(Group::Turns { branches: bars + 1 })),
            (true, 1 | 2, 0) => {
                let [Token::Text(range)] = &self.tokens[group.colons[colons - 1] + 1..] else {
                    return None;
                };
                Some(Kind::Group(Group::Switch {
                    when: number(self.prompt[range.clone()].trim())?,
                    branches: colons,
                }))
            }
            _ => None,
        }
    }

    /// Closes a group with the bracket at `at`. Unless it is emphasis, its brackets, colons and bars are no longer text.
    fn close(&mut self, open: &Open, kind: Kind, at: usize) {
        let Kind::Group(group) = kind else {
            self.tokens.push(Token::Text(at..at + 1));
            return;
        };
        let id = self.groups.len();
        self.tokens[open.token] = Token::Open(id);
        let mut between = &open.bars[..];
        if let Group::Switch { branches, .. } = group {
            // The last colon, and the number behind it.
            self.tokens.truncate(self.tokens.len() - 2);
            between = &open.colons[..branches - 1];
        }
        for token in between {
            self.tokens[*token] = Token::Next;
        }
        self.tokens.push(Token::Close);
        self.groups.push(group);
    }

    /// Those of `count` evaluations, from 1, that are the last of a text.
    pub(super) fn ends(&self, count: usize) -> Vec<usize> {
        let mut ends = vec![count];
        for group in &self.groups {
            match group {
                Group::Turns { .. } => ends.extend(1..=count),
                Group::Switch { when, .. } => {
                    ends.extend(usize::try_from(when.of(count)).ok().filter(|end| *end >= 1));
                }
            }
            ends.sort_unstable();
            ends.dedup();
        }
        ends
    }

    /// The text of an evaluation, from 1.
    pub(super) fn at(&self, evaluation: usize, count: usize) -> String {
        let mut text = String::new();
        // For each open group, the branch that is said and the one that is being read.
        let mut open: Vec<(usize, usize)> = Vec::new();
        let mut silent = 0;
        for token in &self.tokens {
            match token {
                Token::Text(range) if silent == 0 => text.push_str(&self.prompt[range.clone()]),
                Token::Text(_) => {}
                Token::Open(id) => {
                    let (said, read) = match &self.groups[*id] {
                        Group::Switch { when, branches } => (
                            usize::from(evaluation as i64 > when.of(count)),
                            2 - branches,
                        ),
                        Group::Turns { branches } => ((evaluation - 1) % branches, 0),
                    };
                    silent += usize::from(said != read);
                    open.push((said, read));
                }
                Token::Next => {
                    if let Some((said, read)) = open.last_mut() {
                        silent -= usize::from(said != read);
                        *read += 1;
                        silent += usize::from(said != read);
                    }
                }
                Token::Close => {
                    if let Some((said, read)) = open.pop() {
                        silent -= usize::from(said != read);
                    }
                }
            }
        }
        text
    }
}

/// Lets groups be text. `None` if one has a `|`, which cannot be.
fn stand_for_themselves(groups: impl IntoIterator<Item = Open>) -> Option<()> {
    groups
        .into_iter()
        .all(|group| group.bars.is_empty())
        .then_some(())
}

/// A number with a sign, as lark's `SIGNED_NUMBER`: digits with or without a point and an exponent.
fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fits = !(whole.is_empty() && part.is_empty()) && all_digits(whole) && all_digits(part);
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && all_digits(exponent)
    });
    (fits && exponent_fits).then_some(())?;
    Some(Number {
        value: text.parse().ok()?,
        is_share: text.contains('.'),
    })
}
