//! Views of the programs of an open package.

use core::iter::FusedIterator;

use crate::bytes::{Fields, Table, part};
use crate::error::What;
use crate::format::{
    JOINED, OPERAND_BYTES, PER_CHUNK, PORT_BYTES, PROGRAM_BYTES, STEP_BYTES, WORD_BYTES,
};
use crate::op::{Op, OpError};
use crate::{DType, GraphKind, Layout, Operand, Space, Stage};

/// The tables of the programs section.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub programs: Table<'a, PROGRAM_BYTES>,
    pub ports: Table<'a, PORT_BYTES>,
    pub steps: Table<'a, STEP_BYTES>,
    pub operands: Table<'a, OPERAND_BYTES>,
    pub words: Table<'a, WORD_BYTES>,
    pub names: &'a str,
}

/// A program's record.
pub(crate) struct ProgramFields {
    pub graph: u32,
    pub stage: u32,
    pub height: u32,
    pub width: u32,
    pub clip_skip: u32,
    pub arena_bytes: u64,
    pub thread_scratch_bytes: u64,
    pub pinned_bytes: u64,
    pub shared_bytes: u64,
    pub first_port: u32,
    pub inputs: u32,
    pub outputs: u32,
    pub first_step: u32,
    pub steps: u32,
    pub max_chunks: u32,
}

impl ProgramFields {
    pub fn read(mut f: Fields) -> Self {
        ProgramFields {
            graph: f.u32(),
            stage: f.u32(),
            height: f.u32(),
            width: f.u32(),
            clip_skip: f.u32(),
            arena_bytes: f.u64(),
            thread_scratch_bytes: f.u64(),
            pinned_bytes: f.u64(),
            shared_bytes: f.u64(),
            first_port: f.u32(),
            inputs: f.u32(),
            outputs: f.u32(),
            first_step: f.u32(),
            steps: f.u32(),
            max_chunks: f.u32(),
        }
    }
}

/// A step's record.
pub(crate) struct StepFields {
    pub op: u16,
    pub words: u16,
    pub operands: u16,
    pub flags: u16,
    pub first_word: u32,
    pub first_operand: u32,
    pub name: (u32, u32),
}

impl StepFields {
    pub fn read(mut f: Fields) -> Self {
        StepFields {
            op: f.u16(),
            words: f.u16(),
            operands: f.u16(),
            flags: f.u16(),
            first_word: f.u32(),
            first_operand: f.u32(),
            name: (f.u32(), f.u32()),
        }
    }
}

fn known<T>(name: &'static str, code: u32, value: Option<T>) -> Result<T, What> {
    value.ok_or(What::Unknown {
        name,
        found: code.into(),
    })
}

fn per_chunk(name: &'static str, flags: u32) -> Result<bool, What> {
    if flags & !PER_CHUNK == 0 {
        Ok(flags != 0)
    } else {
        Err(What::Unknown {
            name,
            found: flags.into(),
        })
    }
}

fn zero(name: &'static str, found: u32) -> Result<(), What> {
    if found == 0 {
        Ok(())
    } else {
        Err(What::Field {
            name,
            expected: 0,
            found: found.into(),
        })
    }
}

impl<'a> Tables<'a> {
    pub fn name(&self, (offset, bytes): (u32, u32)) -> Result<&'a str, What> {
        let end = u64::from(offset) + u64::from(bytes);
        let limit = self.names.len() as u64;
        part(self.names.as_bytes(), offset.into(), bytes.into()).ok_or(What::Outside {
            name: "name",
            end,
            limit,
        })?;
        let name = self
            .names
            .get(offset as usize..end as usize)
            .ok_or(What::Utf8)?;
        if name.is_empty() {
            Err(What::NoName)
        } else {
            Ok(name)
        }
    }

    pub fn program(&self, fields: &ProgramFields) -> Result<Program<'a>, What> {
        let ports = u64::from(fields.inputs) + u64::from(fields.outputs);
        let outside = |name, first: u32, count: u64, limit: usize| What::Outside {
            name,
            end: u64::from(first) + count,
            limit: limit as u64,
        };
        let no_ports = outside("ports", fields.first_port, ports, self.ports.len());
        let count = u32::try_from(ports).map_err(|_| no_ports)?;
        Ok(Program {
            graph: known("graph", fields.graph, GraphKind::from_code(fields.graph))?,
            stage: known("stage", fields.stage, Stage::from_code(fields.stage))?,
            height: fields.height,
            width: fields.width,
            clip_skip: fields.clip_skip,
            arena_bytes: fields.arena_bytes,
            thread_scratch_bytes: fields.thread_scratch_bytes,
            pinned_bytes: fields.pinned_bytes,
            shared_bytes: fields.shared_bytes,
            max_chunks: fields.max_chunks,
            inputs: fields.inputs as usize,
            ports: self.ports.range(fields.first_port, count).ok_or(no_ports)?,
            steps: self
                .steps
                .range(fields.first_step, fields.steps)
                .ok_or_else(|| {
                    outside(
                        "steps",
                        fields.first_step,
                        fields.steps.into(),
                        self.steps.len(),
                    )
                })?,
            tables: *self,
        })
    }

    /// The program at an index.
    pub fn at(&self, index: usize) -> Option<Result<Program<'a>, What>> {
        self.programs
            .get(index)
            .map(|fields| self.program(&ProgramFields::read(fields)))
    }

    /// The program of that graph, stage, height, width and clip skip. The programs must stand in order.
    pub fn find(&self, key: (u32, u32, u32, u32, u32)) -> Option<Program<'a>> {
        let read = |index: usize| self.programs.get(index).map(ProgramFields::read);
        let key_of = |f: &ProgramFields| (f.graph, f.stage, f.height, f.width, f.clip_skip);
        let (mut low, mut high) = (0, self.programs.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match read(middle).is_some_and(|fields| key_of(&fields) < key) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let fields = read(low).filter(|fields| key_of(fields) == key)?;
        self.program(&fields).ok()
    }

    pub fn port(&self, mut f: Fields) -> Result<Port<'a>, What> {
        let name = self.name((f.u32(), f.u32()))?;
        let (dtype, layout, rank) = (f.u32(), f.u32(), f.u32());
        let dims = [f.u32(), f.u32(), f.u32(), f.u32()];
        let flags = f.u32();
        Ok(Port {
            name,
            dtype: known("type", dtype, DType::from_code(dtype))?,
            layout: known("layout", layout, Layout::from_code(layout))?,
            rank,
            dims,
            per_chunk: per_chunk("port's flags", flags)?,
            offset: f.u64(),
            bytes: f.u64(),
        })
    }

    pub fn operand(mut f: Fields) -> Result<Operand, What> {
        let (space, dtype) = (u32::from(f.u16()), u32::from(f.u16()));
        zero("operand's third field", f.u32())?;
        Ok(Operand {
            space: known("space", space, Space::from_code(space))?,
            dtype: known("type", dtype, DType::from_code(dtype))?,
            offset: f.u64(),
            bytes: f.u64(),
        })
    }

    pub fn step(&self, fields: &StepFields) -> Result<Step<'a>, What> {
        let flags = u32::from(fields.flags);
        let per_chunk = per_chunk("step's flags", flags & !JOINED)?;
        let words = self
            .words
            .range(fields.first_word, fields.words.into())
            .ok_or(What::Outside {
                name: "attribute words",
                end: u64::from(fields.first_word) + u64::from(fields.words),
                limit: self.words.len() as u64,
            })?;
        let operands = self
            .operands
            .range(fields.first_operand, fields.operands.into())
            .ok_or(What::Outside {
                name: "operands",
                end: u64::from(fields.first_operand) + u64::from(fields.operands),
                limit: self.operands.len() as u64,
            })?;
        let mut row = [0; Op::MAX_WORDS];
        let row = row
            .get_mut(..words.len())
            .ok_or(What::Operator(OpError::AttributeCount))?;
        for (i, word) in row.iter_mut().enumerate() {
            *word = words.get(i).map_or(0, |mut f| f.u32());
        }
        let op = Op::from_words(fields.op, row).map_err(What::Operator)?;
        Ok(Step {
            op,
            per_chunk,
            joined: flags & JOINED != 0,
            name: self.name(fields.name)?,
            operands,
        })
    }
}

/// The promise of the views below: what is decoded in them was decoded before, by `Package::open`.
const OPENED: &str = "checked when the package was opened";

/// One graph at one size.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    graph: GraphKind,
    stage: Stage,
    height: u32,
    width: u32,
    clip_skip: u32,
    arena_bytes: u64,
    thread_scratch_bytes: u64,
    pinned_bytes: u64,
    shared_bytes: u64,
    max_chunks: u32,
    inputs: usize,
    ports: Table<'a, PORT_BYTES>,
    steps: Table<'a, STEP_BYTES>,
    tables: Tables<'a>,
}

impl<'a> Program<'a> {
    /// The graph that it runs.
    pub fn graph(&self) -> GraphKind {
        self.graph
    }

    /// When it runs.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Height in pixels of the picture it is for; 0 if it works for every size.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Width in pixels of the picture it is for; 0 if it works for every size.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Of a text encoder, at least 1: one more than the last layers that are left out. 0 for every other graph.
    pub fn clip_skip(&self) -> u32 {
        self.clip_skip
    }

    /// Size of one lane's arena; the end of its last buffer, rounded up to 64.
    pub fn arena_bytes(&self) -> u64 {
        self.arena_bytes
    }

    /// Memory that each thread needs besides, as the compiler's kernels reckoned it.
    pub fn thread_scratch_bytes(&self) -> u64 {
        self.thread_scratch_bytes
    }

    /// Size of the part at the beginning of the arena that holds what the programs of the earlier stages give to that of
    /// [`Stage::Step`], the same in all programs of a graph at a size.
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// Size of the part at the end of the arena that is there once for all lanes.
    pub fn shared_bytes(&self) -> u64 {
        self.shared_bytes
    }

    /// The most chunks of context that it runs with, at least 1; the number that its sizes are for.
    pub fn max_chunks(&self) -> u32 {
        self.max_chunks
    }

    /// Multiplications with an addition of all steps (saturated).
    pub fn macs(&self) -> u64 {
        self.steps()
            .fold(0, |sum: u64, step| sum.saturating_add(step.macs()))
    }

    /// What must be in the arena before the first step. The steps may overwrite it, so each run needs it anew.
    pub fn inputs(&self) -> Ports<'a> {
        Ports {
            tables: self.tables,
            ports: self.ports,
            next: 0,
            end: self.inputs,
        }
    }

    /// What is in the arena after the last step.
    pub fn outputs(&self) -> Ports<'a> {
        Ports {
            tables: self.tables,
            ports: self.ports,
            next: self.inputs,
            end: self.ports.len(),
        }
    }

    /// The input of that name.
    pub fn input(&self, name: &str) -> Option<Port<'a>> {
        self.inputs().find(|port| port.name == name)
    }

    /// The output of that name.
    pub fn output(&self, name: &str) -> Option<Port<'a>> {
        self.outputs().find(|port| port.name == name)
    }

    /// The steps, in the order in which they run.
    pub fn steps(&self) -> Steps<'a> {
        Steps {
            tables: self.tables,
            steps: self.steps,
            next: 0,
        }
    }

    /// The number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there are no steps; never so in an open package.
    pub fn is_empty(&self) -> bool {
        self.steps.len() == 0
    }

    /// The step at an index.
    pub fn step(&self, index: usize) -> Option<Step<'a>> {
        let fields = StepFields::read(self.steps.get(index)?);
        Some(self.tables.step(&fields).expect(OPENED))
    }

    pub(crate) fn step_fields(&self, index: usize) -> Option<StepFields> {
        self.steps.get(index).map(StepFields::read)
    }

    pub(crate) fn port_fields(&self, index: usize) -> Option<Fields<'a>> {
        self.ports.get(index)
    }
}

/// An input or output of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port<'a> {
    /// Its name, as in diffusers' models.
    pub name: &'a str,
    /// The type of its elements in the arena.
    pub dtype: DType,
    /// How it lies in the arena.
    pub layout: Layout,
    /// Its sizes outside, the batch of 1 included; 1 past the rank.
    pub dims: [u32; 4],
    /// The number of its axes, 1 to 4.
    pub rank: u32,
    /// Whether its rows are for [`Program::max_chunks`] chunks: it is `[1, rows, c]`, and for fewer chunks its first rows
    /// alone count.
    pub per_chunk: bool,
    /// Where it begins in the arena.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Port<'_> {
    /// Its sizes outside, the batch of 1 included.
    pub fn shape(&self) -> &[u32] {
        self.dims.get(..self.rank as usize).unwrap_or(&self.dims)
    }

    /// Its number of elements.
    pub fn elements(&self) -> u64 {
        self.bytes / self.dtype.size() as u64
    }

    /// The port for `chunks` of the program's `max_chunks`: itself, but for the rows of one that is `per_chunk`.
    pub fn at_chunks(&self, chunks: u32, max_chunks: u32) -> Self {
        let mut port = *self;
        if self.per_chunk {
            let scaled =
                |n: u64| n / u64::from(max_chunks.max(1)) * u64::from(chunks.min(max_chunks));
            let [_, rows, _, _] = &mut port.dims;
            // Not more than before.
            *rows = scaled((*rows).into()) as u32;
            port.bytes = scaled(self.bytes);
        }
        port
    }

    /// The buffer that it is.
    pub fn operand(&self) -> Operand {
        Operand::arena(self.dtype, self.offset, self.bytes)
    }
}

/// One operator with its operands.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    pub(crate) op: Op,
    pub(crate) per_chunk: bool,
    pub(crate) joined: bool,
    pub(crate) name: &'a str,
    pub(crate) operands: Table<'a, OPERAND_BYTES>,
}

impl<'a> Step<'a> {
    /// The operator.
    pub fn op(&self) -> Op {
        self.op
    }

    /// Whether its rows are for [`Program::max_chunks`] chunks; for fewer it runs as [`Op::at_chunks`] says.
    pub fn per_chunk(&self) -> bool {
        self.per_chunk
    }

    /// Whether it is of one turn with the next step: see [`Turn`](crate::Turn).
    pub fn joined(&self) -> bool {
        self.joined
    }

    /// The name of the layer, such as `down_blocks.0.resnets.0.conv1`.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Multiplications with an addition (saturated).
    pub fn macs(&self) -> u64 {
        self.op.macs()
    }

    /// What stands in a slot of [`Op::slots`]; the empty operand past the last slot.
    pub fn operand(&self, slot: usize) -> Operand {
        self.operands.get(slot).map_or(Operand::EMPTY, |fields| {
            Tables::operand(fields).expect(OPENED)
        })
    }

    /// What stands in the slots, in the order of [`Op::slots`].
    pub fn operands(&self) -> Operands<'a> {
        Operands {
            operands: self.operands,
            next: 0,
        }
    }
}

macro_rules! indexed {
    ($(#[$meta:meta])* $name:ident { $($field:ident : $ty:ty),* } $item:ty, |$this:ident, $index:ident| $get:expr, $end:expr) => {
        $(#[$meta])*
        #[derive(Clone)]
        pub struct $name<'a> { $($field: $ty,)* next: usize }

        impl<'a> Iterator for $name<'a> {
            type Item = $item;

            fn next(&mut self) -> Option<Self::Item> {
                let ($this, $index) = (&*self, self.next);
                if $index >= $end {
                    return None;
                }
                let item = $get;
                self.next += 1;
                item
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                let $this = self;
                let left = $end - self.next;
                (left, Some(left))
            }
        }

        impl ExactSizeIterator for $name<'_> {}
        impl FusedIterator for $name<'_> {}
    };
}

indexed! {
    /// The programs of a package.
    Programs { tables: Tables<'a> } Program<'a>,
    |this, index| this.tables.programs.get(index).map(|f| this.tables.program(&ProgramFields::read(f)).expect(OPENED)),
    this.tables.programs.len()
}

impl<'a> Programs<'a> {
    pub(crate) fn new(tables: Tables<'a>) -> Self {
        Programs { tables, next: 0 }
    }
}

indexed! {
    /// The inputs or the outputs of a program.
    Ports { tables: Tables<'a>, ports: Table<'a, PORT_BYTES>, end: usize } Port<'a>,
    |this, index| this.ports.get(index).map(|fields| this.tables.port(fields).expect(OPENED)),
    this.end
}

indexed! {
    /// The steps of a program.
    Steps { tables: Tables<'a>, steps: Table<'a, STEP_BYTES> } Step<'a>,
    |this, index| this.steps.get(index).map(|f| this.tables.step(&StepFields::read(f)).expect(OPENED)),
    this.steps.len()
}

indexed! {
    /// The operands of a step.
    Operands { operands: Table<'a, OPERAND_BYTES> } Operand,
    |this, index| this.operands.get(index).map(|fields| Tables::operand(fields).expect(OPENED)),
    this.operands.len()
}
