use crate::{Isa, Kernels, job::Body};

/// # Safety
/// As [`Job::run`](crate::Job::run); this CPU has the features.
#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
pub unsafe fn run<B: Body>(body: &B, phase: usize, task: usize, scratch: &mut [u8]) {
    // SAFETY: the caller's promise.
    unsafe { body.portable(Kernels::assume(Isa::AvxVnni), phase, task, scratch) }
}
