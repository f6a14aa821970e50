//! A section of a configuration: values are asked for by name, and what was not asked for is unknown.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::ConfigError;

/// A table of TOML, and the names that were asked for.
pub(crate) struct Section {
    /// The names of the sections around it, each with a dot behind it.
    path: String,
    table: toml::Table,
    known: Vec<&'static str>,
}

impl Section {
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let table = text.parse::<toml::Table>().map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            ConfigError::Syntax {
                line: text.as_bytes()[..start]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count()
                    + 1,
                reason: error.message().replace('\n', ", "),
            }
        })?;
        Ok(Self {
            path: String::new(),
            table,
            known: Vec::new(),
        })
    }

    /// The error of a key's value.
    pub(crate) fn wrong(&self, key: &str, reason: &str) -> ConfigError {
        ConfigError::Value {
            key: format!("{}{key}", self.path),
            reason: reason.to_owned(),
        }
    }

    pub(crate) fn take(&mut self, key: &'static str) -> Option<toml::Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Result<Option<String>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a text in quotes expected")),
        }
    }

    pub(crate) fn flag(&mut self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(toml::Value::Boolean(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.wrong(key, "true or false expected")),
        }
    }

    pub(crate) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConfigError> {
        let number = match self.take(key) {
            None => return Ok(None),
            Some(toml::Value::Integer(number)) => u64::try_from(number).ok(),
            Some(_) => None,
        };
        let number = number
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let (least, most) = range.into_inner();
                self.wrong(
                    key,
                    &format!("a whole number from {least} to {most} expected"),
                )
            })?;
        Ok(Some(number))
    }

    /// A text, or a number as text, that is read further.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let text = match self.take(key) {
            None => return Ok(None),
            Some(toml::Value::String(text)) => text,
            Some(toml::Value::Integer(number)) => number.to_string(),
            Some(_) => return Err(self.wrong(key, "a text in quotes expected")),
        };
        let value = parse(&text).map_err(|reason| self.wrong(key, &reason))?;
        Ok(Some(value))
    }

    /// As [`Section::parsed`], by the type.
    pub(crate) fn said<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        self.parsed(key, |text| {
            text.parse().map_err(|error: T::Err| error.to_string())
        })
    }

    pub(crate) fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => texts(value)
                .map(Some)
                .ok_or_else(|| self.wrong(key, "a list of texts expected, such as [\"a\", \"b\"]")),
        }
    }

    fn inner(&self, path: String, table: toml::Table) -> Self {
        Self {
            path: format!("{}{path}.", self.path),
            table,
            known: Vec::new(),
        }
    }

    pub(crate) fn section(&mut self, key: &'static str) -> Result<Option<Self>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(toml::Value::Table(table)) => Ok(Some(self.inner(key.to_owned(), table))),
            Some(_) => Err(self.wrong(key, &format!("a section expected: [{}{key}]", self.path))),
        }
    }

    /// Sections of one name; one in single brackets is one.
    pub(crate) fn sections(&mut self, key: &'static str) -> Result<Vec<Self>, ConfigError> {
        let list = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(toml::Value::Table(table)) => return Ok(vec![self.inner(key.to_owned(), table)]),
            Some(toml::Value::Array(list)) => list,
            Some(_) => Vec::new(),
        };
        let section = |(i, value)| match value {
            toml::Value::Table(table) => Some(self.inner(format!("{key}[{i}]"), table)),
            _ => None,
        };
        let sections: Option<Vec<_>> = (1_usize..).zip(list).map(section).collect();
        let sections = sections.filter(|sections| !sections.is_empty());
        sections
            .ok_or_else(|| self.wrong(key, &format!("sections expected: [[{}{key}]]", self.path)))
    }

    /// A section as JSON, whose keys are somebody else's.
    pub(crate) fn json(&mut self, key: &'static str) -> Result<Map<String, Value>, ConfigError> {
        let Some(section) = self.section(key)? else {
            return Ok(Map::new());
        };
        match serde_json::to_value(&section.table) {
            Ok(Value::Object(map)) => Ok(map),
            _ => Err(self.wrong(key, "a section of plain values expected")),
        }
    }

    /// What is left, key by key: for sections whose keys are the user's.
    pub(crate) fn rest(self) -> impl Iterator<Item = (String, toml::Value)> {
        self.table.into_iter()
    }

    /// Fails if there is something that nobody has asked for.
    pub(crate) fn end(&self) -> Result<(), ConfigError> {
        let Some(key) = self.table.keys().next() else {
            return Ok(());
        };
        Err(ConfigError::Unknown {
            key: format!("{}{key}", self.path),
            nearest: nearest(key, &self.known).map(str::to_owned),
        })
    }
}

/// The texts of a list.
pub(crate) fn texts(value: toml::Value) -> Option<Vec<String>> {
    let toml::Value::Array(list) = value else {
        return None;
    };
    let text = |value| match value {
        toml::Value::String(text) => Some(text),
        _ => None,
    };
    list.into_iter().map(text).collect()
}

/// The name that is most like another, if any is.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), *known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.7)
        .map(|(_, known)| known)
}
