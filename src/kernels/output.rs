use std::{marker::PhantomData, ops::Range, slice};

/// An output buffer that tasks write disjoint parts of.
pub(crate) struct Output<'a, T> {
    ptr: *mut T,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives access to elements only through `slice_mut` and `slice`, whose callers keep threads apart; the
// elements themselves may be used from any thread.
unsafe impl<T: Send + Sync> Sync for Output<'_, T> {}
// SAFETY: it stands for a `&mut [T]`, which is `Send` under the same bound.
unsafe impl<T: Send> Send for Output<'_, T> {}

impl<'a, T> Output<'a, T> {
    pub fn new(buffer: &'a mut [T]) -> Self {
        Self {
            ptr: buffer.as_mut_ptr(),
            len: buffer.len(),
            buffer: PhantomData,
        }
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The elements of `range`, to read and write. Panics if the range is not inside.
    ///
    /// # Safety
    /// While the slice lives no other slice of this output that overlaps it may: tasks of one phase take disjoint
    /// ranges, and a task drops one slice before it takes the next that overlaps.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice_mut(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the buffer by the check above, and unaliased by the caller's promise; the buffer is borrowed
        // for 'a.
        unsafe { slice::from_raw_parts_mut(self.ptr.add(range.start), range.len()) }
    }

    /// The `N` elements from `start` on, as [`Output::slice_mut`] of them.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn array_mut<const N: usize>(&self, start: usize) -> &mut [T; N] {
        assert!(start < self.len && self.len - start >= N);
        // SAFETY: inside the buffer by the check above, and unaliased by the caller's promise; the buffer is borrowed
        // for 'a.
        unsafe { &mut *self.ptr.add(start).cast() }
    }

    /// The `N` elements from `start` on, and so on `count` times, each `stride` after those before. Panics unless all are inside
    /// and apart.
    ///
    /// # Safety
    /// As [`Output::slice_mut`] of each.
    #[inline(always)]
    pub unsafe fn arrays_mut<const N: usize>(
        &self,
        start: usize,
        stride: usize,
        count: usize,
    ) -> impl Iterator<Item = &mut [T; N]> {
        let last = start + count.saturating_sub(1) * stride;
        assert!(last < self.len && self.len - last >= N && stride >= N);
        // SAFETY: inside the buffer and unaliased by the checks above and the caller's promise.
        (0..count).map(move |index| unsafe { &mut *self.ptr.add(start + index * stride).cast() })
    }

    /// The elements of `range`, to read. Panics if the range is not inside.
    ///
    /// # Safety
    /// While the slice lives nothing in `range` may be written: it was written in an earlier phase.
    #[inline(always)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &[T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the buffer by the check above, and not written by the caller's promise.
        unsafe { slice::from_raw_parts(self.ptr.add(range.start), range.len()) }
    }
}
