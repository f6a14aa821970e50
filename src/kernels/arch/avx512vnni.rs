use crate::{Isa, Kernels, job::Body};

/// # Safety
/// As [`Job::run`](crate::Job::run); this CPU has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn run<B: Body>(body: &B, phase: usize, task: usize, scratch: &mut [u8]) {
    // SAFETY: the caller's promise.
    unsafe { body.portable(Kernels::assume(Isa::Avx512Vnni), phase, task, scratch) }
}
