//! The numbers of `torch.randn` with a generator on an NVIDIA GPU, as the WebUI makes them on the CPU
//! (`modules/rng_philox.py`).
//!
//! The generator is Philox-4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3"). Its key is the seed, its
//! counter the number of the call and that of the element; of its four numbers two become one normal number, by the
//! Box-Muller transform.

const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const KEY_STEPS: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// `2^-32` and `2 pi / 2^32`, the latter rounded to `f32` as the WebUI's is.
const UNIT: f64 = 1.0 / 4_294_967_296.0;
const TURN: f32 = 1.462_918e-9;

/// The stream of a seed, all of whose 64 bits count.
#[derive(Clone, PartialEq)]
pub(super) struct Philox {
    seed: u64,
    calls: u32,
}

impl Philox {
    /// Words of a state.
    pub(super) const WORDS: usize = 3;

    pub(super) fn new(seed: u64) -> Self {
        Self { seed, calls: 0 }
    }

    pub(super) fn save(&self) -> [u32; Self::WORDS] {
        [self.seed as u32, (self.seed >> 32) as u32, self.calls]
    }

    pub(super) fn load(words: &[u32]) -> Option<Self> {
        let [low, high, calls] = *words.as_array()?;
        let seed = u64::from(low) | u64::from(high) << 32;
        Some(Self { seed, calls })
    }

    /// Fills `out` as `torch.randn(out.len())` would: with the next call's numbers, however many they are.
    pub(super) fn fill(&mut self, out: &mut [f32]) {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        for (i, x) in out.iter_mut().enumerate() {
            let [a, b, ..] = philox([self.calls, 0, i as u32, (i as u64 >> 32) as u32], key);
            let u = f64::from(a) * UNIT + UNIT / 2.0;
            let v = f64::from(b) * f64::from(TURN) + f64::from(TURN / 2.0);
            *x = (libm::sqrt(-2.0 * libm::log(u)) * libm::sin(v)) as f32;
        }
        self.calls = self.calls.wrapping_add(1);
    }
}

/// Ten rounds of Philox-4x32.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [
                key[0].wrapping_add(KEY_STEPS[0]),
                key[1].wrapping_add(KEY_STEPS[1]),
            ];
        }
        let [c0, c1, c2, c3] = counter;
        let product = |multiplier: u32, x: u32| {
            let wide = u64::from(multiplier) * u64::from(x);
            ((wide >> 32) as u32, wide as u32)
        };
        let (high0, low0) = product(MULTIPLIERS[0], c0);
        let (high1, low1) = product(MULTIPLIERS[1], c2);
        counter = [high1 ^ c1 ^ key[0], low1, high0 ^ c3 ^ key[1], low0];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::philox;

    /// Random123, `tests/kat_vectors`: the lines `philox4x32 10`.
    #[test]
    fn gives_the_known_answers() {
        for (counter, key, answer) in [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), answer);
        }
    }
}
