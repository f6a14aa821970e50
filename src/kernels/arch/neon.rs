use std::{arch::aarch64::*, hint};

use crate::{F16, Isa, Kernels, PANEL, Quantizer, job::Body};

/// One compiled body for all of the sets: they differ in the functions that multiply bytes, which it calls.
///
/// # Safety
/// As [`Job::run`](crate::Job::run). Every AArch64 CPU that this is built for has the features.
pub unsafe fn run<B: Body>(
    body: &B,
    kernels: Kernels,
    phase: usize,
    task: usize,
    scratch: &mut [u8],
) {
    // SAFETY: the caller's promise; no other set calls this.
    unsafe {
        hint::assert_unchecked(matches!(
            kernels.isa(),
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm
        ));
        body.portable(kernels, phase, task, scratch)
    }
}

/// # Safety
/// This CPU has the features. Both slices are of one length.
#[inline]
#[target_feature(enable = "neon")]
pub unsafe fn f16_to_f32(from: &[F16], to: &mut [f32]) {
    let (from_eights, from_rest) = from.as_chunks::<8>();
    let (to_eights, to_rest) = to.as_chunks_mut::<8>();
    for (from, to) in from_eights.iter().zip(to_eights) {
        // SAFETY: both are arrays of eight, and an `F16` is a `u16`.
        unsafe {
            let halves = vreinterpretq_f16_u16(vld1q_u16(from.as_ptr().cast()));
            vst1q_f32(to.as_mut_ptr(), vcvt_f32_f16(vget_low_f16(halves)));
            vst1q_f32(to.as_mut_ptr().add(4), vcvt_high_f32_f16(halves));
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
#[target_feature(enable = "neon")]
pub unsafe fn f32_to_f16(from: &[f32], to: &mut [F16]) {
    let (from_eights, from_rest) = from.as_chunks::<8>();
    let (to_eights, to_rest) = to.as_chunks_mut::<8>();
    for (from, to) in from_eights.iter().zip(to_eights) {
        // SAFETY: both are arrays of eight, and an `F16` is a `u16`.
        unsafe {
            let low = vcvt_f16_f32(vld1q_f32(from.as_ptr()));
            let halves = vcvt_high_f16_f32(low, vld1q_f32(from.as_ptr().add(4)));
            vst1q_u16(to.as_mut_ptr().cast(), vreinterpretq_u16_f16(halves));
        }
    }
    from_rest
        .iter()
        .zip(to_rest)
        .for_each(|(from, to)| *to = F16::from_f32(*from));
}

/// # Safety
/// This CPU has the features. Both slices are of one length.
#[inline]
#[target_feature(enable = "neon")]
pub unsafe fn codes(quantizer: Quantizer, from: &[f32], to: &mut [u8]) {
    let (from_chunks, from_rest) = from.as_chunks::<16>();
    let (to_chunks, to_rest) = to.as_chunks_mut::<16>();
    let zero_point = vdupq_n_s32(quantizer.zero_point());
    for (from, to) in from_chunks.iter().zip(to_chunks) {
        let fours: [int32x4_t; 4] = std::array::from_fn(|i| {
            // SAFETY: four of sixteen.
            let x = unsafe { vld1q_f32(from.as_ptr().add(4 * i)) };
            // A product is no signalling NaN, and of a quiet one and a number the maximum is the number.
            let x = vmaxnmq_f32(vmulq_n_f32(x, quantizer.inverse()), vdupq_n_f32(-256.0));
            let x = vminq_f32(x, vdupq_n_f32(256.0));
            vaddq_s32(vcvtnq_s32_f32(x), zero_point)
        });
        // Narrowing clamps.
        let [low, high] = [[fours[0], fours[1]], [fours[2], fours[3]]]
            .map(|[even, odd]| vcombine_s16(vqmovn_s32(even), vqmovn_s32(odd)));
        // SAFETY: sixteen bytes.
        unsafe {
            vst1q_u8(
                to.as_mut_ptr(),
                vcombine_u8(vqmovun_s16(low), vqmovun_s16(high)),
            )
        }
    }
    for (x, to) in from_rest.iter().zip(to_rest) {
        *to = quantizer.code(*x);
    }
}

/// In vectors by hand: where the lanes' loop meets what joins them, the compiler takes the lanes apart.
///
/// # Safety
/// This CPU has the features.
#[inline]
#[target_feature(enable = "neon")]
pub unsafe fn widen(chunks: &[[f32; PANEL]], lo: &mut [f32; PANEL], hi: &mut [f32; PANEL]) {
    let load = |lanes: &[f32; PANEL]| -> [float32x4_t; 4] {
        // SAFETY: four of sixteen.
        std::array::from_fn(|i| unsafe { vld1q_f32(lanes.as_ptr().add(4 * i)) })
    };
    let (mut least, mut greatest) = (load(lo), load(hi));
    for chunk in chunks {
        let x = load(chunk);
        for i in 0..4 {
            least[i] = vbslq_f32(vcltq_f32(x[i], least[i]), x[i], least[i]);
            greatest[i] = vbslq_f32(vcgtq_f32(x[i], greatest[i]), x[i], greatest[i]);
        }
    }
    for i in 0..4 {
        // SAFETY: four of sixteen.
        unsafe {
            vst1q_f32(lo.as_mut_ptr().add(4 * i), least[i]);
            vst1q_f32(hi.as_mut_ptr().add(4 * i), greatest[i]);
        }
    }
}
