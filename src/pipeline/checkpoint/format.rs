//! The bytes of a checkpoint. Everything is little-endian:
//!
//! | at | field |
//! |---|---|
//! | 0 | [`MAGIC`] |
//! | 8 | u32 version |
//! | 12 | u32 CRC-32C of everything behind it |
//! | 16 | u64 length of the file |
//! | 24 | u64 identity of the package |
//! | 32 | u32 pass, next evaluation, steps done, steps in all |
//! | 48 | u32 bytes of the settings and of the note, elements of the latents and of a pass's before, number of the sampler's buffers |
//! | 68 | u32 words of the noise's state |
//!
//! Then the settings, the note, the noise's state, the latents, the latents that a pass before has left, and the sampler's
//! buffers, each of as many elements as the latents.

use kiln_package::crc32c;

use super::CheckpointError;
use super::settings::Written;
use crate::pipeline::noise::Noise;

pub(super) const MAGIC: [u8; 8] = *b"KILNSAVE";
pub(super) const VERSION: u32 = 1;
/// Where what is under the checksum begins.
const CHECKED: usize = 16;
const HEADER: usize = 72;

/// Where a drawing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) struct Position {
    /// The pass, from 0.
    pub(in crate::pipeline) pass: usize,
    /// The evaluation of the pass that is next.
    pub(in crate::pipeline) index: usize,
    /// Steps done, in all passes.
    pub(in crate::pipeline) step: usize,
    /// Steps that there are.
    pub(in crate::pipeline) steps: usize,
}

/// What a file says.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) package: u64,
    pub(super) position: Position,
    pub(super) settings: Written,
    pub(super) note: String,
    pub(super) noise: Noise,
    pub(super) latents: Vec<f32>,
    pub(super) before: Vec<f32>,
    pub(super) sampler: Vec<Vec<f32>>,
}

/// What is the same in every writing.
pub(super) struct Head<'a> {
    pub(super) package: u64,
    pub(super) settings: &'a str,
    pub(super) note: &'a str,
}

/// What changes from step to step.
pub(in crate::pipeline) struct State<'a> {
    pub(in crate::pipeline) position: Position,
    pub(in crate::pipeline) noise: &'a Noise,
    pub(in crate::pipeline) latents: &'a [f32],
    pub(in crate::pipeline) before: &'a [f32],
    pub(in crate::pipeline) sampler: &'a [Vec<f32>],
}

/// Bytes of a file with so many elements of latents, of latents before and of buffers.
pub(super) fn file_bytes(head: &Head<'_>, latents: usize, before: usize, buffers: usize) -> usize {
    let floats = latents + before + buffers * latents;
    HEADER + head.settings.len() + head.note.len() + 4 * (Noise::MAX_WORDS + floats)
}

/// Writes a file's bytes to `out`, which is empty and has room.
pub(super) fn write(out: &mut Vec<u8>, head: &Head<'_>, state: &State<'_>) {
    let position = state.position;
    let mut words = [0; Noise::MAX_WORDS];
    let words = state.noise.save(&mut words);
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 4]);
    out.extend([0; 8]);
    out.extend(head.package.to_le_bytes());
    for number in [
        position.pass,
        position.index,
        position.step,
        position.steps,
        head.settings.len(),
        head.note.len(),
        state.latents.len(),
        state.before.len(),
        state.sampler.len(),
        words.len(),
    ] {
        out.extend((number as u32).to_le_bytes());
    }
    out.extend(head.settings.as_bytes());
    out.extend(head.note.as_bytes());
    words.iter().for_each(|word| out.extend(word.to_le_bytes()));
    let buffers = state.sampler.iter().map(Vec::as_slice);
    for values in [state.latents, state.before].into_iter().chain(buffers) {
        values.iter().for_each(|x| out.extend(x.to_le_bytes()));
    }
    let len = out.len() as u64;
    out[CHECKED..CHECKED + 8].copy_from_slice(&len.to_le_bytes());
    let crc = crc32c(&out[CHECKED..]);
    out[CHECKED - 4..CHECKED].copy_from_slice(&crc.to_le_bytes());
}

/// Takes a file apart from its beginning.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], CheckpointError> {
        let taken = self.0.split_at_checked(len);
        let (taken, rest) = taken.ok_or_else(|| CheckpointError::damaged("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, CheckpointError> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u64(&mut self) -> Result<u64, CheckpointError> {
        let low = u64::from(self.u32()?);
        Ok(low | u64::from(self.u32()?) << 32)
    }

    fn number(&mut self) -> Result<usize, CheckpointError> {
        self.u32().map(|number| number as usize)
    }

    fn text(&mut self, len: usize) -> Result<&'a str, CheckpointError> {
        std::str::from_utf8(self.take(len)?)
            .map_err(|_| CheckpointError::damaged("a text is no UTF-8"))
    }

    fn words(
        &mut self,
        len: usize,
    ) -> Result<impl Iterator<Item = u32> + use<'a>, CheckpointError> {
        let bytes = self.take(len.saturating_mul(4))?;
        Ok(bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| u32::from_le_bytes(*b)))
    }

    fn floats(&mut self, len: usize) -> Result<Vec<f32>, CheckpointError> {
        Ok(self.words(len)?.map(f32::from_bits).collect())
    }
}

impl Contents {
    /// Reads a file's bytes. Nothing is taken for granted before the checksum is right, and no memory is taken for more than
    /// the file has.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut fields = Fields(bytes);
        match fields.take(MAGIC.len()) {
            Ok(magic) if magic == MAGIC => {}
            _ => return Err(CheckpointError::Foreign),
        }
        let found = fields.u32()?;
        if found != VERSION {
            return Err(match found > VERSION {
                true => CheckpointError::Newer {
                    found,
                    known: VERSION,
                },
                false => CheckpointError::damaged(format!("version {found}")),
            });
        }
        let crc = fields.u32()?;
        let len = fields.u64()?;
        if len != bytes.len() as u64 {
            let what = format!("it has {} bytes of {len}", bytes.len());
            return Err(CheckpointError::damaged(what));
        }
        if crc != crc32c(&bytes[CHECKED..]) {
            return Err(CheckpointError::damaged("its checksum is wrong"));
        }
        let package = fields.u64()?;
        let position = Position {
            pass: fields.number()?,
            index: fields.number()?,
            step: fields.number()?,
            steps: fields.number()?,
        };
        let (settings, note) = (fields.number()?, fields.number()?);
        let (latents, before) = (fields.number()?, fields.number()?);
        let (buffers, words) = (fields.number()?, fields.number()?);
        let settings = Written::from_json(fields.text(settings)?)?;
        let note = fields.text(note)?.to_owned();
        let noise = Noise::load(fields.words(words)?)
            .ok_or_else(|| CheckpointError::damaged("the state of the noise is none"))?;
        let contents = Contents {
            package,
            position,
            settings,
            note,
            noise,
            before: Vec::new(),
            latents: fields.floats(latents)?,
            sampler: Vec::new(),
        };
        let before = fields.floats(before)?;
        let mut sampler = Vec::new();
        for _ in 0..buffers {
            if latents == 0 {
                return Err(CheckpointError::damaged("it has no latents"));
            }
            sampler.push(fields.floats(latents)?);
        }
        match fields.0.is_empty() {
            true => Ok(Contents {
                before,
                sampler,
                ..contents
            }),
            false => Err(CheckpointError::damaged("it goes on after its end")),
        }
    }
}
