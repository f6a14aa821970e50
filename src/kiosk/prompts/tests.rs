use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::time::Duration;

use super::lines::Lines;
use super::*;
use crate::kiosk::Config;

fn turn(number: u64) -> Turn {
    Turn {
        number,
        chance: 5,
        minute: 0,
    }
}

fn prompts(text: &str) -> Prompts {
    let config: Result<Config, _> = format!("[prompts]\n{text}").parse();
    config
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .prompts
}

fn first(prompts: &Prompts, count: u64) -> Vec<String> {
    let mut feeds = Feeds::default();
    let next = |number| prompts.next(turn(number), &mut feeds).expect("a prompt");
    (0..count).map(next).collect()
}

#[test]
fn lists_are_gone_through() {
    let listed = prompts("list = ['a', 'b', 'c']");
    assert_eq!(first(&listed, 5), ["a", "b", "c", "a", "b"]);
    let shuffled = prompts("list = ['a', 'b', 'c', 'd', 'e', 'f']\norder = 'shuffled'");
    let found = first(&shuffled, 60);
    assert_eq!(found, first(&shuffled, 60));
    let rounds: BTreeSet<&[String]> = found.chunks(6).collect();
    assert!(rounds.len() > 5);
    for round in found.chunks(6) {
        let mut round = round.to_vec();
        round.sort();
        assert_eq!(round, ["a", "b", "c", "d", "e", "f"]);
    }
}

#[test]
fn templates_are_filled() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("places.txt");
    fs::write(&path, "a wood\n\n the sea \n").expect("written");
    let text = format!(
        "template = '{{animal}} in {{place}}, {{animal}}'\nwords.animal = ['cat', 'dog', 'fox']\nwords.place = '{}'",
        path.display()
    );
    let found: BTreeSet<String> = first(&prompts(&text), 200).into_iter().collect();
    assert_eq!(found.len(), 18);
    assert!(found.contains("cat in the sea, fox"));
}

#[test]
fn the_time_of_day_chooses() {
    let schedule = prompts(
        "[[prompts.schedule]]\nfrom = '20:00'\nlist = ['night']\n\
         [[prompts.schedule]]\nfrom = '06:30'\nlist = ['morning', 'sun']",
    );
    let at = |hour: u32, minute: u32, number| {
        let turn = Turn {
            minute: hour * 60 + minute,
            ..turn(number)
        };
        schedule
            .next(turn, &mut Feeds::default())
            .expect("a prompt")
    };
    assert_eq!(at(6, 29, 0), "night");
    assert_eq!(at(6, 30, 0), "morning");
    assert_eq!(at(19, 59, 1), "sun");
    assert_eq!(at(23, 59, 1), "night");
    assert_eq!(at(0, 0, 1), "night");
}

#[test]
fn lines_that_are_none_take_no_memory() {
    let mut lines = Lines::default();
    for _ in 0..10 {
        lines.push(&[b'x'; 1 << 20]);
    }
    lines.push(b"\na prompt \r\n\n\xff\xfe\n");
    lines.push("é".as_bytes().split_at(1).0);
    lines.push("é".as_bytes().split_at(1).1);
    lines.push(b"\nthe last");
    assert_eq!(lines.ready, ["a prompt", "é"]);
    assert_eq!(
        lines.wrong,
        [
            "a line of 10485760 bytes is no prompt: 65536 are the most",
            "a line is no UTF-8 from byte 1 on"
        ]
    );
    lines.end();
    assert_eq!(lines.ready.pop_back().as_deref(), Some("the last"));
    lines.push(&[b'a'; MAX_LINE]);
    lines.end();
    assert_eq!(lines.ready.pop_back().expect("a line").len(), MAX_LINE);
}

#[test]
fn a_folders_files_are_read_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Prompts::Folder(folder.path().join("prompts"), Order::Listed);
    let mut feeds = Feeds::default();
    let mut next = |number| source.next(turn(number), &mut feeds);
    assert_eq!(next(0), None);
    let inner = folder.path().join("prompts");
    fs::create_dir(&inner).expect("made");
    assert_eq!(next(0), None);
    let write = |name: &str, text: &str| fs::write(inner.join(name), text).expect("written");
    write("b.txt", "three\n");
    write(
        "a.txt",
        &format!("one\n\n{}\n  two", "long ".repeat(20_000)),
    );
    write("c.jpg", "no prompt");
    let found: Vec<_> = (0..4).filter_map(&mut next).collect();
    assert_eq!(found, ["one", "two", "three", "one"]);
    write("c.txt", "four");
    assert_eq!(next(3).as_deref(), Some("four"));
}

/// A FIFO that is not there, one that is no FIFO, writers that come and go.
#[test]
fn a_fifo_outlives_its_writers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fifo");
    let source = Prompts::Fifo(path.clone());
    fs::write(&path, "no fifo\n").expect("written");
    assert_eq!(source.next(turn(0), &mut Feeds::default()), None);
    fs::remove_file(&path).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo").success());
    let mut feeds = Feeds::default();
    let mut next = || source.next(turn(0), &mut feeds);
    assert_eq!(next(), None);
    for _ in 0..2 {
        let mut writer = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("opened");
        assert_eq!(next(), None);
        writer.write_all(b"a cat\na do").expect("written");
        assert_eq!(next().as_deref(), Some("a cat"));
        assert_eq!(next(), None);
        writer.write_all(b"g\nthe rest").expect("written");
        assert_eq!(next().as_deref(), Some("a dog"));
        assert_eq!(next(), None);
        drop(writer);
        assert_eq!(next().as_deref(), Some("the rest"));
        assert_eq!(next(), None);
    }
    // 10 MB on one line, while it is read.
    let writer = path.clone();
    let writer = std::thread::spawn(move || {
        let mut writer = fs::OpenOptions::new()
            .write(true)
            .open(writer)
            .expect("opened");
        for _ in 0..10 {
            writer.write_all(&[b'x'; 1_000_000]).expect("written");
        }
        writer.write_all(b"\nafter it\n").expect("written");
    });
    let mut found = None;
    for _ in 0..2000 {
        found = next();
        if found.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(found.as_deref(), Some("after it"));
    writer.join().expect("written");
    // Another one of the same name, whose writer waits until it is read.
    fs::remove_file(&path).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo").success());
    std::thread::spawn(move || fs::write(path, "to the new one\n"));
    let start = std::time::Instant::now();
    let found = loop {
        match next() {
            None if start.elapsed() < Duration::from_secs(60) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            found => break found,
        }
    };
    assert_eq!(found.as_deref(), Some("to the new one"));
}

#[test]
fn times_of_day_are_read() {
    for (text, expected) in [
        ("00:00", Some(0)),
        ("7:05", Some(425)),
        ("23:59", Some(1439)),
        ("24:00", None),
        ("7", None),
        ("07:60", None),
        ("+7:00", None),
        ("007:00", None),
        ("07:00 ", None),
    ] {
        assert_eq!(minutes(text).ok(), expected, "{text}");
    }
}
