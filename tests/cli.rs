//! The command: what it writes, and what it says when it cannot.

#[allow(dead_code)]
mod common;
#[path = "cli/package.rs"]
mod package;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use assert_cmd::Command;
use common::command::{fails, folder, kiln, names, succeeds, text};
use common::toy;
use serde_json::{Value, json};

fn draw<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["draw", "-m", "toy.kiln", "a red apple"], more].concat()
}

fn png_texts(path: &Path) -> BTreeMap<String, String> {
    let decoder = png::Decoder::new(std::io::BufReader::new(
        fs::File::open(path).expect("a file"),
    ));
    let reader = decoder.read_info().expect("a PNG");
    let info = reader.info();
    let plain = info
        .uncompressed_latin1_text
        .iter()
        .map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
    let international = info
        .utf8_text
        .iter()
        .map(|chunk| (chunk.keyword.clone(), chunk.get_text().expect("UTF-8 text")));
    plain.chain(international).collect()
}

#[test]
fn draws_into_a_file_named_after_the_prompt() {
    let folder = folder();
    toy::write(folder.path());
    for name in ["a-red-apple.png", "a-red-apple-2.png", "a-red-apple-3.png"] {
        let said = succeeds(folder.path(), &draw(&["--seed", "5"]));
        assert!(said.starts_with(&format!("{name} (seed 5, ")), "{said}");
    }
    let read = |name| fs::read(folder.path().join(name)).expect("a picture");
    assert_eq!(read("a-red-apple.png"), read("a-red-apple-2.png"));
    assert_eq!(
        names(folder.path()),
        [
            "a-red-apple-2.png",
            "a-red-apple-3.png",
            "a-red-apple.png",
            "toy.kiln"
        ]
    );
}

/// What was chosen beyond the usual is told too, and only that.
#[test]
fn a_picture_says_how_it_was_sampled() {
    let folder = folder();
    toy::write(folder.path());
    let more = [
        "--sampler",
        "DPM++ 2M SDE Karras",
        "--eta",
        "0.5",
        "--rng",
        "philox",
        "--subseed",
        "3",
        "--subseed-strength",
        "0.25",
        "--guidance-until",
        "0.5",
        "--json",
        "--quiet",
    ];
    let text = succeeds(folder.path(), &draw(&more));
    let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (key, value) in [
        ("sampler", json!("dpmpp-2m-sde")),
        ("schedule", json!("karras")),
        ("eta", json!(0.5)),
        ("rng", json!("philox")),
        ("subseed", json!(3)),
        ("subseed_strength", json!(0.25)),
        ("guidance_until", json!(0.5)),
        ("guidance_from", json!(null)),
    ] {
        assert_eq!(object[key], value, "{key}");
    }
    let texts = png_texts(&folder.path().join(object["file"].as_str().expect("a file")));
    let said = &texts["parameters"];
    for part in [
        "Sampler: DPM++ 2M SDE, ",
        "Schedule type: Karras, ",
        "Variation seed strength: 0.25, ",
        "Eta: 0.5",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_picture_says_how_it_was_drawn() {
    let folder = folder();
    toy::write(folder.path());
    let more = [
        "--seed",
        "9",
        "--sampler",
        "euler-a",
        "--negative",
        "blå 🍎",
        "-o",
        "x.png",
        "--size",
        "96x64",
        "--quiet",
    ];
    assert_eq!(succeeds(folder.path(), &draw(&more)), "");
    let texts = png_texts(&folder.path().join("x.png"));
    let version = concat!("kiln ", env!("CARGO_PKG_VERSION"));
    let parameters = format!(
        "a red apple\nNegative prompt: blå 🍎\nSteps: 4, Sampler: Euler a, CFG scale: 3, Seed: 9, Size: 96x64, Model: toy, RNG: CPU, \
         Version: {version}"
    );
    let expected = [("Software", version), ("parameters", &parameters)];
    assert_eq!(
        texts,
        expected
            .map(|(key, text)| (key.to_owned(), text.to_owned()))
            .into()
    );
}

#[test]
fn a_random_seed_is_told_and_draws_the_same_again() {
    let folder = folder();
    toy::write(folder.path());
    let line = succeeds(folder.path(), &draw(&["--json", "-o", "x.png"]));
    let object: Value = serde_json::from_str(&line).expect("JSON");
    let seed = object["seed"].as_u64().expect("a seed").to_string();
    let said = &png_texts(&folder.path().join("x.png"))["parameters"];
    assert!(said.contains(&format!(", Seed: {seed}, ")), "{said}");
    succeeds(folder.path(), &draw(&["--seed", &seed, "-o", "y.png"]));
    assert_eq!(
        fs::read(folder.path().join("x.png")).ok(),
        fs::read(folder.path().join("y.png")).ok()
    );
}

#[test]
fn several_pictures_count_their_seeds_and_names() {
    let folder = folder();
    toy::write(folder.path());
    let lines = succeeds(
        folder.path(),
        &draw(&["--seed", "5", "-n", "3", "-o", "x.png", "--json"]),
    );
    for (line, number) in lines.lines().zip(1_u64..) {
        let object: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(object["file"], format!("x-{number}.png"));
        assert_eq!(object["seed"], 4 + number);
        assert_eq!(
            (&object["width"], &object["height"], &object["steps"]),
            (&json!(64), &json!(64), &json!(4))
        );
        assert_eq!(
            (&object["model"], &object["sampler"]),
            (&json!("toy"), &json!("ddim"))
        );
    }
    assert_eq!(
        names(folder.path()),
        ["toy.kiln", "x-1.png", "x-2.png", "x-3.png"]
    );
    succeeds(folder.path(), &draw(&["--seed", "6", "-o", "y.png"]));
    let pixels = |name: &str| {
        let file = fs::File::open(folder.path().join(name)).expect("a picture");
        let mut reader = png::Decoder::new(std::io::BufReader::new(file))
            .read_info()
            .expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        reader.next_frame(&mut pixels).expect("pixels");
        pixels
    };
    assert_eq!(pixels("x-2.png"), pixels("y.png"));
    assert_ne!(pixels("x-1.png"), pixels("y.png"));
}

#[test]
fn a_long_prompt_says_what_was_cut_off() {
    let folder = folder();
    toy::write(folder.path());
    let prompt = format!("{}blue apple", "red ".repeat(75));
    let output = kiln(
        folder.path(),
        &["draw", &prompt, "-m", "toy.kiln", "-o", "x.png"],
    );
    assert!(output.status.success());
    assert_eq!(
        text(&output.stderr),
        "kiln: the prompt is too long for the model, cut off: blue apple\n"
    );
}

/// The same prompt, seed and settings give the same file with any number of threads and any kernels.
#[test]
fn threads_and_kernels_do_not_show() {
    let folder = folder();
    toy::write(folder.path());
    let mut pictures = Vec::new();
    for (threads, isa) in [
        ("1", Some("scalar")),
        ("3", Some("scalar")),
        ("1", None),
        ("2", None),
        ("3", None),
    ] {
        let mut command = Command::cargo_bin("kiln").expect("the command");
        command.env_remove("KILN_ISA").current_dir(folder.path());
        command.args(draw(&[
            "--seed",
            "1",
            "--threads",
            threads,
            "-o",
            "x.png",
            "-q",
        ]));
        if let Some(isa) = isa {
            command.env("KILN_ISA", isa);
        }
        command.assert().success();
        pictures.push(fs::read(folder.path().join("x.png")).expect("a picture"));
    }
    assert!(pictures.iter().all(|picture| *picture == pictures[0]));
}

#[test]
fn refuses_what_the_model_does_not_draw() {
    let folder = folder();
    toy::write(folder.path());
    for (more, parts) in [
        (
            &["--sampler", "restart"][..],
            &["--sampler", "restart", "ddim, ddpm, pndm, euler, euler-a"][..],
        ),
        (
            &["--schedule", "kl_optimal"],
            &["--schedule", "kl_optimal", "normal, karras"],
        ),
        (
            &["--schedule", "karras"],
            &["schedule karras", "ddim takes normal"],
        ),
        (
            &["--sampler", "lcm", "--steps", "51"],
            &["51 steps", "1 to 50"],
        ),
        (&["--spacing", "even"], &["--spacing", "linspace"]),
        (&["--eta", "2"], &["--eta", "0 to 1"]),
        (
            &["--sampler", "heun", "--eta", "1"],
            &["eta", "heun has none"],
        ),
        (&["--guidance-rescale", "-1"], &["-1"]),
        (&["--guidance-from", "nan"], &["--guidance-from", "0 up"]),
        (
            &["--guidance-from", "1", "--guidance-until", "2"],
            &["from sigma 1 until 2"],
        ),
        (&["--rng", "dice"], &["--rng", "torch, philox"]),
        (&["--subseed", "3"], &["--subseed-strength"]),
        (
            &["--size", "100x64"],
            &["100x64", "multiple of 8", "64x64, 96x64"],
        ),
        (&["--size", "64x128"], &["64x128", "64x64, 96x64"]),
        (&["--size", "64"], &["--size", "WIDTHxHEIGHT"]),
        (&["--size", "0x64"], &["--size", "WIDTHxHEIGHT"]),
        (&["--size", "-8x64"], &["-8"]),
        (&["--steps", "0"], &["--steps", "from 1 up"]),
        (&["--steps", "1001"], &["1001 steps", "1 to 1000"]),
        (&["--steps", "1000"], &["1000 steps", "1 to 999"]),
        (&["--steps", "many"], &["--steps"]),
        (&["--seed", "-1"], &["-1"]),
        (
            &["--seed", "18446744073709551616"],
            &["--seed", "18446744073709551615"],
        ),
        (
            &["--seed", "18446744073709551615", "-n", "2"],
            &["seed 18446744073709551615", "count past"],
        ),
        (
            &["--guidance-scale", "nan"],
            &["--guidance-scale", "finite"],
        ),
        (
            &["--guidance-scale", "inf"],
            &["--guidance-scale", "finite"],
        ),
        (&["--threads", "0"], &["--threads", "1 to 4096"]),
        (&["--threads", "100000"], &["--threads", "1 to 4096"]),
        (&["-n", "0"], &["--count", "from 1 up"]),
        (&["--unknown"], &["--unknown"]),
        (&["two prompts"], &["two prompts"]),
    ] {
        fails(folder.path(), &draw(more), 2, parts);
    }
    fails(folder.path(), &["draw"], 2, &["PROMPT"]);
    fails(folder.path(), &[], 2, &["command", "draw"]);
    fails(folder.path(), &["paint"], 2, &["paint"]);
}

#[test]
fn refuses_packages_that_are_missing_or_no_packages() {
    let folder = folder();
    fs::write(folder.path().join("empty.kiln"), b"").expect("a file");
    fs::write(
        folder.path().join("text.kiln"),
        b"this is not a package, but it is long enough to be looked at",
    )
    .expect("a file");
    fs::create_dir(folder.path().join("folder.kiln")).expect("a folder");
    for name in ["missing.kiln", "empty.kiln", "text.kiln", "folder.kiln"] {
        for command in [
            &["draw", "cat", "-m", name][..],
            &["info", name],
            &["verify", name],
            &["bench", name],
        ] {
            fails(folder.path(), command, 1, &[name]);
        }
    }
}

#[test]
fn refuses_packages_whose_sections_make_no_sense() {
    for (card, scheduler, parts) in [
        (
            json!({ "defaults": 1 }),
            json!({}),
            &["card", "Defaults"][..],
        ),
        (
            json!({ "vae_scaling_factor": 0 }),
            json!({}),
            &["card", "vae_scaling_factor"],
        ),
        (
            json!({ "text": { "max_length": 5, "bos": 1, "eos": 2, "pad": 2 } }),
            json!({}),
            &["77 tokens", "5"],
        ),
        (
            json!({ "defaults": { "steps": 4, "guidance_scale": 3, "sampler": "restart", "width": 64, "height": 64 } }),
            json!({}),
            &["card", "restart", "ddim"],
        ),
        (
            json!({}),
            json!({ "beta_schedule": "other" }),
            &["scheduler", "beta_schedule", "other"],
        ),
        (
            json!({}),
            json!({ "thresholding": true }),
            &["scheduler", "thresholding"],
        ),
    ] {
        let folder = folder();
        toy::write_with(folder.path(), &card, &scheduler);
        fails(
            folder.path(),
            &draw(&[]),
            1,
            &[&["toy.kiln"], parts].concat(),
        );
    }
    let folder = folder();
    let text = json!({ "max_length": 77, "bos": 1, "eos": 2, "pad": 99 });
    toy::write_with(folder.path(), &json!({ "text": text }), &json!({}));
    fails(
        folder.path(),
        &draw(&[]),
        1,
        &["input_ids", "99", "vocabulary of 8"],
    );
}

/// Truncated at 100 places, and a byte changed at 100 places: never a panic, always one line, and no picture.
#[test]
fn refuses_damaged_packages() {
    let folder = folder();
    let package = toy::package(&json!({}), &json!({}));
    let path = folder.path().join("toy.kiln");
    for i in 0..100 {
        let at = package.len() * i / 100;
        fs::write(&path, &package[..at]).expect("a file");
        fails(folder.path(), &draw(&[]), 1, &["toy.kiln"]);

        let mut damaged = package.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).expect("a file");
        let verified = kiln(folder.path(), &["verify", "toy.kiln"]);
        let drawn = kiln(folder.path(), &draw(&["-o", "x.png", "-q"]));
        for output in [&verified, &drawn] {
            let line = text(&output.stderr);
            match output.status.code() {
                Some(0) => assert_eq!(line, "", "at {at}"),
                Some(1) => assert!(
                    line.starts_with("kiln: ") && line.lines().count() == 1,
                    "at {at}: {line}"
                ),
                other => panic!("at {at}: {other:?}: {line}"),
            }
        }
        // What verifies is whole, so the change was in padding that no checksum need cover.
        if verified.status.success() {
            assert!(drawn.status.success(), "at {at}");
        }
        assert_eq!(
            names(folder.path()).contains(&"x.png".into()),
            drawn.status.success(),
            "at {at}"
        );
        let _ = fs::remove_file(folder.path().join("x.png"));
    }
}

#[test]
fn weights_are_checked_when_they_are_read() {
    let folder = folder();
    let mut package = toy::package(&json!({}), &json!({}));
    let (start, len) = {
        let opened = kiln_package::Package::open(&package).expect("a package");
        (opened.weights_offset() as usize, opened.weights().len())
    };
    package[start + len / 2] ^= 1;
    fs::write(folder.path().join("toy.kiln"), package).expect("a file");
    fails(folder.path(), &draw(&[]), 1, &["toy.kiln", "checksum"]);
    fails(
        folder.path(),
        &["verify", "toy.kiln"],
        1,
        &["toy.kiln", "checksum"],
    );
}

#[test]
fn refuses_places_that_cannot_be_written_to() {
    let folder = folder();
    toy::write(folder.path());
    fs::create_dir(folder.path().join("taken")).expect("a folder");
    for (name, part) in [
        ("missing/x.png", "No such file"),
        ("taken", "folder"),
        ("toy.kiln/x.png", "Not a directory"),
        ("..", "folder"),
    ] {
        fails(folder.path(), &draw(&["-o", name]), 1, &[name, part]);
    }
    fails(folder.path(), &draw(&["-o", ""]), 2, &["--output"]);
}

/// What stood there before stays when the new picture cannot be written.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let folder = folder();
    toy::write(folder.path());
    fails(
        folder.path(),
        &draw(&["-o", "/dev/full"]),
        1,
        &["/dev/full", "No space left"],
    );

    // A limit on file sizes fails a write in the middle of the file, as a full disk does.
    fs::write(folder.path().join("x.png"), b"old").expect("a file");
    let command = assert_cmd::cargo::cargo_bin("kiln");
    for more in ["-o x.png", ""] {
        let script = format!(
            "trap '' XFSZ; ulimit -f 1; exec {} draw -m toy.kiln 'a red apple' {more}",
            command.display()
        );
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(folder.path())
            .output()
            .expect("sh");
        let line = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(
            line.starts_with("kiln: ") && line.contains(".png: File too large"),
            "{line}"
        );
        assert_eq!(names(folder.path()), ["toy.kiln", "x.png"]);
        assert_eq!(
            fs::read(folder.path().join("x.png")).ok().as_deref(),
            Some(&b"old"[..])
        );
    }
}

#[cfg(unix)]
#[test]
fn a_link_stays_and_its_file_is_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    toy::write(folder.path());
    let real = folder.path().join("real.png");
    fs::write(&real, b"old").expect("a file");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("its owner");
    std::os::unix::fs::symlink("real.png", folder.path().join("x.png")).expect("a link");
    succeeds(folder.path(), &draw(&["-o", "x.png"]));
    assert!(folder.path().join("x.png").is_symlink());
    assert!(fs::read(&real).expect("a picture").starts_with(b"\x89PNG"));
    assert_eq!(
        fs::metadata(&real).expect("a file").permissions().mode() & 0o777,
        0o640
    );
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_drawing_without_a_trace() {
    let folder = folder();
    toy::write(folder.path());
    let child = std::process::Command::new(assert_cmd::cargo::cargo_bin("kiln"))
        .args(draw(&["-n", "1000000", "-o", "x.png", "--json"]))
        .current_dir(folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let first = folder.path().join("x-1.png");
    let start = std::time::Instant::now();
    while !first.exists() {
        assert!(start.elapsed().as_secs() < 60, "no picture");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let sent = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill");
    assert!(sent.success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(130), "kiln: cancelled\n")
    );
    assert!(
        names(folder.path())
            .iter()
            .all(|name| !name.ends_with(".tmp"))
    );
    let count = text(&output.stdout).lines().count();
    assert_eq!(names(folder.path()).len(), count + 1);
}

#[cfg(unix)]
#[test]
fn a_closed_output_is_no_error() {
    let folder = folder();
    toy::write(folder.path());
    let script = format!(
        "{} info toy.kiln --plan | head -1",
        assert_cmd::cargo::cargo_bin("kiln").display()
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder.path())
        .output()
        .expect("sh");
    assert_eq!(
        (text(&output.stderr), text(&output.stdout).lines().count()),
        ("", 1)
    );
}

#[test]
fn help_and_version_are_no_errors() {
    let folder = folder();
    assert!(succeeds(folder.path(), &["--help"]).contains("draw"));
    assert!(succeeds(folder.path(), &["draw", "--help"]).contains("--guidance-scale"));
    assert_eq!(
        succeeds(folder.path(), &["--version"]),
        concat!("kiln ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
