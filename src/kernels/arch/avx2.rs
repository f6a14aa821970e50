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
