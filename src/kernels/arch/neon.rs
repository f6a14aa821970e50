use crate::{Isa, Kernels, job::Body};

/// # Safety
/// As [`Job::run`](crate::Job::run). Every AArch64 CPU that this is built for has the features.
pub unsafe fn run<B: Body>(body: &B, phase: usize, task: usize, scratch: &mut [u8]) {
    // SAFETY: the caller's promise.
    unsafe { body.portable(Kernels::assume(Isa::Neon), phase, task, scratch) }
}
