//! Small systems: few addresses.

#[allow(dead_code)]
mod common;

use std::fs::File;
use std::process::Command;

use common::command::folder;

/// What a 32-bit system says of a file that it has no addresses for, here by a limit on them.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_cannot_be_mapped_says_so() {
    let folder = folder();
    let file = File::create(folder.path().join("large.kiln")).expect("created");
    // It has no blocks on the disk.
    file.set_len(8 << 30).expect("a file with a hole");
    let output = Command::new("sh")
        .current_dir(folder.path())
        .args(["-c", "ulimit -v 2000000 && exec \"$0\" info large.kiln"])
        .arg(env!("CARGO_BIN_EXE_kiln"))
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8_lossy(&output.stderr);
    assert!(
        line.starts_with("kiln: large.kiln: its 8590 MB cannot be mapped: "),
        "{line}"
    );
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
}
