//! The memory that `kiln info` promises is the most that a drawing takes, and not much more.

#![cfg(target_os = "linux")]

#[allow(dead_code)]
mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::command::{folder, succeeds};
use serde_json::Value;

/// What a promise may be above what is taken, where 10 % is less.
const NEAR: u64 = 4_000_000;

fn promised(folder: &Path, model: &[&str], matches: impl Fn(&Value) -> bool) -> u64 {
    let said = succeeds(folder, &[&["info", "--json"], model].concat());
    let object: Value = serde_json::from_str(&said).expect("JSON");
    let ceilings = object["ceilings"].as_array().expect("ceilings");
    let found = ceilings.iter().find(|ceiling| matches(ceiling));
    found.expect("drawable")["total_bytes"]
        .as_u64()
        .expect("bytes")
}

/// A line of a process's status, in bytes.
fn status(child: &Child, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The peaks of a drawing's anonymous memory, as far as sampling sees it, and of all that is resident.
fn peaks(folder: &Path, arguments: &[&str]) -> (u64, u64) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .current_dir(folder)
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    let (mut anonymous, mut all) = (0, 0);
    while child.try_wait().expect("a child").is_none() {
        anonymous = status(&child, "RssAnon").unwrap_or(0).max(anonymous);
        all = status(&child, "VmHWM").unwrap_or(0).max(all);
        std::thread::sleep(Duration::from_micros(500));
    }
    assert!(child.wait().expect("a child").success(), "{arguments:?}");
    (anonymous, all)
}

fn check(name: &str, promise: u64, peak: u64) {
    println!("{name}: {peak} bytes at most of {promise} promised");
    assert!(peak <= promise, "{name}: {peak} bytes, {promise} promised");
    let near = NEAR.max(promise / 10);
    assert!(
        promise - peak <= near,
        "{name}: {promise} bytes are promised, {peak} are taken"
    );
}

#[cfg(any(feature = "embedded-model", feature = "prebuilt-model"))]
#[test]
fn the_model_in_the_program_keeps_its_promise() {
    let folder = folder();
    let here = folder.path();
    for (guided, begun, options) in [
        (true, false, &["--guidance-scale", "7.5"][..]),
        (false, false, &["--guidance-scale", "1"]),
        (
            true,
            true,
            &[
                "--guidance-scale",
                "7.5",
                "--init",
                "0.png",
                "--strength",
                "1",
            ],
        ),
        (
            true,
            false,
            &["--guidance-scale", "7.5", "--checkpoint", "kept"],
        ),
    ] {
        let promise = promised(here, &[], |ceiling| {
            ceiling["guidance"] == guided && ceiling["picture"] == begun
        });
        let draw = ["draw", "a red apple", "--steps", "2", "-q", "-o", "0.png"];
        let (peak, _) = peaks(here, &[&draw, options].concat());
        check(&format!("{options:?}"), promise, peak);
    }
}

/// What the programs of one size may take together.
const PROGRAMS: u64 = 300_000;

/// A package of three sizes: its weights are there once, every size keeps its promise, and its least budget.
#[cfg(feature = "onnx")]
#[test]
fn larger_sizes_keep_it_too() {
    use common::command::fails;
    use kiln::runtime::Model;

    let folder = folder();
    let here = folder.path();
    let source = common::fixture("../../models/emoji");
    let source = source.to_str().expect("UTF-8");
    let compile = |sizes: &'static str, name: &'static str| {
        let options = ["--precision", "f16", "-q", "--size", sizes, "-o", name];
        succeeds(here, &[&["compile", source], &options[..]].concat());
        let len = fs::metadata(here.join(name)).expect("there").len();
        let model = Model::open(here.join(name)).expect("a package");
        (len, model.package().weights().len())
    };
    let (one, weights) = compile("384x384", "one.kiln");
    let (three, same) = compile("384x384,256x192,192x256", "three.kiln");
    assert_eq!(weights, same);
    let each = (three - one) / 2;
    println!("programs of a size: {each} bytes");
    assert!(each <= PROGRAMS, "{each} bytes of programs for each size");

    let draw = |size: &'static str, more: &[&'static str]| {
        let always = [
            "draw",
            "a",
            "-m",
            "three.kiln",
            "--steps",
            "2",
            "-q",
            "-o",
            "x.png",
            "--size",
            size,
        ];
        [&always[..], more].concat()
    };
    fails(
        here,
        &draw("192x192", &[]),
        2,
        &["192x192", "384x384", "256x192", "192x256"],
    );
    for (size, guided) in [((384, 384), true), ((384, 384), false), ((192, 256), true)] {
        let promise = promised(here, &["three.kiln"], |ceiling| {
            (ceiling["width"].as_u64(), ceiling["height"].as_u64()) == (Some(size.0), Some(size.1))
                && ceiling["guidance"] == guided
                && ceiling["picture"] == false
        });
        let name = if size.0 == 384 { "384x384" } else { "192x256" };
        let scale = if guided { "7.5" } else { "1" };
        let (peak, _) = peaks(here, &draw(name, &["--guidance-scale", scale]));
        check(&format!("{name}, guidance {scale}"), promise, peak);
    }

    // What is said to be enough is.
    let refused = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .current_dir(here)
        .args(draw("384x384", &["--ram", "1M"]))
        .output()
        .expect("it runs");
    let line = String::from_utf8_lossy(&refused.stderr).into_owned();
    let least: u64 = line
        .split("at least ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    // The process is a page or two larger or smaller each time.
    let ram = format!("{}M", least + 1);
    let draw = draw("384x384", &[]);
    let (_, resident) = peaks(here, &[&draw[..], &["--ram", &ram]].concat());
    println!("--ram {ram}: {resident} bytes were resident");
    assert!(
        resident <= (least + 1) << 20,
        "--ram {ram}: {resident} bytes"
    );
}
