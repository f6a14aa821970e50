//! The numbers of the file format.
//!
//! Header, [`HEADER_BYTES`]:
//!
//! | at | field |
//! |---|---|
//! | 0 | [`MAGIC`] |
//! | 8 | u32 version |
//! | 12 | u32 number of sections |
//! | 16 | u64 length of the file |
//! | 24 | u32 CRC-32C of the bytes before it and of the section table |
//! | 28 | u32 zero |
//!
//! The section table follows, [`SECTION_BYTES`] each: u32 id, u32 flags (bit 0: a reader that does not know the section may
//! skip it), u64 offset, u64 bytes, u32 CRC-32C (zero for the weights), u32 zero. Sections stand in the file in the
//! table's order, at multiples of [`ALIGNMENT`] (the weights of [`WEIGHTS_ALIGNMENT`]), with fewer than
//! [`WEIGHTS_ALIGNMENT`] zeros before each; the file ends with the last one.
//!
//! The programs section is a header of eight u32 (numbers of programs, ports, steps, operands, attribute words, bytes of
//! names, zero, zero), then those tables in that order without gaps:
//!
//! - program, [`PROGRAM_BYTES`]: u32 graph, stage, height, width, clip skip; u64 arena bytes, bytes of scratch per thread, pinned
//!   bytes, shared bytes; u32 first port, inputs, outputs, first step, steps, chunks. Programs are sorted by the first five
//!   fields, and no two have the same. The clip skip is at least 1 for a text encoder: 1 for the one that is whole, N for one whose last
//!   N - 1 layers are left out; it is 0 for all other graphs.
//! - port, [`PORT_BYTES`]: u32 name offset, name bytes, type, layout, rank, four sizes (1 past the rank), flags; u64
//!   offset, bytes. A program's inputs stand before its outputs.
//! - step, [`STEP_BYTES`]: u16 operator, attribute words, operands, flags; u32 first word, first operand, name offset,
//!   name bytes.
//! - operand, [`OPERAND_BYTES`]: u16 space, u16 type, u32 zero, u64 offset, u64 bytes. All zero for an empty slot.
//! - attribute words, u32.
//! - names: UTF-8, one after the other.
//!
//! # Stages
//!
//! A graph at a size is one program of stage `whole`, or one of `step` with one of `prompt`, one of `timestep` or both.
//! Then the arena of each begins with the same *pinned* bytes, a multiple of 64, which hold what the earlier stages give
//! to `step` and nothing else: every output of `prompt` and `timestep` lies there, and is an input of `step` of the same
//! name, type, sizes, place and flags; all other inputs and the outputs of `step` lie elsewhere. An operand that begins in
//! the pinned bytes is one of those ports, whole, and `step` only reads it. So the pinned bytes stay valid from one run of
//! `step` to the next. A `whole` program has none.
//!
//! # Lanes
//!
//! The last *shared* bytes of an arena, a multiple of 64, are there once for all lanes; what is before them each lane has
//! for itself. An operand lies on one side of that border, a port before it. A step with the flag [`JOINED`], which the
//! last has not, is of one *turn* with the next: all steps of a turn run in one lane before the first of them runs in the
//! next lane. So does a step that has an operand in the shared bytes, alone if it is not joined; all other steps may run in
//! all lanes at once. What a step reads of the shared bytes a step of its turn has written, so nothing there outlives a
//! turn. Where nothing is shared no step is joined. The stages `prompt` and `timestep` share nothing.
//!
//! # Chunks
//!
//! The context is of 1 to *chunks* chunks, of which `prompt` and `step` say the same number; in other programs it is 1. A
//! step with the flag [`PER_CHUNK`] is planned for that many, and its rows (`rows`, or `kv_rows` of an Attention) are a
//! multiple of them; for fewer chunks it has as many fewer rows ([`crate::Op::at_chunks`]) and its operands end earlier. In
//! `prompt` such steps are Linear and Quantize by rows, in `step` Attention without mask, not causal and not in integers.
//! A port with the flag is `[1, rows, c]` and row-major; in `prompt` any, in `step` a pinned input.
//!
//! Each record's part of the next tables begins where the previous record's ended, and the last ends with the table.
//!
//! The checksums section holds a u32 for each [`CHECKSUM_BLOCK`] of the weights, the last of which may be shorter.

/// The first bytes of every package.
pub const MAGIC: [u8; 8] = *b"KILNPKG\0";
/// The version that this crate reads and writes.
pub const VERSION: u32 = 5;
/// Size of the header.
pub const HEADER_BYTES: usize = 32;
/// Size of a row of the section table.
pub const SECTION_BYTES: usize = 32;
/// The most sections a package may have.
pub const MAX_SECTIONS: u32 = 64;
/// What the offsets of sections and operands are multiples of.
pub const ALIGNMENT: u64 = 64;
/// What the weights' offset in the file is a multiple of.
pub const WEIGHTS_ALIGNMENT: u64 = 4096;
/// Bytes of weights under one checksum.
pub const CHECKSUM_BLOCK: u64 = 1 << 20;
/// The flag of a section that a reader may skip.
pub const OPTIONAL: u32 = 1;
/// The most inputs, and the most outputs, of a program.
pub const MAX_PORTS: u32 = 256;
/// The flag of a step and of a port whose rows are for the most chunks of context.
pub const PER_CHUNK: u32 = 1;

/// The flag of a step that is of one turn with the next.
pub const JOINED: u32 = 2;

/// Size of the programs section's header.
pub const PROGRAMS_HEADER_BYTES: usize = 32;
/// Size of a program's record.
pub const PROGRAM_BYTES: usize = 76;
/// Size of a port's record.
pub const PORT_BYTES: usize = 56;
/// Size of a step's record.
pub const STEP_BYTES: usize = 24;
/// Size of an operand's record.
pub const OPERAND_BYTES: usize = 24;
/// Size of an attribute word.
pub const WORD_BYTES: usize = 4;

/// The sections of this version, in the order in which the writer puts them.
pub mod section {
    /// The model card, JSON.
    pub const CARD: u32 = 1;
    /// `tokenizer.json`.
    pub const TOKENIZER: u32 = 2;
    /// `scheduler_config.json`.
    pub const SCHEDULER: u32 = 3;
    /// The programs.
    pub const PROGRAMS: u32 = 4;
    /// The weights.
    pub const WEIGHTS: u32 = 5;
    /// The checksums of the weights.
    pub const CHECKSUMS: u32 = 6;

    /// Name of each section, by id from 1.
    pub const NAMES: [&str; 6] = [
        "card",
        "tokenizer",
        "scheduler",
        "programs",
        "weights",
        "checksums",
    ];
}
