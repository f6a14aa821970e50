//! What is on the disk: pictures, and what is needed to go on after the power has failed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::display::replace;
use crate::pipeline::random_seed;

/// The state's file, in the folder of the pictures.
const NAME: &str = "kiosk.json";
/// The drawing that is under way.
const CHECKPOINT: &str = "kiosk.checkpoint";
/// How often a drawing is begun.
const MAX_TRIES: u32 = 5;
/// The longest state that is read, in bytes.
const MAX_BYTES: u64 = 1 << 24;

/// A drawing that has begun.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Running {
    /// The prompt's line, as it came.
    pub(super) line: String,
    /// The seed, if the line and the options have none.
    pub(super) seed: u64,
    /// The file that the picture goes to.
    pub(super) file: String,
    /// How often it was begun.
    pub(super) tries: u32,
}

/// A picture that was written.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Written {
    file: String,
    /// Its length: a file of another is somebody else's.
    bytes: u64,
}

/// The state, as JSON.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    /// What was drawn by lot when there was no state yet.
    chance: u64,
    /// Pictures that have begun.
    begun: u64,
    /// The last picture that was written, and its prompt.
    last: Option<(String, String)>,
    running: Option<Running>,
    /// The pictures that are there, the oldest first.
    written: VecDeque<Written>,
}

impl Saved {
    fn new() -> Self {
        Self {
            version: 1,
            chance: random_seed(),
            begun: 0,
            last: None,
            running: None,
            written: VecDeque::new(),
        }
    }
}

/// A folder of pictures.
pub(super) struct State {
    folder: PathBuf,
    saved: Saved,
    /// Whether the last try to write failed, so that it is told once.
    fails: bool,
}

impl State {
    /// Reads what there is. A folder that cannot be made or a file that is damaged is told, and the kiosk begins anew.
    pub(super) fn open(folder: &Path) -> Self {
        if let Err(error) = fs::create_dir_all(folder) {
            tracing::error!("{}: {error}", folder.display());
        }
        let path = folder.join(NAME);
        let saved = match read(&path) {
            Ok(saved) => saved,
            Err(error) => {
                let kept = folder.join(format!("{NAME}.damaged"));
                tracing::error!(
                    "{}: {error}; it is kept as {}, and the kiosk begins anew",
                    path.display(),
                    kept.display()
                );
                // It is of no other use.
                let _ = fs::rename(&path, &kept);
                None
            }
        };
        Self {
            folder: folder.to_owned(),
            saved: saved.unwrap_or_else(Saved::new),
            fails: false,
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn chance(&self) -> u64 {
        self.saved.chance
    }

    /// Pictures that have begun.
    pub(super) fn begun(&self) -> u64 {
        self.saved.begun
    }

    /// The drawing that has begun and not ended.
    #[cfg(test)]
    pub(super) fn running(&self) -> Option<&Running> {
        self.saved.running.as_ref()
    }

    /// The file and the prompt of the last picture.
    pub(super) fn last(&self) -> Option<(PathBuf, &str)> {
        let (file, prompt) = self.saved.last.as_ref()?;
        Some((self.folder.join(file), prompt))
    }

    pub(super) fn checkpoint(&self) -> PathBuf {
        self.folder.join(CHECKPOINT)
    }

    /// A drawing begins: gives it a file's name that is free.
    pub(super) fn begin(&mut self, line: String, seed: u64) -> Running {
        self.saved.begun += 1;
        let number = self.saved.begun;
        let mut file = format!("kiln-{number:06}.png");
        for again in 2.. {
            if fs::symlink_metadata(self.folder.join(&file)).is_err() {
                break;
            }
            file = format!("kiln-{number:06}-{again}.png");
        }
        let running = Running {
            line,
            seed,
            file,
            tries: 1,
        };
        self.saved.running = Some(running.clone());
        self.save();
        running
    }

    /// The drawing that was begun before the power failed, to be begun again. One that has been begun too often, because the process dies of
    /// it, is given up.
    pub(super) fn again(&mut self) -> Option<Running> {
        let running = self.saved.running.as_mut()?;
        running.tries += 1;
        if running.tries > MAX_TRIES {
            tracing::error!(
                prompt = running.line,
                "was begun {MAX_TRIES} times and never ended: it is left out"
            );
            self.give_up();
            return None;
        }
        let running = running.clone();
        self.save();
        Some(running)
    }

    /// The kiosk ends in the middle of a drawing, because it was told to: the process has not died of it.
    pub(super) fn set_aside(&mut self) {
        if let Some(running) = &mut self.saved.running {
            running.tries = running.tries.saturating_sub(1);
            self.save();
        }
    }

    /// A drawing has ended without a picture.
    pub(super) fn give_up(&mut self) {
        self.saved.running = None;
        self.save();
    }

    /// A drawing has ended with a picture: writes it, and deletes old ones beyond `keep`. Of what was not written by the kiosk, or has
    /// been changed since, nothing is deleted.
    pub(super) fn end(&mut self, running: &Running, prompt: &str, png: &[u8], keep: usize) {
        let path = self.folder.join(&running.file);
        // Room for one more is made first: on a disk that is nearly full it may be what it takes.
        self.keep(keep.saturating_sub(1).max(1));
        self.saved.running = None;
        match fs::create_dir_all(&self.folder).and_then(|()| replace(&path, png, true)) {
            Ok(()) => {
                self.saved
                    .written
                    .retain(|written| written.file != running.file);
                self.saved.written.push_back(Written {
                    file: running.file.clone(),
                    bytes: png.len() as u64,
                });
                self.saved.last = Some((running.file.clone(), prompt.to_owned()));
                tracing::info!(file = %path.display(), "written");
            }
            Err(error) => tracing::error!(
                "{}: {error}; the picture is shown and not kept",
                path.display()
            ),
        }
        self.keep(keep);
        self.save();
    }

    fn keep(&mut self, keep: usize) {
        while self.saved.written.len() > keep {
            let Some(old) = self.saved.written.pop_front() else {
                return;
            };
            let path = self.folder.join(&old.file);
            // Names come from a file that somebody may have changed: nothing outside the folder is meant.
            let is_own = Path::new(&old.file)
                .file_name()
                .is_some_and(|name| *name == *old.file)
                && fs::symlink_metadata(&path)
                    .is_ok_and(|there| there.is_file() && there.len() == old.bytes);
            if !is_own {
                if path.exists() {
                    tracing::warn!("{}: was changed, it is left as it is", path.display());
                }
                continue;
            }
            match fs::remove_file(&path) {
                Ok(()) => tracing::debug!("{}: deleted", path.display()),
                Err(error) => tracing::warn!("{}: {error}", path.display()),
            }
        }
    }

    fn save(&mut self) {
        let path = self.folder.join(NAME);
        let written = serde_json::to_vec(&self.saved)
            .map_err(io::Error::from)
            .and_then(|bytes| replace(&path, &bytes, true));
        match written {
            Ok(()) => self.fails = false,
            Err(error) if !std::mem::replace(&mut self.fails, true) => {
                tracing::error!(
                    "{}: {error}; after a power failure the kiosk would go on from an earlier state",
                    path.display()
                );
            }
            Err(_) => {}
        }
    }
}

fn read(path: &Path) -> io::Result<Option<Saved>> {
    let size = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?.len(),
    };
    if size > MAX_BYTES {
        return Err(io::Error::other(format!(
            "{size} bytes, {MAX_BYTES} are the most"
        )));
    }
    let saved: Saved = serde_json::from_slice(&fs::read(path)?)?;
    match saved.version {
        1 => Ok(Some(saved)),
        other => Err(io::Error::other(format!("version {other} of a newer kiln"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<String> = entries
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

    #[test]
    fn the_last_pictures_are_kept_and_nothing_else_is_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let write = |name: &str| fs::write(folder.join(name), "mine").expect("written");
        write("kiln-000002.png");
        write("holiday.png");
        let mut state = State::open(folder);
        for number in 1..=5 {
            let running = state.begin(format!("prompt {number}"), number);
            assert_eq!(State::open(folder).running(), Some(&running));
            state.end(&running, "prompt", format!("png {number}").as_bytes(), 3);
            // Somebody paints over the third.
            if number == 3 {
                fs::write(folder.join(&running.file), "mine too").expect("written");
            }
        }
        let kept = [
            "holiday.png",
            "kiln-000002.png",
            "kiln-000003.png",
            "kiln-000004.png",
            "kiln-000005.png",
            "kiosk.json",
        ];
        let running = state.begin("six".into(), 6);
        state.end(&running, "six", b"png 6", 3);
        let mut expected = kept.map(str::to_owned).to_vec();
        expected.push("kiln-000006.png".into());
        expected.sort();
        assert_eq!(names(folder), expected);
        assert_eq!(
            fs::read(folder.join("kiln-000002.png")).expect("mine"),
            b"mine"
        );

        let again = State::open(folder);
        assert_eq!(again.saved, state.saved);
        assert_eq!(again.last(), Some((folder.join("kiln-000006.png"), "six")));
        assert_eq!((again.running(), again.begun()), (None, 6));
    }

    #[test]
    fn a_damaged_state_is_kept_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(NAME);
        for damaged in ["", "{", "[1]", "{\"version\": 1}"] {
            fs::write(&path, damaged).expect("written");
            let state = State::open(folder.path());
            assert_eq!((state.begun(), state.last()), (0, None), "{damaged}");
            assert_eq!(names(folder.path()), ["kiosk.json.damaged"], "{damaged}");
        }
        // A list that names what is outside the folder.
        let outside = folder.path().join("outside.png");
        fs::write(&outside, "12").expect("written");
        let inner = folder.path().join("inner");
        let mut state = State::open(&inner);
        state.saved.written.push_back(Written {
            file: "../outside.png".into(),
            bytes: 2,
        });
        state.keep(0);
        assert!(outside.exists());
    }

    /// A drawing that the process dies of is begun five times, one that is broken off as often as need be.
    #[test]
    fn what_kills_the_process_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let begun = State::open(folder.path()).begin("a".into(), 1);
        for _ in 0..10 {
            let mut state = State::open(folder.path());
            let again = state.again().expect("it goes on");
            assert_eq!((again.line, again.seed), (begun.line.clone(), begun.seed));
            state.set_aside();
        }
        let died = (0..10).take_while(|_| State::open(folder.path()).again().is_some());
        assert_eq!(died.count() as u32 + 1, MAX_TRIES);
        assert_eq!(State::open(folder.path()).running(), None);
    }

    /// A folder that is not there any more, and one that cannot be.
    #[test]
    fn a_folder_that_fails_is_lived_with() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "").expect("written");
        let mut state = State::open(&path.join("pictures"));
        let running = state.begin("a".into(), 1);
        state.end(&running, "a", b"png", 3);
        assert_eq!(
            (state.last(), state.running(), state.begun()),
            (None, None, 1)
        );
        assert_eq!(names(folder.path()), ["file"]);
    }
}
