//! How much memory a drawing takes, known before it begins.
//!
//! Anonymous memory is what cannot be dropped and read again: the arena, and what the pipeline allocates around it. Mapped
//! weights are not in it. A drawing goes through two phases that are never together:
//!
//! ```text
//! program | tokenizer                                     while the prompt is read
//! program | arena | scratch | tensors | picture           afterwards
//! ```

use std::num::NonZeroUsize;

use crate::runtime::{Model, memory};

use super::draw::{self, Pass, sizes};
use super::{Error, Kiln, Settings};

/// Bytes that the tokenizer takes while it is read and used, for each byte of its file. CLIP's, of 1.7 MB, takes 38 MB.
const TOKENIZER: u64 = 23;
/// What the process takes where the system does not tell, and in any case what it will take besides: stacks, the heap's
/// own, the terminal's.
const USUAL: u64 = 3 << 20;
const GROWTH: u64 = 3 << 19;
/// Of each thread: its stack as far as it is used.
const THREAD: u64 = 1 << 16;

/// The most anonymous memory that a drawing takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Activations of the largest program, all lanes.
    pub arena_bytes: u64,
    /// The kernels' scratch, all threads.
    pub scratch_bytes: u64,
    /// What is attended to, latents, what the sampler remembers, and a checkpoint's bytes.
    pub tensor_bytes: u64,
    /// What comes of the latents, and the picture to begin with.
    pub picture_bytes: u64,
    /// The tokenizer, which is gone before the arena is there.
    pub tokenizer_bytes: u64,
    /// Everything else: what the process has already, stacks, the heap's own.
    pub program_bytes: u64,
}

impl Promise {
    /// The ceiling.
    pub fn total_bytes(&self) -> u64 {
        let drawing = [
            self.arena_bytes,
            self.scratch_bytes,
            self.tensor_bytes,
            self.picture_bytes,
        ];
        let drawing = drawing.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
        drawing
            .max(self.tokenizer_bytes)
            .saturating_add(self.program_bytes)
    }

    /// What is allocated besides what a session allocates itself.
    pub(super) fn around(&self) -> u64 {
        self.tensor_bytes.saturating_add(self.picture_bytes)
    }
}

impl Kiln {
    /// The most anonymous memory that drawing with these settings takes in this process.
    pub fn promise(&self, settings: &Settings) -> Result<Promise, Error> {
        let passes = self.passes(settings)?;
        let threads = self.options.thread_count();
        let plan = self.model.memory(&draw::lanes(&passes), threads);
        let mut tensors = 0;
        let mut picture = 0;
        for pass in &passes {
            tensors = self.tensors(settings, pass)?.max(tensors);
            picture = self.picture(settings, pass)?.max(picture);
        }
        Ok(Promise {
            arena_bytes: plan.arena_bytes,
            scratch_bytes: plan.scratch_bytes,
            tensor_bytes: tensors.saturating_add(self.contexts_bytes(settings, &passes[0])?),
            picture_bytes: picture,
            tokenizer_bytes: tokenizer_bytes(&self.model),
            program_bytes: program_bytes(threads),
        })
    }

    /// The answers of the text encoder, and what is made of them: for as many chunks as there is room for.
    fn contexts_bytes(&self, settings: &Settings, pass: &Pass) -> Result<u64, Error> {
        let context = self.input(pass.programs.unet, "encoder_hidden_states")?;
        let (most, _) = sizes(&context);
        let prompts = settings.prompts(self.evaluations(settings)?)?;
        let texts: usize = prompts.iter().map(|prompt| prompt.texts().count()).sum();
        Ok(2 * 4 * (most as u64).saturating_mul(texts as u64))
    }

    /// Latents, predictions, what the sampler remembers, what is kept of a picture, and a checkpoint of all that.
    fn tensors(&self, settings: &Settings, pass: &Pass) -> Result<u64, Error> {
        let (latents, _) = sizes(&self.output(pass.programs.unet, "out_sample")?);
        let (input, _) = sizes(&self.input(pass.programs.unet, "sample")?);
        let mut sampler = self.sampler(settings, pass.run(), 0)?;
        let buffers = sampler.state().len() as u64;
        // Fresh noise, two predictions, the latents, and those of a pass before.
        let mut tensors = buffers + 5;
        if settings.init.is_some() {
            // The picture's latents and their noise; the encoder's answer is twice as large.
            tensors += 4;
        }
        let checkpoint = buffers + 2;
        Ok(4 * (latents as u64 * (tensors + checkpoint) + input as u64))
    }

    /// The decoder's planes and the picture's pixels, or those of a tile with a row of tiles; the picture to begin with as
    /// bytes, with its mask, and as planes.
    fn picture(&self, settings: &Settings, pass: &Pass) -> Result<u64, Error> {
        let size = pass.size;
        let (width, height) = size;
        let area = u64::from(width) * u64::from(height);
        let decoder = self.model.program(pass.programs.decoder);
        let (planes, _) = sizes(&self.output(pass.programs.decoder, "sample")?);
        let mut decoded = 4 * planes as u64 + 3 * area;
        let mut encoded = area;
        if (decoder.width(), decoder.height()) != size {
            let (latents, _) = sizes(&self.input(pass.programs.decoder, "latents")?);
            let row = 12 * u64::from(width) * u64::from(decoder.height());
            decoded += row + 4 * latents as u64;
            encoded = u64::from(decoder.width()) * u64::from(decoder.height());
        }
        let Some(init) = &settings.init else {
            return Ok(decoded);
        };
        let own = u64::from(init.picture.width()) * u64::from(init.picture.height());
        let canvas = match init.mask {
            Some(_) => 5 * area + 2 * own,
            None if (init.picture.width(), init.picture.height()) == size => 0,
            None => 3 * area,
        };
        // Put back, it is there as it was and as it becomes.
        Ok(canvas + decoded.max(24 * encoded).saturating_add(3 * own))
    }
}

/// The tokenizer while it is there.
fn tokenizer_bytes(model: &Model) -> u64 {
    TOKENIZER.saturating_mul(model.package().tokenizer().len() as u64)
}

fn program_bytes(threads: NonZeroUsize) -> u64 {
    let now = memory::status_bytes("RssAnon").unwrap_or(USUAL);
    now + GROWTH + THREAD * threads.get() as u64
}
