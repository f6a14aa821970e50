//! Whether a drawing fits in a budget of memory.

use super::{Error, Kiln, RequestError, Settings, draw};

/// What the tokenizer leaves behind of the heap, at most.
const TOKENIZER: u64 = 8 << 20;

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
            .sizes()
            .into_iter()
            .map(|(width, height)| Settings {
                width,
                height,
                ..settings.clone()
            })
            .collect();
        others.sort_by_key(|other| std::cmp::Reverse(other.width * other.height));
        let (guided, alone) = (settings.guidance_scale, 1.0);
        for (other, scale) in others
            .iter()
            .flat_map(|other| [(other, guided), (other, alone)])
        {
            let other = Settings {
                guidance_scale: scale,
                ..other.clone()
            };
            // Not every size has what a second pass needs.
            if self.least_ram(&other).is_ok_and(|need| need <= ram) {
                let guidance = if scale == guided {
                    ""
                } else {
                    " without guidance"
                };
                fits.push(format!("{}x{}{guidance}", other.width, other.height));
            }
        }
        fits.dedup();
        Err(RequestError::Ram { need, ram, fits }.into())
    }

    /// The least budget that a drawing keeps within.
    fn least_ram(&self, settings: &Settings) -> Result<u64, Error> {
        let passes = self.passes(settings)?;
        let threads = self.options.thread_count();
        let least = self.model.least_ram(&draw::lanes(&passes), threads);
        let around = self.promise(settings)?.around();
        Ok(least.saturating_add(TOKENIZER).saturating_add(around))
    }
}
