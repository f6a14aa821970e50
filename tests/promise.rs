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
