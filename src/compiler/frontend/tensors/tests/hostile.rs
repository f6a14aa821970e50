//! Safetensors headers and zip directories that lie.

use super::archive::{Entry, archive};
use super::*;

fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn headers_are_bounded_by_the_file() {
    for (len, expected) in [
        (
            1u64 << 63,
            "byte 0: bytes of the header: 9223372036854775808, the limit is 67108864",
        ),
        (
            u64::MAX,
            "byte 0: bytes of the header: 18446744073709551615",
        ),
        (
            4096,
            "byte 0: the header has 4096 bytes, the file only 2 more: it is cut off",
        ),
    ] {
        let mut bytes = with_header("{}", 0);
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        let error = error(bytes);
        assert!(error.contains(expected), "{error}");
    }
    let many = format!("{{\"a\": [{}0]}}", "[],".repeat(1 << 19));
    let error = error(with_header(&many, 0));
    assert!(
        error.contains("brackets and commas of the header: 1048578, the limit is 1048576"),
        "{error}"
    );
}

#[test]
fn wrong_headers_name_the_tensor() {
    let entry = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!("{{\"dtype\": {dtype:?}, \"shape\": {shape}, \"data_offsets\": [{from}, {to}]}}")
    };
    let two = |a: String, b: String| format!("{{\"a\": {a}, \"b\": {b}}}");
    let good = || entry("U8", "[4]", 0, 4);
    for (header, data, expected) in [
        (
            "{\"a\": }".to_owned(),
            0,
            "byte 14: the header is no JSON object: expected value",
        ),
        (
            "{\"a\": 1}".to_owned(),
            0,
            "tensor \"a\": its type null is not known",
        ),
        (
            "{\"__metadata__\": {\"a\": 1}}".to_owned(),
            0,
            "byte 8: __metadata__ of the header holds more than texts",
        ),
        (
            two(good(), entry("F7", "[4]", 4, 8)),
            8,
            "tensor \"b\": its type \"F7\" is not known",
        ),
        (
            two(good(), entry("U8", "[-4]", 4, 8)),
            8,
            "tensor \"b\": invalid value: integer `-4`",
        ),
        (
            two(good(), entry("U8", "[4]", 3, 7)),
            7,
            "tensor \"b\": lies in bytes 3..7 of the data and overlaps the tensor before it, which ends at 4",
        ),
        (
            two(good(), entry("U8", "[4]", 6, 10)),
            10,
            "tensor \"b\": begins at byte 6 of the data, but the tensor before it ends at 4",
        ),
        (
            two(good(), entry("F32", "[4]", 4, 8)),
            8,
            "tensor \"b\": lies in bytes 4..8 of the data, but [4] of F32 needs 16 bytes",
        ),
        (
            two(good(), entry("U8", "[4]", 8, 4)),
            8,
            "tensor \"b\": lies in bytes 8..4 of the data",
        ),
        (
            two(good(), entry("U8", "[4294967296, 4294967296]", 4, 8)),
            8,
            "tensor \"b\": its shape [4294967296, 4294967296] has more elements than can be",
        ),
        (
            two(good(), entry("F4", "[3]", 4, 6)),
            6,
            "tensor \"b\": lies in bytes 4..6 of the data, but [3] of F4 needs 2 bytes",
        ),
        (
            two(good(), entry("U8", "[4]", 4, 8)),
            7,
            "tensor \"b\": lies in bytes 4..8 of the data, but the file holds only 7: it is cut off",
        ),
        (
            two(good(), entry("U8", "[4]", 4, 8)),
            9,
            "byte 8: 1 bytes behind the last tensor belong to none",
        ),
    ] {
        let error = error(with_header(&header, data));
        assert!(error.starts_with(expected), "{error}, expected {expected}");
    }
    let mut bytes = with_header("{\"a\": 1}", 0);
    bytes[10] = 0xff;
    assert_eq!(error(bytes), "byte 10: the header is no UTF-8");
}

/// A file that is cut off anywhere is an error.
#[test]
fn no_part_of_a_file_is_taken_for_the_whole() {
    for name in ["dtypes.safetensors", "dtypes.pt"] {
        let whole = fixture_bytes(name);
        for len in 0..whole.len() {
            assert!(
                open_bytes(whole[..len].to_vec()).is_err(),
                "{name}: {len} bytes"
            );
        }
    }
}

fn entries() -> Vec<Entry> {
    vec![
        Entry::new("x/data.pkl", "\u{80}}."),
        Entry::new("x/data/0", vec![7; 100]),
        Entry::new("x/version", "3\n"),
    ]
}

fn read(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let entries = zip::entries(bytes).unwrap().into_iter();
    entries
        .map(|entry| {
            (
                entry.name.to_owned(),
                bytes[entry.contents().unwrap()].to_vec(),
            )
        })
        .collect()
}

fn failure(bytes: &[u8]) -> String {
    zip::entries(bytes).unwrap_err().to_string()
}

#[test]
fn both_directories_are_read() {
    let expected: Vec<_> = entries()
        .into_iter()
        .map(|e| (e.name, e.contents))
        .collect();
    assert_eq!(read(&archive(&entries(), false)), expected);
    assert_eq!(read(&archive(&entries(), true)), expected);
}

#[test]
fn entries_that_lie_are_named() {
    let change = |change: &dyn Fn(&mut Vec<Entry>), zip64| {
        let mut entries = entries();
        change(&mut entries);
        failure(&archive(&entries, zip64))
    };
    for zip64 in [false, true] {
        for (name, expected, found) in [
            (
                "x/data/0",
                "is encrypted",
                change(&|all| all[1].flags = 1, zip64),
            ),
            (
                "x/data/0",
                "does not lie within the file",
                change(&|all| all[1].size = Some(1 << 30), zip64),
            ),
            (
                "x/data/0",
                "has no header where",
                change(&|all| all[1].offset = Some(7), zip64),
            ),
            (
                "x/data/0",
                "has no header where",
                change(&|all| all[1].offset = Some(1 << 30), zip64),
            ),
            (
                "x/version",
                "has another name in its own header",
                change(&|all| all[2].offset = Some(0), zip64),
            ),
            (
                "x/data/0",
                "overlaps the entry \"x/data.pkl\"",
                change(&|all| all[0].size = Some(60), zip64),
            ),
            (
                "x/data.pkl",
                "is there more than once",
                change(&|all| all.push(all[0].clone()), zip64),
            ),
        ] {
            let expected = format!("entry {name:?}: {expected}");
            assert!(found.starts_with(&expected), "{found}, expected {expected}");
        }
    }
    let huge = change(&|all| all[1].size = Some(1 << 63), true);
    assert!(huge.contains("does not lie within the file"), "{huge}");
}

#[test]
fn directories_that_lie_are_refused() {
    let plain = archive(&entries(), false);
    let end = plain.len() - 22;
    let with = |at: usize, value: &[u8]| {
        let mut bytes = plain.clone();
        bytes[end + at..end + at + value.len()].copy_from_slice(value);
        failure(&bytes)
    };
    for (found, expected) in [
        (with(0, b"XX"), "no directory at its end"),
        (with(4, &[1, 0]), "split over several disks"),
        (with(10, &[9, 0]), "too short for its entries"),
        (with(12, &[255; 4]), "does not lie within the file"),
        (with(16, &[255; 4]), "does not lie within the file"),
        (with(16, &[0; 4]), "an entry is cut off"),
        (with(20, &[1, 0]), "no directory at its end"),
    ] {
        assert!(found.contains(expected), "{found}, expected {expected}");
    }
    let wide = archive(&entries(), true);
    let record = wide.len() - 22 - 20 - 56;
    for (at, value, expected) in [
        (0, 0u64, "its zip64 record is not where it should be"),
        (
            32,
            1 << 40,
            "entries of the zip archive: 1099511627776, the limit is 65536",
        ),
        (40, u64::MAX, "does not lie within the file"),
        (48, u64::MAX, "does not lie within the file"),
        (64, u64::MAX, "its zip64 record is not where it should be"),
    ] {
        let mut bytes = wide.clone();
        bytes[record + at..record + at + 8].copy_from_slice(&value.to_le_bytes());
        let found = failure(&bytes);
        assert!(found.contains(expected), "{found}, expected {expected}");
    }
}

#[test]
fn what_was_packed_again_is_refused() {
    let error = error(fixture_bytes("compressed.pt"));
    assert!(
        error.contains("entry \"plain/data.pkl\": is compressed (method 8)"),
        "{error}"
    );
}

#[test]
fn files_of_big_endian_machines_are_refused() {
    let file = |order: &str| {
        archive(
            &[
                Entry::new("x/data.pkl", pickles_empty()),
                Entry::new("x/byteorder", order),
            ],
            false,
        )
    };
    assert!(open_bytes(file("little")).is_ok());
    assert_eq!(
        error(file("big")),
        "entry \"byteorder\": says \"big\"; only little-endian files are read"
    );
}

fn pickles_empty() -> Vec<u8> {
    b"\x80\x02}.".to_vec()
}
