use std::ops::Range;

use super::AttentionInt8;
use crate::{Element, Kernels};

impl<T: Element> AttentionInt8<'_, T> {
    #[inline(always)]
    pub(super) unsafe fn portable_tile(&self, _: Kernels, head: usize, queries: Range<usize>, scratch: &mut [u8]) {
        for query in queries {
            // SAFETY: the caller's promise.
            unsafe { self.scalar_row(head, query, scratch) }
        }
    }
}
