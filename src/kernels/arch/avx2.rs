use std::arch::x86_64::*;

use crate::{F16, Isa, Kernels, job::Body};

/// # Safety
/// As [`Job::run`](crate::Job::run); this CPU has the features.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn run<B: Body>(body: &B, phase: usize, task: usize, scratch: &mut [u8]) {
    // SAFETY: the caller's promise.
    unsafe { body.portable(Kernels::assume(Isa::Avx2), phase, task, scratch) }
}

/// # Safety
/// This CPU has the features. Both slices are of one length.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub unsafe fn f16_to_f32(from: &[F16], to: &mut [f32]) {
    let (from_eights, from_rest) = from.as_chunks::<8>();
    let (to_eights, to_rest) = to.as_chunks_mut::<8>();
    for (from, to) in from_eights.iter().zip(to_eights) {
        // SAFETY: both are arrays of eight; neither access asks for alignment, and an `F16` is a `u16`.
        unsafe {
            _mm256_storeu_ps(
                to.as_mut_ptr(),
                _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())),
            )
        }
    }
    from_rest
        .iter()
        .zip(to_rest)
        .for_each(|(from, to)| *to = from.to_f32());
}

/// # Safety
/// This CPU has the features. Both slices are of one length.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub unsafe fn f32_to_f16(from: &[f32], to: &mut [F16]) {
    let (from_eights, from_rest) = from.as_chunks::<8>();
    let (to_eights, to_rest) = to.as_chunks_mut::<8>();
    for (from, to) in from_eights.iter().zip(to_eights) {
        // SAFETY: both are arrays of eight; neither access asks for alignment, and an `F16` is a `u16`.
        unsafe {
            let halves =
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(from.as_ptr()));
            _mm_storeu_si128(to.as_mut_ptr().cast(), halves);
        }
    }
    from_rest
        .iter()
        .zip(to_rest)
        .for_each(|(from, to)| *to = F16::from_f32(*from));
}

/// Products with sums of pairs, `vpmaddwd` and `vpaddd`, in twelve chains as the kernels have them; how many there were.
///
/// # Safety
/// This CPU has the features.
#[target_feature(enable = "avx2")]
pub unsafe fn products(rounds: u64) -> u64 {
    for _ in 0..rounds {
        // SAFETY: registers alone, all of them declared.
        unsafe {
            std::arch::asm!(
                "vpmaddwd ymm12, ymm14, ymm15",
                "vpmaddwd ymm13, ymm14, ymm15",
                "vpaddd ymm0, ymm0, ymm12",
                "vpaddd ymm1, ymm1, ymm13",
                "vpmaddwd ymm12, ymm14, ymm15",
                "vpmaddwd ymm13, ymm14, ymm15",
                "vpaddd ymm2, ymm2, ymm12",
                "vpaddd ymm3, ymm3, ymm13",
                "vpmaddwd ymm12, ymm14, ymm15",
                "vpmaddwd ymm13, ymm14, ymm15",
                "vpaddd ymm4, ymm4, ymm12",
                "vpaddd ymm5, ymm5, ymm13",
                "vpmaddwd ymm12, ymm14, ymm15",
                "vpmaddwd ymm13, ymm14, ymm15",
                "vpaddd ymm6, ymm6, ymm12",
                "vpaddd ymm7, ymm7, ymm13",
                "vpmaddwd ymm12, ymm14, ymm15",
                "vpmaddwd ymm13, ymm14, ymm15",
                "vpaddd ymm8, ymm8, ymm12",
                "vpaddd ymm9, ymm9, ymm13",
                "vpmaddwd ymm12, ymm14, ymm15",
                "vpmaddwd ymm13, ymm14, ymm15",
                "vpaddd ymm10, ymm10, ymm12",
                "vpaddd ymm11, ymm11, ymm13",
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
                out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
                options(nomem, nostack, preserves_flags)
            )
        }
    }
    rounds * 12 * 16
}
