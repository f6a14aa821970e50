//! Prompts that somebody sends while the kiosk runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::Prompts;
use super::lines::Lines;

/// How long to wait before a FIFO that cannot be opened is tried again, and before one that nobody writes is looked for again.
const AGAIN: Duration = Duration::from_secs(2);

/// Everything that prompts are sent to, open.
#[derive(Default)]
pub(in crate::kiosk) struct Feeds {
    fifos: BTreeMap<PathBuf, Fifo>,
    stdin: Option<Stdin>,
    said: BTreeSet<String>,
}

/// What gives prompts as they are sent.
trait Feed {
    /// The next, if there is one; never waits.
    fn next(&mut self) -> Option<String>;
}

impl Feeds {
    /// The next prompt of a FIFO or of standard input, if there is one. What was opened stays open.
    pub(super) fn next(&mut self, source: &Prompts) -> Option<String> {
        match source {
            Prompts::Fifo(path) => {
                let new = || Fifo::new(path.clone());
                self.fifos.entry(path.clone()).or_insert_with(new).next()
            }
            Prompts::Stdin => self.stdin.get_or_insert_with(Stdin::default).next(),
            _ => None,
        }
    }

    /// What has been told already.
    pub(super) fn said(&mut self) -> &mut BTreeSet<String> {
        &mut self.said
    }
}

/// A FIFO, read without waiting.
struct Fifo {
    path: PathBuf,
    file: Option<File>,
    tried: Option<Instant>,
    /// What was told last of why it is not there.
    complained: Option<String>,
    /// Whether somebody has it open for writing.
    has_writer: bool,
    lines: Lines,
}

impl Fifo {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            tried: None,
            complained: None,
            has_writer: false,
            lines: Lines::default(),
        }
    }

    fn open(&mut self) {
        if self.tried.is_some_and(|tried| tried.elapsed() < AGAIN) {
            return;
        }
        self.tried = Some(Instant::now());
        match open_fifo(&self.path) {
            Ok(file) => {
                self.file = Some(file);
                self.complained = None;
                tracing::info!("{}: prompts are read from it", self.path.display());
            }
            Err(error) => {
                let text = error.to_string();
                if self.complained.as_ref() != Some(&text) {
                    tracing::error!("{}: {text}; it is tried again", self.path.display());
                }
                self.complained = Some(text);
            }
        }
    }

    /// Lets go of a FIFO that is not the one of its name any more: nobody will ever write it.
    fn check(&mut self) {
        if self.tried.is_some_and(|tried| tried.elapsed() < AGAIN) {
            return;
        }
        self.tried = Some(Instant::now());
        let place =
            |found: io::Result<Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
        let open = self.file.as_ref().and_then(|file| place(file.metadata()));
        if open != place(self.path.metadata()) {
            self.file = None;
            self.tried = None;
        }
    }
}

fn open_fifo(path: &Path) -> io::Result<File> {
    // What is no FIFO may give prompts without end.
    if !path.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("is no FIFO: mkfifo makes one"));
    }
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

impl Feed for Fifo {
    fn next(&mut self) -> Option<String> {
        if self.file.is_none() {
            self.open();
        }
        let mut bytes = [0; 4096];
        // So much at a time that signals are looked at in between, however fast somebody writes.
        for _ in 0..1024 {
            if let Some(line) = self.lines.ready.pop_front() {
                return Some(line);
            }
            match self.file.as_mut()?.read(&mut bytes) {
                Ok(0) => {
                    if std::mem::take(&mut self.has_writer) {
                        self.lines.end();
                        tracing::info!(
                            "{}: closed by its writer; waiting for another",
                            self.path.display()
                        );
                        tell(&mut self.lines, &self.path.display().to_string());
                        continue;
                    }
                    self.check();
                    return None;
                }
                Ok(len) => {
                    self.has_writer = true;
                    self.lines.push(&bytes[..len]);
                    tell(&mut self.lines, &self.path.display().to_string());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.has_writer = true;
                    return None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!("{}: {error}; it is opened again", self.path.display());
                    self.file = None;
                    return None;
                }
            }
        }
        None
    }
}

/// Says what was wrong with lines.
fn tell(lines: &mut Lines, name: &str) {
    for wrong in lines.wrong.drain(..) {
        tracing::warn!("{name}: {wrong}");
    }
}

/// Standard input: a thread waits for it. There is one in a process, so a configuration that is read again goes on with it.
#[derive(Default)]
struct Stdin {
    is_closed: bool,
}

static STDIN: OnceLock<Mutex<Receiver<String>>> = OnceLock::new();

fn start() -> Mutex<Receiver<String>> {
    // No more than one is waiting here: whoever writes waits too.
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        let mut lines = Lines::default();
        let mut bytes = [0; 4096];
        loop {
            let len = match io::stdin().lock().read(&mut bytes) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!("standard input: {error}");
                    0
                }
            };
            lines.push(&bytes[..len]);
            if len == 0 {
                lines.end();
            }
            tell(&mut lines, "standard input");
            for line in lines.ready.drain(..) {
                if sender.send(line).is_err() {
                    return;
                }
            }
            if len == 0 {
                return;
            }
        }
    });
    Mutex::new(receiver)
}

impl Feed for Stdin {
    fn next(&mut self) -> Option<String> {
        if self.is_closed {
            return None;
        }
        let receiver = STDIN.get_or_init(start).lock().ok()?;
        match receiver.try_recv() {
            Ok(line) => Some(line),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.is_closed = true;
                tracing::warn!("standard input was closed: no more prompts come from there");
                None
            }
        }
    }
}
