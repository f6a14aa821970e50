//! What operators share that treat each element by itself.

use std::ops::Range;

use crate::{Element, Kernels, PANEL, Source, output::Output};

/// Elements of a task.
const TASK_ELEMENTS: usize = 8 << 10;

/// Tasks of so many elements.
pub(crate) fn tasks(len: usize) -> usize {
    len.div_ceil(TASK_ELEMENTS)
}

/// The elements of a task.
#[inline(always)]
pub(crate) fn range(len: usize, task: usize) -> Range<usize> {
    task * TASK_ELEMENTS..len.min((task + 1) * TASK_ELEMENTS)
}

/// A function of each of some values. (A trait: the compiler may leave a closure out of line, and there it would not
/// have the caller's instruction set.)
pub(crate) trait Map {
    /// Must be `#[inline(always)]`.
    fn map(&self, values: &mut [f32]);
}

/// Maps the elements of a task.
///
/// # Safety
/// As [`Job::run`](crate::Job::run).
#[inline(always)]
pub(crate) unsafe fn run<T: Element>(
    kernels: Kernels,
    map: &impl Map,
    x: Source<T>,
    out: &Output<T>,
    task: usize,
) {
    let range = range(out.len(), task);
    // SAFETY: a task alone has its range.
    let out = unsafe { out.slice_mut(range.clone()) };
    if let Source::Other(x) = x {
        out.copy_from_slice(&x[range]);
    }
    let mut values = [0.0; 16 * PANEL];
    for out in out.chunks_mut(values.len()) {
        let values = &mut values[..out.len()];
        T::load_slice(kernels, out, values);
        map.map(values);
        T::store_slice(kernels, values, out);
    }
}
