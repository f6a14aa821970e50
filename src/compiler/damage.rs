//! Damaged and hostile checkpoint files: an error or sound tensors, never a panic, and memory within a bound.
//!
//! A few thousand cases each time. `KILN_FUZZ_SECONDS=600 cargo test --release -p kiln-compiler --test damage` goes on for
//! that long. A case that fails is named by its number and its file is kept; `KILN_FUZZ_CASE=N` runs that case alone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::env;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_compiler::frontend::tensors::{Bytes, ReadError, Tensors, open};

#[path = "frontend/tensors/tests/archive.rs"]
mod archive;
use archive::Entry;

/// The system's allocator. It counts what each thread holds, and the most that it held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    let held = HELD.get() + change;
    HELD.set(held);
    MOST.set(MOST.get().max(held));
}

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static GIVEN: RefCell<Option<Bytes>> = const { RefCell::new(None) };
}

/// Opens the case, or a whole file where an index names one.
fn given(path: &Path) -> io::Result<Bytes> {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("case") => Ok(GIVEN.with_borrow(|given| given.clone().unwrap())),
        Some("dtypes.safetensors") => Ok(Arc::new(fixture("dtypes.safetensors"))),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// What opening `bytes` gives, and the most memory that it held at a time.
fn opened(bytes: Vec<u8>) -> (Result<Tensors, ReadError>, usize) {
    GIVEN.set(Some(Arc::new(bytes)));
    let before = HELD.get();
    MOST.set(before);
    let result = open(Path::new("case"), given);
    let most = (MOST.get() - before) as usize;
    GIVEN.set(None);
    (result, most)
}

/// The most memory that opening a file of `len` bytes may hold. The real files hold a tenth of it.
fn bound(len: usize) -> usize {
    (64 << 10) + 64 * len
}

/// Opens a file and reads all its tensors. Gives the memory that the first took, and whether there was no error.
fn check(bytes: Vec<u8>) -> (usize, bool) {
    let len = bytes.len();
    let (result, most) = opened(bytes);
    assert!(most <= bound(len), "{most} bytes held for a file of {len}");
    let sound = result.is_ok();
    match result {
        Ok(tensors) => {
            for (name, weight) in &tensors.by_name {
                let count: usize = weight.shape().iter().product();
                assert_eq!(weight.read().len(), count, "{name}");
            }
        }
        Err(error) => assert!(error.to_string().len() < 2000, "a message that is too long"),
    }
    (most, sound)
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = "../../tests/fixtures/checkpoint_files";
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(folder)
        .join(name);
    std::fs::read(path).unwrap()
}

/// SplitMix64: all of a case follows from its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A number that lengths and offsets break on.
    fn number(&mut self, near: usize) -> u64 {
        match self.below(5) {
            0 => *self.pick(&[0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff]),
            1 => *self.pick(&[1 << 32, i64::MAX as u64, 1 << 63, u64::MAX]),
            2 => (near as u64).wrapping_add(self.next() % 9).wrapping_sub(4),
            3 => 1 << self.below(64),
            _ => self.next(),
        }
    }

    /// Some bytes of one of the `donors`.
    fn part(&mut self, donors: &[Vec<u8>]) -> Vec<u8> {
        let donor = self.pick(donors);
        let start = self.below(donor.len());
        let len = self.below(64.min(donor.len() - start + 1));
        donor[start..start + len].to_vec()
    }

    /// Damages `bytes` in one to four places.
    fn damage(&mut self, bytes: &mut Vec<u8>, donors: &[Vec<u8>]) {
        for _ in 0..*self.pick(&[1, 1, 1, 2, 4]) {
            let at = self.below(bytes.len());
            let len = self.below(64).min(bytes.len() - at);
            match self.below(12) {
                0 | 8 | 9 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 | 10 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..at + len)),
                4 => {
                    let part = bytes[at..at + len].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, part);
                }
                5 => {
                    let part = self.part(donors);
                    bytes.splice(at..at, part);
                }
                6 => {
                    let part = self.part(donors);
                    let end = (at + part.len()).min(bytes.len());
                    bytes.splice(at..end, part);
                }
                // A length or an offset, in either direction; as digits too, for JSON.
                7 => {
                    let number = self.number(bytes.len());
                    let width = *self.pick(&[1, 2, 4, 8]);
                    let end = (at + width).min(bytes.len());
                    bytes.splice(at..end, number.to_le_bytes()[..width].to_vec());
                }
                _ => {
                    let digits = self.number(bytes.len()).to_string();
                    let is_digit = |i: &usize| bytes[*i].is_ascii_digit();
                    let start = (at..bytes.len()).find(is_digit).unwrap_or(at);
                    let end = (start..bytes.len()).find(|i| !is_digit(i)).unwrap_or(start);
                    bytes.splice(start..end, digits.into_bytes());
                }
            }
        }
    }
}

/// The entries of an archive that PyTorch wrote.
fn unpack(bytes: &[u8]) -> Vec<Entry> {
    let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()) as usize;
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let end = bytes.len() - 22;
    let mut at = u32_at(end + 16);
    let mut entry = || {
        let [size, offset] = [20, 42].map(|field| u32_at(at + field));
        let [name_len, extra, comment] = [28, 30, 32].map(|field| u16_at(at + field));
        let name = std::str::from_utf8(&bytes[at + 46..at + 46 + name_len]).unwrap();
        at += 46 + name_len + extra + comment;
        let start = offset + 30 + u16_at(offset + 26) + u16_at(offset + 28);
        Entry::new(name, &bytes[start..start + size])
    };
    (0..u16_at(end + 10)).map(|_| entry()).collect()
}

/// Runs `case` with the numbers from 0 on, at least `cases` of them, and prints the most memory that one took.
fn fuzz(cases: u64, case: impl Fn(&mut Random) -> Vec<u8>) {
    let number = |name| env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let only = number("KILN_FUZZ_CASE");
    let seconds = number("KILN_FUZZ_SECONDS").unwrap_or(0);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut n, mut most, mut read) = (only.unwrap_or(0), 0, 0);
    while n < cases || only == Some(n) || Instant::now() < end {
        let bytes = case(&mut Random(n));
        match catch_unwind(AssertUnwindSafe(|| check(bytes.clone()))) {
            Ok((held, sound)) => {
                most = most.max(held);
                read += u64::from(sound);
            }
            Err(_) => {
                let path = env::temp_dir().join(format!("kiln-damage-{n}"));
                std::fs::write(&path, bytes).unwrap();
                panic!("case {n} failed; its file is {}", path.display());
            }
        }
        if only.is_some() {
            break;
        }
        n += 1;
    }
    println!("{n} cases, {read} of them read, at most {most} bytes held");
}

fn all(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| fixture(name)).collect()
}

const SAFETENSORS: [&str; 3] = [
    "dtypes.safetensors",
    "float8.safetensors",
    "views.expected.safetensors",
];
const TORCH: [&str; 6] = [
    "dtypes.pt",
    "views.pt",
    "protocol5.pt",
    "lightning.ckpt",
    "module.pt",
    "float8.pt",
];

#[test]
fn damaged_safetensors() {
    let files = all(&SAFETENSORS);
    fuzz(2000, |random| {
        let mut bytes = random.pick(&files).clone();
        if random.below(4) == 0 {
            random.damage(&mut bytes, &files);
            return bytes;
        }
        // The header alone, its length made right again.
        let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = bytes[8..end].to_vec();
        random.damage(&mut header, &files);
        let len = (header.len() as u64).to_le_bytes();
        [&len[..], &header, &bytes[end..]].concat()
    });
}

#[test]
fn damaged_zip_archives() {
    let files = all(&TORCH);
    fuzz(2000, |random| {
        let mut bytes = random.pick(&files).clone();
        if random.below(2) == 0 {
            random.damage(&mut bytes, &files);
            return bytes;
        }
        let mut entries = unpack(&bytes);
        for _ in 0..1 + random.below(3) {
            let other = random.pick(&entries).clone();
            let near = other.contents.len();
            let place = random.below(entries.len());
            let entry = &mut entries[place];
            match random.below(7) {
                0 => entry.name = other.name,
                1 => entry.contents = other.contents,
                2 => entry.size = Some(random.number(near)),
                3 => entry.offset = Some(random.number(bytes.len())),
                4 => entry.method = random.next() as u16,
                5 => entry.flags = random.next() as u16,
                _ => entries.push(other),
            }
        }
        let mut bytes = archive::archive(&entries, random.below(2) == 0);
        if random.below(2) == 0 {
            // In the directory, whose end is that of the file.
            let mut directory = bytes.split_off(bytes.len() - random.below(200));
            random.damage(&mut directory, &files);
            bytes.extend(directory);
        }
        bytes
    });
}

#[test]
fn damaged_pickles() {
    let files = all(&TORCH);
    let is_pickle = |entry: &Entry| entry.name.ends_with("/data.pkl");
    let archives: Vec<Vec<Entry>> = files.iter().map(|file| unpack(file)).collect();
    let pickles: Vec<Vec<u8>> = archives
        .iter()
        .flatten()
        .filter(|entry| is_pickle(entry))
        .map(|entry| entry.contents.clone())
        .collect();
    fuzz(4000, |random| {
        let mut entries = random.pick(&archives).clone();
        let pickle = entries.iter_mut().find(|entry| is_pickle(entry)).unwrap();
        random.damage(&mut pickle.contents, &pickles);
        archive::archive(&entries, false)
    });
}

#[test]
fn damaged_indices() {
    let names = ["f64", "f32", "bool", "scalar"];
    let names: Vec<String> = names
        .iter()
        .map(|name| format!("{name:?}: \"dtypes.safetensors\""))
        .collect();
    let index = format!("{{\"weight_map\": {{{}}}}}", names.join(", ")).into_bytes();
    fuzz(1000, |random| {
        let mut bytes = index.clone();
        random.damage(&mut bytes, std::slice::from_ref(&index));
        bytes
    });
}

/// Files that are large because they are hostile: what they ask for is refused before it is taken.
#[test]
fn limits_come_before_memory() {
    const MIB: usize = 1 << 20;
    let torch = |pickle: Vec<u8>| archive::torch(&pickle, &[]);
    let header = |header: Vec<u8>| {
        let len = (header.len() as u64).to_le_bytes();
        [&len[..], &header].concat()
    };
    let many_entries = {
        let entry = |i| Entry::new(&format!("x/data/{i}"), "");
        let entries: Vec<Entry> = (0..70_000).map(entry).collect();
        archive::archive(&entries, true)
    };
    let shape = format!("{{\"a\": {{\"shape\": [{}1]}}}}", "1,".repeat(16 * MIB));
    for (file, expected, most) in [
        (
            torch(b"(".repeat(60 * MIB)),
            "values of the pickle",
            64 * MIB,
        ),
        (
            torch(b"]".repeat(60 * MIB)),
            "values of the pickle",
            80 * MIB,
        ),
        (
            torch([&b"]q\0"[..], &b"h\0a".repeat(20 * MIB)].concat()),
            "values of the pickle",
            64 * MIB,
        ),
        (
            torch([&b"("[..], &b"Nr\0\0\0\0".repeat(8 * MIB)].concat()),
            "values of the pickle",
            80 * MIB,
        ),
        (torch(vec![b'N'; 65 * MIB]), "bytes of the pickle", MIB),
        (many_entries, "entries of the zip archive", MIB),
        (
            header(shape.into_bytes()),
            "brackets and commas of the header",
            MIB,
        ),
        (
            header([&b"{"[..], &b" ".repeat(65 * MIB)].concat()),
            "bytes of the header",
            MIB,
        ),
    ] {
        let (result, held) = opened(file);
        let error = result.err().expect("a hostile file is read").to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
        assert!(held <= most, "{expected}: {held} bytes held");
        println!("{expected}: {held} bytes held");
    }
}
