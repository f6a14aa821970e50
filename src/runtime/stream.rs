//! Weights within a budget: a thread reads ahead in the order of execution and lets go of what is behind.
//!
//! ```text
//!           behind            now            ahead
//! weights ----------[ let go ][ step ][ brought by the reader ]----------
//!                   |<------------- the window ------------->|
//! ```
//! The reader walks the steps of the program that runs. It brings a step's weights once they fit in the window beside all
//! that was brought before and is still in use, and lets go of a step's weights when the step has run in every lane. Where
//! lanes take turns, all the weights of a turn are there until the last lane has had it. What the window has no room for is
//! brought when it is waited for and all that could be let go has been. Both walks follow the program's own table, so
//! nothing is allocated.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kiln_package::{Program, Space, Step};

use super::os::pages::Pages;
use super::{Model, ProgramId};

/// What a stream has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streamed {
    /// Bytes of weights brought in.
    pub bytes: u64,
    /// How long that took.
    pub reading: Duration,
    /// How long steps have waited for their weights; the rest of the reading went on while others computed.
    pub waited: Duration,
}

/// The reader and what it is told.
pub(super) struct Stream {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

/// How weights are read.
pub(super) struct Reading {
    /// The system may keep the file's pages of the weights before this one from one step to the next.
    pub(super) cached: u64,
    /// The size of pages; the system's if `None`.
    pub(super) page: Option<usize>,
    /// Is told how many bytes are about to be read.
    pub(super) before: Option<Box<dyn Fn(u64) + Send + Sync>>,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            cached: u64::MAX,
            page: None,
            before: None,
        }
    }
}

struct Shared {
    /// As in [`Reading`].
    cached: u64,
    /// The most bytes of weights and activations that are resident together, whole pages counted.
    room: u64,
    pages: Pages,
    before: Option<Box<dyn Fn(u64) + Send + Sync>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The program that runs: a graph and the number of its stage.
    program: Option<(ProgramId, usize)>,
    /// The most bytes of its weights that are resident, whole pages counted.
    window: u64,
    /// Counts programs, so that the reader sees that another has begun.
    round: u64,
    /// Steps that have run.
    left: usize,
    /// Steps whose weights are there.
    ready: usize,
    /// Steps whose weights are waited for, or were.
    wanted: usize,
    /// Why the weights of the step `ready` could not be read.
    failed: Option<io::Error>,
    /// Nothing of the last program is resident.
    empty: bool,
    quit: bool,
    streamed: Streamed,
}

impl Stream {
    /// A stream of `model`'s weights, of which at most `room` bytes are resident together with the arena.
    pub(super) fn new(model: &Model, room: u64, reading: Reading) -> io::Result<Self> {
        let weights = model.package().weights();
        let shared = Arc::new(Shared {
            cached: reading.cached,
            room,
            pages: match reading.page {
                Some(size) => Pages::with_size(weights, size),
                None => Pages::of(weights),
            },
            before: reading.before,
            state: Mutex::new(State {
                empty: true,
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        let (model, own) = (model.clone(), Arc::clone(&shared));
        let reader = thread::Builder::new()
            .name("kiln-reader".into())
            .spawn(move || own.read(&model))?;
        Ok(Stream {
            shared,
            reader: Some(reader),
        })
    }

    /// A program begins: the stage of that number of a graph, with so many bytes of activations. What the one before has left
    /// is let go first.
    pub(super) fn begin(&self, id: ProgramId, stage: usize, arena_bytes: u64) {
        let mut state = self.shared.lock();
        state.window = self.shared.room.saturating_sub(arena_bytes);
        state.program = Some((id, stage));
        state.round += 1;
        (state.left, state.ready, state.wanted) = (0, 0, 0);
        state.failed = None;
        state.empty = false;
        self.shared.changed.notify_all();
    }

    /// Waits for the weights of a step.
    pub(super) fn reach(&self, step: usize) -> io::Result<()> {
        let mut state = self.shared.lock();
        if state.ready > step {
            return Ok(());
        }
        let start = Instant::now();
        state.wanted = step + 1;
        self.shared.changed.notify_all();
        while state.ready <= step {
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            state = self.shared.wait(state);
        }
        state.streamed.waited += start.elapsed();
        Ok(())
    }

    /// The step has run in all lanes.
    pub(super) fn leave(&self, step: usize) {
        let mut state = self.shared.lock();
        state.left = step + 1;
        self.shared.changed.notify_all();
    }

    /// The program has ended, or is broken off. Returns when none of its weights is resident.
    pub(super) fn end(&self) {
        let mut state = self.shared.lock();
        state.program = None;
        state.round += 1;
        self.shared.changed.notify_all();
        while !state.empty && !self.is_gone() {
            state = self.shared.wait(state);
        }
    }

    /// What was done until now.
    pub(super) fn streamed(&self) -> Streamed {
        self.shared.lock().streamed
    }

    fn is_gone(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.quit = true;
        state.round += 1;
        self.shared.changed.notify_all();
        drop(state);
        if let Some(reader) = self.reader.take() {
            // The reader has nothing to panic at.
            let _ = reader.join();
        }
    }
}

/// The parts of the weights that a step reads, in order, those that touch as one.
struct Parts {
    ranges: [(u64, u64); MAX_PARTS],
    count: usize,
}

/// How far from one band of a picture the next reads the same weights, in steps, or farther.
const NEAR: usize = 16;

/// The largest block of pages that the system keeps together.
const BLOCK: u64 = 4 << 20;

/// No operator has more operands.
const MAX_PARTS: usize = 16;

impl Parts {
    /// Those of a step. Parts less than `gap` apart are one: the page between them comes anyway.
    fn of(step: &Step<'_>, gap: usize) -> Self {
        let mut parts = Parts {
            ranges: [(0, 0); MAX_PARTS],
            count: 0,
        };
        for operand in step.operands() {
            if operand.space == Space::Weights && operand.bytes > 0 && parts.count < MAX_PARTS {
                parts.ranges[parts.count] = (operand.offset, operand.offset + operand.bytes);
                parts.count += 1;
            }
        }
        let ranges = &mut parts.ranges[..parts.count];
        ranges.sort_unstable();
        let mut count = 0;
        for index in 0..ranges.len() {
            let (begin, end) = ranges[index];
            match count {
                0 => count = 1,
                _ if begin <= ranges[count - 1].1 + gap as u64 => {
                    ranges[count - 1].1 = ranges[count - 1].1.max(end);
                    continue;
                }
                _ => count += 1,
            }
            ranges[count - 1] = (begin, end);
        }
        parts.count = count;
        parts
    }

    fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges[..self.count].iter().copied()
    }

    fn retain(&mut self, keep: impl Fn((u64, u64)) -> bool) {
        let mut count = 0;
        for index in 0..self.count {
            if keep(self.ranges[index]) {
                self.ranges[count] = self.ranges[index];
                count += 1;
            }
        }
        self.count = count;
    }

    fn bytes(&self) -> u64 {
        self.iter().map(|(begin, end)| end - begin).sum()
    }
}

/// Whether one of these steps, none of which is far away, reads a part of the weights too.
fn also(steps: Range<usize>, part: (u64, u64), of: impl Fn(usize) -> Option<Parts>) -> bool {
    let mut steps = steps.filter_map(of);
    steps.any(|parts| parts.iter().any(|other| other == part))
}

/// Bytes of weights that the step with the most of them reads, of all of a program's. Steps of one turn count together:
/// each lane reads them.
pub(super) fn largest_turn(program: &Program<'_>) -> u64 {
    let of = |index: usize| program.step(index).map(|step| Parts::of(&step, 4096));
    let turns = program.turns().map(|turn| {
        let first = turn.steps.start;
        let bytes = turn.steps.map(|index| {
            let before = first.max(index.saturating_sub(NEAR))..index;
            let parts = of(index);
            let fresh = parts
                .iter()
                .flat_map(Parts::iter)
                .filter(|part| !also(before.clone(), *part, of));
            fresh.map(|(begin, end)| end - begin).sum::<u64>()
        });
        bytes.sum()
    });
    turns.max().unwrap_or(0)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader's life.
    fn read(&self, model: &Model) {
        let mut seen = 0;
        let mut state = self.lock();
        loop {
            if state.quit {
                return;
            }
            match state.program.filter(|_| state.round != seen) {
                Some((id, stage)) => {
                    seen = state.round;
                    drop(state);
                    if let Some(program) = model.stages(id).nth(stage) {
                        self.follow(seen, &program, model);
                    }
                    state = self.lock();
                }
                None => {
                    state.empty = true;
                    self.changed.notify_all();
                    state = self.wait(state);
                }
            }
        }
    }

    /// Brings and lets go until the round is over.
    fn follow(&self, round: u64, program: &Program<'_>, model: &Model) {
        let pages = self.pages;
        let weights = model.package().weights();
        let parts_of = |index: usize| {
            let step = program.step(index);
            step.map(|step| Parts::of(&step, pages.size()))
        };
        let slice = |(begin, end): (u64, u64)| &weights[begin as usize..end as usize];
        // What a step before `until` reads too, as the bands of a picture read one matrix, stays for it.
        let let_go = |index: usize, until: usize| -> u64 {
            let later = index + 1..until.min(index + 1 + NEAR);
            let parts = parts_of(index);
            let parts = parts.iter().flat_map(Parts::iter);
            let last = parts.filter(|part| !also(later.clone(), *part, parts_of));
            last.map(|part| {
                pages.let_go(slice(part));
                if part.0 >= self.cached {
                    // Of what the system keeps in blocks, one that an earlier part has ended in can go now.
                    model.forget((part.0.saturating_sub(BLOCK).max(self.cached), part.1));
                }
                pages.bytes(part)
            })
            .sum()
        };
        let (mut ahead, mut behind, mut resident) = (0, 0, 0);
        // What of a step's is not there yet.
        let fresh = |index: usize, behind: usize| {
            let before = behind.max(index.saturating_sub(NEAR))..index;
            let mut parts = parts_of(index)?;
            parts.retain(|part| !also(before.clone(), part, parts_of));
            Some(parts)
        };
        let held = |parts: &Parts| -> u64 { parts.iter().map(|part| pages.bytes(part)).sum() };
        let mut next = fresh(0, 0);
        loop {
            let mut state = self.lock();
            loop {
                let room = |parts: &Parts| {
                    resident + held(parts) <= state.window || resident == 0 || ahead < state.wanted
                };
                if state.round != round {
                    drop(state);
                    (behind..ahead).for_each(|index| _ = let_go(index, ahead));
                    return;
                }
                if behind < state.left.min(ahead)
                    || (state.failed.is_none() && next.as_ref().is_some_and(room))
                {
                    break;
                }
                state = self.wait(state);
            }
            if behind < state.left.min(ahead) {
                drop(state);
                // The next step counts on what it has not to bring.
                resident -= let_go(behind, ahead + 1);
                behind += 1;
                continue;
            }
            drop(state);
            let Some(parts) = &next else { continue };
            let start = Instant::now();
            if let Some(before) = &self.before {
                before(parts.bytes());
            }
            let brought = parts.iter().try_for_each(|part| pages.bring(slice(part)));
            let mut state = self.lock();
            match brought {
                Ok(()) => {
                    resident += held(parts);
                    state.streamed.bytes += parts.bytes();
                    state.streamed.reading += start.elapsed();
                    ahead += 1;
                    if state.round == round {
                        state.ready = ahead;
                    }
                    next = fresh(ahead, behind);
                }
                Err(error) => state.failed = Some(error),
            }
            self.changed.notify_all();
        }
    }
}
