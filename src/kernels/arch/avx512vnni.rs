use std::arch::x86_64::*;

use super::avx2;
use crate::{F16, Isa, Kernels, job::Body};

/// # Safety
/// As [`Job::run`](crate::Job::run); this CPU has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn run<B: Body>(body: &B, phase: usize, task: usize, scratch: &mut [u8]) {
    // SAFETY: the caller's promise.
    unsafe { body.portable(Kernels::assume(Isa::Avx512Vnni), phase, task, scratch) }
}

/// # Safety
/// This CPU has the features. Both slices are of one length.
#[inline]
#[target_feature(enable = "avx512f,avx2,f16c")]
pub unsafe fn f16_to_f32(from: &[F16], to: &mut [f32]) {
    let (from_sixteens, from_rest) = from.as_chunks::<16>();
    let (to_sixteens, to_rest) = to.as_chunks_mut::<16>();
    for (from, to) in from_sixteens.iter().zip(to_sixteens) {
        // SAFETY: both are arrays of sixteen; neither access asks for alignment, and an `F16` is a `u16`.
        unsafe {
            let halves = _mm256_loadu_si256(from.as_ptr().cast());
            _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtph_ps(halves))
        }
    }
    // SAFETY: the same features.
    unsafe { avx2::f16_to_f32(from_rest, to_rest) }
}

/// # Safety
/// This CPU has the features. Both slices are of one length.
#[inline]
#[target_feature(enable = "avx512f,avx2,f16c")]
pub unsafe fn f32_to_f16(from: &[f32], to: &mut [F16]) {
    let (from_sixteens, from_rest) = from.as_chunks::<16>();
    let (to_sixteens, to_rest) = to.as_chunks_mut::<16>();
    for (from, to) in from_sixteens.iter().zip(to_sixteens) {
        // SAFETY: both are arrays of sixteen; neither access asks for alignment, and an `F16` is a `u16`.
        unsafe {
            let values = _mm512_loadu_ps(from.as_ptr());
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), halves);
        }
    }
    // SAFETY: the same features.
    unsafe { avx2::f32_to_f16(from_rest, to_rest) }
}

/// Products in 24 chains as the kernels have them; how many there were.
///
/// # Safety
/// This CPU has the features.
#[target_feature(enable = "avx512f,avx512vnni")]
pub unsafe fn products(rounds: u64) -> u64 {
    for _ in 0..rounds {
        // SAFETY: registers alone, all of them declared.
        unsafe {
            std::arch::asm!(
                "vpdpbusd zmm0, zmm30, zmm31",
                "vpdpbusd zmm1, zmm30, zmm31",
                "vpdpbusd zmm2, zmm30, zmm31",
                "vpdpbusd zmm3, zmm30, zmm31",
                "vpdpbusd zmm4, zmm30, zmm31",
                "vpdpbusd zmm5, zmm30, zmm31",
                "vpdpbusd zmm6, zmm30, zmm31",
                "vpdpbusd zmm7, zmm30, zmm31",
                "vpdpbusd zmm8, zmm30, zmm31",
                "vpdpbusd zmm9, zmm30, zmm31",
                "vpdpbusd zmm10, zmm30, zmm31",
                "vpdpbusd zmm11, zmm30, zmm31",
                "vpdpbusd zmm12, zmm30, zmm31",
                "vpdpbusd zmm13, zmm30, zmm31",
                "vpdpbusd zmm14, zmm30, zmm31",
                "vpdpbusd zmm15, zmm30, zmm31",
                "vpdpbusd zmm16, zmm30, zmm31",
                "vpdpbusd zmm17, zmm30, zmm31",
                "vpdpbusd zmm18, zmm30, zmm31",
                "vpdpbusd zmm19, zmm30, zmm31",
                "vpdpbusd zmm20, zmm30, zmm31",
                "vpdpbusd zmm21, zmm30, zmm31",
                "vpdpbusd zmm22, zmm30, zmm31",
                "vpdpbusd zmm23, zmm30, zmm31",
                out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
                out("zmm4") _, out("zmm5") _, out("zmm6") _, out("zmm7") _,
                out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
                out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
                out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
                out("zmm30") _, out("zmm31") _,
                options(nomem, nostack, preserves_flags)
            )
        }
    }
    rounds * 24 * 64
}
