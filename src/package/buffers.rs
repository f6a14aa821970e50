//! When which bytes of a program's arena are in use.

use alloc::vec::Vec;

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

impl Program<'_> {
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
                if let Some(buffer) = buffers
                    .iter_mut()
                    .rev()
                    .find(|buffer| buffer.touches(&operand))
                {
                    buffer.last = index;
                }
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
            if let Some(buffer) = buffers
                .iter_mut()
                .rev()
                .find(|buffer| buffer.touches(&port.operand()))
            {
                buffer.last = self.len().saturating_sub(1);
            }
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
