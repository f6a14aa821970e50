use crate::{Isa, Kernels, job::Body};

/// # Safety
/// As [`Job::run`](crate::Job::run); this CPU has the features.
#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
pub unsafe fn run<B: Body>(body: &B, phase: usize, task: usize, scratch: &mut [u8]) {
    // SAFETY: the caller's promise.
    unsafe { body.portable(Kernels::assume(Isa::AvxVnni), phase, task, scratch) }
}

/// Products in twelve chains as the kernels have them; how many there were.
///
/// # Safety
/// This CPU has the features.
#[target_feature(enable = "avx2,avxvnni")]
pub unsafe fn products(rounds: u64) -> u64 {
    for _ in 0..rounds {
        // SAFETY: registers alone, all of them declared.
        unsafe {
            std::arch::asm!(
                "{{vex}} vpdpbusd ymm0, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm1, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm2, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm3, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm4, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm5, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm6, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm7, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm8, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm9, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm10, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm11, ymm14, ymm15",
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
                out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                out("ymm14") _, out("ymm15") _,
                options(nomem, nostack, preserves_flags)
            )
        }
    }
    rounds * 12 * 32
}
