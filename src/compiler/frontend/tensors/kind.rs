//! What a file is, by its first bytes.

use super::error::Fault;

/// What can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A length of eight bytes, then JSON.
    Safetensors,
    /// A zip archive, which PyTorch writes since 1.6.
    Zip,
    /// JSON text, perhaps the index of a sharded checkpoint.
    Json,
}

const RESAVE: &str = "load it in PyTorch and save it again, as safetensors or with torch.save of version 1.6 or later";
const DOWNLOAD: &str = "download the file itself";
const UNPACK: &str = "unpack it first";
const OTHER: &str = "kiln reads .safetensors files and PyTorch's .ckpt, .pt and .bin files";

/// What begins a file of another kind, what that is, and what to do about it.
const FOREIGN: &[(&[u8], &str, &str)] = &[
    (
        b"version https://git-lfs.github.com/spec/",
        "a git-lfs pointer",
        "fetch the file itself with `git lfs pull`",
    ),
    // The number 0x1950a86a20f9469cfc6c as a pickle of protocol 2.
    (
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
        "a file of PyTorch's format before 1.6",
        RESAVE,
    ),
    (b"GGUF", "a GGUF model", OTHER),
    (b"\x1f\x8b", "a gzip archive", UNPACK),
    (b"BZh", "a bzip2 archive", UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!\x1a\x07", "a rar archive", UNPACK),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", OTHER),
    (b"\x93NUMPY", "a NumPy array", OTHER),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", OTHER),
    (b"\xff\xd8\xff", "a JPEG picture", OTHER),
    (b"%PDF", "a PDF document", OTHER),
    (b"PK\x05\x06", "an empty zip archive", DOWNLOAD),
];

/// What the file is; an error that says so if it is none that can be read.
pub(super) fn recognise(bytes: &[u8]) -> Result<Kind, Fault> {
    let foreign = |what: &str, advice| Fault::Foreign {
        what: what.to_owned(),
        advice,
    };
    if bytes.is_empty() {
        return Err(foreign("empty", DOWNLOAD));
    }
    // Before anything else: a length can look like the first bytes of many formats.
    if bytes.get(8) == Some(&b'{') && !bytes[..8].iter().all(is_text) {
        return Ok(Kind::Safetensors);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Ok(Kind::Zip);
    }
    let found = FOREIGN.iter().find(|(start, ..)| bytes.starts_with(start));
    if let Some((_, what, advice)) = found {
        return Err(foreign(what, advice));
    }
    if bytes.get(257..262) == Some(b"ustar") {
        let what = "a tar archive, perhaps of PyTorch's first format";
        return Err(foreign(what, RESAVE));
    }
    let text = bytes.trim_ascii_start();
    if text.starts_with(b"{") {
        return Ok(Kind::Json);
    }
    if text.starts_with(b"<") {
        let what = "an HTML or XML page, perhaps a server's answer in place of the file";
        return Err(foreign(what, DOWNLOAD));
    }
    match bytes {
        [0x80, 2..=5, ..] => Err(foreign("a pickle that is not in a zip archive", RESAVE)),
        // The fields `ir_version` and `producer_name` of a `ModelProto`.
        [0x08, 1..=32, 0x12, ..] => Err(foreign(
            "an ONNX model",
            "an ONNX model is compiled from its folder",
        )),
        _ => {
            let start: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
            let what = format!(
                "of an unknown kind (its first bytes are {})",
                start.join(" ")
            );
            Err(foreign(&what, OTHER))
        }
    }
}

fn is_text(byte: &u8) -> bool {
    byte.is_ascii_graphic() || byte.is_ascii_whitespace()
}
