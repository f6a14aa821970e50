//! The command on a device: what it says of the machine, where options come from, and what is given away with it.

#[allow(dead_code)]
mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use common::command::{fails, folder, names, succeeds, text};
use common::toy;
use serde_json::Value;

/// The command with variables of its own.
fn kiln(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::cargo_bin("kiln")
        .expect("the command")
        .current_dir(folder)
        .env("KILN_CONFIG", "")
        .envs(variables.iter().copied())
        .args(arguments)
        .output()
        .expect("it runs")
}

/// Draws the toy's picture and gives what is told of it.
fn drawn(folder: &Path, variables: &[(&str, &str)], more: &[&str]) -> Value {
    let arguments = [&["draw", "a red apple", "--json", "--quiet"], more].concat();
    let output = kiln(folder, variables, &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn options_come_from_the_command_line_the_environment_and_a_file() {
    let folder = folder();
    toy::write(folder.path());
    let config = "model = \"toy.kiln\"\nsteps = 2\nseed = 5\noutput = \"{seed}.png\"\n";
    fs::write(folder.path().join("kiln.toml"), config).expect("written");
    let file = ("KILN_CONFIG", "kiln.toml");
    let said = drawn(folder.path(), &[file], &[]);
    assert_eq!((&said["steps"], &said["seed"]), (&2.into(), &5.into()));
    let variables = [file, ("KILN_STEPS", "3"), ("KILN_SEED", "6")];
    let said = drawn(folder.path(), &variables, &["--seed", "7"]);
    assert_eq!((&said["steps"], &said["seed"]), (&3.into(), &7.into()));
    assert_eq!(said["file"], "7.png");
    assert_eq!(
        names(folder.path()),
        ["5.png", "7.png", "kiln.toml", "toy.kiln"]
    );
}

#[test]
fn a_wrong_option_is_told_with_the_place_where_it_is_said() {
    let folder = folder();
    toy::write(folder.path());
    fs::write(folder.path().join("a.toml"), "stepz = 2\n").expect("written");
    fs::write(folder.path().join("b.toml"), "steps = \"many\"\n").expect("written");
    for (variable, parts) in [
        (("KILN_STEPS", "many"), &["KILN_STEPS: ", "many"][..]),
        (("KILN_RAM", "lots"), &["KILN_RAM: ", "lots"]),
        (("KILN_QUIET", "maybe"), &["KILN_QUIET", "true or false"]),
        (("KILN_CONFIG", "a.toml"), &["a.toml", "`stepz`", "`steps`"]),
        (("KILN_CONFIG", "b.toml"), &["b.toml: steps: ", "many"]),
        (("KILN_CONFIG", "none.toml"), &["none.toml"]),
    ] {
        let output = kiln(folder.path(), &[variable], &["draw", "-m", "toy.kiln", "a"]);
        let line = text(&output.stderr);
        assert!(!output.status.success(), "{variable:?}");
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
        for part in parts {
            assert!(
                line.contains(part),
                "{variable:?}: {part} is not in: {line}"
            );
        }
    }
    assert_eq!(names(folder.path()), ["a.toml", "b.toml", "toy.kiln"]);
}

#[test]
#[cfg(target_os = "linux")]
fn the_doctor_looks_at_this_machine_and_at_packages() {
    let folder = folder();
    toy::write(folder.path());
    let found: Value =
        serde_json::from_str(&succeeds(folder.path(), &["doctor", "--json", "toy.kiln"]))
            .expect("JSON");
    for known in [
        "memory_bytes",
        "available_bytes",
        "page_bytes",
        "threads",
        "cores",
    ] {
        assert!(found[known].as_u64() > Some(0), "{known}: {found:#}");
    }
    assert!(
        found["page_bytes"]
            .as_u64()
            .is_some_and(u64::is_power_of_two)
    );
    let package = &found["packages"][0];
    assert_eq!(package["package"], "toy.kiln");
    let size = &package["sizes"][0];
    let bytes = |name: &str| size[name].as_u64().expect("a number");
    let promised: Value =
        serde_json::from_str(&succeeds(folder.path(), &["info", "--json", "toy.kiln"]))
            .expect("JSON");
    assert_eq!(
        bytes("width"),
        promised["sizes"][0]["width"].as_u64().expect("a width")
    );
    let weights = promised["sizes"][0]["weight_bytes"].as_u64();
    assert_eq!(
        bytes("total_bytes") - bytes("allocated_bytes"),
        weights.expect("a number")
    );
    // A promise ends with what the process has at that moment, which is never quite the same.
    let ceiling = &promised["ceilings"][0];
    let part = |name: &str| ceiling[name].as_u64().expect("a number");
    let program = part("program_bytes");
    let drawing = part("total_bytes") - program;
    assert!(
        (drawing..=drawing + 2 * program).contains(&bytes("allocated_bytes")),
        "{size}, {ceiling}"
    );
    let said = succeeds(folder.path(), &["doctor", "toy.kiln"]);
    for part in ["kernels", "memory", "toy.kiln", "what would make it faster"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let unit = succeeds(folder.path(), &["doctor", "--unit", "toy.kiln"]);
    let limit = unit
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("MemoryMax="));
    let limit: u64 = limit.expect("a limit").parse().expect("a number");
    assert!(limit > bytes("total_bytes"), "{unit}");
}

#[test]
fn the_doctor_names_what_it_cannot_look_at() {
    let folder = folder();
    fs::write(folder.path().join("no.kiln"), "nothing").expect("written");
    fails(folder.path(), &["doctor", "none.kiln"], 1, &["none.kiln"]);
    fails(folder.path(), &["doctor", "no.kiln"], 1, &["no.kiln"]);
    fails(
        folder.path(),
        &["doctor", "--unit", "--json"],
        2,
        &["--json"],
    );
    let output = kiln(folder.path(), &[("KILN_ISA", "mmx")], &["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("KILN_ISA: no kernels for instruction set `mmx`"));
    let found = kiln(
        folder.path(),
        &[("KILN_ISA", "scalar")],
        &["doctor", "--json"],
    );
    let found: Value = serde_json::from_slice(&found.stdout).expect("JSON");
    assert_eq!(found["isa"], "scalar");
}

/// Each command has a page and is completed, and neither tells of the command that writes them.
#[test]
fn pages_and_completions_tell_of_each_command() {
    let folder = folder();
    succeeds(folder.path(), &["pages", "made"]);
    let read = |name: &str| {
        let path = folder.path().join("made").join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let main = read("man/kiln.1");
    let completions = ["kiln.bash", "_kiln", "kiln.fish", "kiln.elv", "_kiln.ps1"]
        .map(|name| read(&format!("completions/{name}")));
    let help = succeeds(folder.path(), &["--help"]);
    let commands = help.split("Commands:").nth(1).expect("commands");
    let commands: Vec<&str> = commands
        .lines()
        .skip(1)
        .map_while(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(
        commands.contains(&"draw") && !commands.contains(&"pages"),
        "{commands:?}"
    );
    for command in commands {
        let page = read(&format!("man/kiln-{command}.1"));
        assert!(page.contains(".SH OPTIONS"), "{command}");
        assert!(
            main.contains(&format!("kiln\\-{}(1)", command.replace('-', "\\-"))),
            "{command}"
        );
        for text in &completions {
            assert!(text.contains(command), "{command}");
        }
    }
    assert!(!folder.path().join("made/man/kiln-pages.1").exists());
    assert!(completions.iter().all(|text| !text.contains("pages")));
    assert!(read("man/kiln-draw.1").contains("guidance"));
}
