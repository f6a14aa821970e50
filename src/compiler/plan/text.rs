//! A program as text: a line for each port, each step and each operand.
//!
//! ```text
//! program unet step 64x64: arena 5376, pinned 256, chunks 3
//!   input sample [1, 4, 8, 8] f16 256+512 channels-last
//!   0 Linear "to_q" {rows: 64, k: 8, k2: 0, n: 16, activation: None}
//!     x arena f16 256+1024
//!     weight weights f16 0+256
//!     out arena f16 1280+2048
//!   output out_sample [1, 4, 8, 8] f16 256+512 channels-last
//! ```
//!
//! `a+b` is `b` bytes from `a` on. Rows are those for all chunks; `per-chunk` marks what has fewer of them for fewer chunks.
//! Where lanes share a part of the arena its size stands after the pinned bytes, and `joined` marks a step that is of one turn
//! with the next.

use std::fmt;

use kiln_package::{Operand, PortRecord, ProgramRecord, StepRecord};

/// Prints a program.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a>(pub &'a ProgramRecord);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProgramRecord {
            graph,
            stage,
            height,
            width,
            arena_bytes,
            pinned_bytes,
            shared_bytes,
            max_chunks,
            ..
        } = self.0;
        write!(f, "program {graph} {stage} {width}x{height}: ")?;
        write!(f, "arena {arena_bytes}, pinned {pinned_bytes}, ")?;
        if *shared_bytes > 0 {
            write!(f, "shared {shared_bytes}, ")?;
        }
        writeln!(f, "chunks {max_chunks}")?;
        self.0
            .inputs
            .iter()
            .try_for_each(|port| write_port(f, "input", port))?;
        self.0
            .steps
            .iter()
            .enumerate()
            .try_for_each(|(index, step)| write_step(f, index, step))?;
        self.0
            .outputs
            .iter()
            .try_for_each(|port| write_port(f, "output", port))
    }
}

fn mark(per_chunk: bool) -> &'static str {
    if per_chunk { " per-chunk" } else { "" }
}

fn write_port(f: &mut fmt::Formatter<'_>, kind: &str, port: &PortRecord) -> fmt::Result {
    let PortRecord {
        name,
        dtype,
        layout,
        shape,
        offset,
        bytes,
        per_chunk,
    } = port;
    writeln!(
        f,
        "  {kind} {name} {shape:?} {dtype} {offset}+{bytes} {layout}{}",
        mark(*per_chunk)
    )
}

fn write_step(f: &mut fmt::Formatter<'_>, index: usize, step: &StepRecord) -> fmt::Result {
    let mut attributes = Vec::new();
    step.op
        .for_each_attribute(|name, value| attributes.push(format!("{name}: {value:?}")));
    let (op, attributes) = (step.op.name(), attributes.join(", "));
    writeln!(
        f,
        "  {index} {op} {:?}{}{} {{{attributes}}}",
        step.name,
        mark(step.per_chunk),
        if step.joined { " joined" } else { "" }
    )?;
    for (slot, operand) in step
        .op
        .slots()
        .iter()
        .zip(&step.operands)
        .filter(|(_, operand)| !operand.is_empty())
    {
        let Operand {
            space,
            dtype,
            offset,
            bytes,
        } = operand;
        writeln!(f, "    {} {space} {dtype} {offset}+{bytes}", slot.name)?;
    }
    Ok(())
}
