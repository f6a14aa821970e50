//! `kiln kiosk`, from outside.

#![cfg(feature = "kiosk")]

#[allow(dead_code)]
mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::command::{fails, folder, kiln, names, succeeds, text};
use common::toy;
use serde_json::{Value, json};

/// As long as anything may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

/// A kiosk that runs, and its log.
struct Running {
    child: Child,
    log: Receiver<Value>,
    lines: Vec<String>,
}

impl Running {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::of(Self::command(folder, arguments))
    }

    fn command(folder: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("kiln"));
        command
            .current_dir(folder)
            .args([
                "kiosk",
                "kiosk.toml",
                "--log",
                "debug",
                "--log-format",
                "json",
            ])
            .args(arguments)
            .stdin(Stdio::piped());
        command
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it runs");
        let stderr = child.stderr.take().expect("standard error");
        let (sender, log) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            log,
            lines: Vec::new(),
        }
    }

    /// Waits until the log has a line with this part; gives the line.
    fn says(&mut self, part: &str) -> String {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match self.log.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    self.lines.push(line.to_string());
                    if self.lines[self.lines.len() - 1].contains(part) {
                        return line.to_string();
                    }
                }
                Err(_)
                    if self.child.try_wait().expect("its state").is_some()
                        && self.log.try_recv().is_err() =>
                {
                    break;
                }
                Err(_) => {}
            }
        }
        panic!("`{part}` was not said: {:#?}", self.lines);
    }

    /// Waits for a line with all parts of each of these, in any order: what several threads say has none.
    fn says_all(&mut self, mut expected: Vec<Vec<&str>>) {
        while !expected.is_empty() {
            // Every line has this.
            let line = self.says("");
            let is_said = |parts: &Vec<&str>| parts.iter().all(|part| line.contains(part));
            if let Some(index) = expected.iter().position(is_said) {
                expected.remove(index);
            }
        }
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status();
        assert!(killed.expect("kill").success());
    }

    /// TERM ends it with success.
    fn ends(mut self) -> Vec<String> {
        self.signal("TERM");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it goes on: {:#?}", self.lines);
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(0), "{:#?}", self.lines);
        while let Ok(line) = self.log.recv() {
            self.lines.push(line.to_string());
        }
        std::mem::take(&mut self.lines)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where all is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with the toy model and a configuration.
fn kiosk(config: &str) -> tempfile::TempDir {
    let folder = folder();
    toy::write(folder.path());
    configure(folder.path(), config);
    folder
}

fn configure(folder: &Path, config: &str) {
    let config = format!("{config}\n[draw]\nmodel = 'toy.kiln'\nsteps = 2\n");
    fs::write(folder.join("kiosk.toml"), config).expect("written");
}

fn state(folder: &Path) -> Value {
    let text = fs::read(folder.join("pictures/kiosk.json")).expect("a state");
    serde_json::from_slice(&text).expect("JSON")
}

fn picture_names(folder: &Path) -> Vec<String> {
    let mut names = names(&folder.join("pictures"));
    names.retain(|name| name.ends_with(".png"));
    names
}

#[test]
fn pictures_are_drawn_shown_and_kept() {
    let folder = kiosk(
        "keep = 3\n[prompts]\ntemplate = 'a {color} apple'\nwords.color = ['red', 'blue']\n\
         [[display]]\npng = 'now.png'\nsize = '120x100'\n[[display]]\nframebuffer = 'fb.raw'\nsize = '64x80'\nbits = 16\n",
    );
    let said = succeeds(folder.path(), &["kiosk", "kiosk.toml", "--pictures", "5"]);
    assert_eq!(said, "");
    assert_eq!(
        picture_names(folder.path()),
        ["kiln-000003.png", "kiln-000004.png", "kiln-000005.png"]
    );
    assert_eq!(
        fs::metadata(folder.path().join("fb.raw"))
            .expect("a file")
            .len(),
        64 * 80 * 2
    );
    let screen = image::open(folder.path().join("now.png"))
        .expect("a PNG")
        .into_rgb8();
    assert_eq!(screen.dimensions(), (120, 100));
    // Each picture says how it was drawn, and the last one is on the screen.
    let last = folder.path().join("pictures/kiln-000005.png");
    let said = succeeds(folder.path(), &["show-info", "pictures/kiln-000005.png"]);
    assert!(
        said.contains("prompt: a red apple") || said.contains("prompt: a blue apple"),
        "{said}"
    );
    let drawn = image::open(last).expect("a PNG").into_rgb8();
    let mean = |picture: &image::RgbImage| {
        picture.pixels().map(|p| u64::from(p[0])).sum::<u64>() as f64
            / f64::from(picture.width() * picture.height())
    };
    let centre = image::imageops::crop_imm(&screen, 40, 20, 40, 40).to_image();
    let of = image::imageops::crop_imm(&drawn, 12, 12, 40, 40).to_image();
    assert!((mean(&centre) - mean(&of)).abs() < 40.0);
    // `kiosk.toml` says no seed: each picture has another.
    let infos: Vec<String> = picture_names(folder.path())
        .iter()
        .map(|name| succeeds(folder.path(), &["show-info", &format!("pictures/{name}")]))
        .collect();
    let seeds: std::collections::BTreeSet<&str> = infos
        .iter()
        .flat_map(|info| info.lines().filter(|line| line.starts_with("seed: ")))
        .collect();
    assert_eq!(seeds.len(), 3);
    // Again: it goes on counting.
    succeeds(folder.path(), &["kiosk", "kiosk.toml", "--pictures", "1"]);
    assert_eq!(
        picture_names(folder.path()),
        ["kiln-000004.png", "kiln-000005.png", "kiln-000006.png"]
    );
    assert_eq!(state(folder.path())["running"], Value::Null);
}

#[test]
fn what_is_wrong_is_told_before_anything_is_done() {
    let folder = kiosk("[prompts]\nlist = ['a red apple']");
    let here = |config: &str, parts: &[&str]| {
        fs::write(folder.path().join("kiosk.toml"), config).expect("written");
        for check in [
            &["kiosk", "kiosk.toml"][..],
            &["kiosk", "kiosk.toml", "--check"],
        ] {
            // A folder for pictures may be there already.
            let _ = fs::create_dir(folder.path().join("pictures"));
            fails(
                folder.path(),
                check,
                2,
                &[&["kiosk.toml: "], parts].concat(),
            );
        }
    };
    let prompts = "[prompts]\nlist = ['a red apple']\n";
    here(
        &format!("ordr = 1\n{prompts}"),
        &["`ordr`: there is no such key"],
    );
    here(
        "[prompts]\nlits = ['a']\n",
        &["`prompts.lits`", "did you mean `list`?"],
    );
    here(
        &format!("{prompts}[draw]\nmodel = 'toy.kiln'\nstpes = 3"),
        &["`draw.stpes`", "did you mean `steps`?"],
    );
    here(
        &format!("{prompts}[draw]\nmodel = 'toy.kiln'\nsteps = 'many'"),
        &["`draw.steps`: ", "many"],
    );
    here(
        &format!("{prompts}[draw]\nmodel = 'toy.kiln'\nsize = '65x64'"),
        &["[draw]: ", "65x64"],
    );
    here(
        &format!("{prompts}[draw]\nmodel = 'toy.kiln'\nprompt = 'a'"),
        &["`draw.prompt`: [prompts] says"],
    );
    here(
        &format!("{prompts}[draw]\nmodel = 'toy.kiln'\nthreads = 0"),
        &["`draw.threads`: expected"],
    );
    here(
        &format!("{prompts}[draw]\nmodel = 'toy.kiln'\nram = 'much'"),
        &["`draw.ram`: expected"],
    );
    here(
        &format!("{prompts}[draw]\nmodel = 'no.kiln'"),
        &["no.kiln: "],
    );
    here("a = [", &["line 1: "]);
    fails(folder.path(), &["kiosk", "none.toml"], 2, &["none.toml: "]);
    fails(
        folder.path(),
        &["kiosk", "kiosk.toml", "--pictures", "0"],
        2,
        &["--pictures"],
    );
    configure(folder.path(), prompts);
    let _ = fs::remove_dir_all(folder.path().join("pictures"));
    assert_eq!(
        succeeds(folder.path(), &["kiosk", "kiosk.toml", "--check"]),
        ""
    );
    assert_eq!(names(folder.path()), ["kiosk.toml", "toy.kiln"]);
}

/// HUP, USR1 and TERM, while it waits for an hour.
#[test]
fn signals_are_requests() {
    let one = "every = '1h'\n[prompts]\nlist = ['a red apple']\n";
    let folder = kiosk(one);
    let mut running = Running::start(folder.path(), &[]);
    assert!(running.says("written").contains("kiln-000001.png"));
    running.signal("USR1");
    assert!(running.says("written").contains("kiln-000002.png"));
    // A bad configuration changes nothing.
    fs::write(
        folder.path().join("kiosk.toml"),
        "kep = 3\n[prompts]\nlist = ['a']",
    )
    .expect("written");
    running.signal("HUP");
    let said = running.says("goes on with the configuration");
    assert!(
        said.contains("ERROR")
            && said.contains("`kep`: there is no such key, did you mean `keep`?"),
        "{said}"
    );
    running.signal("USR1");
    assert!(running.says("\"drawing\"").contains("a red apple"));
    running.says("written");
    configure(
        folder.path(),
        &one.replace("red", "blue")
            .replace("every", "keep = 2\nevery"),
    );
    running.signal("HUP");
    running.says("was read again");
    running.signal("USR1");
    assert!(running.says("\"drawing\"").contains("a blue apple"));
    running.says("written");
    running.ends();
    assert_eq!(
        picture_names(folder.path()),
        ["kiln-000003.png", "kiln-000004.png"]
    );
}

/// Prompts by a FIFO and by standard input, with a line of 10 MB and one that cannot be drawn between them.
#[test]
fn prompts_are_sent() {
    let folder = kiosk("[prompts]\nstdin = true\n");
    let mut running = Running::start(folder.path(), &[]);
    let mut stdin = running.child.stdin.take().expect("standard input");
    let long = "x".repeat(10_000_000);
    writeln!(
        stdin,
        "a red apple\n{long}\n(a:1.2.3)\n{{\"prompt\": \"a blue apple\", \"seed\": 7}}"
    )
    .expect("written");
    drop(stdin);
    // The reader of standard input speaks for itself.
    running.says_all(vec![
        vec!["\"drawing\"", "a red apple"],
        vec!["10000000 bytes", "WARN"],
        vec!["1.2.3", "the next prompt is tried"],
        vec!["\"drawing\"", "a blue apple", "\"seed\":7"],
        vec!["standard input was closed"],
    ]);
    let place = |part: &str| running.lines.iter().position(|line| line.contains(part));
    assert!(place("a red apple") < place("1.2.3") && place("1.2.3") < place("a blue apple"));
    // It is still there, and draws the last one when asked.
    running.signal("USR1");
    assert!(running.says("\"drawing\"").contains("a blue apple"));
    running.says("written");
    running.ends();

    let folder = kiosk("[prompts]\nfifo = 'prompts.fifo'\n");
    let fifo = folder.path().join("prompts.fifo");
    let mut running = Running::start(folder.path(), &[]);
    running.says("prompts.fifo: No such file");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .expect("mkfifo")
            .success()
    );
    running.says("prompts are read from it");
    for prompt in ["a red apple", "a blue apple"] {
        fs::write(&fifo, format!("{prompt}\n")).expect("written");
        running.says_all(vec![
            vec!["\"drawing\"", prompt],
            vec!["closed by its writer"],
        ]);
    }
    // One that cannot be drawn is none that is drawn again.
    fs::write(&fifo, "(a:1.2.3)\n").expect("written");
    running.says("the next prompt is tried");
    running.signal("USR1");
    assert!(running.says("\"drawing\"").contains("a blue apple"));
    // What a kiosk decides, its prompts' senders do not.
    fs::write(&fifo, "{\"prompt\": \"a\", \"output\": \"b.png\"}\n").expect("written");
    running.says("`output`: `folder` says where pictures go");
    running.ends();
}

/// The power fails in the middle of a picture: the last one is shown at once, and the same picture comes out in the end.
#[test]
fn a_drawing_outlives_the_power() {
    let config = "[prompts]\nlist = ['a red apple', 'a blue apple']\n[[display]]\npng = 'now.png'\nsize = '64x64'\ncaption = false\nprogress = false\npreview = false\n";
    let folder = kiosk(config);
    succeeds(folder.path(), &["kiosk", "kiosk.toml", "--pictures", "1"]);
    let first = fs::read(folder.path().join("now.png")).expect("a PNG");
    // So many steps that it is still drawing when it is killed.
    let many = format!("{config}[draw]\nmodel = 'toy.kiln'\nsteps = 100\n");
    fs::write(folder.path().join("kiosk.toml"), many).expect("written");
    let mut running = Running::start(folder.path(), &[]);
    running.says("\"drawing\"");
    let checkpoint = folder.path().join("pictures/kiosk.checkpoint");
    let start = Instant::now();
    while !checkpoint.exists() {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(1));
    }
    running.signal("KILL");
    running.child.wait().expect("killed");
    let begun = state(folder.path())["running"].clone();
    assert_eq!(
        (&begun["line"], &begun["file"]),
        (&json!("a blue apple"), &json!("kiln-000002.png"))
    );
    // The screen as it was left, but for a display that has forgotten it.
    fs::remove_file(folder.path().join("now.png")).expect("removed");
    let mut running = Running::start(folder.path(), &["--pictures", "1"]);
    let start = Instant::now();
    while !folder.path().join("now.png").exists() {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(1));
    }
    let said = running.says("going on from step");
    assert!(said.contains("of 100"), "{said}");
    running.says("written");
    running.child.wait().expect("it ends");
    let seed = begun["seed"].to_string();
    let path = "pictures/kiln-000002.png";
    succeeds(
        folder.path(),
        &[
            "draw",
            "-m",
            "toy.kiln",
            "a blue apple",
            "--seed",
            &seed,
            "--steps",
            "100",
            "-o",
            "same.png",
        ],
    );
    let read = |path: &str| fs::read(folder.path().join(path)).expect("a picture");
    assert!(read(path) == read("same.png"));
    assert!(read("now.png") != first && !checkpoint.exists());
    assert_eq!(state(folder.path())["begun"], 2);

    // A checkpoint that is damaged, or of another drawing, is drawn from the beginning.
    let mut saved = state(folder.path());
    saved["running"] =
        json!({"line": "a red apple", "seed": 3, "file": "kiln-000003.png", "tries": 1});
    fs::write(folder.path().join("pictures/kiosk.json"), saved.to_string()).expect("written");
    fs::write(&checkpoint, "damaged").expect("written");
    configure(folder.path(), config);
    let mut running = Running::start(folder.path(), &["--pictures", "1"]);
    running.says("is drawn from the beginning");
    running.says("written");
    running.child.wait().expect("it ends");
    succeeds(
        folder.path(),
        &[
            "draw",
            "-m",
            "toy.kiln",
            "a red apple",
            "--seed",
            "3",
            "--steps",
            "2",
            "-o",
            "same.png",
        ],
    );
    assert!(read("pictures/kiln-000003.png") == read("same.png"));
}

/// A display that is not there, then is, then is gone again; a folder on a disk that is full.
#[test]
fn a_missing_display_and_a_full_disk_are_lived_with() {
    let folder = kiosk(
        "[prompts]\nlist = ['a red apple']\n[[display]]\npng = 'screen/now.png'\nsize = '64x64'\n[[display]]\nframebuffer = '/dev/null'\n",
    );
    let mut running = Running::start(folder.path(), &[]);
    let said = running.says("screen/now.png: No such file");
    assert!(said.contains("goes on without this display"), "{said}");
    running.says("/dev/null: is no framebuffer");
    running.says("written");
    running.says("written");
    fs::create_dir(folder.path().join("screen")).expect("made");
    running.says("screen/now.png: the display is there");
    fs::remove_dir_all(folder.path().join("screen")).expect("removed");
    running.says("screen/now.png: No such file");
    let lines = running.ends();
    let complaints = lines
        .iter()
        .filter(|line| line.contains("is no framebuffer"))
        .count();
    assert_eq!(complaints, 1);

    // Files of 512 bytes at most, which pictures and checkpoints exceed: as a disk that takes no more.
    let folder = kiosk(
        "[prompts]\nlist = ['a red apple']\n[[display]]\npng = '/dev/shm/no-such-folder/now.png'\n",
    );
    let mut command = Command::new("sh");
    let program = assert_cmd::cargo::cargo_bin("kiln");
    let line =
        "trap '' XFSZ; ulimit -f 1; exec \"$0\" kiosk kiosk.toml --log info --log-format json";
    command
        .current_dir(folder.path())
        .args(["-c", line])
        .arg(program)
        .stdin(Stdio::null());
    let mut running = Running::of(command);
    for _ in 0..2 {
        let said = running.says("the picture is shown and not kept");
        assert!(said.contains("kiln-00000"), "{said}");
    }
    running.ends();
    assert_eq!(picture_names(folder.path()), [""; 0]);
}

/// Resident bytes that are the process's own.
fn own_bytes(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Twenty pictures of the built-in model: what it takes is within what was promised and does not grow.
#[cfg(feature = "embedded-model")]
#[test]
fn memory_is_promised_and_does_not_grow() {
    let folder = folder();
    let config = "[prompts]\nlist = ['a red apple', 'panda', 'a pizza on a blue background']\n\
                  [draw]\nsteps = 2\nthreads = 2\n[[display]]\npng = 'now.png'\nsize = '320x240'\n";
    fs::write(folder.path().join("kiosk.toml"), config).expect("written");
    let mut running = Running::start(folder.path(), &["--pictures", "24"]);
    let said: Value = serde_json::from_str(&running.says("memory: at most")).expect("JSON");
    let promised = said["bytes"].as_u64().expect("bytes");
    let mut after = Vec::new();
    let mut most = 0;
    let id = running.child.id();
    for _ in 0..24 {
        // What it takes in between is looked at too, as often as can be.
        loop {
            most = most.max(own_bytes(id).unwrap_or(0));
            match running.log.recv_timeout(Duration::from_millis(1)) {
                Ok(line) if line.to_string().contains("\"written\"") => break,
                Ok(_) => {}
                Err(_) => assert!(running.child.try_wait().expect("its state").is_none()),
            }
        }
        after.extend(own_bytes(id));
    }
    running.child.wait().expect("it ends");
    assert!(after.len() >= 20);
    assert!(most <= promised, "{most} of {promised}");
    // The first ones fill what the allocator keeps.
    let early = after[2..8].iter().max().expect("some");
    let late = after[after.len() - 6..].iter().max().expect("some");
    assert!(*late <= early + (1 << 20), "{after:?}");
    eprintln!("promised {promised}, at most {most}, after pictures {after:?}");
}

/// systemd hears when it is ready, that it lives and that it ends.
#[test]
fn systemd_is_told() {
    let folder = kiosk("every = '1h'\n[prompts]\nlist = ['a red apple']\n");
    let path: PathBuf = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut command = Running::command(folder.path(), &[]);
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000");
    let running = Running::of(command);
    let mut heard = Vec::new();
    let mut hears = |part: &str| {
        loop {
            let mut bytes = [0; 512];
            let len = socket
                .recv(&mut bytes)
                .unwrap_or_else(|error| panic!("{part}: {error}: {heard:?}"));
            heard.push(text(&bytes[..len]).to_owned());
            if heard[heard.len() - 1].contains(part) {
                return;
            }
        }
    };
    hears("READY=1");
    hears("STATUS=drawing: a red apple");
    for _ in 0..5 {
        hears("WATCHDOG=1");
    }
    let lines = running.ends();
    hears("STOPPING=1");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("ends after 1 pictures")),
        "{lines:?}"
    );
}

/// The log's formats and levels.
#[test]
fn the_log_is_quiet_unless_it_is_asked() {
    let folder = kiosk("[prompts]\nlist = ['a red apple']\n[[display]]\npng = 'no/now.png'\n");
    let output = kiln(folder.path(), &["kiosk", "kiosk.toml", "--pictures", "1"]);
    let said = text(&output.stderr);
    assert!(
        said.contains(" kiln: error: no/now.png: No such file") && said.lines().count() == 1,
        "{said}"
    );
    let output = kiln(
        folder.path(),
        &["--log", "off", "kiosk", "kiosk.toml", "--pictures", "1"],
    );
    assert_eq!(text(&output.stderr), "");
    let run = |name: &str, value: &str| {
        let mut command = assert_cmd::Command::cargo_bin("kiln").expect("the command");
        let command = command.current_dir(folder.path()).env(name, value);
        let output = command
            .args(["kiosk", "kiosk.toml", "--pictures", "1"])
            .output();
        let output = output.expect("it runs");
        (output.status.code(), text(&output.stderr).to_owned())
    };
    let (_, said) = run("KILN_LOG", "info");
    assert!(
        said.contains(" kiln: info: drawing prompt=\"a red apple\" seed="),
        "{said}"
    );
    let (_, said) = run("JOURNAL_STREAM", "8:1234");
    assert!(said.starts_with("<3>no/now.png: "), "{said}");
    let (_, said) = run("KILN_LOG_FORMAT", "json");
    let line: Value = serde_json::from_str(said.trim()).expect("a JSON object");
    assert_eq!(line["level"], "ERROR");
    // Options of `[draw]` too.
    let (code, said) = run("KILN_STEPS", "many");
    assert!(
        code == Some(2) && said.contains("kiln: kiosk.toml: KILN_STEPS=many: "),
        "{said}"
    );
    let (_, said) = run("KILN_STEPS", "1");
    let last = picture_names(folder.path()).pop().expect("a picture");
    let path = format!("pictures/{last}");
    assert!(
        succeeds(folder.path(), &["show-info", &path]).contains("steps: 1\n"),
        "{said}"
    );
    let (code, said) = run("KILN_LOG", "loud");
    assert_eq!(
        (code, said.as_str()),
        (
            Some(2),
            "kiln: KILN_LOG=loud: expected off, error, warn, info, debug or trace\n"
        )
    );
    fails(
        folder.path(),
        &["info", "toy.kiln", "--log-format", "xml"],
        2,
        &["--log-format", "xml"],
    );
}

/// A world whose time passes only when the kiosk waits; its clock on the wall is set back a day and forth two hours.
struct Invented {
    now: Duration,
    until: Duration,
}

impl kiln::kiosk::Outside for Invented {
    fn ends(&self) -> bool {
        self.now > self.until
    }

    fn takes_reload(&mut self) -> bool {
        false
    }

    fn takes_draw_now(&mut self) -> bool {
        false
    }

    fn monotonic(&self) -> Duration {
        self.now
    }

    /// Noon of the second day, at first.
    fn wall(&self) -> Duration {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        match self.now.as_secs() / 60 {
            0..25 => hours(36) + self.now,
            25..45 => hours(12) + self.now,
            _ => hours(14) + self.now,
        }
    }

    fn minute(&self) -> u32 {
        (self.wall().as_secs() / 60 % 1440) as u32
    }

    fn sleep(&mut self, time: Duration) {
        self.now += time;
    }
}

/// Intervals go by the clock that never jumps, the schedule by the one on the wall.
#[test]
fn clocks_may_jump() {
    use kiln::kiosk::{Config, Kiosk, Studio};
    let folder = folder();
    let model = toy::write(folder.path());
    let draw = |prompts: &str| {
        let pictures = folder.path().join("pictures");
        let _ = fs::remove_dir_all(&pictures);
        let config = format!(
            "folder = '{}'\nevery = '10m'\n{prompts}",
            pictures.display()
        );
        let config: Config = config.parse().expect("a configuration");
        let said = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let heard = said.clone();
        let studio = Studio {
            kiln: kiln::Kiln::open(&model).expect("the toy"),
            request: Box::new(move |prompt, seed| {
                heard.borrow_mut().push(prompt.to_owned());
                Ok(kiln::Request::new(prompt).seed(seed).steps(1))
            }),
        };
        let mut world = Invented {
            now: Duration::ZERO,
            until: Duration::from_secs(61 * 60),
        };
        let mut never = || Err("there is none".to_owned());
        let drawn = Kiosk::new(config).run(studio, &mut world, &mut never, None);
        let said = said.borrow().clone();
        assert_eq!(drawn as usize, said.len());
        said
    };
    // At 0, 10, ... 60 minutes.
    assert_eq!(draw("[prompts]\nlist = ['red', 'blue']").len(), 7);
    // At 14:45 by the wall, after 45 minutes, the afternoon begins at once; then every ten minutes.
    let said = draw(
        "[[prompts.schedule]]\nfrom = '11:00'\nlist = ['red']\n[[prompts.schedule]]\nfrom = '14:00'\nlist = ['blue']",
    );
    assert_eq!(said, ["red", "red", "red", "red", "red", "blue", "blue"]);
}

/// However many prompts cannot be drawn, who sends a good one does not wait for long.
#[test]
fn bad_prompts_do_not_hold_up_good_ones() {
    use kiln::kiosk::{Config, Kiosk, Studio};
    let folder = folder();
    let model = toy::write(folder.path());
    let path = folder.path().join("fifo");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo").success());
    // Open for reading too, so that it does not wait for the kiosk.
    let mut options = fs::OpenOptions::new();
    let mut fifo = options.read(true).write(true).open(&path).expect("opened");
    fifo.write_all(format!("{}good\n", "bad\n".repeat(8)).as_bytes())
        .expect("written");
    let pictures = folder.path().join("pictures");
    let config = format!(
        "folder = '{}'\n[prompts]\nfifo = '{}'\n",
        pictures.display(),
        path.display()
    );
    let config: Config = config.parse().expect("a configuration");
    let studio = Studio {
        kiln: kiln::Kiln::open(&model).expect("the toy"),
        request: Box::new(|prompt, seed| match prompt {
            "good" => Ok(kiln::Request::new(prompt).seed(seed).steps(1)),
            _ => Err("it is bad".to_owned()),
        }),
    };
    let mut world = Invented {
        now: Duration::ZERO,
        until: Duration::from_secs(30),
    };
    let mut never = || Err("there is none".to_owned());
    let drawn = Kiosk::new(config).run(studio, &mut world, &mut never, Some(1));
    assert_eq!(drawn, 1);
}
