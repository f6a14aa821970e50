//! What is checked of the programs of a graph at a size together: the pinned bytes and the chunks.
//!
//! The programs stand in order and each is sound by itself. [`crate::format`] states the rules.

use crate::error::{PackageError, Place, What};
use crate::format::{ALIGNMENT, section};
use crate::op::Role;
use crate::program::{Port, Program, Tables};
use crate::{Layout, Operand, Space, Stage};

/// Checks all programs.
pub(crate) fn check(tables: &Tables) -> Result<(), PackageError> {
    for index in 0..tables.programs.len() {
        let place = Place {
            program: Some(index as u32),
            ..Place::section(section::PROGRAMS)
        };
        let Some(program) = tables.at(index) else {
            continue;
        };
        let program = program.map_err(|what| place.error(what))?;
        check_family(tables, &program).map_err(|what| place.error(what))?;
        check_ports(tables, &program, place)?;
        check_steps(&program, place)?;
    }
    Ok(())
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

/// The program of another stage.
fn sibling<'a>(tables: &Tables<'a>, program: &Program, stage: Stage) -> Option<Program<'a>> {
    tables.find((
        program.graph().code(),
        stage.code(),
        program.height(),
        program.width(),
        program.clip_skip(),
    ))
}

/// Checks a program's stage, pinned bytes and chunks.
fn check_family(tables: &Tables, program: &Program) -> Result<(), What> {
    let pinned = program.pinned_bytes();
    if program.max_chunks() == 0 {
        return Err(What::Field {
            name: "chunks",
            expected: 1,
            found: 0,
        });
    }
    if !pinned.is_multiple_of(ALIGNMENT) {
        return Err(What::Alignment {
            name: "pinned bytes",
            alignment: ALIGNMENT,
            found: pinned,
        });
    }
    if pinned > program.arena_bytes() {
        return Err(What::Range {
            name: "pinned bytes",
            limit: program.arena_bytes(),
            found: pinned,
        });
    }
    let has_chunks = matches!(program.stage(), Stage::Prompt | Stage::Step);
    equal(
        "chunks",
        if has_chunks {
            program.max_chunks().into()
        } else {
            1
        },
        program.max_chunks().into(),
    )?;
    let [prompt, timestep, step] =
        [Stage::Prompt, Stage::Timestep, Stage::Step].map(|s| sibling(tables, program, s));
    if program.stage() == Stage::Whole {
        equal("pinned bytes", 0, pinned)?;
        return if prompt.or(timestep).or(step).is_some() {
            Err(What::Stage)
        } else {
            Ok(())
        };
    }
    // The timestep's stage may run in one lane for all.
    if program.stage() != Stage::Step {
        equal("shared bytes", 0, program.shared_bytes())?;
    }
    let step = step.ok_or(What::Stage)?;
    if sibling(tables, program, Stage::Whole).is_some() || prompt.or(timestep).is_none() {
        return Err(What::Stage);
    }
    equal("pinned bytes", step.pinned_bytes(), pinned)?;
    match program.stage() {
        Stage::Prompt => equal(
            "chunks",
            step.max_chunks().into(),
            program.max_chunks().into(),
        ),
        Stage::Step if prompt.is_none() => equal("chunks", 1, program.max_chunks().into()),
        _ => Ok(()),
    }
}

fn is_pinned(program: &Program, operand: &Operand) -> bool {
    operand.space == Space::Arena && operand.offset < program.pinned_bytes()
}

/// Checks where a program's ports lie, and that those of the pinned bytes are the other programs' too.
fn check_ports(tables: &Tables, program: &Program, place: Place) -> Result<(), PackageError> {
    let inputs = program.inputs().map(|port| (port, true));
    let outputs = program.outputs().map(|port| (port, false));
    let step = sibling(tables, program, Stage::Step);
    for (index, (port, is_input)) in inputs.chain(outputs).enumerate() {
        let here = |what| {
            Place {
                port: Some(index as u32),
                ..place
            }
            .error(what)
        };
        let pinned = is_pinned(program, &port.operand());
        let end = port.offset.saturating_add(port.bytes);
        if pinned && end > program.pinned_bytes() {
            return Err(here(What::Outside {
                name: "pinned port",
                end,
                limit: program.pinned_bytes(),
            }));
        }
        let agrees = match (program.stage(), is_input) {
            (Stage::Whole, _) => true,
            (Stage::Prompt | Stage::Timestep, false) => {
                pinned && step.is_some_and(|step| step.inputs().any(|other| other == port))
            }
            (Stage::Step, true) if pinned => {
                let of = |stage| sibling(tables, program, stage);
                let gives =
                    |p: Option<Program>| p.is_some_and(|p| p.outputs().any(|other| other == port));
                gives(of(Stage::Prompt)) != gives(of(Stage::Timestep))
            }
            _ => !pinned,
        };
        if !agrees {
            return Err(here(What::Pinned));
        }
        if port.per_chunk {
            check_chunks(program, &port, pinned).map_err(here)?;
        }
    }
    Ok(())
}

/// Checks a port whose rows grow with the chunks.
fn check_chunks(program: &Program, port: &Port, pinned: bool) -> Result<(), What> {
    let may = match program.stage() {
        Stage::Prompt => true,
        Stage::Step => pinned,
        Stage::Whole | Stage::Timestep => false,
    };
    if !may || port.layout != Layout::RowMajor || port.rank != 3 {
        return Err(What::Chunks);
    }
    let [batch, rows, ..] = port.dims;
    equal("batch", 1, batch.into())?;
    if rows.is_multiple_of(program.max_chunks()) {
        Ok(())
    } else {
        Err(What::Chunks)
    }
}

/// Checks which operands of a program's steps lie in the pinned bytes, and which steps grow with the chunks.
fn check_steps(program: &Program, place: Place) -> Result<(), PackageError> {
    for (index, step) in program.steps().enumerate() {
        let op = step.op();
        let place = Place {
            step: Some(index as u32),
            ..place
        };
        if step.per_chunk() {
            let rows = op.chunk_rows(program.stage());
            let mask = op
                .slots()
                .iter()
                .zip(step.operands())
                .any(|(slot, o)| slot.name == "mask" && !o.is_empty());
            if mask || !rows.is_some_and(|rows| rows.is_multiple_of(program.max_chunks())) {
                return Err(place.error(What::Chunks));
            }
        }
        for (slot, operand) in op.slots().iter().zip(step.operands()) {
            if is_pinned(program, &operand) && !may_use(program, &operand, slot.role) {
                return Err(Place {
                    slot: Some(slot.name),
                    ..place
                }
                .error(What::Pinned));
            }
        }
    }
    Ok(())
}

/// Whether a step may use an operand of the pinned bytes in that role.
fn may_use(program: &Program, operand: &Operand, role: Role) -> bool {
    let mut ports = match program.stage() {
        Stage::Step if matches!(role, Role::Input | Role::Optional) => program.inputs(),
        Stage::Prompt | Stage::Timestep if role != Role::Scratch => program.outputs(),
        _ => return false,
    };
    ports.any(|port| port.operand() == *operand)
}
