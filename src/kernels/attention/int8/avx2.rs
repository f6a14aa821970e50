use std::arch::x86_64::*;

use super::CUBIC;
use crate::math;

/// [`weight`](super::weight) of each of `scores` less `t`, into `codes`; their sum. (The compiler packs bytes eight at a time.)
///
/// # Safety
/// This CPU has the features.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub unsafe fn weights(scores: &[[f32; 32]], t: f32, codes: &mut [[u8; 32]]) -> u32 {
    let round = _mm256_set1_ps(math::ROUND);
    // What puts back in order what is packed in halves of vectors.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let mut sums = _mm256_setzero_si256();
    for (scores, codes) in scores.iter().zip(codes) {
        let mut weights = [_mm256_setzero_si256(); 4];
        for (part, weight) in weights.iter_mut().enumerate() {
            // SAFETY: eight of 32 scores.
            let x = unsafe { _mm256_loadu_ps(scores.as_ptr().add(8 * part)) };
            let x = _mm256_sub_ps(x, _mm256_set1_ps(t));
            // The second of the two for NaN.
            let x = _mm256_max_ps(x, _mm256_set1_ps(-16.0));
            let shifted = _mm256_add_ps(x, round);
            let f = _mm256_sub_ps(x, _mm256_sub_ps(shifted, round));
            let p = _mm256_set1_ps(CUBIC[3]);
            let p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(CUBIC[2]));
            let p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(CUBIC[1]));
            let p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(CUBIC[0]));
            // Of `shifted` the low bits alone are left, which are the whole number.
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
            let power = _mm256_add_epi32(_mm256_castps_si256(p), exponent);
            let rounded = _mm256_add_ps(_mm256_castsi256_ps(power), round);
            *weight = _mm256_sub_epi32(_mm256_castps_si256(rounded), _mm256_castps_si256(round));
        }
        let [a, b, c, d] = weights;
        let packed = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        let packed = _mm256_permutevar8x32_epi32(packed, order);
        sums = _mm256_add_epi64(sums, _mm256_sad_epu8(packed, _mm256_setzero_si256()));
        // SAFETY: 32 codes.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), packed) }
    }
    let mut parts = [0u64; 4];
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(parts.as_mut_ptr().cast(), sums) }
    (parts[0] + parts[1] + parts[2] + parts[3]) as u32
}
