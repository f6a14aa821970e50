//! A folder of text files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::lines::Lines;
use super::{Order, Turn};

/// The most files that are looked at.
const MAX_FILES: usize = 10_000;
/// The most prompts.
const MAX_PROMPTS: usize = 1_000_000;

/// The prompt of a turn: a line of one of the folder's `.txt` files, in the order of their names. What is wrong is told once.
pub(super) fn next(
    folder: &Path,
    order: Order,
    turn: Turn,
    said: &mut BTreeSet<String>,
) -> Option<String> {
    let mut tell = |line: String| {
        if said.len() < 1000 && said.insert(line.clone()) {
            tracing::warn!("{line}");
        }
    };
    let files = match files(folder) {
        Ok(files) => files,
        Err(error) => {
            tell(format!("{}: {error}", folder.display()));
            return None;
        }
    };
    // Once to count, once more to find: so many prompts are never in memory together.
    let mut count = 0;
    each(&files, &mut tell, &mut |_| {
        count += 1;
        count < MAX_PROMPTS
    });
    if count == 0 {
        tell(format!(
            "{}: there is no prompt in it: put a file there, such as prompts.txt, with one a line",
            folder.display()
        ));
        return None;
    }
    let mut left = order.index(turn, count);
    let mut found = None;
    each(&files, &mut |_| {}, &mut |line| {
        if left == 0 {
            found = Some(line);
            return false;
        }
        left -= 1;
        true
    });
    found
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") && path.is_file() {
            files.push(path);
        }
        if files.len() == MAX_FILES {
            break;
        }
    }
    files.sort();
    Ok(files)
}

/// Gives each line until told to stop.
fn each(files: &[PathBuf], tell: &mut dyn FnMut(String), line: &mut dyn FnMut(String) -> bool) {
    let mut bytes = [0; 4096];
    for path in files {
        let mut lines = Lines::default();
        let mut read = || -> io::Result<bool> {
            let mut file = File::open(path)?;
            loop {
                let len = file.read(&mut bytes)?;
                lines.push(&bytes[..len]);
                if len == 0 {
                    lines.end();
                }
                for wrong in lines.wrong.drain(..) {
                    tell(format!("{}: {wrong}", path.display()));
                }
                for text in lines.ready.drain(..) {
                    if !line(text) {
                        return Ok(false);
                    }
                }
                if len == 0 {
                    return Ok(true);
                }
            }
        };
        match read() {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tell(format!("{}: {error}", path.display())),
        }
    }
}
