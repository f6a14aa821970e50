//! The directory of a zip archive: where its entries lie, so that they can be mapped.
//!
//! Only what PyTorch writes is taken: stored entries, one disk, nothing before or behind the archive, zip64 where it is
//! needed. So no entry is larger than the file, and no two share a byte. Nothing is unpacked and no entry is read.
//! (The crate `zip` would do, but it takes memory for a directory before anyone can count its entries, and searches the whole
//! file for one where the record at the end is wrong.)
//! Source: PKWARE's APPNOTE 6.3.10, sections 4.3 to 4.5.

use std::ops::Range;

use super::error::{Fault, Place};

/// Entries of an archive. A checkpoint has one for each storage, and a few.
pub(super) const MAX_ENTRIES: u64 = 1 << 16;
/// Bytes of an entry's name.
const MAX_NAME: u64 = 1024;

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x06";
const LOCATOR64: &[u8] = b"PK\x06\x07";
const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;
const LOCATOR64_BYTES: usize = 20;
const END64_BYTES: usize = 56;

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Its path, with `/`.
    pub name: &'a str,
    /// Where its contents lie in the archive, as they are stored.
    range: Range<usize>,
    /// How they are compressed; 0 is not at all.
    method: u16,
}

impl Entry<'_> {
    /// Where its contents lie in the archive; an error if they are compressed.
    pub fn contents(&self) -> Result<Range<usize>, Fault> {
        match self.method {
            0 => Ok(self.range.clone()),
            method => {
                let reason = format!(
                    "is compressed (method {method}), which torch.save does not do; pack the archive again without \
                     compression, or save the checkpoint again with torch.save"
                );
                Err(Fault::damaged(Place::entry(self.name), reason))
            }
        }
    }
}

/// The entries of the archive `bytes`, sorted by name.
pub(super) fn entries(bytes: &[u8]) -> Result<Vec<Entry<'_>>, Fault> {
    let directory = directory(bytes)?;
    let mut entries = Vec::with_capacity(directory.count);
    // Header and contents of each, to see that they do not overlap.
    let mut taken = Vec::with_capacity(directory.count);
    let mut at = directory.range.start;
    for _ in 0..directory.count {
        let (entry, start, next) = entry(bytes, at, &directory)?;
        taken.push((start..entry.range.end, entry.name));
        entries.push(entry);
        at = next;
    }
    taken.sort_by_key(|(range, _)| (range.start, range.end));
    for pair in taken.windows(2) {
        let [(a, first), (b, second)] = pair else {
            continue;
        };
        if b.start < a.end {
            let reason = format!("overlaps the entry {first:?}");
            return Err(Fault::damaged(Place::entry(second), reason));
        }
    }
    entries.sort_by_key(|entry| entry.name);
    match entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => {
            let place = Place::entry(pair[0].name);
            Err(Fault::damaged(place, "is there more than once"))
        }
        None => Ok(entries),
    }
}

struct Directory {
    range: Range<usize>,
    count: usize,
}

/// Finds the directory by the record at the end of the file.
fn directory(bytes: &[u8]) -> Result<Directory, Fault> {
    let last = bytes.len().checked_sub(END_BYTES);
    // The record ends with a comment of 16 bits of length.
    let first = bytes.len().saturating_sub(END_BYTES + 0xffff);
    let is_end = |at: &usize| {
        bytes[*at..].starts_with(END)
            && at + END_BYTES + usize::from(u16_at(bytes, at + 20)) == bytes.len()
    };
    let end = last.and_then(|last| (first..=last).rev().find(is_end));
    let Some(end) = end else {
        let reason = "the zip archive has no directory at its end: it is cut off";
        return Err(Fault::at(bytes.len(), reason));
    };
    let wrong = |at, reason: &str| Err(Fault::at(at, format!("zip directory: {reason}")));
    if u16_at(bytes, end + 4) != 0 || u16_at(bytes, end + 6) != 0 {
        return wrong(end, "the archive is split over several disks");
    }
    let mut count = u64::from(u16_at(bytes, end + 10));
    let mut size = u64::from(u32_at(bytes, end + 12));
    let mut offset = u64::from(u32_at(bytes, end + 16));
    let mut limit = end;
    let locator = end
        .checked_sub(LOCATOR64_BYTES)
        .filter(|at| bytes[*at..].starts_with(LOCATOR64));
    if let Some(locator) = locator {
        let record = usize::try_from(u64_at(bytes, locator + 8)).unwrap_or(usize::MAX);
        let fits = record
            .checked_add(END64_BYTES)
            .is_some_and(|end| end <= locator);
        if !fits || !bytes[record..].starts_with(END64) {
            return wrong(locator, "its zip64 record is not where it should be");
        }
        count = u64_at(bytes, record + 32);
        size = u64_at(bytes, record + 40);
        offset = u64_at(bytes, record + 48);
        limit = record;
    }
    let place = || Place::Byte(end as u64);
    Fault::limit(place, "entries of the zip archive", count, MAX_ENTRIES)?;
    let range = match offset.checked_add(size) {
        Some(end) if end <= limit as u64 => offset as usize..end as usize,
        _ => return wrong(end, "it does not lie within the file"),
    };
    let count = count as usize;
    if range.len() / CENTRAL_BYTES < count {
        return wrong(end, "it is too short for its entries");
    }
    Ok(Directory { range, count })
}

/// The entry whose central header is at `at`, where its local header is, and where the next central header begins.
fn entry<'a>(
    bytes: &'a [u8],
    at: usize,
    directory: &Directory,
) -> Result<(Entry<'a>, usize, usize), Fault> {
    let wrong = |at, reason: &str| Fault::at(at, format!("zip directory: {reason}"));
    let header = bytes[at..directory.range.end]
        .split_at_checked(CENTRAL_BYTES)
        .filter(|(header, _)| header.starts_with(CENTRAL));
    let Some((header, rest)) = header else {
        return Err(wrong(at, "an entry is cut off"));
    };
    let [name_len, extra_len, comment_len] =
        [28, 30, 32].map(|field| usize::from(u16_at(header, field)));
    Fault::limit(
        || Place::Byte(at as u64),
        "bytes of the name of a zip entry",
        name_len as u64,
        MAX_NAME,
    )?;
    let next = CENTRAL_BYTES + name_len + extra_len + comment_len;
    if rest.len() < next - CENTRAL_BYTES {
        return Err(wrong(at, "an entry is cut off"));
    }
    let raw_name = &rest[..name_len];
    let name =
        std::str::from_utf8(raw_name).map_err(|_| wrong(at, "the name of an entry is no UTF-8"))?;
    let fault = |reason: &str| Fault::damaged(Place::entry(name), reason);

    if u16_at(header, 8) & 1 != 0 {
        return Err(fault("is encrypted"));
    }
    let mut packed = u64::from(u32_at(header, 20));
    let mut size = u64::from(u32_at(header, 24));
    let mut offset = u64::from(u32_at(header, 42));
    let mut zip64 = zip64_extra(&rest[name_len..name_len + extra_len]);
    for value in [&mut size, &mut packed, &mut offset] {
        if *value == u64::from(u32::MAX) {
            (*value, zip64) = zip64
                .and_then(<[u8]>::split_first_chunk)
                .map(|(value, rest)| (u64::from_le_bytes(*value), Some(rest)))
                .ok_or_else(|| fault("has no zip64 record for its size or place"))?;
        }
    }
    let method = u16_at(header, 10);
    if method == 0 && packed != size {
        return Err(fault("is stored, but its two sizes differ"));
    }

    let outside = || fault("does not lie within the file");
    let local = usize::try_from(offset).map_err(|_| outside())?;
    let before = &bytes[..directory.range.start];
    let local_header = before.get(local..).unwrap_or_default();
    if local_header.len() < LOCAL_BYTES || !local_header.starts_with(LOCAL) {
        return Err(fault("has no header where the directory says"));
    }
    let [local_name, local_extra] = [26, 28].map(|field| usize::from(u16_at(local_header, field)));
    if local_header.get(LOCAL_BYTES..LOCAL_BYTES + local_name) != Some(raw_name) {
        return Err(fault("has another name in its own header"));
    }
    let start = local + LOCAL_BYTES + local_name + local_extra;
    let end = usize::try_from(packed)
        .ok()
        .and_then(|packed| start.checked_add(packed))
        .filter(|end| *end <= before.len())
        .ok_or_else(outside)?;
    let entry = Entry {
        name,
        range: start..end,
        method,
    };
    Ok((entry, local, at + next))
}

/// The contents of the zip64 record among an entry's extra fields.
fn zip64_extra(mut extra: &[u8]) -> Option<&[u8]> {
    while extra.len() >= 4 {
        let (id, len) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let field = extra.get(4..4 + len)?;
        if id == 1 {
            return Some(field);
        }
        extra = &extra[4 + len..];
    }
    None
}

fn le<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(le(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(le(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(le(bytes, at))
}
