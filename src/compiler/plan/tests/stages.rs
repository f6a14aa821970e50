//! Programs of several stages in one arena.

use super::*;
use crate::plan::Listing;

const PROMPT: &str = r#"graph "unet" {
  input %0 "encoder_hidden_states" [21, 12]
  %1 = weight "k.weight" [16, 12]
  %2 = linear "k1" (x: %0, weight: %1) {activation: none}
  %3 = quantize "codes" (x: %0) {per_row: true}
  %4 = weight "v.weight" [16, 12]
  %5 = linear "v1" (x: %3, weight: %4) {activation: none}
  %6 = linear "k2" (x: %0, weight: %4, residual: %2) {activation: none}
  output %2
  output %5
  output %6
}"#;

const TIMESTEP: &str = r#"graph "unet" {
  input %0 "timestep" [1]
  %1 = weight "frequencies" [8]
  %2 = timestep_embedding "time_proj" (timestep: %0, frequencies: %1) {cos_first: true}
  %3 = weight "time.weight" [16, 16]
  %4 = linear "time" (x: %2, weight: %3) {activation: silu}
  %5 = linear "shift1" (x: %4, weight: %3) {activation: none}
  %6 = weight "shift.weight" [48, 16]
  %7 = linear "shift2" (x: %4, weight: %6) {activation: none}
  %8 = unary "last" (x: %4) {activation: silu}
  output %5
  output %7
  output %8
}"#;

const STEP: &str = r#"graph "unet" {
  input %0 "sample" [4, 6, 4]
  input %1 "v1" [21, 16]
  input %2 "shift1" [1, 16]
  input %3 "k1" [21, 16]
  input %4 "shift2" [1, 48]
  input %5 "k2" [21, 16]
  input %6 "last" [1, 16]
  %7 = weight "conv_in.weight" [16, 4, 3, 3]
  %8 = conv2d "conv_in" (x: %0, weight: %7, shift: %2) {stride: 1, pad: [1, 1, 1, 1], up: none, activation: none}
  %9 = attention "attn1" (q: %8, k: %3, v: %1) {heads: 2, scale: 0.5}
  %10 = weight "up.weight" [48, 16]
  %11 = linear "up" (x: %9, weight: %10, shift: %4) {activation: silu}
  %12 = weight "down.weight" [16, 48]
  %13 = linear "down" (x: %11, weight: %12, residual: %8, shift: %6) {activation: none}
  %14 = attention "attn2" (q: %13, k: %5, v: %5) {heads: 2, scale: 0.5}
  %15 = weight "conv_out.weight" [4, 16, 3, 3]
  %16 = conv2d "conv_out" (x: %14, weight: %15, residual: %0) {stride: 1, pad: [1, 1, 1, 1], up: none, activation: none}
  %17 = unary "own" (x: %2) {activation: silu}
  %18 = binary "sum" (a: %6, b: %17) {kind: add}
  output %16
  output %18
}"#;

fn staged(max_chunks: u32) -> Vec<Part> {
    let stage = |stage, text| Part {
        stage,
        max_chunks,
        ..part(text)
    };
    vec![
        stage(Stage::Step, STEP),
        stage(Stage::Prompt, PROMPT),
        stage(Stage::Timestep, TIMESTEP),
    ]
}

fn records(
    graphs: Vec<Part>,
    precision: Precision,
) -> Result<Vec<package::ProgramRecord>, PlanError> {
    let plan = Plan::new(parts(graphs), precision, &mut |_| ())?;
    let programs = plan.programs.clone();
    let mut file = Cursor::new(Vec::new());
    plan.write(&mut file, &mut |_| ())?;
    Package::open(file.get_ref()).unwrap().verify_all().unwrap();
    Ok(programs)
}

#[test]
fn what_the_stages_give_stays_where_it_is() {
    for max_chunks in [3, 1] {
        let programs = records(staged(max_chunks), Precision::Int8).unwrap();
        let graphs = [PROMPT, TIMESTEP, STEP].map(|text| part(text).graph);
        let [prompt, timestep, step] = &programs[..] else {
            panic!()
        };
        assert_eq!(
            [prompt, timestep, step].map(|p| p.stage),
            [Stage::Prompt, Stage::Timestep, Stage::Step]
        );
        assert_eq!(
            [prompt, timestep, step].map(|p| p.max_chunks),
            [max_chunks, 1, max_chunks]
        );
        // Three of [21, 16], then [1, 16], [1, 48] and [1, 16] of two bytes each, at multiples of 64.
        let pinned = 3 * 704 + 64 + 128 + 64;
        assert_eq!(
            [prompt, timestep, step].map(|p| p.pinned_bytes),
            [pinned; 3]
        );
        for port in prompt.outputs.iter().chain(&timestep.outputs) {
            assert!(step.inputs.contains(port), "{port:?}");
        }
        assert_eq!(
            step.inputs
                .iter()
                .filter(|port| port.offset < pinned)
                .count(),
            6
        );
        for program in [prompt, timestep, step] {
            check_dataflow_alone(program);
        }

        let mut arena = Held::new();
        for stage in [0, 1, 2, 1, 2, 2, 0, 1, 2] {
            run(&mut arena, &graphs[stage], &programs[stage]);
        }
        // Without the prompt's values the step finds nothing.
        let mut arena = Held::new();
        run(&mut arena, &graphs[1], timestep);
        let lost = std::panic::AssertUnwindSafe(|| run(&mut arena, &graphs[2], step));
        assert!(std::panic::catch_unwind(lost).is_err());
    }
}

/// Nothing but ports in the pinned bytes.
fn check_dataflow_alone(program: &package::ProgramRecord) {
    let ports = if program.stage == Stage::Step {
        &program.inputs
    } else {
        &program.outputs
    };
    for step in &program.steps {
        for operand in step
            .operands
            .iter()
            .filter(|o| o.space == Space::Arena && o.offset < program.pinned_bytes)
        {
            assert!(
                ports
                    .iter()
                    .any(|p| (p.offset, p.bytes) == (operand.offset, operand.bytes)),
                "{}",
                step.name
            );
        }
    }
}

#[test]
fn what_follows_the_context_is_marked() {
    let marked = |program: &package::ProgramRecord| -> Vec<String> {
        let steps = program
            .steps
            .iter()
            .filter(|s| s.per_chunk)
            .map(|s| s.name.clone());
        let ports = program
            .inputs
            .iter()
            .chain(&program.outputs)
            .filter(|p| p.per_chunk);
        steps
            .chain(ports.map(|p| format!("port {}", p.name)))
            .collect()
    };
    let programs = records(staged(3), Precision::Int8).unwrap();
    let context = "port encoder_hidden_states";
    assert_eq!(
        marked(&programs[0]),
        [
            "k1", "codes", "v1", "k2", context, "port k1", "port v1", "port k2"
        ]
    );
    assert_eq!(marked(&programs[1]), [""; 0]);
    assert_eq!(
        marked(&programs[2]),
        ["attn1", "attn2", "port v1", "port k1", "port k2"]
    );
    let one = records(staged(1), Precision::Int8).unwrap();
    assert!(one.iter().all(|program| marked(program).is_empty()));
}

#[test]
fn stages_that_do_not_fit() {
    let error = |change: &dyn Fn(&mut Vec<Part>)| {
        let mut graphs = staged(3);
        change(&mut graphs);
        records(graphs, Precision::Int8).unwrap_err().to_string()
    };
    let replace = |graphs: &mut Vec<Part>, index: usize, from: &str, to: &str| {
        let text = [STEP, PROMPT, TIMESTEP][index].replace(from, to);
        graphs[index].graph = part(&text).graph;
    };
    let said = error(&|g| replace(g, 0, "\"k2\" [21, 16]", "\"k2\" [22, 16]"));
    assert!(
        said.contains("port \"k2\": is [21, 16], the step takes [22, 16]"),
        "{said}"
    );
    let said = error(&|g| replace(g, 0, "\"v1\"", "\"w1\""));
    assert!(
        said.contains("port \"v1\": is no input of the step"),
        "{said}"
    );
    let said = error(&|g| replace(g, 1, "output %2\n", "output %2\n  output %2\n"));
    assert!(said.contains("is no value of its own"), "{said}");
    let said = error(&|g| replace(g, 1, "output %2\n", "output %0\n"));
    assert!(said.contains("is no value of its own"), "{said}");
    let said = error(&|g| replace(g, 1, "\"k2\"", "\"k1\""));
    assert!(said.contains("port \"k1\": is given twice"), "{said}");
    // 21 rows are no two chunks.
    let said = error(&|g| g.iter_mut().for_each(|part| part.max_chunks = 2));
    assert!(
        said.contains("cannot have fewer rows for fewer than 2 chunks"),
        "{said}"
    );
    // What the runtime cannot do with fewer rows.
    let softmax = "%5 = softmax \"v1\" (x: %2)";
    let said = error(&|g| {
        replace(
            g,
            1,
            "%5 = linear \"v1\" (x: %3, weight: %4) {activation: none}",
            softmax,
        )
    });
    assert!(
        said.contains("node \"v1\" (softmax): cannot have fewer rows"),
        "{said}"
    );
    let reader = "%19 = unary \"grown\" (x: %5) {activation: silu}\n  output %19\n  output %18";
    let said = error(&|g| replace(g, 0, "output %18", reader));
    assert!(
        said.contains("node \"grown\" (unary): cannot have fewer rows"),
        "{said}"
    );
    // A step without the stages that it reads of.
    let said = error(&|g| g.truncate(1));
    assert!(said.contains("do not go together"), "{said}");
}

#[test]
fn a_program_prints() {
    let programs = records(staged(3), Precision::Int8).unwrap();
    let text: String = programs
        .iter()
        .map(|program| Listing(program).to_string())
        .collect();
    for expected in [
        "program unet prompt 48x32: arena ",
        ", pinned 2368, chunks 3\n",
        "  input encoder_hidden_states [1, 21, 12] f16 2368+504 row-major per-chunk\n",
        "  1 Quantize \"codes\" per-chunk {rows: 21, c: 12, c2: 0, per_row: true}\n    x arena f16 2368+504\n",
        "    x arena u8 ",
        "  output v1 [1, 21, 16] f16 704+672 row-major per-chunk\n",
        "  input shift1 [1, 1, 16] f16 2112+32 row-major\n",
        "  input sample [1, 4, 4, 6] f16 ",
        "channels-last\n",
    ] {
        assert!(text.contains(expected), "{expected:?} in\n{text}");
    }
    let mut shared = programs[2].clone();
    (shared.shared_bytes, shared.steps[0].joined) = (64, true);
    let shared = Listing(&shared).to_string();
    assert!(
        shared.contains(", pinned 2368, shared 64, chunks 3\n"),
        "{shared}"
    );
    assert_eq!(shared.matches("\" joined {").count(), 1, "{shared}");
    assert_eq!(
        text,
        records(staged(3), Precision::Int8)
            .unwrap()
            .iter()
            .map(|p| Listing(p).to_string())
            .collect::<String>()
    );
}
