//! The numbers of `torch.randn` with a generator on the CPU.
//!
//! The generator is MT19937 (Matsumoto and Nishimura 1998), initialised as in its reference code from the low 32 bits
//! of the seed. Normal numbers are made as in PyTorch's `normal_fill` (`aten/src/ATen/native/cpu/DistributionTemplates.h`):
//!
//! - 16 numbers or more: each becomes uniform in [0, 1) from the low 24 bits of one draw, then the Box-Muller transform
//!   is applied in blocks of 16, whose first eight give the radius and last eight the angle. If the length is not a
//!   multiple of 16, the last 16 numbers are drawn anew and transformed as one block.
//! - fewer: pairs in double precision from two 53-bit draws each, the second of which is kept for the next call.
//!
//! The transform is computed in `f64` by `libm` and rounded, so it is the same on every machine; PyTorch's own differs
//! between machines in the last bit.

use core::f64::consts::PI;

const STATE: usize = 624;
const SHIFT: usize = 397;

/// The stream of `torch.Generator().manual_seed(seed)`.
#[derive(Clone, PartialEq)]
pub(super) struct Torch {
    state: [u32; STATE],
    next: usize,
    /// The second number of a pair.
    kept: Option<f64>,
}

impl Torch {
    /// Words of a state: the generator's, the next one's number, whether a number is kept and its bits.
    pub(super) const WORDS: usize = STATE + 4;

    /// Writes the state.
    pub(super) fn save(&self, words: &mut [u32]) {
        let kept = self.kept.unwrap_or_default().to_bits();
        words[..STATE].copy_from_slice(&self.state);
        words[STATE..Self::WORDS].copy_from_slice(&[
            self.next as u32,
            u32::from(self.kept.is_some()),
            kept as u32,
            (kept >> 32) as u32,
        ]);
    }

    /// The state that [`Torch::save`] wrote.
    pub(super) fn load(words: &[u32]) -> Option<Self> {
        let (state, rest) = words.split_at_checked(STATE)?;
        let [next, is_kept, low, high] = *rest.as_array()?;
        let kept = f64::from_bits(u64::from(low) | u64::from(high) << 32);
        Some(Self {
            state: *state.as_array()?,
            next: Some(next as usize).filter(|next| *next <= STATE)?,
            kept: (is_kept != 0).then_some(kept),
        })
    }

    /// As in PyTorch, only the low 32 bits of the seed count.
    pub(super) fn new(seed: u64) -> Self {
        let mut state = [0; STATE];
        state[0] = seed as u32;
        for i in 1..STATE {
            let last: u32 = state[i - 1];
            state[i] = (last ^ (last >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i as u32);
        }
        Self {
            state,
            next: STATE,
            kept: None,
        }
    }

    /// Fills `out` as `torch.randn(out.len())` would.
    pub(super) fn fill(&mut self, out: &mut [f32]) {
        if out.len() < 16 {
            out.iter_mut().for_each(|x| *x = self.single() as f32);
            return;
        }
        out.iter_mut().for_each(|x| *x = self.uniform());
        let tail = out.len() % 16;
        for block in out.chunks_exact_mut(16) {
            box_muller(block);
        }
        if tail != 0 {
            let start = out.len() - 16;
            let block = &mut out[start..];
            block.iter_mut().for_each(|x| *x = self.uniform());
            box_muller(block);
        }
    }

    fn uniform(&mut self) -> f32 {
        (self.draw() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    fn uniform_f64(&mut self) -> f64 {
        let bits = u64::from(self.draw()) << 32 | u64::from(self.draw());
        (bits & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    fn single(&mut self) -> f64 {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        let angle = 2.0 * PI * self.uniform_f64();
        let radius = libm::sqrt(-2.0 * libm::log1p(-self.uniform_f64()));
        self.kept = Some(radius * libm::sin(angle));
        radius * libm::cos(angle)
    }

    fn draw(&mut self) -> u32 {
        if self.next == STATE {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..STATE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % STATE] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + SHIFT) % STATE] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }
}

/// Makes 16 uniform numbers normal. The angle is rounded to `f32` first, as PyTorch's is.
fn box_muller(block: &mut [f32]) {
    let (radii, angles) = block.split_at_mut(8);
    for (a, b) in radii.iter_mut().zip(angles) {
        let radius = libm::sqrt(-2.0 * libm::log(f64::from(1.0 - *a)));
        let (sin, cos) = libm::sincos(f64::from(2.0 * core::f32::consts::PI * *b));
        *a = (radius * cos) as f32;
        *b = (radius * sin) as f32;
    }
}
