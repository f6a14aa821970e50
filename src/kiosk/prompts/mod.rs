//! Where prompts come from.
//!
//! Which prompt is the next depends on the number of the picture and on a number that the kiosk has drawn by lot once, so that it goes on where
//! it was after the power has failed. Prompts that somebody sends (`feed`) are taken as they come.

mod feed;
mod folder;
mod lines;
mod template;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::str::FromStr;

use super::config::{ConfigError, Section};
pub(super) use feed::Feeds;
pub(super) use lines::MAX_LINE;
use template::Template;

/// The most prompts of a list.
const MAX_LIST: usize = 100_000;
/// The most times of a day.
const MAX_TIMES: usize = 1440;

/// In which order prompts are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As they stand.
    #[default]
    Listed,
    /// Each once in a round, and each round in another order.
    Shuffled,
}

impl FromStr for Order {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "listed" => Ok(Self::Listed),
            "shuffled" => Ok(Self::Shuffled),
            _ => Err("expected listed or shuffled"),
        }
    }
}

/// A source of prompts.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompts {
    /// Prompts that are there.
    List(Vec<String>, Order),
    /// A folder of text files, a prompt a line; read anew for each picture.
    Folder(PathBuf, Order),
    /// A FIFO, a prompt a line.
    Fifo(PathBuf),
    /// Standard input, a prompt a line.
    Stdin,
    /// A text with words in braces, each of which is one of a list.
    Template(Template),
    /// Other sources from a time of day on: minutes since midnight, in order.
    Schedule(Vec<(u32, Prompts)>),
}

/// What a choice depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// The picture's number.
    pub(super) number: u64,
    /// What the kiosk has drawn by lot.
    pub(super) chance: u64,
    /// Minutes since midnight.
    pub(super) minute: u32,
}

impl Prompts {
    pub(super) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let list = section.texts("list")?;
        let folder = section.text("folder")?;
        let fifo = section.text("fifo")?;
        let stdin = section.flag("stdin")?.filter(|on| *on);
        let template = section.text("template")?;
        let words = section.section("words")?;
        let times = section.sections("schedule")?;
        let order = section.said::<Order>("order")?;
        // A name that is misspelt is the reason for whatever else is missing.
        section.end()?;
        let said = [
            list.is_some(),
            folder.is_some(),
            fifo.is_some(),
            stdin.is_some(),
            template.is_some(),
            !times.is_empty(),
        ];
        if said.iter().filter(|is_said| **is_said).count() != 1 {
            return Err(section.wrong(
                "list",
                "exactly one of `list`, `folder`, `fifo`, `stdin`, `template` and `schedule` says where prompts come from",
            ));
        }
        if order.is_some() && list.is_none() && folder.is_none() {
            return Err(section.wrong("order", "only a list or a folder has one"));
        }
        if words.is_some() && template.is_none() {
            return Err(section.wrong("words", "only a template has words"));
        }
        let order = order.unwrap_or_default();
        if let Some(list) = list {
            check_list(section, "list", &list)?;
            return Ok(Self::List(list, order));
        }
        if let Some(template) = template {
            return Template::read(section, &template, words).map(Self::Template);
        }
        if let Some(folder) = folder {
            return Ok(Self::Folder(folder.into(), order));
        }
        if let Some(fifo) = fifo {
            return Ok(Self::Fifo(fifo.into()));
        }
        if stdin.is_some() {
            return Ok(Self::Stdin);
        }
        if times.len() > MAX_TIMES {
            return Err(section.wrong("schedule", &format!("{MAX_TIMES} times are the most")));
        }
        let mut schedule = Vec::new();
        for mut time in times {
            let from = time.parsed("from", minutes)?;
            let from = from.ok_or_else(|| time.wrong("from", "a time such as 07:30 expected"))?;
            let prompts = Self::read(&mut time)?;
            if matches!(prompts, Self::Schedule(_)) {
                return Err(time.wrong("schedule", "a schedule has no schedule"));
            }
            if schedule.iter().any(|(other, _)| *other == from) {
                return Err(time.wrong("from", "the time is there twice"));
            }
            schedule.push((from, prompts));
        }
        schedule.sort_by_key(|(from, _)| *from);
        Ok(Self::Schedule(schedule))
    }

    /// The source that counts at a time of day: of a schedule the last that has begun, today or yesterday.
    pub(super) fn at(&self, minute: u32) -> &Self {
        match self {
            Self::Schedule(times) => {
                let begun = times.iter().rev().find(|(from, _)| *from <= minute);
                begun.or(times.last()).map_or(self, |(_, prompts)| prompts)
            }
            other => other,
        }
    }

    /// Whether somebody sends them at a time of day.
    pub(super) fn are_sent(&self, minute: u32) -> bool {
        matches!(self.at(minute), Self::Fifo(_) | Self::Stdin)
    }

    /// The prompt of a turn. `None` if there is none: nobody has sent one, or it is told in the log why not.
    pub(super) fn next(&self, turn: Turn, feeds: &mut Feeds) -> Option<String> {
        match self.at(turn.minute) {
            Self::List(list, order) => Some(list[order.index(turn, list.len())].clone()),
            Self::Folder(path, order) => folder::next(path, *order, turn, feeds.said()),
            Self::Template(template) => Some(template.fill(turn)),
            fed @ (Self::Fifo(_) | Self::Stdin) => feeds.next(fed),
            // The last of a schedule is no schedule.
            Self::Schedule(_) => None,
        }
    }
}

impl Order {
    /// Which of `len` has its turn.
    fn index(self, turn: Turn, len: usize) -> usize {
        let place = (turn.number % len.max(1) as u64) as usize;
        match self {
            Self::Listed => place,
            Self::Shuffled => {
                let round = turn.number / len.max(1) as u64;
                let mut state = mixed(turn.chance ^ mixed(round));
                // Fisher and Yates; a round is as good as any other, so the remainder's bias does not matter.
                let mut order: Vec<u32> = (0..len as u32).collect();
                for i in (1..len).rev() {
                    state = mixed(state);
                    order.swap(i, (state % (i as u64 + 1)) as usize);
                }
                order.get(place).map_or(0, |index| *index as usize)
            }
        }
    }
}

/// SplitMix64's step (Steele, Lea and Flood, 2014).
fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn check_list(section: &Section, key: &str, list: &[String]) -> Result<(), ConfigError> {
    if list.is_empty() || list.len() > MAX_LIST {
        return Err(section.wrong(key, &format!("1 to {MAX_LIST} texts expected")));
    }
    for (text, number) in list.iter().zip(1..) {
        if text.trim().is_empty() {
            return Err(section.wrong(key, &format!("text {number} is empty")));
        }
        if text.len() > MAX_LINE {
            let reason = format!(
                "text {number} has {} bytes, {MAX_LINE} are the most",
                text.len()
            );
            return Err(section.wrong(key, &reason));
        }
    }
    Ok(())
}

/// `07:30`.
fn minutes(text: &str) -> Result<u32, String> {
    let error = || "expected a time of day such as 07:30".to_owned();
    let (hours, minutes) = text.split_once(':').ok_or_else(error)?;
    let digits = |text: &str, below: u32| -> Result<u32, String> {
        let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|number| is_number && *number < below)
            .ok_or_else(error)
    };
    Ok(digits(hours, 24)? * 60 + digits(minutes, 60)?)
}
