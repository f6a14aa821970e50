//! Sections and programs whose fields contradict the file or each other.

use super::*;

#[test]
fn sections_that_lie() {
    let bytes = package();
    let length = bytes.len() as u64;
    let row = |id| find_section(&bytes, id).0;
    let long = |value: u64| value.to_le_bytes();
    let patches: &[(usize, &[u8], &str)] = &[
        (12, &5u32.to_le_bytes(), "byte between sections"),
        (12, &u32::MAX.to_le_bytes(), "sections: at most 64"),
        (16, &long(length + 1), "truncated"),
        (16, &long(length - 1), "too long"),
        (28, &[1], "header's last field"),
        (
            row(section::CARD),
            &section::TOKENIZER.to_le_bytes(),
            "repeated",
        ),
        (row(section::CARD), &99u32.to_le_bytes(), "has no meaning"),
        (row(section::CARD), &0u32.to_le_bytes(), "has no meaning"),
        (row(section::CARD) + 4, &[1], "flags"),
        (row(section::CARD) + 8, &long(1 << 40), "offset"),
        (row(section::CARD) + 8, &long(0), "out of order"),
        (row(section::CARD) + 8, &long(u64::MAX - 63), "offset"),
        (row(section::CARD) + 16, &long(u64::MAX), "past the end"),
        (row(section::CARD) + 16, &long(4000), "out of order"),
        (row(section::CARD) + 28, &[1], "last field"),
        (row(section::TOKENIZER) + 8, &[1], "multiple of 64"),
        (row(section::WEIGHTS) + 8, &[64], "multiple of 4096"),
        (row(section::WEIGHTS) + 24, &[1], "checksum"),
        (
            row(section::WEIGHTS) + 16,
            &long(WEIGHTS as u64 - 64),
            "byte between sections",
        ),
        (row(77) + 4, &[0], "has no meaning"),
        (row(77) + 16, &long(1), "too long"),
        (
            find_section(&bytes, section::TOKENIZER).1.start - 1,
            &[7],
            "byte between sections",
        ),
        (
            find_section(&bytes, section::CARD).1.start,
            &[0xFF],
            "UTF-8",
        ),
        (
            find_section(&bytes, section::SCHEDULER).1.start,
            &[0xFF],
            "UTF-8",
        ),
    ];
    for (at, value, expected) in patches {
        let error = open_patched(&bytes, *at, value).map(|e| e.to_string());
        assert!(
            error.as_ref().is_some_and(|e| e.contains(expected)),
            "{expected:?} at {at}: {error:?}"
        );
    }
}

#[test]
fn a_missing_section_is_named() {
    let bytes = package();
    for (index, name) in section::NAMES.iter().enumerate() {
        // The section becomes one that may be skipped.
        let (row, contents) = find_section(&bytes, index as u32 + 1);
        let mut patched = bytes.clone();
        patched[row..row + 4].copy_from_slice(&500u32.to_le_bytes());
        patched[row + 4] = 1;
        patched[row + 24..row + 28].copy_from_slice(&crc32c(&bytes[contents]).to_le_bytes());
        reseal(&mut patched);
        let error = Package::open(&patched).err().unwrap().to_string();
        assert_eq!(error, format!("section {name}: missing"));
    }
}

/// Every 16-bit half of the programs section's tables, set to extremes: an error or, where the format leaves the value
/// open, a package that holds together.
#[test]
fn programs_that_lie() {
    let bytes = package();
    let programs = find_section(&bytes, section::PROGRAMS).1;
    let mut refused = 0;
    let mut tried = 0;
    for at in (programs.start..programs.end - 1).step_by(2) {
        for value in [
            [0, 0],
            [0xFF, 0xFF],
            [0xFF, 0x7F],
            [bytes[at].wrapping_add(1), bytes[at + 1]],
        ] {
            let Some(half) = bytes.get(at..at + 2).filter(|half| *half != value) else {
                continue;
            };
            assert_eq!(half.len(), 2);
            let mut patched = bytes.clone();
            patched[at..at + 2].copy_from_slice(&value);
            reseal(&mut patched);
            tried += 1;
            match Package::open(&patched) {
                Ok(package) => _ = walk(&package),
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.place.section, Some(section::PROGRAMS), "{error}");
                }
            }
        }
    }
    // What passes are names, floats, activations, arena places that do not meet, and the size a program is for.
    assert!(refused * 10 > tried * 6, "{refused} of {tried}");
}

#[test]
fn program_fields_that_lie() {
    let bytes = package();
    let start = find_section(&bytes, section::PROGRAMS).1.start;
    let header = |i: usize| start + 4 * i;
    let program = |i: usize| start + PROGRAMS_HEADER_BYTES + PROGRAM_BYTES * i;
    let port = program(2);
    let step = port + PORT_BYTES * 4;
    let operand = step + STEP_BYTES * 21;
    let long = |value: u64| value.to_le_bytes();
    let weight = 24 * 2;
    let patches: &[(usize, &[u8], &str)] = &[
        (
            header(0),
            &3u32.to_le_bytes(),
            "section programs: truncated",
        ),
        (
            header(2),
            &u32::MAX.to_le_bytes(),
            "section programs: truncated",
        ),
        (header(6), &[1], "last fields"),
        (program(0), &[9], "program 0: graph: 9 has no meaning"),
        // The third graph, stage 0, 0 by 0, which skips nothing.
        (
            program(0),
            &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            "program 1: repeated or out of order",
        ),
        (
            program(0),
            &[2],
            "program 0: clip skip: 0 expected, 1 found",
        ),
        (
            program(0) + 16,
            &[0],
            "program 0: clip skip: 1 expected, 0 found",
        ),
        (
            program(1) + 16,
            &[1],
            "program 1: clip skip: 0 expected, 1 found",
        ),
        (program(1) + 4, &[9], "program 1: stage: 9"),
        (program(1) + 20, &long(1 << 50), "program 1: arena bytes"),
        (program(1) + 20, &long(64), "program 1: arena bytes"),
        (
            program(1) + 36,
            &[64],
            "program 1: pinned bytes: 0 expected, 64 found",
        ),
        (
            program(1) + 36,
            &[1],
            "program 1: pinned bytes: a multiple of 64",
        ),
        (
            program(1) + 36,
            &long(1 << 50),
            "program 1: pinned bytes: at most",
        ),
        (
            program(1) + 44,
            &[1],
            "program 1: shared bytes: a multiple of 64",
        ),
        (
            program(1) + 44,
            &long(1 << 50),
            "program 1: shared bytes: at most",
        ),
        (program(1) + 52, &[1], "first port: 2 expected, 1 found"),
        (program(1) + 56, &[17], "ports ends at"),
        (program(1) + 60, &u32::MAX.to_le_bytes(), "ports ends at"),
        (program(1) + 60, &[0], "missing"),
        (program(1) + 64, &[0], "first step: 19 expected, 0 found"),
        (program(1) + 68, &[0], "missing"),
        (program(1) + 68, &[1], "steps: 20 expected, 21 found"),
        (
            program(1) + 72,
            &[2],
            "program 1: chunks: 1 expected, 2 found",
        ),
        (
            program(1) + 72,
            &[0],
            "program 1: chunks: 1 expected, 0 found",
        ),
        (program(1) + 4, &[1], "program 1: the stages of the graph"),
        (port, &[0xFF, 0xFF], "program 0, port 0: name ends at"),
        (port + 4, &[0], "program 0, port 0: the name is empty"),
        (port + 8, &[2], "type: 2 has no meaning"),
        (port + 12, &[2], "layout: 2"),
        (port + 12, &[1], "rank: 4 expected"),
        (port + 16, &[5], "rank: at most 4"),
        (port + 16, &[0], "size of an axis"),
        (port + 20, &[2], "bytes"),
        (port + 32, &[2], "size of an axis"),
        (port + 36, &[2], "port's flags: 2 has no meaning"),
        (port + 36, &[1], "program 0, port 0: its rows do not grow"),
        (port + 40, &[1], "offset: a multiple of 64"),
        (port + 40, &long(1 << 50), "arena bytes"),
        (port + 40, &long(u64::MAX - 63), "past the end"),
        (port + 48, &long(4), "bytes"),
        (step, &[99], "step 0: operator 99 is unknown"),
        (step + 2, &[1], "another number of attributes"),
        (step + 4, &[7], "another number of operands"),
        (step + 6, &[4], "step's flags: 4 has no meaning"),
        (step + 6, &[2], "program 0, step 0: joined to the next"),
        (step + 6, &[1], "program 0, step 0: its rows do not grow"),
        (step + 8, &[1], "first attribute word: 0 expected, 1 found"),
        (step + 12, &[1], "first operand: 0 expected, 1 found"),
        (step + 20, &u32::MAX.to_le_bytes(), "name ends at"),
        (operand, &[3], "operand `x`: space: 3"),
        (operand + 2, &[5], "operand `x`: type: 5"),
        (operand + 2, &[0], "operand `x` has the wrong type"),
        (operand + 4, &[1], "third field"),
        (operand + 8, &[1], "a multiple of 64"),
        (operand + 8, &long(u64::MAX - 63), "past the end"),
        (operand + 16, &long(118), "operand `x` has a size other"),
        (
            operand + weight / 2,
            &[1],
            "operand `weight` lies in the wrong space",
        ),
        (
            operand + weight / 2 + 8,
            &long(WEIGHTS as u64 - 64),
            "operand `weight`: operand ends at",
        ),
    ];
    for (at, value, expected) in patches {
        let error = open_patched(&bytes, *at, value).map(|e| e.to_string());
        assert!(
            error.as_ref().is_some_and(|e| e.contains(expected)),
            "{expected:?} at {at}: {error:?}"
        );
    }
}
