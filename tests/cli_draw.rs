//! `kiln draw` beyond one picture of one plain prompt, `kiln tokens` and `kiln show-info`.

#[allow(dead_code)]
mod common;

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use common::command::{fails, folder, kiln, names, succeeds, text};
use common::toy;
use serde_json::{Value, json};

/// Draws a prompt into `x.png` and gives the pixels.
fn pixels(folder: &Path, prompt: &str, more: &[&str]) -> Vec<u8> {
    let arguments = [
        "draw", "-m", "toy.kiln", prompt, "--seed", "1", "-o", "x.png",
    ];
    succeeds(folder, &[&arguments[..], more].concat());
    read_png(&folder.join("x.png")).1
}

fn read_png(path: &Path) -> ((u32, u32), Vec<u8>) {
    let file = fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let decoder = png::Decoder::new(std::io::BufReader::new(file));
    let mut reader = decoder.read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("pixels");
    ((info.width, info.height), pixels)
}

fn lines(said: &str) -> Vec<Value> {
    said.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn prompts_are_in_the_webuis_language() {
    let folder = folder();
    toy::write(folder.path());
    let draw = |prompt: &str, more: &[&str]| pixels(folder.path(), prompt, more);
    let red = draw("a red apple", &[]);
    assert_eq!(draw("a (red:1.0) apple", &[]), red);
    assert_ne!(draw("a (red:1.5) apple", &[]), red);
    assert_ne!(draw("a [red] apple", &[]), red);
    let comfy = draw("a (red:1.5) apple", &["--prompt-style", "comfy"]);
    assert!(comfy != red && comfy != draw("a (red:1.5) apple", &[]));
    assert_eq!(draw("a (red:1.0) apple", &["--prompt-style", "comfy"]), red);
    assert_ne!(draw("a (red:1.0) apple", &["--prompt-style", "plain"]), red);

    // A text that is said from the first to the last step is the picture's.
    let blue = draw("a blue apple", &[]);
    assert_eq!(draw("a [red:blue:9] apple", &[]), red);
    assert_eq!(draw("a [red:blue:0] apple", &[]), blue);
    let both = draw("a [red:blue:0.25] apple", &[]);
    assert!(both != red && both != blue);
    let turns = draw("a [red|blue] apple", &[]);
    assert!(turns != red && turns != blue && turns != both);
    // The negative prompt has its own.
    assert!(
        draw("a red apple", &["--negative", "[blue:apple:0.25]"])
            != draw("a red apple", &["--negative", "blue"])
    );
    // Brackets that close nothing are text.
    succeeds(
        folder.path(),
        &["draw", "-m", "toy.kiln", "]) a ((red [apple", "-o", "y.png"],
    );
}

#[test]
fn tokens_shows_what_a_prompt_is() {
    let folder = folder();
    toy::write(folder.path());
    let tokens = |prompt: &str, more: &[&str]| {
        succeeds(
            folder.path(),
            &[&["tokens", "-m", "toy.kiln", prompt], more].concat(),
        )
    };
    let said = tokens("a (red:1.5) [apple:blue:2]", &["--json"]);
    let found: Value = serde_json::from_str(&said).expect("JSON");
    let schedule = [
        json!({"first": 1, "last": 2, "text": 0}),
        json!({"first": 3, "last": 4, "text": 1}),
    ];
    assert_eq!(found["schedule"], json!(schedule));
    assert_eq!(found["texts"][1]["text"], "a (red:1.5) blue");
    let tokens_of = &found["texts"][1]["chunks"][0]["tokens"];
    let expected = json!([
        {"id": 3, "token": "a", "weight": 1.0},
        {"id": 4, "token": "red", "weight": 1.5},
        {"id": 6, "token": "blue", "weight": 1.0},
    ]);
    assert_eq!(*tokens_of, expected);
    let ids = found["texts"][1]["chunks"][0]["ids"]
        .as_array()
        .expect("ids");
    assert_eq!((ids.len(), &ids[0], &ids[4]), (77, &json!(1), &json!(2)));

    let said = tokens("a [red|blue] apple", &["--steps", "3"]);
    for part in [
        "steps 1, 3: a red apple\n",
        "steps 2: a blue apple\n",
        "chunk 1: 3 of 75 tokens\n",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = tokens(&"red ".repeat(76), &[]);
    assert!(said.ends_with("cut off: red\n"), "{said}");
    let here = |prompt: &'static str, parts: &[&str]| {
        fails(
            folder.path(),
            &["tokens", "-m", "toy.kiln", prompt],
            2,
            parts,
        );
    };
    here(
        "<lora:detail:0.8>",
        &["kiln compile --lora detail.safetensors"],
    );
    here("a AND b", &["AND"]);
    here("(a:1.2.3)", &["1.2.3"]);
}

#[test]
fn a_picture_is_drawn_again_from_what_it_says() {
    let folder = folder();
    toy::write(folder.path());
    let options = [
        "--sampler",
        "euler-a",
        "--size",
        "96x64",
        "--steps",
        "3",
        "--guidance-scale",
        "2.5",
        "--negative",
        "blue, \"x\"",
    ];
    for name in ["first.png", "first.jpg", "first.webp"] {
        let first = [
            "draw",
            "-m",
            "toy.kiln",
            "a (red:1.2), [b:apple:2]",
            "--seed",
            "8",
            "-o",
            name,
        ];
        succeeds(folder.path(), &[&first[..], &options].concat());
        succeeds(
            folder.path(),
            &["draw", "-m", "toy.kiln", "--like", name, "-o", "again.png"],
        );
        let again = fs::read(folder.path().join("again.png")).expect("a picture");
        if name == "first.png" {
            assert_eq!(
                again,
                fs::read(folder.path().join(name)).expect("a picture")
            );
        }
        succeeds(
            folder.path(),
            &[
                &[
                    "draw",
                    "-m",
                    "toy.kiln",
                    "a (red:1.2), [b:apple:2]",
                    "--seed",
                    "8",
                    "-o",
                    "other.png",
                ],
                &options[..],
            ]
            .concat(),
        );
        assert_eq!(
            again,
            fs::read(folder.path().join("other.png")).expect("a picture"),
            "{name}"
        );
        let said = succeeds(folder.path(), &["show-info", name]);
        for part in [
            "96 x 64",
            "prompt: a (red:1.2), [b:apple:2]\n",
            "seed: 8\n",
            "sampler: euler-a\n",
            "Model: toy\n",
        ] {
            assert!(said.contains(part), "{name}: {part}: {said}");
        }
        let found: Value =
            serde_json::from_str(&succeeds(folder.path(), &["show-info", name, "--json"]))
                .expect("JSON");
        assert_eq!(found["options"]["negative"], "blue, \"x\"");
    }
    // What is said beside it wins.
    let more = [
        "a blue apple",
        "--steps",
        "2",
        "--like",
        "first.jpg",
        "--json",
        "-o",
        "x.png",
    ];
    let said = lines(&succeeds(
        folder.path(),
        &[&["draw", "-m", "toy.kiln"], &more[..]].concat(),
    ));
    let expected = (
        &json!("a blue apple"),
        &json!(2),
        &json!(8),
        &json!("euler-a"),
    );
    assert_eq!(
        (
            &said[0]["prompt"],
            &said[0]["steps"],
            &said[0]["seed"],
            &said[0]["sampler"]
        ),
        expected
    );

    fs::write(folder.path().join("text.png"), b"no picture at all").expect("a file");
    for (name, part) in [
        ("text.png", "is no PNG, JPEG or WebP"),
        ("missing.png", "No such file"),
    ] {
        fails(folder.path(), &["show-info", name], 1, &[name, part]);
        fails(
            folder.path(),
            &["draw", "-m", "toy.kiln", "--like", name],
            1,
            &[name, part],
        );
    }
}

#[test]
fn names_are_made_of_words_in_braces() {
    let folder = folder();
    toy::write(folder.path());
    let draw = |more: &[&str]| {
        succeeds(
            folder.path(),
            &[
                &["draw", "-m", "toy.kiln", "../a: red apple", "--seed", "5"],
                more,
            ]
            .concat(),
        )
    };
    let said = draw(&["-o", "{seed}-{prompt}-{sampler}-{steps}-{size}-{model}.png"]);
    assert!(
        said.starts_with("5-_a_ red apple-ddim-4-64x64-toy.png ("),
        "{said}"
    );
    draw(&["-n", "2", "-o", "p{n}.webp"]);
    draw(&["-n", "2", "-o", "s{seed}.jpg"]);
    let expected = [
        "5-_a_ red apple-ddim-4-64x64-toy.png",
        "p1.webp",
        "p2.webp",
        "s5-1.jpg",
        "s6-2.jpg",
        "toy.kiln",
    ];
    assert_eq!(names(folder.path()), expected);
    let bytes = |name: &str| fs::read(folder.path().join(name)).expect("a picture");
    assert!(
        bytes("s5-1.jpg").starts_with(&[0xff, 0xd8]) && bytes("p1.webp")[8..].starts_with(b"WEBP")
    );
    let here = ["draw", "-m", "toy.kiln", "a", "-o"];
    fails(
        folder.path(),
        &[&here[..], &["{sed}.png"]].concat(),
        2,
        &["{sed}", "{seed}"],
    );
    fails(
        folder.path(),
        &[&here[..], &["x.gif"]].concat(),
        2,
        &["x.gif", ".webp"],
    );
}

#[test]
fn prompts_come_from_a_file_or_standard_input() {
    let folder = folder();
    toy::write(folder.path());
    let batch = "a red apple\n\n{\"prompt\": \"a blue apple\", \"steps\": 2, \"guidance_scale\": 1, \"output\": \"blue.png\"}\n";
    fs::write(folder.path().join("batch.txt"), batch).expect("a file");
    let arguments = [
        "draw",
        "-m",
        "toy.kiln",
        "--seed",
        "3",
        "--steps",
        "3",
        "--json",
        "-o",
        "x.png",
        "--prompts",
    ];
    let said = lines(&succeeds(
        folder.path(),
        &[&arguments[..], &["batch.txt"]].concat(),
    ));
    let of = |key: &str| {
        said.iter()
            .map(|line| line[key].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("prompt"), ["a red apple", "a blue apple"]);
    assert_eq!(of("steps"), [3, 2]);
    assert_eq!(of("seed"), [3, 3]);
    assert_eq!(of("file"), ["x-1.png", "blue-2.png"]);

    let from_stdin = |input: &[u8]| {
        let mut command = Command::cargo_bin("kiln").expect("the command");
        command
            .current_dir(folder.path())
            .args(arguments)
            .arg("-")
            .write_stdin(input);
        command.output().expect("it runs")
    };
    assert_eq!(lines(text(&from_stdin(batch.as_bytes()).stdout)).len(), 2);
    let before = names(folder.path());
    let long = "a".repeat(10_000_000);
    for (input, parts) in [
        (
            &b"a\nb \xff c\n"[..],
            &["standard input: line 2: byte 3 is no UTF-8"][..],
        ),
        (b"", &["standard input: has no prompts"]),
        (b"a\n{\"promt\": \"b\"}", &["line 2", "`promt`", "`prompt`"]),
        (
            b"{\"prompt\": \"b\", \"steps\": 0}",
            &["line 1", "--steps", "from 1 up"],
        ),
        (
            b"{\"prompt\": \"b\", \"steps\": [1]}",
            &["line 1", "`steps`: expected a text or a number"],
        ),
        (b"{\"prompt\": ", &["line 1: no JSON object"]),
        (long.as_bytes(), &["line 1", "more than 1048576 bytes"]),
        (
            &long.as_bytes()[..100_000],
            &["the prompt has 100000 bytes"],
        ),
    ] {
        let output = from_stdin(input);
        let line = text(&output.stderr);
        assert!(
            matches!(output.status.code(), Some(1 | 2)) && line.lines().count() == 1,
            "{line}"
        );
        for part in parts {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert_eq!(names(folder.path()), before);
    }
    fails(
        folder.path(),
        &["draw", "-m", "toy.kiln", "--prompts", "missing"],
        1,
        &["missing"],
    );
}

#[test]
fn a_grid_is_one_labelled_picture_and_its_cells() {
    let folder = folder();
    toy::write(folder.path());
    let arguments = [
        "draw",
        "-m",
        "toy.kiln",
        "a red apple",
        "--seed",
        "3",
        "-o",
        "x.png",
        "--json",
        "--grid",
        "sampler=ddim,euler",
    ];
    let said = lines(&succeeds(
        folder.path(),
        &[&arguments[..], &["--grid", "steps=2,3"]].concat(),
    ));
    let cells: Vec<_> = said[..4]
        .iter()
        .map(|cell| (cell["sampler"].as_str(), cell["steps"].as_u64()))
        .collect();
    let expected = [("ddim", 2), ("euler", 2), ("ddim", 3), ("euler", 3)];
    assert_eq!(
        cells,
        expected.map(|(sampler, steps)| (Some(sampler), Some(steps)))
    );
    assert_eq!(said[4]["grid"], "x-grid.png");
    let ((width, height), sheet) = read_png(&folder.path().join("x-grid.png"));
    assert_eq!(
        (said[4]["width"].as_u64(), said[4]["height"].as_u64()),
        (Some(width.into()), Some(height.into()))
    );
    // Each cell is in the sheet, and beside it there are labels in black.
    let (left, top) = (width - 2 * 68, height - 2 * 68);
    for (number, at) in [(1, (0, 0)), (2, (1, 0)), (3, (0, 1)), (4, (1, 1))] {
        let (_, cell) = read_png(&folder.path().join(format!("x-{number}.png")));
        for row in 0..64 {
            let from = ((top + at.1 * 68 + row) * width + left + at.0 * 68) as usize * 3;
            let own = row as usize * 64 * 3;
            assert_eq!(
                sheet[from..from + 64 * 3],
                cell[own..own + 64 * 3],
                "cell {number}, row {row}"
            );
        }
    }
    let dark = |rows: std::ops::Range<u32>, columns: std::ops::Range<u32>| {
        rows.flat_map(|y| columns.clone().map(move |x| (y * width + x) as usize * 3))
            .filter(|at| sheet[*at..*at + 3] == [0, 0, 0])
            .count()
    };
    assert!(dark(0..top, left..left + 64) > 20 && dark(top..top + 64, 0..left) > 20);

    for (more, parts) in [
        (&["--grid", "smpler=a"][..], &["`smpler`", "`sampler`"][..]),
        (&["--grid", "output=a"], &["`output`"]),
        (&["--grid", "steps"], &["NAME=VALUE"]),
        (&["--grid", "steps=2,x"], &["--steps"]),
        (&["--grid", "steps=2", "--grid", "seed=1"], &["two axes"]),
        (&["--grid", "steps=2", "-n", "2"], &["-n"]),
    ] {
        fails(folder.path(), &[&arguments[..], more].concat(), 2, parts);
    }
}

#[test]
fn previews_are_written_and_kept() {
    let folder = folder();
    let map = json!({"preview": [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]});
    toy::write_with(folder.path(), &map, &json!({}));
    let arguments = [
        "draw",
        "-m",
        "toy.kiln",
        "a red apple",
        "--seed",
        "3",
        "-o",
        "x.png",
    ];
    succeeds(
        folder.path(),
        &[&arguments[..], &["--preview", "p.png:every 2"]].concat(),
    );
    let (size, preview) = read_png(&folder.path().join("p.png"));
    assert_eq!(size, (64, 64));
    // Squares of 8 by 8, not all of one colour.
    let at = |x: usize, y: usize| &preview[(y * 64 + x) * 3..][..3];
    assert_eq!(at(0, 0), at(7, 7));
    assert!((0..8).any(|i| at(8 * i, 0) != at(0, 0)));

    let output = kiln(
        folder.path(),
        &[&arguments[..], &["--show", "--quiet"]].concat(),
    );
    assert!(output.status.success());
    assert_eq!(text(&output.stderr).lines().count(), 32);
    assert!(text(&output.stderr).contains("\x1b[38;2;"));

    let here = |more: &[&'static str]| [&arguments[..], more].concat();
    fails(
        folder.path(),
        &here(&["--preview", "p.png:every 0"]),
        2,
        &["--preview", "every N"],
    );
    fails(
        folder.path(),
        &here(&["--preview", "p.tiff"]),
        2,
        &["--preview", ".png"],
    );
    fails(
        folder.path(),
        &here(&["--preview", "missing/p.png"]),
        1,
        &["missing/p.png"],
    );
    toy::write(folder.path());
    fails(
        folder.path(),
        &here(&["--preview", "p.png"]),
        2,
        &["toy.kiln", "without previews"],
    );
}

/// An interruption says what is left.
#[cfg(unix)]
#[test]
fn an_interrupted_drawing_keeps_its_preview() {
    let folder = folder();
    let map = json!({"preview": vec![[0.5; 3]; 5]});
    toy::write_with(folder.path(), &map, &json!({}));
    let child = std::process::Command::new(assert_cmd::cargo::cargo_bin("kiln"))
        .args([
            "draw",
            "-m",
            "toy.kiln",
            "a",
            "--steps",
            "999",
            "-n",
            "100000",
            "-o",
            "x.png",
            "-q",
            "--preview",
            "p.png",
        ])
        .current_dir(folder.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let start = std::time::Instant::now();
    while !folder.path().join("p.png").exists() {
        assert!(start.elapsed().as_secs() < 60, "no preview");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    let sent = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.expect("kill").success());
    let output = child.wait_with_output().expect("it ends");
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{line}");
    let says = line.starts_with("kiln: cancelled; kept p.png, the preview of step ")
        && line.ends_with(" of 999\n");
    // Between two pictures there is nothing of the next one yet.
    assert!(says || line == "kiln: cancelled\n", "{line}");
    read_png(&folder.path().join("p.png"));
}

/// Writes a PNG of one byte a pixel.
fn write_grey(path: &Path, (width, height): (u32, u32), value: impl Fn(u32, u32) -> u8) {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().expect("memory");
    let pixel = |i: u32| value(i % width, i / width);
    let pixels: Vec<u8> = (0..width * height).map(pixel).collect();
    writer.write_image_data(&pixels).expect("memory");
    writer.finish().expect("memory");
    fs::write(path, bytes).expect("a file");
}

#[test]
fn pictures_begin_with_a_picture() {
    let folder = folder();
    toy::write(folder.path());
    let draw = |more: &[&str]| pixels(folder.path(), "a red apple", more);
    succeeds(
        folder.path(),
        &[
            "draw",
            "-m",
            "toy.kiln",
            "a blue apple",
            "--seed",
            "2",
            "-o",
            "init.png",
        ],
    );
    let from = |more: &[&str]| draw(&[&["--init", "init.png"], more].concat());
    let plain = draw(&[]);
    let half = from(&["--strength", "0.5"]);
    assert!(half != plain && half != from(&["--strength", "1"]));
    assert_eq!(from(&[]), from(&["--strength", "0.75"]));
    // White is repainted and black is kept.
    let old = read_png(&folder.path().join("init.png")).1;
    write_grey(&folder.path().join("mask.png"), (64, 64), |x, _| {
        if x < 32 { 255 } else { 0 }
    });
    let masked = from(&["--mask", "mask.png", "--mask-blur", "0"]);
    for (i, (new, old)) in masked.chunks(3).zip(old.chunks(3)).enumerate() {
        assert!(new == old || i % 64 < 32);
    }
    assert_ne!(masked, old);
    assert_ne!(from(&["--mask", "mask.png"]), masked);
    // Of another size it is resized, and drawn in the size that is asked for.
    let wide = [
        "--init", "init.png", "--resize", "pad", "--size", "96x64", "--json",
    ];
    let arguments = ["draw", "-m", "toy.kiln", "a", "--seed", "1", "-o", "w.png"];
    let said = succeeds(folder.path(), &[&arguments[..], &wide].concat());
    let said = &lines(&said)[0];
    assert_eq!(
        (&said["width"], &said["strength"], &said["resize"]),
        (&json!(96), &json!(0.75), &json!("pad"))
    );
    assert_eq!(read_png(&folder.path().join("w.png")).0, (96, 64));
    let shown = succeeds(folder.path(), &["show-info", "w.png"]);
    assert!(shown.contains("Denoising strength"), "{shown}");
    // A line of a file and a grid know the options too.
    fs::write(
        folder.path().join("list"),
        r#"{"prompt": "a red apple", "init": "init.png", "strength": 0.5, "seed": 1, "output": "l.png"}"#,
    )
    .expect("a file");
    succeeds(
        folder.path(),
        &["draw", "-m", "toy.kiln", "--prompts", "list"],
    );
    assert_eq!(read_png(&folder.path().join("l.png")).1, half);
}

#[test]
fn pictures_to_begin_with_that_cannot_be_used_are_told() {
    let folder = folder();
    toy::write(folder.path());
    let at = |name: &str| folder.path().join(name);
    write_grey(&at("init.png"), (64, 64), |x, y| (x * y) as u8);
    write_grey(&at("mask.png"), (64, 32), |_, _| 255);
    write_grey(&at("black.png"), (64, 64), |_, _| 0);
    fs::write(at("text.png"), "no picture").expect("a file");
    let whole = fs::read(at("init.png")).expect("a file");
    fs::write(at("cut.png"), &whole[..whole.len() / 2]).expect("a file");
    // A header that says 100000 by 100000, its checksum right.
    let mut huge = Vec::new();
    drop(png::Encoder::new(&mut huge, 100_000, 100_000).write_header());
    fs::write(at("huge.png"), huge).expect("a file");
    let here = |more: &[&str], code: i32, parts: &[&str]| {
        let arguments = ["draw", "-m", "toy.kiln", "a red apple"];
        fails(folder.path(), &[&arguments[..], more].concat(), code, parts);
    };
    let init = ["--init", "init.png"];
    let with = |more: &[&'static str]| [&init[..], more].concat();
    here(&with(&["--strength", "1.5"]), 2, &["strength", "0 to 1"]);
    here(&with(&["--strength", "nan"]), 2, &["strength", "0 to 1"]);
    here(
        &with(&["--strength", "0.1"]),
        2,
        &["strength 0.1: of 4 steps none is taken"],
    );
    here(&with(&["--resize", "big"]), 2, &["stretch, crop, pad"]);
    here(
        &with(&["--mask", "mask.png"]),
        2,
        &["the mask is 64x32, the picture 64x64"],
    );
    here(&with(&["--mask", "black.png"]), 2, &["nothing white"]);
    here(
        &with(&["--mask", "init.png", "--mask-blur=-1"]),
        2,
        &["mask blur -1"],
    );
    here(&["--strength", "0.5"], 2, &["--strength needs --init"]);
    here(&["--mask", "mask.png"], 2, &["--mask needs --init"]);
    here(
        &with(&["--only-masked", "8"]),
        2,
        &["--only-masked needs --mask"],
    );
    here(&["--hires-steps", "3"], 2, &["--hires-steps needs --hires"]);
    here(
        &["--hires", "2"],
        2,
        &["hires 2: 64x64 becomes 128x128; the model draws 64x64, 96x64"],
    );
    here(&["--hires", "0.5"], 2, &["hires 0.5"]);
    here(&with(&["--hires", "2"]), 2, &["hires: not with a picture"]);
    here(&["--init", "none.png"], 1, &["none.png: "]);
    here(&["--init", "text.png"], 1, &["text.png: is no PNG"]);
    here(
        &["--init", "cut.png"],
        1,
        &["cut.png: is a damaged picture"],
    );
    here(
        &["--init", "huge.png"],
        1,
        &["huge.png: a picture of 100000x100000 is too large"],
    );
    here(&["--init", "."], 1, &[".: "]);
}

/// Tiles and decoders are options of a picture like all others.
#[test]
fn the_decoder_and_its_tiles_may_be_chosen() {
    let folder = folder();
    let folder = folder.path();
    toy::write_with(folder, &json!({"tile": 64}), &json!({}));
    let wide = ["--size", "96x64"];
    let draw = |more: &[&str]| pixels(folder, "a red apple", &[&wide[..], more].concat());
    let whole = draw(&[]);
    // The option without a size takes no word of the prompt.
    let tiled = draw(&["--tile"]);
    assert_eq!(draw(&["--tile=64"]), tiled);
    assert_eq!(draw(&["--tile=off"]), whole);
    assert_eq!(draw(&["--decoder", "vae"]), whole);
    let most = whole.iter().zip(&tiled).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(most <= Some(1));

    fs::write(
        folder.join("list.txt"),
        r#"{"prompt": "a red apple", "size": "96x64", "seed": 1, "tile": 64, "decoder": "vae"}"#,
    )
    .expect("a file");
    let said = succeeds(
        folder,
        &[
            "draw",
            "-m",
            "toy.kiln",
            "--prompts",
            "list.txt",
            "--json",
            "-o",
            "tiled.png",
        ],
    );
    assert_eq!(lines(&said)[0]["tile"], 64);
    let like = [
        "draw",
        "-m",
        "toy.kiln",
        "--like",
        "tiled.png",
        "-o",
        "x.png",
    ];
    let said = succeeds(folder, &[&like[..], &["--json"]].concat());
    assert_eq!(lines(&said)[0]["tile"], 64);
    let said = succeeds(folder, &[&like[..], &["--json", "--tile=off"]].concat());
    assert_eq!(lines(&said)[0]["tile"], Value::Null);

    let refused = |more: &[&str], expected: &[&str]| {
        let arguments = [&["draw", "-m", "toy.kiln", "a"], more].concat();
        fails(folder, &arguments, 2, expected);
    };
    refused(
        &["--decoder", "taesd"],
        &["decoder taesd: the model has vae", "compile --taesd"],
    );
    refused(&["--decoder", "tiny"], &["vae, taesd"]);
    refused(&["--tile=small"], &["--tile", "pixels", "auto", "off"]);
    refused(
        &["--tile=32", "--size", "96x64"],
        &["tile 32 of 96x64", "vae_decoder", "64x64"],
    );
    assert!(succeeds(folder, &["info", "toy.kiln"]).contains("with guidance, --tile"));
}
