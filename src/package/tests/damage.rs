//! Damage at random, in a package whose checksums are made right again: an error or a sound package.
//!
//! A few thousand cases each time. `KILN_FUZZ_SECONDS=600 cargo test --release -p kiln-package damage` goes on for that long.

use std::env;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

use super::*;

/// Runs `check` on `cases` values, and on more until the time is up.
fn fuzz<S: Strategy>(
    cases: u32,
    strategy: S,
    check: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let seconds = env::var("KILN_FUZZ_SECONDS").map_or(0, |s| s.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let config = ProptestConfig {
        failure_persistence: None,
        cases,
        ..ProptestConfig::default()
    };
    loop {
        let result = TestRunner::new(config.clone()).run(&strategy, &check);
        if let Err(error) = result {
            panic!("{error}");
        }
        if Instant::now() >= end {
            return;
        }
    }
}

/// A change of some bytes: where, how, by what.
type Change = (Index, u8, u64, Index);

fn change(bytes: &mut [u8], range: (usize, usize), (to, kind, value, from): Change) {
    let (start, end) = range;
    let at = start + to.index(end - start);
    match kind {
        0 => bytes[at] = value as u8,
        1 => bytes[at] ^= 1 << (value % 8),
        2 => bytes[at & !3..][..4].copy_from_slice(&(value as u32).to_le_bytes()),
        3 => bytes[at & !7..][..8].copy_from_slice(&(value & 0xFF).to_le_bytes()),
        4 => bytes[at & !7..][..8].copy_from_slice(&value.to_le_bytes()),
        // Part of another row or step.
        _ => {
            let from = start + from.index(end - start);
            let len = (1 + value as usize % 64).min(end - at.max(from));
            bytes.copy_within(from..from + len, at);
        }
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    (any::<Index>(), 0..6u8, any::<u64>(), any::<Index>())
}

/// In the header, the table or the programs.
#[test]
fn mutations_never_panic() {
    static PACKAGE: OnceLock<Vec<u8>> = OnceLock::new();
    let changes = prop::collection::vec(any_change(), 1..6);
    fuzz(2000, (changes, any::<bool>()), |(changes, in_table)| {
        let mut bytes = PACKAGE.get_or_init(package).clone();
        let range = if in_table {
            (8, HEADER_BYTES + 7 * SECTION_BYTES)
        } else {
            let programs = find_section(&bytes, section::PROGRAMS).1;
            (programs.start, programs.end - 8)
        };
        for places in changes {
            change(&mut bytes, range, places);
        }
        reseal(&mut bytes);
        if let Ok(package) = Package::open(&bytes) {
            walk(&package);
        }
        Ok(())
    });
}

/// Cut off, or with something taken out or put in, whatever the checksums say.
#[test]
fn changes_of_length_never_open() {
    static PACKAGE: OnceLock<Vec<u8>> = OnceLock::new();
    let tail = prop::collection::vec(any::<u8>(), 1..40);
    let strategy = (any::<Index>(), any::<Index>(), tail, 0..3u8);
    fuzz(500, strategy, |(at, len, new, kind)| {
        let mut bytes = PACKAGE.get_or_init(package).clone();
        let at = at.index(bytes.len());
        match kind {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..at + 1 + len.index(bytes.len() - at))),
            _ => drop(bytes.splice(at..at, new)),
        }
        if bytes.len() >= HEADER_BYTES {
            reseal(&mut bytes);
        }
        prop_assert!(Package::open(&bytes).is_err());
        Ok(())
    });
}

#[test]
fn garbage_never_opens() {
    let tail = prop::collection::vec(any::<u8>(), 0..300);
    fuzz(2000, tail, |tail| {
        prop_assert!(Package::open(&tail).is_err());
        let mut bytes = b"KILNPKG\0\x02\0\0\0".to_vec();
        bytes.extend(tail);
        if bytes.len() >= HEADER_BYTES {
            reseal(&mut bytes);
        }
        prop_assert!(Package::open(&bytes).is_err());
        Ok(())
    });
}
