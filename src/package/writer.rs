//! Writing a package.

use core::fmt;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use std::collections::HashMap;
use std::io::{self, Seek, SeekFrom, Write};

use crate::crc::{Crc32c, crc32c};
use crate::error::PackageError;
use crate::format::{
    ALIGNMENT, CHECKSUM_BLOCK, HEADER_BYTES, JOINED, MAGIC, OPTIONAL, PER_CHUNK, SECTION_BYTES,
    VERSION, WEIGHTS_ALIGNMENT, section,
};
use crate::op::Op;
use crate::{DType, GraphKind, Layout, Operand, Stage, validate};

/// An input or output of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRecord {
    /// Its name, as in diffusers' models.
    pub name: String,
    /// The type of its elements in the arena.
    pub dtype: DType,
    /// How it lies in the arena.
    pub layout: Layout,
    /// Its sizes outside, the batch of 1 included; at most 4.
    pub shape: Vec<u32>,
    /// Where it begins in the arena.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether its rows are for the program's `max_chunks`.
    pub per_chunk: bool,
}

/// A step of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRecord {
    /// The operator.
    pub op: Op,
    /// What stands in the slots of [`Op::slots`].
    pub operands: Vec<Operand>,
    /// The name of the layer.
    pub name: String,
    /// Whether its rows are for the program's `max_chunks`.
    pub per_chunk: bool,
    /// Whether it is of one turn with the next step: both run in a lane before they do in the next.
    pub joined: bool,
}

/// A program to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgramRecord {
    /// The graph that it runs.
    pub graph: GraphKind,
    /// When it runs.
    pub stage: Stage,
    /// Height in pixels of the picture it is for; 0 if it works for every size.
    pub height: u32,
    /// Width in pixels of the picture it is for; 0 if it works for every size.
    pub width: u32,
    /// Of a text encoder, at least 1: one more than the last layers that are left out. 0 for every other graph.
    pub clip_skip: u32,
    /// Size of one lane's arena: the end of its last buffer, rounded up to 64.
    pub arena_bytes: u64,
    /// Memory that each thread needs besides.
    pub thread_scratch_bytes: u64,
    /// Size of the pinned part at the beginning of the arena; 0 for [`Stage::Whole`].
    pub pinned_bytes: u64,
    /// Size of the part at the end of the arena that all lanes have in common; 0 if there is none.
    pub shared_bytes: u64,
    /// The most chunks of context; 1 where that has no meaning.
    pub max_chunks: u32,
    /// What must be in the arena before the first step.
    pub inputs: Vec<PortRecord>,
    /// What is in the arena after the last step.
    pub outputs: Vec<PortRecord>,
    /// The steps, in the order in which they run.
    pub steps: Vec<StepRecord>,
}

/// Why a package could not be written.
#[derive(Debug)]
pub enum WriteError {
    /// The output could not be written.
    Io(io::Error),
    /// The reader would refuse the package; the compiler made a mistake.
    Invalid(PackageError),
    /// A table has more entries than the format can count; the name is the table's.
    TooMany(&'static str),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Io(error) => write!(f, "writing the package: {error}"),
            WriteError::Invalid(error) => {
                write!(f, "compiler bug: the package would be refused: {error}")
            }
            WriteError::TooMany(table) => write!(f, "the package would have too many {table}"),
        }
    }
}

impl core::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            WriteError::Io(error) => Some(error),
            WriteError::Invalid(error) => Some(error),
            WriteError::TooMany(_) => None,
        }
    }
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        WriteError::Io(error)
    }
}

/// The parts of a package. Equal parts give equal bytes.
#[derive(Clone, Debug, Default)]
pub struct PackageWriter {
    /// The model card, JSON.
    pub card: String,
    /// The contents of `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// The contents of `scheduler_config.json`.
    pub scheduler: String,
    /// The programs, in any order.
    pub programs: Vec<ProgramRecord>,
    /// Sections that a reader may skip: ids above those of [`section`], and contents.
    pub optional: Vec<(u32, Vec<u8>)>,
}

impl PackageWriter {
    /// Writes the package at the beginning of `out`. `weights` writes exactly `weight_bytes` bytes; a write beyond them
    /// is an error, and so is stopping short.
    pub fn write<W: Write + Seek>(
        mut self,
        out: &mut W,
        weight_bytes: u64,
        weights: impl FnOnce(&mut WeightWriter<'_, W>) -> io::Result<()>,
    ) -> Result<(), WriteError> {
        self.programs
            .sort_by_key(|p| (p.graph, p.stage, p.height, p.width, p.clip_skip));
        let programs = encode_programs(&self.programs)?;
        let tables = validate::tables(&programs).map_err(WriteError::Invalid)?;
        validate::programs(&tables, weight_bytes).map_err(WriteError::Invalid)?;

        let count = section::NAMES.len() + self.optional.len();
        let table_end = HEADER_BYTES + count * SECTION_BYTES;
        out.seek(SeekFrom::Start(0))?;
        // The header is written last, so that a file whose writing broke off is not a package.
        out.write_all(&vec![0; table_end])?;
        let mut file = Sink {
            out,
            at: table_end as u64,
            rows: Vec::new(),
        };
        file.section(section::CARD, 0, self.card.as_bytes())?;
        file.section(section::TOKENIZER, 0, &self.tokenizer)?;
        file.section(section::SCHEDULER, 0, self.scheduler.as_bytes())?;
        file.section(section::PROGRAMS, 0, &programs)?;

        let offset = file.align(WEIGHTS_ALIGNMENT)?;
        let mut writer = WeightWriter {
            out: &mut *file.out,
            left: weight_bytes,
            block: Crc32c::new(),
            block_bytes: 0,
            checksums: Vec::new(),
        };
        weights(&mut writer)?;
        let checksums = writer.finish()?;
        file.at += weight_bytes;
        file.row(section::WEIGHTS, 0, offset, weight_bytes, 0);
        file.section(section::CHECKSUMS, 0, &checksums)?;
        for (id, contents) in &self.optional {
            file.section(*id, OPTIONAL, contents)?;
        }

        let Sink {
            out,
            at: length,
            rows,
        } = file;
        let mut header = Vec::from(MAGIC);
        push(&mut header, &[VERSION, count as u32]);
        header.extend(length.to_le_bytes());
        let mut crc = Crc32c::new();
        crc.update(&header);
        crc.update(&rows);
        push(&mut header, &[crc.finish(), 0]);
        header.extend(rows);
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&header)?;
        out.flush()?;
        Ok(())
    }

    /// The package with the given weights, in memory.
    pub fn to_vec(self, weights: &[u8]) -> Result<Vec<u8>, WriteError> {
        let mut out = io::Cursor::new(Vec::new());
        self.write(&mut out, weights.len() as u64, |writer| {
            writer.write_all(weights)
        })?;
        Ok(out.into_inner())
    }
}

fn push(bytes: &mut Vec<u8>, words: &[u32]) {
    words
        .iter()
        .for_each(|word| bytes.extend(word.to_le_bytes()));
}

/// The file as far as it is written.
struct Sink<'a, W> {
    out: &'a mut W,
    at: u64,
    rows: Vec<u8>,
}

impl<W: Write> Sink<'_, W> {
    fn align(&mut self, alignment: u64) -> io::Result<u64> {
        let aligned = self.at.next_multiple_of(alignment);
        self.out.write_all(&vec![0; (aligned - self.at) as usize])?;
        self.at = aligned;
        Ok(aligned)
    }

    fn row(&mut self, id: u32, flags: u32, offset: u64, bytes: u64, crc: u32) {
        push(&mut self.rows, &[id, flags]);
        self.rows.extend(offset.to_le_bytes());
        self.rows.extend(bytes.to_le_bytes());
        push(&mut self.rows, &[crc, 0]);
    }

    fn section(&mut self, id: u32, flags: u32, contents: &[u8]) -> io::Result<()> {
        let offset = self.align(ALIGNMENT)?;
        self.out.write_all(contents)?;
        self.at += contents.len() as u64;
        self.row(id, flags, offset, contents.len() as u64, crc32c(contents));
        Ok(())
    }
}

/// Takes the weights in order.
pub struct WeightWriter<'a, W> {
    out: &'a mut W,
    left: u64,
    block: Crc32c,
    block_bytes: u64,
    checksums: Vec<u8>,
}

impl<W: Write> WeightWriter<'_, W> {
    /// Bytes still to be written.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn close_block(&mut self) {
        let block = core::mem::take(&mut self.block);
        push(&mut self.checksums, &[block.finish()]);
        self.block_bytes = 0;
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        if self.left != 0 {
            return Err(io::Error::other(std::format!(
                "the weights are {} bytes short",
                self.left
            )));
        }
        if self.block_bytes != 0 {
            self.close_block();
        }
        Ok(self.checksums)
    }
}

impl<W: Write> Write for WeightWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let block = CHECKSUM_BLOCK - self.block_bytes;
        let size = (bytes.len() as u64).min(block).min(self.left) as usize;
        let size = self.out.write(&bytes[..size])?;
        self.block.update(&bytes[..size]);
        self.block_bytes += size as u64;
        self.left -= size as u64;
        if self.block_bytes == CHECKSUM_BLOCK {
            self.close_block();
        }
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The names of all programs, each once.
#[derive(Default)]
struct Names<'a> {
    bytes: Vec<u8>,
    places: HashMap<&'a str, (u32, u32)>,
}

impl<'a> Names<'a> {
    fn place(&mut self, name: &'a str) -> Result<(u32, u32), WriteError> {
        if let Some(place) = self.places.get(name) {
            return Ok(*place);
        }
        let place = (
            count("bytes of names", self.bytes.len())?,
            count("bytes of names", name.len())?,
        );
        self.bytes.extend(name.as_bytes());
        self.places.insert(name, place);
        Ok(place)
    }
}

fn count(table: &'static str, len: usize) -> Result<u32, WriteError> {
    u32::try_from(len).map_err(|_| WriteError::TooMany(table))
}

/// The programs section.
fn encode_programs(programs: &[ProgramRecord]) -> Result<Vec<u8>, WriteError> {
    let mut names = Names::default();
    let mut words = Vec::new();
    let [mut program_table, mut ports, mut steps, mut operands] = [const { Vec::new() }; 4];
    let [
        mut port_count,
        mut step_count,
        mut operand_count,
        mut word_count,
    ] = [0usize; 4];
    for program in programs {
        push(
            &mut program_table,
            &[
                program.graph.code(),
                program.stage.code(),
                program.height,
                program.width,
                program.clip_skip,
            ],
        );
        program_table.extend(program.arena_bytes.to_le_bytes());
        program_table.extend(program.thread_scratch_bytes.to_le_bytes());
        program_table.extend(program.pinned_bytes.to_le_bytes());
        program_table.extend(program.shared_bytes.to_le_bytes());
        push(
            &mut program_table,
            &[
                count("ports", port_count)?,
                count("ports", program.inputs.len())?,
                count("ports", program.outputs.len())?,
                count("steps", step_count)?,
                count("steps", program.steps.len())?,
                program.max_chunks,
            ],
        );
        for port in program.inputs.iter().chain(&program.outputs) {
            let (offset, bytes) = names.place(&port.name)?;
            let mut dims = [1; 4];
            for (dim, size) in dims.iter_mut().zip(&port.shape) {
                *dim = *size;
            }
            let rank = count("axes", port.shape.len())?;
            push(
                &mut ports,
                &[offset, bytes, port.dtype.code(), port.layout.code(), rank],
            );
            push(&mut ports, &dims);
            push(&mut ports, &[if port.per_chunk { PER_CHUNK } else { 0 }]);
            ports.extend(port.offset.to_le_bytes());
            ports.extend(port.bytes.to_le_bytes());
            port_count += 1;
        }
        for step in &program.steps {
            let mut row = [0; Op::MAX_WORDS];
            let row_len = step.op.write_words(&mut row);
            let (name_offset, name_bytes) = names.place(&step.name)?;
            let operand_row =
                u16::try_from(step.operands.len()).map_err(|_| WriteError::TooMany("operands"))?;
            let flag = |set: bool, flag: u32| if set { flag as u16 } else { 0 };
            let flags = flag(step.per_chunk, PER_CHUNK) | flag(step.joined, JOINED);
            for half in [step.op.code(), row_len as u16, operand_row, flags] {
                steps.extend(half.to_le_bytes());
            }
            let first_word = count("attribute words", word_count)?;
            push(
                &mut steps,
                &[
                    first_word,
                    count("operands", operand_count)?,
                    name_offset,
                    name_bytes,
                ],
            );
            push(&mut words, &row[..row_len]);
            word_count += row_len;
            for operand in &step.operands {
                operands.extend((operand.space.code() as u16).to_le_bytes());
                operands.extend((operand.dtype.code() as u16).to_le_bytes());
                operands.extend([0; 4]);
                operands.extend(operand.offset.to_le_bytes());
                operands.extend(operand.bytes.to_le_bytes());
            }
            operand_count += step.operands.len();
            step_count += 1;
        }
    }
    let mut section = Vec::new();
    push(
        &mut section,
        &[
            count("programs", programs.len())?,
            count("ports", port_count)?,
            count("steps", step_count)?,
            count("operands", operand_count)?,
            count("attribute words", word_count)?,
            count("bytes of names", names.bytes.len())?,
            0,
            0,
        ],
    );
    for table in [program_table, ports, steps, operands, words, names.bytes] {
        section.extend(table);
    }
    Ok(section)
}
