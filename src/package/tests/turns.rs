//! What lanes share, and what is refused about it.

use super::stages::{PINNED, port, staged, step};
use super::*;

fn concat(c: u32, c2: u32) -> Op {
    Op::Concat(Concat { rows: 1, c, c2 })
}

/// Two steps in the shared bytes, 128 to 256, and one that writes the output, all in one turn.
fn shared() -> ProgramRecord {
    let op = concat(16, 16);
    let mut steps = vec![
        step(op, &[(0, 0), (1, 0), (2, 128)], "a"),
        step(op, &[(0, 128), (1, 128), (2, 192)], "b"),
        // Of both, written one by one.
        step(concat(64, 16), &[(0, 128), (1, 128), (2, 64)], "c"),
    ];
    steps[..2].iter_mut().for_each(|step| step.joined = true);
    let mut program = ProgramRecord {
        graph: GraphKind::Unet,
        stage: Stage::Whole,
        height: 64,
        width: 64,
        clip_skip: 0,
        arena_bytes: 384,
        thread_scratch_bytes: 0,
        pinned_bytes: 0,
        shared_bytes: 128,
        max_chunks: 1,
        inputs: vec![port("x", 0, &[1, 16])],
        outputs: vec![port("y", 64, &[1, 80])],
        steps,
    };
    // The output takes 160 bytes: what is shared comes after it.
    for operand in program.steps.iter_mut().flat_map(|step| &mut step.operands) {
        if operand.offset >= 128 {
            operand.offset += 128;
        }
    }
    program
}

fn opened(program: ProgramRecord) -> Result<Vec<u8>, String> {
    let writer = PackageWriter {
        programs: vec![program],
        ..PackageWriter::default()
    };
    writer.to_vec(&weights()).map_err(|error| error.to_string())
}

#[test]
fn lanes_share_the_end_of_an_arena() {
    let bytes = opened(shared()).expect("sound");
    let package = Package::open(&bytes).expect("sound");
    walk(&package);
    let program = package.programs().next().expect("one");
    assert_eq!((program.shared_bytes(), program.lane_bytes()), (128, 256));
    let turns: Vec<Turn> = program.turns().collect();
    let all = Turn {
        steps: 0..3,
        apart: true,
    };
    assert_eq!(turns, [all]);
    // At the last step both, and the output; another lane holds its input or its output.
    assert_eq!(program.bound_bytes(1), 128 + 192);
    assert_eq!(program.bound_bytes(2), 128 + 192 + 192);

    let mut alone = shared();
    alone.shared_bytes = 0;
    alone.steps.iter_mut().for_each(|step| step.joined = false);
    let bytes = opened(alone).expect("sound");
    let package = Package::open(&bytes).expect("sound");
    let program = package.programs().next().expect("one");
    assert!(
        program
            .turns()
            .all(|turn| !turn.apart && turn.steps.len() == 1)
    );
    assert_eq!(program.bound_bytes(2), 2 * program.bound_bytes(1));
}

/// A step that holds something shared while it runs is a turn, alone.
#[test]
fn a_turn_of_one_step() {
    let mut program = shared();
    // `a` and `b` write what nobody reads.
    for step in &mut program.steps {
        step.joined = false;
        for operand in &mut step.operands[..2] {
            operand.offset = 0;
        }
    }
    program.steps[2] = step(concat(16, 16), &[(0, 0), (1, 0), (2, 64)], "c");
    let bytes = opened(program).expect("sound");
    let package = Package::open(&bytes).expect("sound");
    let turns = package.programs().next().expect("one").turns();
    let turns: Vec<_> = turns.map(|turn| (turn.steps, turn.apart)).collect();
    assert_eq!(turns, [(0..1, true), (1..2, true), (2..3, false)]);
}

#[test]
fn what_lies_about_shared_bytes_is_refused() {
    type Change = fn(&mut ProgramRecord);
    let changes: [(Change, &str); 9] = [
        (
            |program| program.shared_bytes = 32,
            "program 0: shared bytes: a multiple of 64 expected, 32 found",
        ),
        (
            |program| program.shared_bytes = 448,
            "program 0: shared bytes: at most 384 expected, 448 found",
        ),
        (
            |program| program.shared_bytes = 192,
            "program 0, port 1: port ends at 224, past the end at 192",
        ),
        (
            |program| program.shared_bytes = 0,
            "program 0, step 0: joined to the next step, but there is none or the lanes share nothing",
        ),
        (
            |program| program.steps[2].joined = true,
            "program 0, step 2: joined to the next step, but there is none or the lanes share nothing",
        ),
        (
            |program| program.steps[0].joined = false,
            "program 0, step 1, operand `x`: reads shared bytes that no step of its turn has written",
        ),
        (
            |program| program.steps[1].joined = false,
            "program 0, step 2, operand `x`: reads shared bytes that no step of its turn has written",
        ),
        (
            |program| program.steps[0].operands[1].offset = 320,
            "program 0, step 0, operand `x2`: reads shared bytes that no step of its turn has written",
        ),
        (
            // 96 bytes from 192.
            |program| program.steps[0] = step(concat(16, 32), &[(0, 0), (1, 0), (2, 192)], "a"),
            "program 0, step 0, operand `out`: operand ends at 288, past the end at 256",
        ),
    ];
    for (change, expected) in changes {
        let mut program = shared();
        change(&mut program);
        let error = opened(program).expect_err(expected);
        assert!(error.contains(expected), "{error:?} for {expected:?}");
    }
}

#[test]
fn earlier_stages_share_nothing() {
    for (stage, c) in [(0, 16), (1, 4)] {
        let with = |shared_bytes| {
            let mut writer = staged();
            let program = &mut writer.programs[stage];
            let offsets = [(0, PINNED), (1, PINNED), (2, PINNED + 64)];
            program.steps.push(step(concat(c, c), &offsets, "more"));
            program.arena_bytes += 64;
            program.shared_bytes = shared_bytes;
            writer.to_vec(&weights()).map_err(|error| error.to_string())
        };
        with(0).expect("sound as it is");
        let error = with(64).expect_err("shared");
        let expected = format!("program {stage}: shared bytes: 0 expected, 64 found");
        assert!(error.contains(&expected), "{error}");
    }
}

/// More parts than the reader has room for are an error, not a slip.
#[test]
fn many_parts_in_one_turn_are_refused() {
    let op = concat(16, 16);
    let with = |parts: u64| {
        let mut program = shared();
        let last = program.steps.pop().expect("three");
        program.steps.truncate(2);
        for part in 0..parts {
            let mut one = step(op, &[(0, 0), (1, 0), (2, 512 + 128 * part)], "part");
            one.joined = true;
            program.steps.push(one);
        }
        program.steps.push(last);
        program.arena_bytes = 512 + 128 * parts - 64;
        program.shared_bytes = program.arena_bytes - 256;
        opened(program)
    };
    with(255).expect("255 and one that is two");
    let error = with(256).expect_err("too many");
    let expected = "step 257: parts of the shared bytes: at most 256 expected, 257 found";
    assert!(error.contains(expected), "{error}");
}
