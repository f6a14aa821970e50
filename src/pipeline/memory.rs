//! Whether a drawing fits in a budget of memory.

use crate::runtime::memory::resident_bytes;

use super::{Decoder, Error, Kiln, RequestError, Settings, draw};

/// What the tokenizer leaves behind of the heap, at most: little where the allocator gives it back when it is told to.
const TOKENIZER: u64 = match cfg!(all(target_os = "linux", target_env = "gnu")) {
    true => 3 << 20,
    false => 8 << 20,
};
/// What is touched besides while the prompt is read: code and stacks.
const READING: u64 = 4 << 20;

impl Kiln {
    /// Refuses what cannot keep within [`Kiln::ram`], saying what would.
    pub(super) fn check_ram(&self, settings: &Settings) -> Result<(), Error> {
        let Some(ram) = self.options.ram else {
            return Ok(());
        };
        let need = self.least_ram(settings)?;
        if need <= ram {
            return Ok(());
        }
        let mut fits = Vec::new();
        let mut others: Vec<Settings> = self
            .sizes_with(settings.tile)
            .into_iter()
            .map(|(width, height)| Settings {
                width,
                height,
                ..settings.clone()
            })
            .collect();
        others.sort_by_key(|other| std::cmp::Reverse(other.width * other.height));
        for other in &others {
            for (how, other) in self.smaller(other) {
                // Not every size has what a second pass needs.
                if self.least_ram(&other).is_ok_and(|need| need <= ram) {
                    fits.push(format!("{}x{}{how}", other.width, other.height));
                }
            }
        }
        Err(RequestError::Ram { need, ram, fits }.into())
    }

    /// The same drawing and those of its size that may take less, with what is to be said for them.
    fn smaller(&self, settings: &Settings) -> Vec<(&'static str, Settings)> {
        let mut ways = vec![("", settings.clone())];
        if settings.decoder == Decoder::Vae && self.decoders().contains(&Decoder::Taesd) {
            let mut other = settings.clone();
            other.decoder = Decoder::Taesd;
            ways.push((" with --decoder taesd", other));
        }
        if let (None, Some(side)) = (settings.tile, self.card.tile) {
            let tiled = |(_, other): &(_, Settings)| Settings {
                tile: Some(side),
                ..other.clone()
            };
            let names = [" with --tile", " with --decoder taesd --tile"];
            let tiled: Vec<_> = names.into_iter().zip(ways.iter().map(tiled)).collect();
            ways.extend(tiled.into_iter().filter(|(_, other)| {
                let (width, height) = other.size();
                width.max(height) > side
            }));
        }
        if settings.guidance_scale != 1.0 {
            let mut other = settings.clone();
            other.guidance_scale = 1.0;
            ways.push((" without guidance", other));
        }
        ways
    }

    /// The least budget that a drawing keeps within.
    pub fn least_ram(&self, settings: &Settings) -> Result<u64, Error> {
        let passes = self.passes(settings)?;
        let threads = self.options.thread_count();
        let least = self.model.least_ram(&draw::lanes(&passes), threads);
        let promise = self.promise(settings)?;
        let drawing = least
            .saturating_add(TOKENIZER)
            .saturating_add(promise.around());
        // Before that the tokenizer is there, without all that.
        let reading = resident_bytes().unwrap_or(0) + promise.tokenizer_bytes + READING;
        Ok(drawing.max(reading))
    }
}
