//! The command, run in a folder.

use std::fs;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use tempfile::TempDir;

pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

pub fn kiln(folder: &Path, arguments: &[&str]) -> Output {
    Command::cargo_bin("kiln")
        .expect("the command")
        .current_dir(folder)
        .env("KILN_CONFIG", "")
        .args(arguments)
        .output()
        .expect("it runs")
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// The command succeeds; gives its standard output.
pub fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = kiln(folder, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout).to_owned()
}

/// The command fails with this exit code, says one line that holds `parts`, and leaves the folder as it was.
pub fn fails(folder: &Path, arguments: &[&str], code: i32, parts: &[&str]) {
    let before = names(folder);
    let output = kiln(folder, arguments);
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {line}");
    assert!(
        line.starts_with("kiln: ") && line.trim_end().lines().count() == 1,
        "{arguments:?}: {line}"
    );
    for part in parts {
        assert!(
            line.contains(part),
            "{arguments:?}: `{part}` is not in: {line}"
        );
    }
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    assert_eq!(names(folder), before, "{arguments:?}");
}
