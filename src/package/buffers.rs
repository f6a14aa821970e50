//! When which bytes of a program's arena are in use.

use alloc::{vec, vec::Vec};

use crate::format::ALIGNMENT;
use crate::op::Role;
use crate::program::{Ports, Program};
use crate::{Operand, Space};

/// A part of an arena and the steps during which it holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Bytes from the beginning of the arena.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// The step that writes it first; 0 for a program's input.
    pub first: usize,
    /// The last step that uses it; the last of all for a program's output and for what is pinned.
    pub last: usize,
}

impl Buffer {
    fn new(operand: &Operand, first: usize) -> Self {
        Buffer {
            offset: operand.offset,
            bytes: operand.bytes,
            first,
            last: first,
        }
    }

    fn touches(&self, operand: &Operand) -> bool {
        self.offset < operand.offset + operand.bytes && operand.offset < self.offset + self.bytes
    }
}

/// Whatever of the operand's bytes was written last is used at that step. An operand may be a part of a buffer, or made of
/// several that were written one by one.
fn use_at(buffers: &mut [Buffer], operand: &Operand, step: usize) {
    for index in (0..buffers.len()).rev() {
        let (older, newer) = buffers.split_at_mut(index + 1);
        let buffer = &mut older[index];
        let seen = buffer.touches(operand)
            && newer.iter().all(|newer| {
                newer.offset >= buffer.offset + buffer.bytes
                    || buffer.offset >= newer.offset + newer.bytes
            });
        if seen {
            buffer.last = step;
        }
    }
}

impl Program<'_> {
    /// The most bytes of so many lanes' arenas that hold something at one step, each buffer rounded up to 64: no
    /// arrangement of the buffers takes less. What is pinned counts at every step. While a lane has its turn, those before
    /// it hold what outlives the turn, and those after it what is older.
    pub fn bound_bytes(&self, lanes: u64) -> u64 {
        // What is in use at a step, and at it and the next.
        let mut live = vec![0u64; self.len()];
        let mut across = vec![0u64; self.len()];
        let all = self.buffers();
        for buffer in all.iter().filter(|b| b.offset >= self.pinned_bytes()) {
            let bytes = buffer.bytes.next_multiple_of(ALIGNMENT);
            let add = |sum: &mut u64| *sum = sum.saturating_add(bytes);
            live[buffer.first..=buffer.last].iter_mut().for_each(add);
            across[buffer.first..buffer.last].iter_mut().for_each(add);
        }
        // A lane that has not begun holds its inputs, and one that has ended its outputs.
        let ports = |ports: Ports| -> u64 {
            let own = ports.filter(|port| port.offset >= self.pinned_bytes());
            own.fold(0, |sum, port| {
                sum.saturating_add(port.bytes.next_multiple_of(ALIGNMENT))
            })
        };
        let inputs = ports(self.inputs());
        if let Some(last) = across.last_mut() {
            *last = ports(self.outputs());
        }
        let most = self.turns().map(|turn| {
            let most = live[turn.steps.clone()].iter().copied().max().unwrap_or(0);
            let waiting = match turn.apart {
                true => {
                    let older = turn.steps.start.checked_sub(1);
                    let older = older.map_or(inputs, |step| across[step]);
                    older.max(across[turn.steps.end - 1])
                }
                false => most,
            };
            most.saturating_add(waiting.saturating_mul(lanes.saturating_sub(1)))
        });
        self.pinned_bytes()
            .saturating_mul(lanes)
            .saturating_add(most.max().unwrap_or(0))
    }

    /// The arena's buffers, in the order in which they come into use. A buffer whose step writes in place goes on.
    pub fn buffers(&self) -> Vec<Buffer> {
        let mut buffers: Vec<Buffer> = self
            .inputs()
            .map(|port| Buffer::new(&port.operand(), 0))
            .collect();
        for (index, step) in self.steps().enumerate() {
            let op = step.op();
            let arena = || {
                step.operands()
                    .zip(op.slots())
                    .filter(|(operand, _)| operand.space == Space::Arena)
            };
            let mut in_place = None;
            for (operand, slot) in
                arena().filter(|(_, slot)| matches!(slot.role, Role::Input | Role::Optional))
            {
                use_at(&mut buffers, &operand, index);
                if op.in_place_slot() == Some(slot.name) {
                    in_place = Some(operand);
                }
            }
            for (operand, _) in
                arena().filter(|(_, slot)| matches!(slot.role, Role::Output | Role::Scratch))
            {
                if in_place != Some(operand) {
                    buffers.push(Buffer::new(&operand, index));
                }
            }
        }
        for port in self.outputs() {
            use_at(&mut buffers, &port.operand(), self.len().saturating_sub(1));
        }
        // What the earlier stages gave is there for the next run too.
        for buffer in buffers
            .iter_mut()
            .filter(|buffer| buffer.offset < self.pinned_bytes())
        {
            buffer.last = self.len().saturating_sub(1);
        }
        buffers
    }
}
