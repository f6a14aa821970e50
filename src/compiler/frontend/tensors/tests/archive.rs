//! A writer of zip archives, to write those that nobody should.

/// An entry as its headers describe it.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub contents: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    /// Both sizes, where the headers lie about them.
    pub size: Option<u64>,
    /// The place of its header, where the directory lies about it.
    pub offset: Option<u64>,
}

impl Entry {
    pub fn new(name: &str, contents: impl Into<Vec<u8>>) -> Self {
        Entry {
            name: name.to_owned(),
            contents: contents.into(),
            flags: 0,
            method: 0,
            size: None,
            offset: None,
        }
    }
}

/// The archive of `entries`, its directory in zip64 if asked for.
pub fn archive(entries: &[Entry], zip64: bool) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = entry.offset.unwrap_or(bytes.len() as u64);
        let size = entry.size.unwrap_or(entry.contents.len() as u64);
        let (short_size, short_offset, extra) = if zip64 {
            let mut extra = vec![1, 0, 24, 0];
            for value in [size, size, offset] {
                extra.extend(value.to_le_bytes());
            }
            (u32::MAX, u32::MAX, extra)
        } else {
            (size as u32, offset as u32, Vec::new())
        };
        // Version, flags, method, time, date, checksum, sizes, lengths of name and extra fields: alike in both headers.
        let mut common = Vec::new();
        for value in [20, entry.flags, entry.method, 0, 0, 0, 0] {
            common.extend(value.to_le_bytes());
        }
        for value in [short_size, short_size] {
            common.extend(value.to_le_bytes());
        }
        common.extend((entry.name.len() as u16).to_le_bytes());

        bytes.extend(b"PK\x03\x04");
        bytes.extend(&common);
        bytes.extend([0, 0]);
        bytes.extend(entry.name.as_bytes());
        bytes.extend(&entry.contents);

        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&common);
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]);
        directory.extend(short_offset.to_le_bytes());
        directory.extend(entry.name.as_bytes());
        directory.extend(extra);
    }
    let (start, size, count) = (bytes.len(), directory.len(), entries.len());
    bytes.extend(directory);
    if zip64 {
        let record = bytes.len() as u64;
        bytes.extend(b"PK\x06\x06");
        bytes.extend(44u64.to_le_bytes());
        bytes.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for value in [count, count, size, start] {
            bytes.extend((value as u64).to_le_bytes());
        }
        bytes.extend(b"PK\x06\x07\0\0\0\0");
        bytes.extend(record.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
    }
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    for value in [count, count] {
        let value = if zip64 { u16::MAX } else { value as u16 };
        bytes.extend(value.to_le_bytes());
    }
    for value in [size, start] {
        let value = if zip64 { u32::MAX } else { value as u32 };
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0, 0]);
    bytes
}

/// A PyTorch file of a pickle and the contents of storages 0, 1, ...
pub fn torch(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let mut entries = vec![Entry::new("x/data.pkl", pickle)];
    for (key, contents) in storages.iter().enumerate() {
        entries.push(Entry::new(&format!("x/data/{key}"), *contents));
    }
    archive(&entries, false)
}
