//! What a picture file says about how it was drawn, by Kiln or by another program.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;

use serde_json::{Map, Value};

use super::parameters;
use crate::pipeline::samplers::{SamplerKind, ScheduleKind};

/// The longest side of a picture, and the most pixels.
const MAX_SIDE: u32 = 1 << 16;
const MAX_PIXELS: u64 = 1 << 28;
/// The most bytes of a text.
const MAX_TEXT: usize = 1 << 22;
/// The most bytes of a JPEG or WebP file, whose comments may stand at its end.
const MAX_FILE: u64 = 1 << 26;

/// How a picture was drawn, as far as its file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The program that wrote it: `WebUI` for all that write as it does, Kiln among them.
    pub tool: &'static str,
    /// What it says, as it stands in the file.
    pub text: String,
    /// The settings under the names of `kiln draw`'s options, `prompt` among them.
    pub options: Vec<(String, String)>,
    /// What else it says of the settings: key and value.
    pub others: Vec<(String, String)>,
}

/// Why a picture says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RememberedError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It is no PNG, JPEG or WebP.
    #[error("is no PNG, JPEG or WebP picture")]
    Format,
    /// It begins like a picture and goes on otherwise.
    #[error("is a damaged picture: {0}")]
    Damaged(String),
    /// It is larger than anything that is read.
    #[error(
        "a picture of {0}x{1} is too large: {MAX_SIDE} on a side and {MAX_PIXELS} pixels are the most"
    )]
    Size(u32, u32),
    /// The file, or a text in it, is too long.
    #[error("{what} of more than {most} bytes is too long")]
    Long {
        /// What.
        what: &'static str,
        /// The most bytes.
        most: u64,
    },
    /// Nobody wrote down how it was drawn.
    #[error("does not say how it was drawn")]
    Silent,
}

type Result<T> = std::result::Result<T, RememberedError>;

impl Remembered {
    /// Reads a picture's file, whatever its name, up to its pixels. Sizes are checked before memory is taken.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(BufReader::new(File::open(path)?))
    }

    /// Reads a picture.
    pub fn read(mut file: impl BufRead + Seek) -> Result<Self> {
        let mut magic = [0; 12];
        let len = read_some(&mut file, &mut magic)?;
        file.rewind()?;
        let magic = &magic[..len];
        let ((width, height), texts) = match magic {
            [0x89, b'P', b'N', b'G', ..] => png(file)?,
            [0xff, 0xd8, ..] => exif(file, image::ImageFormat::Jpeg)?,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => {
                exif(file, image::ImageFormat::WebP)?
            }
            _ => return Err(RememberedError::Format),
        };
        let found = texts.iter().find_map(|(key, text)| understand(key, text));
        let (tool, text, options, others) = found.ok_or(RememberedError::Silent)?;
        Ok(Remembered {
            width,
            height,
            tool,
            text,
            options,
            others,
        })
    }
}

fn read_some(file: &mut impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0;
    while len < into.len() {
        match file.read(&mut into[len..])? {
            0 => break,
            n => len += n,
        }
    }
    Ok(len)
}

fn check_size(width: u32, height: u32) -> Result<()> {
    let pixels = u64::from(width) * u64::from(height);
    match width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS {
        true => Err(RememberedError::Size(width, height)),
        false => Ok(()),
    }
}

/// Size, and texts by their keys.
type Texts = ((u32, u32), Vec<(String, String)>);

/// The texts that stand before the pixels, where every program writes them.
fn png(file: impl BufRead + Seek) -> Result<Texts> {
    let limits = png::Limits {
        bytes: 4 * MAX_TEXT,
    };
    let damaged = |error: png::DecodingError| match error {
        png::DecodingError::LimitsExceeded => long_text(),
        png::DecodingError::IoError(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            RememberedError::Io(error)
        }
        other => RememberedError::Damaged(other.to_string()),
    };
    let mut decoder = png::Decoder::new_with_limits(file, limits);
    let header = decoder.read_header_info().map_err(damaged)?;
    let size = (header.width, header.height);
    check_size(size.0, size.1)?;
    let reader = decoder.read_info().map_err(damaged)?;
    let info = reader.info();
    let mut texts = Vec::new();
    for chunk in &info.uncompressed_latin1_text {
        texts.push((chunk.keyword.clone(), repaired(&chunk.text)));
    }
    for chunk in &info.compressed_latin1_text {
        let mut chunk = chunk.clone();
        chunk
            .decompress_text_with_limit(MAX_TEXT)
            .map_err(damaged)?;
        texts.push((
            chunk.keyword.clone(),
            repaired(&chunk.get_text().map_err(damaged)?),
        ));
    }
    for chunk in &info.utf8_text {
        let mut chunk = chunk.clone();
        chunk
            .decompress_text_with_limit(MAX_TEXT)
            .map_err(damaged)?;
        texts.push((chunk.keyword.clone(), chunk.get_text().map_err(damaged)?));
    }
    Ok((size, texts))
}

fn long_text() -> RememberedError {
    RememberedError::Long {
        what: "a text",
        most: MAX_TEXT as u64,
    }
}

/// Some programs write UTF-8 where Latin-1 belongs.
fn repaired(latin1: &str) -> String {
    let bytes: Option<Vec<u8>> = latin1
        .chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect();
    let utf8 = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    utf8.unwrap_or_else(|| latin1.to_owned())
}

/// The user comment of a picture's EXIF.
fn exif(mut file: impl BufRead + Seek, format: image::ImageFormat) -> Result<Texts> {
    let len = file.seek(std::io::SeekFrom::End(0))?;
    file.rewind()?;
    if len > MAX_FILE {
        return Err(RememberedError::Long {
            what: "a JPEG or WebP file",
            most: MAX_FILE,
        });
    }
    let reader = image::ImageReader::with_format(&mut file, format);
    let size = reader
        .into_dimensions()
        .map_err(|error| RememberedError::Damaged(error.to_string()))?;
    check_size(size.0, size.1)?;
    file.rewind()?;
    let fields = match exif::Reader::new().read_from_container(&mut file) {
        Ok(fields) => fields,
        Err(exif::Error::Io(error)) => return Err(error.into()),
        Err(_) => return Ok((size, Vec::new())),
    };
    let comment = fields.get_field(exif::Tag::UserComment, exif::In::PRIMARY);
    let text = match comment.map(|field| &field.value) {
        Some(exif::Value::Undefined(bytes, _)) if bytes.len() > MAX_TEXT => return Err(long_text()),
        Some(exif::Value::Undefined(bytes, _)) => comment_text(bytes, fields.little_endian()),
        _ => None,
    };
    Ok((
        size,
        text.map(|text| ("parameters".into(), text))
            .into_iter()
            .collect(),
    ))
}

/// The text of a user comment: eight bytes that name the encoding, then the text.
fn comment_text(bytes: &[u8], little_endian: bool) -> Option<String> {
    let (encoding, text) = bytes.split_at_checked(8)?;
    if encoding != b"UNICODE\0" {
        return Some(String::from_utf8_lossy(text).trim_matches('\0').to_owned());
    }
    let units = text.as_chunks::<2>().0;
    // Some programs write one order whatever the file's is: most characters are below 256, so zeros tell.
    let zeros = |half: usize| units.iter().filter(|unit| unit[half] == 0).count();
    let little = match zeros(0).cmp(&zeros(1)) {
        std::cmp::Ordering::Equal => little_endian,
        order => order.is_lt(),
    };
    let units = units.iter().map(|unit| match little {
        true => u16::from_le_bytes(*unit),
        false => u16::from_be_bytes(*unit),
    });
    let text: String = char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    Some(text.trim_matches('\0').to_owned())
}

type Pairs = Vec<(String, String)>;
type Understood = (&'static str, String, Pairs, Pairs);

/// What a text says, if it is one of those that programs write.
fn understand(key: &str, text: &str) -> Option<Understood> {
    let json = || match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    };
    let (tool, (options, others)) = match key {
        "parameters" if !text.trim_start().starts_with('{') => ("WebUI", webui(text)),
        "prompt" => ("ComfyUI", comfy(&json()?)?),
        "Comment" => ("NovelAI", flat(&json()?, &NOVELAI)?),
        "invokeai_metadata" => ("InvokeAI", flat(&json()?, &INVOKEAI)?),
        _ => return None,
    };
    Some((tool, text.to_owned(), options, others))
}

fn owned(key: &str, value: impl Into<String>) -> (String, String) {
    (key.to_owned(), value.into())
}

fn webui(text: &str) -> (Pairs, Pairs) {
    let read = parameters::read(text);
    let mut options = vec![owned("prompt", read.prompt)];
    if !read.negative.is_empty() {
        options.push(owned("negative", read.negative));
    }
    let mut others = Vec::new();
    let mut is_cpu = false;
    let is_hires = read.entries.iter().any(|(key, _)| key == "Hires upscale");
    for (key, value) in read.entries {
        match key.as_str() {
            "Hires upscale" => options.push(owned("hires", value)),
            "Hires steps" if is_hires && value != "0" => options.push(owned("hires-steps", value)),
            // Else it is of a picture to begin with, which is not there.
            "Denoising strength" if is_hires => options.push(owned("hires-strength", value)),
            "Hires upscaler" if is_hires && value == "Lanczos" => {
                options.push(owned("hires-upscaler", "lanczos"));
            }
            "Hires upscaler" if is_hires && value == "Latent" => {
                options.push(owned("hires-upscaler", "latent"));
            }
            "Steps" => options.push(owned("steps", value)),
            "CFG scale" => options.push(owned("guidance-scale", value)),
            "Seed" => options.push(owned("seed", value)),
            "Size" => options.push(owned("size", value)),
            "Clip skip" => options.push(owned("clip-skip", value)),
            "Prompt style" => options.push(owned("prompt-style", value)),
            "Eta" => options.push(owned("eta", value)),
            "Variation seed" => options.push(owned("subseed", value)),
            "Variation seed strength" => options.push(owned("subseed-strength", value)),
            "ENSD" => options.push(owned("eta-seed-delta", value)),
            "Spacing" => options.push(owned("spacing", value)),
            "Guidance rescale" => options.push(owned("guidance-rescale", value)),
            "Guidance from" => options.push(owned("guidance-from", value)),
            "Guidance until" => options.push(owned("guidance-until", value)),
            "VAE Decoder" if value == "TAESD" => options.push(owned("decoder", "taesd")),
            "VAE tile" => options.push(owned("tile", value)),
            "RNG" => is_cpu = value == "CPU",
            "Sampler" => sampler(&value, &mut options),
            "Schedule type" => {
                options.extend(schedule(&value).map(|name| owned("schedule", name)));
            }
            _ => others.push((key, value)),
        }
    }
    // The WebUI's noise is a GPU's unless it is said.
    if options.iter().any(|(key, _)| key == "seed") {
        options.push(owned("rng", if is_cpu { "torch" } else { "philox" }));
    }
    (options, others)
}

/// A name that nobody has stays as it is.
fn sampler(name: &str, options: &mut Pairs) {
    match SamplerKind::from_name(name) {
        Ok((sampler, schedule)) => {
            options.push(owned("sampler", sampler.name()));
            options.extend(schedule.map(|schedule| owned("schedule", schedule.name())));
        }
        Err(_) => options.push(owned("sampler", name)),
    }
}

/// What Kiln calls a schedule. `None` for one that is the sampler's own choice.
fn schedule(name: &str) -> Option<String> {
    match name {
        "Automatic" | "Uniform" => None,
        _ => Some(
            name.parse()
                .map_or_else(|_| name.to_owned(), |kind: ScheduleKind| kind.name().into()),
        ),
    }
}

/// ComfyUI's graph, as far as it is simple: one sampler, whose inputs are texts and an empty latent, perhaps by way of
/// nodes that pass their `conditioning` or `samples` on.
fn comfy(nodes: &Map<String, Value>) -> Option<(Pairs, Pairs)> {
    let class = |node: &Value| node["class_type"].as_str().unwrap_or_default().to_owned();
    let mut samplers = nodes
        .values()
        .filter(|node| class(node).starts_with("KSampler"));
    let inputs = &samplers.next()?["inputs"];
    if samplers.next().is_some() {
        return None;
    }
    // Follows a link through nodes, a bounded number of them: links may run in a circle.
    let follow = |start: &Value, through: &[&str]| {
        let mut at = nodes.get(start.get(0)?.as_str()?)?;
        for _ in 0..nodes.len().min(64) {
            let next = through.iter().find_map(|name| at["inputs"].get(*name));
            match next
                .and_then(|link| link.get(0)?.as_str())
                .and_then(|id| nodes.get(id))
            {
                Some(next) => at = next,
                None => break,
            }
        }
        Some(at)
    };
    let text = |name: &str| {
        let node = follow(&inputs[name], &["conditioning", "conditioning_1"])?;
        let text = &node["inputs"]["text"];
        match text.as_str() {
            Some(text) => Some(text.to_owned()),
            // A text that comes from a node of its own.
            None => ["text", "value", "string"].iter().find_map(|key| {
                let inputs = &nodes.get(text.get(0)?.as_str()?)?["inputs"];
                Some(inputs[*key].as_str()?.to_owned())
            }),
        }
    };
    let mut options = vec![owned("prompt", text("positive")?)];
    if let Some(negative) = text("negative").filter(|text| !text.is_empty()) {
        options.push(owned("negative", negative));
    }
    options.push(owned("prompt-style", "comfy"));
    for (key, option) in [
        ("steps", "steps"),
        ("cfg", "guidance-scale"),
        ("seed", "seed"),
        ("noise_seed", "seed"),
    ] {
        if let Some(number) = inputs[key].as_number() {
            options.push(owned(option, number.to_string()));
        }
    }
    if let Some(name) = inputs["sampler_name"].as_str() {
        sampler(name, &mut options);
    }
    if let Some(name) = inputs["scheduler"].as_str() {
        options.extend(schedule(name).map(|name| owned("schedule", name)));
    }
    if let Some(latent) = follow(&inputs["latent_image"], &["samples"]) {
        let size = [&latent["inputs"]["width"], &latent["inputs"]["height"]];
        if let [Some(width), Some(height)] = size.map(Value::as_u64) {
            options.push(owned("size", format!("{width}x{height}")));
        }
    }
    options.push(owned("rng", "torch"));
    Some((options, Vec::new()))
}

/// Keys of a flat object: the other program's, Kiln's option.
type Keys = [(&'static str, &'static str); 6];

const NOVELAI: Keys = [
    ("prompt", "prompt"),
    ("uc", "negative"),
    ("steps", "steps"),
    ("scale", "guidance-scale"),
    ("seed", "seed"),
    ("sampler", "sampler"),
];
const INVOKEAI: Keys = [
    ("positive_prompt", "prompt"),
    ("negative_prompt", "negative"),
    ("steps", "steps"),
    ("cfg_scale", "guidance-scale"),
    ("seed", "seed"),
    ("scheduler", "sampler"),
];

/// An object with a key for each setting.
fn flat(object: &Map<String, Value>, keys: &Keys) -> Option<(Pairs, Pairs)> {
    let mut options = Vec::new();
    for (key, option) in keys {
        let value = match object.get(*key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => continue,
        };
        match *option {
            "sampler" => sampler(value.strip_prefix("k_").unwrap_or(&value), &mut options),
            "negative" if value.is_empty() => {}
            _ => options.push(owned(option, value)),
        }
    }
    let size = ["width", "height"].map(|key| object.get(key).and_then(Value::as_u64));
    if let [Some(width), Some(height)] = size {
        options.push(owned("size", format!("{width}x{height}")));
    }
    options
        .iter()
        .any(|(key, _)| key == "prompt")
        .then_some((options, Vec::new()))
}
