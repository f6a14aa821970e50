//! A text with words in braces.

use std::fs;
use std::path::Path;

use super::{Turn, check_list, mixed};
use crate::kiosk::config::{ConfigError, Section, nearest, texts};

/// The longest file of words, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// `{animal} in {place}`: each word is one of a list, chosen anew for each picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Texts, and the list whose word follows each; the last has none.
    parts: Vec<(String, Option<usize>)>,
    lists: Vec<Vec<String>>,
}

impl Template {
    pub(super) fn read(
        section: &Section,
        text: &str,
        words: Option<Section>,
    ) -> Result<Self, ConfigError> {
        let mut names = Vec::new();
        let mut lists = Vec::new();
        if let Some(words) = words {
            for (name, value) in words.rest() {
                let key = format!("words.{name}");
                let list = match value {
                    toml::Value::String(path) => {
                        file(Path::new(&path)).map_err(|reason| section.wrong(&key, &reason))?
                    }
                    value => texts(value).ok_or_else(|| {
                        section.wrong(
                            &key,
                            "a list of texts expected, or the name of a file with one a line",
                        )
                    })?,
                };
                check_list(section, &key, &list)?;
                names.push(name);
                lists.push(list);
            }
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| section.wrong("template", "a brace is opened and not closed"))?;
            let list = names
                .iter()
                .position(|known| known == name)
                .ok_or_else(|| {
                    let known: Vec<&str> = names.iter().map(String::as_str).collect();
                    let hint = match nearest(name, &known) {
                        Some(known) => format!(", did you mean {{{known}}}?"),
                        None => String::new(),
                    };
                    section.wrong(
                        "template",
                        &format!("there is no list `words.{name}`{hint}"),
                    )
                })?;
            parts.push((before.to_owned(), Some(list)));
            rest = after;
        }
        parts.push((rest.to_owned(), None));
        let is_used = |list| parts.iter().any(|(_, used)| *used == Some(list));
        if let Some(unused) = (0..lists.len()).find(|list| !is_used(*list)) {
            let name = &names[unused];
            return Err(section.wrong(
                &format!("words.{name}"),
                &format!("{{{name}}} is not in the template"),
            ));
        }
        if text.trim().is_empty() || text.len() > super::MAX_LINE {
            return Err(section.wrong(
                "template",
                &format!("a text of 1 to {} bytes expected", super::MAX_LINE),
            ));
        }
        Ok(Self { parts, lists })
    }

    /// The prompt of a turn.
    pub(super) fn fill(&self, turn: Turn) -> String {
        let mut prompt = String::new();
        let mut state = mixed(turn.chance ^ mixed(turn.number));
        for (text, list) in &self.parts {
            prompt.push_str(text);
            if let Some(list) = list.map(|list| &self.lists[list]) {
                state = mixed(state);
                prompt.push_str(&list[(state % list.len() as u64) as usize]);
            }
        }
        prompt
    }
}

fn file(path: &Path) -> Result<Vec<String>, String> {
    let shown = path.display();
    let size = fs::metadata(path)
        .map_err(|error| format!("{shown}: {error}"))?
        .len();
    if size > MAX_FILE {
        return Err(format!("{shown}: {size} bytes, {MAX_FILE} are the most"));
    }
    let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    let words = text.lines().map(str::trim).filter(|word| !word.is_empty());
    Ok(words.map(str::to_owned).collect())
}
