use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Mean and variance of a group of channels. The tasks of a norm write each to its own; they are `f64`, as computed.
#[derive(Debug, Default)]
pub struct Moment([AtomicU64; 2]);

impl Moment {
    /// Mean and variance.
    pub fn get(&self) -> [f64; 2] {
        [&self.0[0], &self.0[1]].map(|bits| f64::from_bits(bits.load(Relaxed)))
    }

    /// Replaces both.
    pub fn set(&self, values: [f64; 2]) {
        for (bits, value) in self.0.iter().zip(values) {
            bits.store(value.to_bits(), Relaxed);
        }
    }
}

/// What a norm has to do with the moments of its groups besides normalizing: each slice has one for each group, or none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments<'a> {
    /// Where to write what `x` has.
    pub measured: &'a [Moment],
    /// What to normalize by instead of what `x` has: those of the picture that `x` is a part of.
    pub given: &'a [Moment],
}
