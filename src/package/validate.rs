//! What is checked of the programs section before anything uses it.
//!
//! In this order: the header and the tables' sizes; the names as UTF-8; then program by program, its record and its
//! place in the order, its ports, and its steps: the records' ranges, the operator and its attributes, each operand's
//! place, type and size. The arena must end exactly where its last buffer does. Last come the rules of
//! the stages. What lanes share is checked in `turns`.

use crate::bytes::{Fields, Table};
use crate::error::{PackageError, Place, What};
use crate::format::{
    ALIGNMENT, MAX_PORTS, OPERAND_BYTES, PORT_BYTES, PROGRAM_BYTES, PROGRAMS_HEADER_BYTES,
    STEP_BYTES,
};
use crate::format::{WORD_BYTES, section};
use crate::op::{Op, OpError};
use crate::program::{Port, Program, ProgramFields, StepFields, Tables};
use crate::{DType, GraphKind, Layout, Operand, Space, stages, turns};

/// Cuts the section into its tables.
pub(crate) fn tables(bytes: &[u8]) -> Result<Tables<'_>, PackageError> {
    let place = Place::section(section::PROGRAMS);
    let found = bytes.len() as u64;
    let Some((header, rest)) = bytes.split_at_checked(PROGRAMS_HEADER_BYTES) else {
        return Err(place.error(What::Length {
            expected: PROGRAMS_HEADER_BYTES as u64,
            found,
        }));
    };
    let mut f = Fields(header);
    let [programs, ports, steps, operands, words, names] = core::array::from_fn(|_| f.u32());
    for _ in 0..2 {
        equal("programs header's last fields", 0, f.u32().into())
            .map_err(|what| place.error(what))?;
    }
    let sizes = [
        (programs, PROGRAM_BYTES),
        (ports, PORT_BYTES),
        (steps, STEP_BYTES),
        (operands, OPERAND_BYTES),
        (words, WORD_BYTES),
        (names, 1),
    ];
    // Six products of 32 bits and a small number: no overflow.
    let expected = sizes
        .iter()
        .fold(PROGRAMS_HEADER_BYTES as u64, |sum, (count, size)| {
            sum + u64::from(*count) * *size as u64
        });
    let length = || place.error(What::Length { expected, found });
    if expected != found {
        return Err(length());
    }
    let (programs, rest) = Table::split(rest, programs).ok_or_else(length)?;
    let (ports, rest) = Table::split(rest, ports).ok_or_else(length)?;
    let (steps, rest) = Table::split(rest, steps).ok_or_else(length)?;
    let (operands, rest) = Table::split(rest, operands).ok_or_else(length)?;
    let (words, names) = Table::split(rest, words).ok_or_else(length)?;
    let names = core::str::from_utf8(names).map_err(|error| {
        let offset = (bytes.len() - names.len() + error.valid_up_to()) as u64;
        Place {
            offset: Some(offset),
            ..place
        }
        .error(What::Utf8)
    })?;
    Ok(Tables {
        programs,
        ports,
        steps,
        operands,
        words,
        names,
    })
}

fn equal(name: &'static str, expected: u64, found: u64) -> Result<(), What> {
    if expected == found {
        Ok(())
    } else {
        Err(What::Field {
            name,
            expected,
            found,
        })
    }
}

fn at_most(name: &'static str, limit: u64, found: u64) -> Result<(), What> {
    if found <= limit {
        Ok(())
    } else {
        Err(What::Range { name, limit, found })
    }
}

/// Where the next record's part of each table must begin.
#[derive(Default)]
struct Next {
    port: u32,
    step: u32,
    word: u32,
    operand: u32,
}

/// Checks the programs of a package whose weights have `weights` bytes.
pub(crate) fn programs(tables: &Tables, weights: u64) -> Result<(), PackageError> {
    let mut next = Next::default();
    let mut last_key = None;
    for index in 0..tables.programs.len() {
        let place = Place {
            program: Some(index as u32),
            ..Place::section(section::PROGRAMS)
        };
        let here = |what| place.error(what);
        let Some(fields) = tables.programs.get(index).map(ProgramFields::read) else {
            continue;
        };
        let program = tables.program(&fields).map_err(here)?;
        let key = Some((
            fields.graph,
            fields.stage,
            fields.height,
            fields.width,
            fields.clip_skip,
        ));
        if key <= last_key {
            return Err(here(What::Order));
        }
        last_key = key;
        if (program.graph() == GraphKind::TextEncoder) != (fields.clip_skip != 0) {
            let expected = u64::from(fields.clip_skip == 0);
            equal("clip skip", expected, fields.clip_skip.into()).map_err(here)?;
        }
        equal("first port", next.port.into(), fields.first_port.into()).map_err(here)?;
        equal("first step", next.step.into(), fields.first_step.into()).map_err(here)?;
        at_most("inputs", MAX_PORTS.into(), fields.inputs.into()).map_err(here)?;
        at_most("outputs", MAX_PORTS.into(), fields.outputs.into()).map_err(here)?;
        if fields.steps == 0 || fields.outputs == 0 {
            return Err(here(What::Missing));
        }
        next.port += fields.inputs + fields.outputs;
        next.step += fields.steps;

        let end = check_ports(tables, &program, place)?
            .max(check_steps(tables, &program, weights, &mut next, place)?);
        let arena = end.checked_next_multiple_of(ALIGNMENT);
        let arena = arena.ok_or(here(What::Outside {
            name: "arena",
            end: u64::MAX,
            limit: u64::MAX,
        }))?;
        equal("arena bytes", arena, fields.arena_bytes).map_err(here)?;
        turns::check(&program, place)?;
    }
    let place = Place::section(section::PROGRAMS);
    equal("ports", next.port.into(), tables.ports.len() as u64)
        .map_err(|what| place.error(what))?;
    equal("steps", next.step.into(), tables.steps.len() as u64)
        .map_err(|what| place.error(what))?;
    equal(
        "attribute words",
        next.word.into(),
        tables.words.len() as u64,
    )
    .map_err(|what| place.error(what))?;
    equal(
        "operands",
        next.operand.into(),
        tables.operands.len() as u64,
    )
    .map_err(|what| place.error(what))?;
    stages::check(tables)
}

/// Checks a program's ports and returns where the last of them ends.
fn check_ports(tables: &Tables, program: &Program, place: Place) -> Result<u64, PackageError> {
    let inputs = program.inputs().len();
    let count = inputs + program.outputs().len();
    let mut ports: [Option<Port>; 2 * MAX_PORTS as usize] = [None; 2 * MAX_PORTS as usize];
    let mut arena_end = 0;
    for index in 0..count {
        let here = |what| {
            Place {
                port: Some(index as u32),
                ..place
            }
            .error(what)
        };
        let Some(fields) = program.port_fields(index) else {
            continue;
        };
        let port = tables.port(fields).map_err(here)?;
        arena_end = arena_end.max(check_port(&port).map_err(here)?);
        // Ports of one direction are distinct; an output may be an input that is passed on or overwritten.
        let others = if index < inputs {
            0..index
        } else {
            inputs..index
        };
        for other in ports[others].iter().flatten() {
            if other.name == port.name || other.operand().overlaps(&port.operand()) {
                return Err(here(What::Overlap));
            }
        }
        ports[index] = Some(port);
    }
    Ok(arena_end)
}

fn check_port(port: &Port) -> Result<u64, What> {
    if !matches!(port.dtype, DType::F32 | DType::F16 | DType::I32) {
        return Err(What::Unknown {
            name: "type",
            found: port.dtype.code().into(),
        });
    }
    at_most("rank", 4, port.rank.into())?;
    let mut bytes = port.dtype.size() as u64;
    for (axis, size) in port.dims.iter().enumerate() {
        if *size == 0 || axis >= port.rank as usize {
            equal("size of an axis", 1, (*size).into())?;
        }
        bytes = bytes.checked_mul((*size).into()).ok_or(What::Range {
            name: "size of an axis",
            limit: u64::MAX / bytes,
            found: (*size).into(),
        })?;
    }
    if port.layout == Layout::ChannelsLast {
        equal("rank", 4, port.rank.into())?;
        equal("batch", 1, port.dims[0].into())?;
    } else if port.rank == 0 {
        return Err(What::Field {
            name: "rank",
            expected: 1,
            found: 0,
        });
    }
    equal("bytes", bytes, port.bytes)?;
    end_of(&port.operand(), u64::MAX)
}

/// Checks a program's steps and returns where the last of their arena buffers ends.
fn check_steps(
    tables: &Tables,
    program: &Program,
    weights: u64,
    next: &mut Next,
    place: Place,
) -> Result<u64, PackageError> {
    let mut arena_end = 0;
    for index in 0..program.len() {
        let place = Place {
            step: Some(index as u32),
            ..place
        };
        let here = |what| place.error(what);
        let Some(fields) = program.step_fields(index) else {
            continue;
        };
        let StepFields {
            words,
            operands,
            first_word,
            first_operand,
            ..
        } = fields;
        equal("first attribute word", next.word.into(), first_word.into()).map_err(here)?;
        equal("first operand", next.operand.into(), first_operand.into()).map_err(here)?;
        let step = tables.step(&fields).map_err(here)?;
        next.word += u32::from(words);
        next.operand += u32::from(operands);

        let slots = step.op.slots();
        if step.operands.len() != slots.len() {
            return Err(here(What::Operator(OpError::OperandCount)));
        }
        let mut row = [Operand::EMPTY; Op::MAX_SLOTS];
        for (i, slot) in slots.iter().enumerate() {
            let here = |what| {
                Place {
                    slot: Some(slot.name),
                    ..place
                }
                .error(what)
            };
            let Some(operand) = step.operands.get(i) else {
                continue;
            };
            let operand = Tables::operand(operand).map_err(here)?;
            let limit = if operand.space == Space::Weights {
                weights
            } else {
                u64::MAX
            };
            let end = end_of(&operand, limit).map_err(here)?;
            if operand.space == Space::Arena {
                arena_end = arena_end.max(end);
            }
            row[i] = operand;
        }
        step.op
            .check(&row[..slots.len()])
            .map_err(|error| here(What::Operator(error)))?;
    }
    Ok(arena_end)
}

/// The end of an aligned operand within its space.
fn end_of(operand: &Operand, limit: u64) -> Result<u64, What> {
    if !operand.offset.is_multiple_of(ALIGNMENT) {
        return Err(What::Alignment {
            name: "offset",
            alignment: ALIGNMENT,
            found: operand.offset,
        });
    }
    let end = operand.offset.saturating_add(operand.bytes);
    if end > limit || end == u64::MAX {
        return Err(What::Outside {
            name: "operand",
            end,
            limit,
        });
    }
    Ok(end)
}
