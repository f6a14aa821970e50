//! Lanes that take turns: what of the arena is there once for all of them, and when it holds something.

use core::iter::FusedIterator;
use core::ops::Range;

use crate::error::{PackageError, Place, What};
use crate::format::ALIGNMENT;
use crate::op::Role;
use crate::program::{Program, Step};
use crate::{Operand, Space};

/// Steps that are run in a lane before they are in the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The steps, by their indices; at least one.
    pub steps: Range<usize>,
    /// Whether the lanes run them one after the other. Else it is one step, which they run together.
    pub apart: bool,
}

/// The turns of a program, in order.
#[derive(Clone)]
pub struct Turns<'a> {
    program: Program<'a>,
    next: usize,
}

impl Iterator for Turns<'_> {
    type Item = Turn;

    fn next(&mut self) -> Option<Turn> {
        let first = self.next;
        let step = self.program.step(first)?;
        let (mut end, mut last) = (first + 1, step);
        while last.joined() {
            let Some(step) = self.program.step(end) else {
                break;
            };
            (end, last) = (end + 1, step);
        }
        self.next = end;
        Some(Turn {
            steps: first..end,
            apart: end > first + 1 || self.program.shares(&step),
        })
    }
}

impl FusedIterator for Turns<'_> {}

impl<'a> Program<'a> {
    /// Size of the part of the arena that each lane has for itself.
    pub fn lane_bytes(&self) -> u64 {
        self.arena_bytes().saturating_sub(self.shared_bytes())
    }

    /// The steps by turns.
    pub fn turns(&self) -> Turns<'a> {
        Turns {
            program: *self,
            next: 0,
        }
    }

    /// Whether a step has an operand in the bytes that all lanes share.
    fn shares(&self, step: &Step<'_>) -> bool {
        self.shared_bytes() > 0 && step.operands().any(|operand| self.is_shared(&operand))
    }

    fn is_shared(&self, operand: &Operand) -> bool {
        operand.space == Space::Arena && operand.offset >= self.lane_bytes()
    }
}

fn at_most(name: &'static str, limit: u64, found: u64) -> Result<(), What> {
    if found <= limit {
        Ok(())
    } else {
        Err(What::Range { name, limit, found })
    }
}

/// Checks what the lanes of a program share, whose ports and steps are sound by themselves. [`crate::format`] states the
/// rules.
pub(crate) fn check(program: &Program, place: Place) -> Result<(), PackageError> {
    let shared = program.shared_bytes();
    let here = |what| place.error(what);
    if !shared.is_multiple_of(ALIGNMENT) {
        return Err(here(What::Alignment {
            name: "shared bytes",
            alignment: ALIGNMENT,
            found: shared,
        }));
    }
    at_most("shared bytes", program.arena_bytes(), shared).map_err(here)?;
    let border = program.lane_bytes();
    at_most("pinned bytes", border, program.pinned_bytes()).map_err(here)?;
    let outside = |name, end| What::Outside {
        name,
        end,
        limit: border,
    };
    for (index, port) in program.inputs().chain(program.outputs()).enumerate() {
        let end = port.offset.saturating_add(port.bytes);
        if end > border {
            let port = Some(index as u32);
            return Err(Place { port, ..place }.error(outside("port", end)));
        }
    }
    let mut written = Written::default();
    let mut joined = false;
    for (index, step) in program.steps().enumerate() {
        let place = Place {
            step: Some(index as u32),
            ..place
        };
        if !joined {
            written.count = 0;
        }
        joined = step.joined();
        if joined && (shared == 0 || index + 1 == program.len()) {
            return Err(place.error(What::Joined));
        }
        if shared > 0 {
            check_step(program, &step, &mut written, place)?;
        }
    }
    Ok(())
}

/// Checks that a step reads of the shared bytes only what is `written` in its turn, and adds what it writes.
fn check_step(
    program: &Program,
    step: &Step,
    written: &mut Written,
    place: Place,
) -> Result<(), PackageError> {
    let border = program.lane_bytes();
    let op = step.op();
    let arena = || {
        op.slots()
            .iter()
            .zip(step.operands())
            .filter(|(_, operand)| operand.space == Space::Arena)
    };
    for (slot, operand) in arena() {
        let here = |what| {
            let slot = Some(slot.name);
            Err(Place { slot, ..place }.error(what))
        };
        // It was found to end within the arena.
        let end = operand.offset + operand.bytes;
        let read = matches!(slot.role, Role::Input | Role::Optional);
        if operand.offset < border && end > border {
            return here(What::Outside {
                name: "operand",
                end,
                limit: border,
            });
        }
        if read && program.is_shared(&operand) && !written.holds(operand.offset..end) {
            return here(What::Left);
        }
    }
    for (_, operand) in arena().filter(|(slot, _)| slot.role == Role::Output) {
        if program.is_shared(&operand) {
            written
                .add(operand.offset..operand.offset + operand.bytes)
                .map_err(|what| place.error(what))?;
        }
    }
    Ok(())
}

/// The most parts of the shared bytes that hold something in one turn, those that touch being one.
const MAX_PARTS: usize = 256;

/// Bytes that were written: disjoint ranges that do not touch, in no order.
struct Written {
    parts: [Range<u64>; MAX_PARTS],
    count: usize,
}

impl Default for Written {
    fn default() -> Self {
        Written {
            parts: [const { 0..0 }; MAX_PARTS],
            count: 0,
        }
    }
}

impl Written {
    fn holds(&self, range: Range<u64>) -> bool {
        self.parts[..self.count]
            .iter()
            .any(|part| part.start <= range.start && range.end <= part.end)
    }

    fn add(&mut self, mut range: Range<u64>) -> Result<(), What> {
        let mut index = 0;
        while index < self.count {
            let part = self.parts[index].clone();
            if part.start <= range.end && range.start <= part.end {
                range = part.start.min(range.start)..part.end.max(range.end);
                self.count -= 1;
                self.parts.swap(index, self.count);
                // What is larger now may touch one that it did not before.
                index = 0;
            } else {
                index += 1;
            }
        }
        let free = self.parts.get_mut(self.count).ok_or(What::Range {
            name: "parts of the shared bytes",
            limit: MAX_PARTS as u64,
            found: MAX_PARTS as u64 + 1,
        })?;
        *free = range;
        self.count += 1;
        Ok(())
    }
}
