//! When which bytes of a program's arena are in use.

use alloc::{vec, vec::Vec};

use crate::format::ALIGNMENT;
use crate::op::Role;
use crate::program::Program;
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
    /// The most bytes of the arena that hold something at one step, each buffer rounded up to 64: no arrangement of the
    /// buffers takes less. What is pinned counts at every step.
    pub fn bound_bytes(&self) -> u64 {
        let mut change = vec![0i128; self.len() + 1];
        for buffer in self.buffers() {
            let bytes = i128::from(buffer.bytes.next_multiple_of(ALIGNMENT));
            if buffer.offset >= self.pinned_bytes() {
                change[buffer.first] += bytes;
                change[buffer.last + 1] -= bytes;
            }
        }
        let (mut live, mut most) = (0, 0);
        for change in change {
            live += change;
            most = most.max(live);
        }
        self.pinned_bytes()
            .saturating_add(u64::try_from(most).unwrap_or(u64::MAX))
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
