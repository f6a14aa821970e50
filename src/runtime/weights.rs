//! Checking weights when they are first read.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use kiln_package::format::CHECKSUM_BLOCK;
use kiln_package::{Package, PackageError, Space, Step};

use super::threads::Pool;

/// Which blocks of a package's weights have had their checksums verified.
pub(super) struct Verified(Box<[AtomicU64]>);

impl Verified {
    /// None of `blocks` so far.
    pub(super) fn none(blocks: usize) -> Self {
        Verified(
            (0..blocks.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
        )
    }

    fn contains(&self, block: usize) -> bool {
        self.0
            .get(block / 64)
            .is_some_and(|word| word.load(Ordering::Acquire) >> (block % 64) & 1 == 1)
    }

    fn insert(&self, block: usize) {
        if let Some(word) = self.0.get(block / 64) {
            word.fetch_or(1 << (block % 64), Ordering::AcqRel);
        }
    }

    /// Verifies those blocks of a step's weights that have not been before. The error is that of the first damaged one.
    pub(super) fn check(
        &self,
        package: &Package<'_>,
        step: &Step<'_>,
        pool: &mut Pool,
    ) -> Result<(), Box<PackageError>> {
        for operand in step
            .operands()
            .filter(|operand| operand.space == Space::Weights && operand.bytes > 0)
        {
            let first = (operand.offset / CHECKSUM_BLOCK) as usize;
            let end = ((operand.offset + operand.bytes).div_ceil(CHECKSUM_BLOCK)) as usize;
            if (first..end).all(|block| self.contains(block)) {
                continue;
            }
            let next = AtomicUsize::new(first);
            let damaged = AtomicUsize::new(usize::MAX);
            pool.share(&|_| {
                loop {
                    let block = next.fetch_add(1, Ordering::Relaxed);
                    if block >= end {
                        return;
                    }
                    if self.contains(block) {
                        continue;
                    }
                    match package.verify_block(block) {
                        Ok(()) => self.insert(block),
                        Err(_) => _ = damaged.fetch_min(block, Ordering::Relaxed),
                    }
                }
            });
            if damaged.load(Ordering::Relaxed) != usize::MAX {
                package.verify_block(damaged.into_inner())?;
            }
        }
        Ok(())
    }
}
