use std::slice;

#[cfg(test)]
mod tests;

/// What a thread's scratch is aligned to.
const ALIGN: usize = 64;

/// Bytes of a scratch that [`Scratch`] cuts into runs of so many `f32`, or as many bytes.
pub(crate) const fn bytes(runs: &[usize]) -> usize {
    let mut total = ALIGN;
    let mut i = 0;
    while i < runs.len() {
        total += (runs[i] * 4).next_multiple_of(ALIGN);
        i += 1;
    }
    total
}

/// Numbers and arrays of numbers, for which any bytes are a value.
///
/// # Safety
/// Any bytes are a value, none of its bytes is padding, and its alignment divides 64.
pub(crate) unsafe trait Plain: Copy + Default + Send + Sync + 'static {}
// SAFETY: a number.
unsafe impl Plain for u8 {}
// SAFETY: a number.
unsafe impl Plain for i8 {}
// SAFETY: a number.
unsafe impl Plain for i16 {}
// SAFETY: a number.
unsafe impl Plain for i32 {}
// SAFETY: a number.
unsafe impl Plain for f32 {}

/// What [`Scratch::take_of`] gives: a [`Plain`] or an array of one.
///
/// # Safety
/// As [`Plain`].
pub(crate) unsafe trait Cell: Copy {}
// SAFETY: as the number.
unsafe impl<P: Plain> Cell for P {}
// SAFETY: as its numbers.
unsafe impl<P: Plain, const N: usize> Cell for [P; N] {}

/// The same memory as cells of another type. Panics if it does not divide into these or is not aligned for them.
#[inline(always)]
pub(crate) fn cast<A: Cell, B: Cell>(from: &[A]) -> &[B] {
    let bytes = size_of_val(from);
    assert!(bytes.is_multiple_of(size_of::<B>()) && from.as_ptr().cast::<B>().is_aligned());
    // SAFETY: the same bytes, aligned and whole by the check; any bytes are a value of either.
    unsafe { slice::from_raw_parts(from.as_ptr().cast(), bytes / size_of::<B>()) }
}

/// [`cast`] of what may be written.
#[inline(always)]
pub(crate) fn cast_mut<A: Cell, B: Cell>(from: &mut [A]) -> &mut [B] {
    let bytes = size_of_val(from);
    assert!(bytes.is_multiple_of(size_of::<B>()) && from.as_ptr().cast::<B>().is_aligned());
    // SAFETY: the same bytes, aligned and whole by the check; any bytes are a value of either.
    unsafe { slice::from_raw_parts_mut(from.as_mut_ptr().cast(), bytes / size_of::<B>()) }
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

    /// The next `len` cells.
    #[inline(always)]
    pub fn take_of<C: Cell>(&mut self, len: usize) -> &'a mut [C] {
        let words = self.take((len * size_of::<C>()).div_ceil(4));
        cast_mut(&mut cast_mut::<_, u8>(words)[..len * size_of::<C>()])
    }
}
