#[cfg(test)]
mod tests;

/// What a thread's scratch is aligned to.
const ALIGN: usize = 64;

/// Bytes of a scratch that [`Scratch`] cuts into runs of `f32` of these lengths.
pub(crate) const fn bytes(runs: &[usize]) -> usize {
    let mut total = ALIGN;
    let mut i = 0;
    while i < runs.len() {
        total += (runs[i] * 4).next_multiple_of(ALIGN);
        i += 1;
    }
    total
}

/// A thread's scratch, cut from the front into aligned runs.
pub(crate) struct Scratch<'a>(&'a mut [f32]);

impl<'a> Scratch<'a> {
    #[inline(always)]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        let skip = bytes.as_ptr().align_offset(ALIGN).min(bytes.len());
        // SAFETY: any four bytes are an `f32` and any `f32` is four bytes.
        Self(unsafe { bytes[skip..].align_to_mut::<f32>() }.1)
    }

    /// The next `len` elements. Panics if there are not as many.
    #[inline(always)]
    pub fn take(&mut self, len: usize) -> &'a mut [f32] {
        let rest = std::mem::take(&mut self.0);
        let (run, rest) = rest.split_at_mut(len);
        let padding = (len.next_multiple_of(ALIGN / 4) - len).min(rest.len());
        self.0 = &mut rest[padding..];
        run
    }

    /// The next `rows` arrays of `N`.
    #[inline(always)]
    pub fn take_rows<const N: usize>(&mut self, rows: usize) -> &'a mut [[f32; N]] {
        self.take(rows * N).as_chunks_mut().0
    }
}
