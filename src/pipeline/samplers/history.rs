//! What multi-step samplers remember.

/// The last `N` tensors, the newest first.
pub(super) struct History<const N: usize>([Vec<f32>; N]);

impl<const N: usize> History<N> {
    /// Room for tensors of `len` elements.
    pub(super) fn new(len: usize) -> Self {
        Self(std::array::from_fn(|_| vec![0.0; len]))
    }

    /// Forgets the oldest for a new one: what `of` makes of each latent and its prediction.
    pub(super) fn push(
        &mut self,
        latents: &[f32],
        prediction: &[f32],
        of: impl Fn(f32, f32) -> f32,
    ) {
        self.0.rotate_right(1);
        for ((new, &x), &p) in self.0[0].iter_mut().zip(latents).zip(prediction) {
            *new = of(x, p);
        }
    }

    /// The tensors as slices, to be read element by element.
    pub(super) fn tensors(&self) -> [&[f32]; N] {
        std::array::from_fn(|i| &self.0[i][..])
    }

    pub(super) fn state(&mut self) -> &mut [Vec<f32>] {
        &mut self.0
    }
}

/// The derivative that an Adams-Bashforth step follows, from the `known` newest of four: the coefficients of PNDM (Liu et
/// al., equation 12) and of its first steps.
pub(super) fn adams_bashforth(known: usize, [e0, e1, e2, e3]: [f32; 4]) -> f32 {
    match known {
        1 => e0,
        2 => (3.0 * e0 - e1) / 2.0,
        3 => (23.0 * e0 - 16.0 * e1 + 5.0 * e2) / 12.0,
        _ => (1.0 / 24.0) * (55.0 * e0 - 59.0 * e1 + 37.0 * e2 - 9.0 * e3),
    }
}
