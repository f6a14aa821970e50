//! The one allocation of a session, and typed slices of it.

use std::alloc::{self, Layout};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_kernels::F16;

use super::RuntimeError;
use super::os::pages;

/// Every part of the arena begins at a multiple of this.
const PAGE: usize = 4096;

/// The most slices that one step may hold: the slots of both lanes' operators.
const MAX_CLAIMS: usize = 24;

/// An element that may lie in the arena or among the weights.
///
/// # Safety
/// Every bit pattern is a value, and there is no padding.
pub(super) unsafe trait Plain: Copy + Send + Sync + 'static {}

// SAFETY: floats and integers are values whatever their bits.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for i8 {}
// SAFETY: `F16` is a transparent `u16`.
unsafe impl Plain for F16 {}

/// The bytes as elements, if their address and their number fit.
pub(super) fn cast<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: `Plain` allows every bit pattern.
    let (before, elements, after) = unsafe { bytes.align_to::<T>() };
    (before.is_empty() && after.is_empty()).then_some(elements)
}

/// A zeroed allocation that begins at a page: the lanes' activations, then the threads' scratch.
pub(super) struct Arena {
    /// The allocation; the first page boundary in it is `base`.
    allocation: NonNull<u8>,
    layout: Layout,
    base: NonNull<u8>,
    bytes: usize,
    /// Bytes that may be resident, from `base` on.
    touched: usize,
    /// Whether a thread's scratch is in use.
    taken: Box<[AtomicBool]>,
    scratch_bytes: usize,
}

// SAFETY: the arena owns its memory; access goes through `Claims`, which borrows it mutably, and through `Scratch`,
// whose parts have a flag each.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

/// What a part of `bytes` takes, or as much as cannot be had.
pub(super) fn whole_pages(bytes: u64) -> u64 {
    bytes
        .checked_next_multiple_of(PAGE as u64)
        .unwrap_or(u64::MAX)
}

/// Bytes that are resident, at most, of an arena of `whole` bytes while `bytes` of it are in use: huge pages end later.
pub(super) fn resident(bytes: u64, whole: u64) -> u64 {
    bytes.saturating_add(pages::HUGE as u64).min(whole)
}

impl Arena {
    /// Memory for `bytes` of activations and `scratch_bytes` for each of `threads`.
    pub(super) fn new(
        bytes: u64,
        scratch_bytes: u64,
        threads: usize,
    ) -> Result<Self, RuntimeError> {
        let (bytes, scratch_bytes) = (whole_pages(bytes), whole_pages(scratch_bytes));
        let total = scratch_bytes
            .saturating_mul(threads as u64)
            .saturating_add(bytes);
        let error = || RuntimeError::OutOfMemory { bytes: total };
        // A page more than needed, since zeroed pages come untouched from the system only at an ordinary alignment.
        let size = usize::try_from(total)
            .ok()
            .and_then(|n| n.checked_add(PAGE))
            .ok_or_else(error)?;
        let layout = Layout::from_size_align(size, 16).map_err(|_| error())?;
        // SAFETY: the size is not zero.
        let allocation = NonNull::new(unsafe { alloc::alloc_zeroed(layout) }).ok_or_else(error)?;
        let skip = allocation.as_ptr().addr().wrapping_neg() % PAGE;
        // SAFETY: `skip` is below PAGE, which the size has room for.
        let base = unsafe { allocation.add(skip) };
        // Before anything is touched, so that the system can give huge pages at once.
        pages::advise_huge(base.as_ptr(), total as usize);
        Ok(Arena {
            allocation,
            layout,
            base,
            bytes: bytes as usize,
            touched: 0,
            taken: (0..threads).map(|_| AtomicBool::new(false)).collect(),
            scratch_bytes: scratch_bytes as usize,
        })
    }

    /// Bytes for activations.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// From now on `bytes` are used: what was touched beyond them goes back to the system, and is zero again.
    pub(super) fn keep(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        if bytes < self.touched {
            // SAFETY: `touched` is at most the activations' bytes; nobody has a slice of them while `self` is borrowed
            // mutably, and zeros are values of every type that they are read as.
            unsafe { pages::zero(self.base.add(bytes).as_ptr(), self.touched - bytes) };
        }
        self.touched = bytes;
    }

    /// Bytes of activations that are resident at most.
    pub(super) fn resident(&self) -> u64 {
        resident(self.touched as u64, self.bytes as u64)
    }

    /// Bytes of scratch for each thread.
    pub(super) fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// The memory as one step sees it: buffers to claim, and scratch for its threads.
    pub(super) fn parts(&mut self) -> (Claims<'_>, Scratch<'_>) {
        let claims = Claims {
            base: self.base,
            bytes: self.bytes,
            ranges: [(0, 0, false); MAX_CLAIMS],
            count: 0,
            arena: PhantomData,
        };
        // SAFETY: the scratch follows the activations in the same allocation.
        let base = unsafe { self.base.add(self.bytes) };
        (
            claims,
            Scratch {
                base,
                bytes: self.scratch_bytes,
                taken: &self.taken,
            },
        )
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { alloc::dealloc(self.allocation.as_ptr(), self.layout) }
    }
}

/// Why a buffer cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClaimError {
    #[error("an operand lies outside the arena")]
    Outside,
    #[error("an operand's offset or size does not suit its type")]
    Alignment,
    #[error("an operand overlaps one that the step writes")]
    Overlap,
    #[error("too many operands")]
    TooMany,
}

/// Slices of the arena that are in use together. What is written is disjoint from everything else: this is checked here
/// again, although opening the package has checked every step, so that no slice rests on another crate's word.
pub(super) struct Claims<'a> {
    base: NonNull<u8>,
    bytes: usize,
    /// Begin, end, whether it is written.
    ranges: [(usize, usize, bool); MAX_CLAIMS],
    count: usize,
    arena: PhantomData<&'a mut Arena>,
}

impl<'a> Claims<'a> {
    /// A buffer to read; it may overlap others that are read.
    pub(super) fn read<T: Plain>(
        &mut self,
        offset: usize,
        bytes: usize,
    ) -> Result<&'a [T], ClaimError> {
        let start = self.claim::<T>(offset, bytes, false)?;
        // SAFETY: `claim` has checked bounds and alignment, and that no buffer to be written overlaps it; later claims
        // are checked against it. The memory is initialized, every bit pattern is a `T`, and `'a` borrows the arena.
        Ok(unsafe { slice::from_raw_parts(start.as_ptr(), bytes / size_of::<T>()) })
    }

    /// A buffer to write, which overlaps no other.
    pub(super) fn write<T: Plain>(
        &mut self,
        offset: usize,
        bytes: usize,
    ) -> Result<&'a mut [T], ClaimError> {
        let start = self.claim::<T>(offset, bytes, true)?;
        // SAFETY: as in `read`, and no other claim overlaps it, so the slice is the only way to its bytes during `'a`.
        Ok(unsafe { slice::from_raw_parts_mut(start.as_ptr(), bytes / size_of::<T>()) })
    }

    fn claim<T: Plain>(
        &mut self,
        offset: usize,
        bytes: usize,
        write: bool,
    ) -> Result<NonNull<T>, ClaimError> {
        let end = offset
            .checked_add(bytes)
            .filter(|end| *end <= self.bytes)
            .ok_or(ClaimError::Outside)?;
        if !bytes.is_multiple_of(size_of::<T>()) || !offset.is_multiple_of(align_of::<T>()) {
            return Err(ClaimError::Alignment);
        }
        let overlaps = |&(begin, stop, written): &(usize, usize, bool)| {
            (write || written) && offset < stop && begin < end
        };
        if self.ranges[..self.count].iter().any(overlaps) {
            return Err(ClaimError::Overlap);
        }
        *self.ranges.get_mut(self.count).ok_or(ClaimError::TooMany)? = (offset, end, write);
        self.count += 1;
        // SAFETY: `offset` is at most `bytes`, which the allocation has from `base` on.
        Ok(unsafe { self.base.add(offset) }.cast())
    }
}

/// The threads' scratch.
pub(super) struct Scratch<'a> {
    base: NonNull<u8>,
    bytes: usize,
    taken: &'a [AtomicBool],
}

// SAFETY: a part is handed out only to whoever has set its flag.
unsafe impl Sync for Scratch<'_> {}

impl Scratch<'_> {
    /// Bytes of one thread's part.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The part of a thread.
    ///
    /// # Panics
    /// When the thread's number is not below the arena's threads, or its part is in use.
    pub(super) fn take(&self, thread: usize) -> ScratchPart<'_> {
        let taken = &self.taken[thread];
        assert!(
            !taken.swap(true, Ordering::Acquire),
            "scratch of thread {thread} is in use"
        );
        // SAFETY: the allocation has `taken.len()` parts of `bytes` from `base` on.
        let start = unsafe { self.base.add(thread * self.bytes) };
        ScratchPart {
            start,
            bytes: self.bytes,
            taken,
        }
    }
}

/// One thread's scratch, given back when dropped.
pub(super) struct ScratchPart<'a> {
    start: NonNull<u8>,
    bytes: usize,
    taken: &'a AtomicBool,
}

impl Deref for ScratchPart<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: initialized memory of the arena, which only the holder of the flag touches.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for ScratchPart<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for ScratchPart<'_> {
    fn drop(&mut self) {
        self.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_aligned_zeroed_and_disjoint() {
        let mut arena = Arena::new(1000, 100, 3).expect("small");
        assert_eq!(arena.bytes(), PAGE);
        let (mut claims, scratch) = arena.parts();
        let a = claims.write::<f32>(64, 64).expect("free");
        let b = claims.read::<F16>(128, 32).expect("free");
        let c = claims.read::<F16>(128, 64).expect("reads may overlap");
        assert_eq!(a.as_ptr().addr() % PAGE, 64);
        a.fill(1.0);
        assert_eq!(b[..], c[..16]);
        assert_eq!(claims.write::<f32>(124, 8).err(), Some(ClaimError::Overlap));
        assert_eq!(claims.read::<f32>(0, 68).err(), Some(ClaimError::Overlap));
        assert_eq!(
            claims.read::<f32>(PAGE - 4, 8).err(),
            Some(ClaimError::Outside)
        );
        assert_eq!(
            claims.read::<f32>(usize::MAX - 3, 8).err(),
            Some(ClaimError::Outside)
        );
        assert_eq!(claims.read::<f32>(2, 8).err(), Some(ClaimError::Alignment));
        assert_eq!(claims.read::<f32>(0, 6).err(), Some(ClaimError::Alignment));
        let mut parts = [scratch.take(0), scratch.take(1), scratch.take(2)];
        for (i, part) in parts.iter_mut().enumerate() {
            assert_eq!((part.len(), part.as_ptr().addr() % PAGE), (PAGE, 0));
            part.fill(i as u8 + 1);
        }
        assert!(
            parts
                .iter()
                .enumerate()
                .all(|(i, part)| part.iter().all(|&x| usize::from(x) == i + 1))
        );
        assert!(a.iter().all(|&x| x == 1.0));
    }

    #[test]
    fn what_is_not_kept_is_given_back() {
        let mut arena = Arena::new(64 * PAGE as u64, 0, 0).expect("small");
        let words = 64 * PAGE / 4;
        arena.keep(64 * PAGE);
        let fill = |arena: &mut Arena| {
            let (mut claims, _) = arena.parts();
            claims.write::<i32>(0, 4 * words).expect("free").fill(1);
        };
        let ones = |arena: &mut Arena| {
            let (mut claims, _) = arena.parts();
            let all = claims.read::<i32>(0, 4 * words).expect("free");
            all.iter().filter(|word| **word == 1).count()
        };
        fill(&mut arena);
        arena.keep(usize::MAX);
        assert_eq!(ones(&mut arena), words, "nothing is given back");
        assert_eq!(arena.resident(), 64 * PAGE as u64);
        arena.keep(3 * PAGE + 100);
        assert_eq!(
            arena.resident(),
            64 * PAGE as u64,
            "a huge page may hold all"
        );
        let page = pages::page_bytes();
        let kept = match cfg!(target_os = "linux") {
            true => (3 * PAGE + 100).next_multiple_of(page).min(64 * PAGE) / 4,
            false => words,
        };
        // The allocation need neither begin nor end at a page of more than 4096 bytes.
        let slack = if page > PAGE { page / 4 } else { 0 };
        assert!(ones(&mut arena).abs_diff(kept) <= slack);
        fill(&mut arena);
        assert_eq!(ones(&mut arena), words);
    }

    #[test]
    fn scratch_has_one_holder() {
        let mut arena = Arena::new(0, 64, 1).expect("small");
        let (_, scratch) = arena.parts();
        drop(scratch.take(0));
        let _held = scratch.take(0);
        let again =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(scratch.take(0))));
        assert!(again.is_err());
    }

    #[test]
    fn impossible_sizes_are_errors() {
        for bytes in [u64::MAX, u64::MAX / 4, 1 << 62] {
            let error = Arena::new(bytes, 64, 2).err().expect("too large");
            assert!(matches!(error, RuntimeError::OutOfMemory { .. }), "{error}");
        }
        assert!(Arena::new(64, u64::MAX / 2, 2).is_err());
    }

    #[test]
    fn casting_asks_for_alignment_and_whole_elements() {
        let mut arena = Arena::new(64, 0, 0).expect("small");
        let (mut claims, _) = arena.parts();
        claims
            .write::<f32>(0, 8)
            .expect("free")
            .copy_from_slice(&[1.0, 2.0]);
        let (mut claims, _) = arena.parts();
        let words = claims.read::<i32>(0, 12).expect("free");
        let bytes: &[u8] = claims.read::<u8>(0, 12).expect("free");
        assert_eq!(cast::<i32>(bytes), Some(words));
        assert_eq!(cast::<f32>(&bytes[..8]), Some(&[1.0, 2.0][..]));
        assert_eq!(cast::<f32>(&bytes[..6]), None);
        assert_eq!(cast::<f32>(&bytes[1..5]), None);
        assert_eq!(cast::<F16>(&bytes[1..5]), None);
    }
}
