//! Portable bodies compiled again under each instruction set's features, and the few functions written for one.

use crate::{F16, Isa, Kernels, PANEL, Quantizer, job::Body};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
#[cfg(target_arch = "aarch64")]
mod neon;

/// Runs a task with the kernels that `body` was built for.
///
/// # Safety
/// As [`Job::run`](crate::Job::run).
#[inline(always)]
pub unsafe fn run<B: Body>(body: &B, phase: usize, task: usize, scratch: &mut [u8]) {
    let kernels: Kernels = body.kernels();
    // SAFETY: the tasks by the caller's promise; the features because a `Kernels` exists only where they do.
    unsafe {
        match kernels.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::run(body, phase, task, scratch),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => avxvnni::run(body, phase, task, scratch),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512vnni::run(body, phase, task, scratch),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => {
                neon::run(body, kernels, phase, task, scratch)
            }
            _ => body.scalar(phase, task, scratch),
        }
    }
}

/// Halves to `f32`, of equal lengths.
#[inline(always)]
pub fn f16_to_f32(kernels: Kernels, from: &[F16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    match kernels.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Kernels` of these sets exists only on a CPU that has F16C and AVX2.
        Isa::Avx2 | Isa::AvxVnni => unsafe { avx2::f16_to_f32(from, to) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the same, with AVX-512.
        Isa::Avx512Vnni => unsafe { avx512vnni::f16_to_f32(from, to) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: every AArch64 CPU has the features.
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => unsafe { neon::f16_to_f32(from, to) },
        _ => from
            .iter()
            .zip(to)
            .for_each(|(from, to)| *to = from.to_f32()),
    }
}

/// `f32` to halves, of equal lengths.
#[inline(always)]
pub fn f32_to_f16(kernels: Kernels, from: &[f32], to: &mut [F16]) {
    assert_eq!(from.len(), to.len());
    match kernels.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Kernels` of these sets exists only on a CPU that has F16C and AVX2.
        Isa::Avx2 | Isa::AvxVnni => unsafe { avx2::f32_to_f16(from, to) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the same, with AVX-512.
        Isa::Avx512Vnni => unsafe { avx512vnni::f32_to_f16(from, to) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: every AArch64 CPU has the features.
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => unsafe { neon::f32_to_f16(from, to) },
        _ => from
            .iter()
            .zip(to)
            .for_each(|(from, to)| *to = F16::from_f32(*from)),
    }
}

/// Runs as many rounds of independent products of integers as the instruction set can do best, and gives their number;
/// `None` for a set without such a loop.
pub fn products(kernels: Kernels, rounds: u64) -> Option<u64> {
    match kernels.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Kernels` of this set exists only on a CPU that has it.
        Isa::Avx2 => Some(unsafe { avx2::products(rounds) }),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the same.
        Isa::AvxVnni => Some(unsafe { avxvnni::products(rounds) }),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the same.
        Isa::Avx512Vnni => Some(unsafe { avx512vnni::products(rounds) }),
        _ => {
            let _ = rounds;
            None
        }
    }
}

/// Asks for what will be read soon, into the second level of the cache. A hint: nothing is read.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn prefetch<T>(of: &[T]) {
    for line in (0..size_of_val(of)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 CPU has the instruction, which never faults; the address is inside.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(of.as_ptr().cast::<i8>().add(line)) }
    }
}

/// [`Quantizer::code`] of each of `from`, of equal lengths.
#[inline(always)]
pub fn codes(kernels: Kernels, quantizer: Quantizer, from: &[f32], to: &mut [u8]) {
    assert_eq!(from.len(), to.len());
    match kernels.isa() {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: every AArch64 CPU has the features.
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => unsafe { neon::codes(quantizer, from, to) },
        _ => {
            for (x, to) in from.iter().zip(to) {
                *to = quantizer.code(*x);
            }
        }
    }
}

/// Lowers `lo` and raises `hi` to the elements of `chunks` that are less or greater, lane by lane.
#[inline(always)]
pub fn widen(chunks: &[[f32; PANEL]], lo: &mut [f32; PANEL], hi: &mut [f32; PANEL]) {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: every AArch64 CPU has the features.
    unsafe {
        neon::widen(chunks, lo, hi)
    }
    #[cfg(not(target_arch = "aarch64"))]
    for chunk in chunks {
        for ((x, lo), hi) in chunk.iter().zip(&mut *lo).zip(&mut *hi) {
            *lo = crate::codes::min(*x, *lo);
            *hi = crate::math::max(*x, *hi);
        }
    }
}
