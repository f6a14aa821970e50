use crate::Element;

/// A repeatable source of sizes and values (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The source of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() >> 16) as usize % end
    }

    /// One in `n` times true.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of the choices.
    pub fn pick<C: Copy>(&mut self, choices: &[C]) -> C {
        choices[self.below(choices.len())]
    }

    /// A number in -2..2.
    pub fn plain(&mut self) -> f32 {
        (self.bits() >> 40) as f32 * (4.0 / (1 << 24) as f32) - 2.0
    }

    /// Values in -2..2; one array in eight has zeros, subnormal and huge numbers among them.
    pub fn values<T: Element>(&mut self, len: usize) -> Vec<T> {
        const EXTREME: &[f32] = &[
            0.0, -0.0, 1e-41, -3e-39, 6e-8, -3e-5, 60000.0, -1e6, 3e30, -88.0, 200.0,
        ];
        let extreme = self.one_in(8);
        (0..len)
            .map(|_| {
                if extreme && self.one_in(4) {
                    self.pick(EXTREME)
                } else {
                    self.plain()
                }
            })
            .map(T::store)
            .collect()
    }

    /// [`Random::values`], or nothing.
    pub fn maybe_values<T: Element>(&mut self, len: usize) -> Option<Vec<T>> {
        if self.one_in(3) {
            None
        } else {
            Some(self.values(len))
        }
    }
}
