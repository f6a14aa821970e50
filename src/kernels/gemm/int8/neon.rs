use std::arch::{aarch64::*, asm};

use super::{
    Pairs,
    tile::{Rows, Steps},
    winograd::{self, NINTH},
};
use crate::PANEL;

/// [`Left::multiply`](super::tile::Left::multiply) of shifted bytes with what every AArch64 CPU has. Products of two
/// steps' bytes are summed in 16 bits, then pairs of them added to 32: a code is at least -128 and a weight at least
/// -127, so two products stay below 2^15.
///
/// # Safety
/// This CPU has the features. The panels of `b` are equally long, at most `STRIDE / 4`.
#[inline]
#[target_feature(enable = "neon")]
pub unsafe fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    a: &[[i8; STRIDE]; ROWS],
    b: [&[Steps]; PANELS],
    sums: [&mut Rows<ROWS>; PANELS],
) {
    let (twos, one) = a.as_chunks::<2>();
    for (b, sums) in b.into_iter().zip(sums) {
        let (sums_of_twos, sums_of_one) = sums.as_chunks_mut::<2>();
        for ([first, second], sums) in twos.iter().zip(sums_of_twos) {
            // SAFETY: the lengths by the caller's promise.
            let [more, below] = unsafe { two_rows(first.as_ptr(), second.as_ptr(), b) };
            add(&mut sums[0], &more);
            add(&mut sums[1], &below);
        }
        for (row, sums) in one.iter().zip(sums_of_one) {
            // SAFETY: the same.
            let more = unsafe { one_row(row.as_ptr(), b) };
            add(sums, &more);
        }
    }
}

/// [`tile::scaled`](super::tile::scaled).
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "neon")]
pub fn scaled(
    sums: &[i32; PANEL],
    zero_point: i32,
    weights: &[i32; PANEL],
    scale: f32,
    of_columns: &[f32; PANEL],
) -> [f32; PANEL] {
    let mut products = [0.0; PANEL];
    for at in (0..PANEL).step_by(4) {
        // SAFETY: four of sixteen.
        unsafe {
            let weights = vld1q_s32(weights.as_ptr().add(at));
            let sums = vmlsq_n_s32(vld1q_s32(sums.as_ptr().add(at)), weights, zero_point);
            let scales = vmulq_n_f32(vld1q_f32(of_columns.as_ptr().add(at)), scale);
            let of_four = vmulq_f32(vcvtq_f32_s32(sums), scales);
            vst1q_f32(products.as_mut_ptr().add(at), of_four);
        }
    }
    products
}

/// Sums of a row, of which each two are still to be added: a column's first two steps of four and its last two.
type Twos = [int32x4_t; 8];

#[inline]
#[target_feature(enable = "neon")]
fn add(sums: &mut [i32; PANEL], twos: &Twos) {
    let fours = sums.as_chunks_mut::<4>().0;
    for (sums, [left, right]) in fours.iter_mut().zip(twos.as_chunks::<2>().0) {
        // SAFETY: four sums.
        unsafe {
            let sum = vaddq_s32(vld1q_s32(sums.as_ptr()), vpaddq_s32(*left, *right));
            vst1q_s32(sums.as_mut_ptr(), sum);
        }
    }
}

/// Half a panel's row of two groups of steps, in registers 8 and 9, 10 and 11, times a row's codes of these, repeated, in
/// `$x0` and `$x1`; added to four registers. Its products are in flight four at a time: A53 and A72 work in order, or
/// nearly so.
macro_rules! half_of_two_groups {
    ($x0:literal, $x1:literal, $s0:literal, $s1:literal, $s2:literal, $s3:literal) => {
        concat!(
            "smull v12.8h, v8.8b, ",
            $x0,
            ".8b\n",
            "smull2 v13.8h, v8.16b, ",
            $x0,
            ".16b\n",
            "smull v14.8h, v9.8b, ",
            $x0,
            ".8b\n",
            "smull2 v15.8h, v9.16b, ",
            $x0,
            ".16b\n",
            "smlal v12.8h, v10.8b, ",
            $x1,
            ".8b\n",
            "smlal2 v13.8h, v10.16b, ",
            $x1,
            ".16b\n",
            "smlal v14.8h, v11.8b, ",
            $x1,
            ".8b\n",
            "smlal2 v15.8h, v11.16b, ",
            $x1,
            ".16b\n",
            "sadalp ",
            $s0,
            ".4s, v12.8h\n",
            "sadalp ",
            $s1,
            ".4s, v13.8h\n",
            "sadalp ",
            $s2,
            ".4s, v14.8h\n",
            "sadalp ",
            $s3,
            ".4s, v15.8h\n",
        )
    };
}

/// As [`half_of_two_groups`] of one group, in registers 8 and 9.
macro_rules! half_of_a_group {
    ($x:literal, $s0:literal, $s1:literal, $s2:literal, $s3:literal) => {
        concat!(
            "smull v12.8h, v8.8b, ",
            $x,
            ".8b\n",
            "smull2 v13.8h, v8.16b, ",
            $x,
            ".16b\n",
            "smull v14.8h, v9.8b, ",
            $x,
            ".8b\n",
            "smull2 v15.8h, v9.16b, ",
            $x,
            ".16b\n",
            "sadalp ",
            $s0,
            ".4s, v12.8h\n",
            "sadalp ",
            $s1,
            ".4s, v13.8h\n",
            "sadalp ",
            $s2,
            ".4s, v14.8h\n",
            "sadalp ",
            $s3,
            ".4s, v15.8h\n",
        )
    };
}

/// The products of two rows with a panel.
///
/// # Safety
/// This CPU has the features. Both rows are as long as the panel.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn two_rows(first: *const i8, second: *const i8, b: &[Steps]) -> [Twos; 2] {
    let mut sums = [[vdupq_n_s32(0); 8]; 2];
    let [
        [s0, s1, s2, s3, s4, s5, s6, s7],
        [t0, t1, t2, t3, t4, t5, t6, t7],
    ] = &mut sums;
    macro_rules! two_groups {
        ($b0:literal, $b1:literal, $b2:literal, $b3:literal) => {
            concat!(
                "ldp q8, q9, [{b}, ",
                $b0,
                "]\n",
                "ldp q10, q11, [{b}, ",
                $b2,
                "]\n",
                half_of_two_groups!("v4", "v5", "v16", "v17", "v18", "v19"),
                half_of_two_groups!("v6", "v7", "v24", "v25", "v26", "v27"),
                "ldp q8, q9, [{b}, ",
                $b1,
                "]\n",
                "ldp q10, q11, [{b}, ",
                $b3,
                "]\n",
                half_of_two_groups!("v4", "v5", "v20", "v21", "v22", "v23"),
                half_of_two_groups!("v6", "v7", "v28", "v29", "v30", "v31"),
            )
        };
    }
    // SAFETY: reads `b.len()` groups of 64 bytes of the panel and of 4 bytes of each row, all there by the caller's
    // promise.
    unsafe {
        asm!(
            "cbz {fours}, 3f",
            "2:",
            "ldr q0, [{first}], #16",
            "ldr q1, [{second}], #16",
            "dup v4.4s, v0.s[0]",
            "dup v5.4s, v0.s[1]",
            "dup v6.4s, v1.s[0]",
            "dup v7.4s, v1.s[1]",
            two_groups!("#0", "#32", "#64", "#96"),
            "dup v4.4s, v0.s[2]",
            "dup v5.4s, v0.s[3]",
            "dup v6.4s, v1.s[2]",
            "dup v7.4s, v1.s[3]",
            two_groups!("#128", "#160", "#192", "#224"),
            "add {b}, {b}, #256",
            "subs {fours}, {fours}, #1",
            "b.ne 2b",
            "3:",
            "cbz {rest}, 5f",
            "4:",
            "ld1r {{v4.4s}}, [{first}], #4",
            "ld1r {{v6.4s}}, [{second}], #4",
            "ldp q8, q9, [{b}], #32",
            half_of_a_group!("v4", "v16", "v17", "v18", "v19"),
            half_of_a_group!("v6", "v24", "v25", "v26", "v27"),
            "ldp q8, q9, [{b}], #32",
            half_of_a_group!("v4", "v20", "v21", "v22", "v23"),
            half_of_a_group!("v6", "v28", "v29", "v30", "v31"),
            "subs {rest}, {rest}, #1",
            "b.ne 4b",
            "5:",
            first = inout(reg) first => _,
            second = inout(reg) second => _,
            b = inout(reg) b.as_ptr() => _,
            fours = inout(reg) b.len() / 4 => _,
            rest = inout(reg) b.len() % 4 => _,
            inout("v16") *s0, inout("v17") *s1, inout("v18") *s2, inout("v19") *s3,
            inout("v20") *s4, inout("v21") *s5, inout("v22") *s6, inout("v23") *s7,
            inout("v24") *t0, inout("v25") *t1, inout("v26") *t2, inout("v27") *t3,
            inout("v28") *t4, inout("v29") *t5, inout("v30") *t6, inout("v31") *t7,
            out("v0") _, out("v1") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            options(readonly, nostack),
        );
    }
    sums
}

/// The products of one row with a panel.
///
/// # Safety
/// This CPU has the features. The row is as long as the panel.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn one_row(row: *const i8, b: &[Steps]) -> Twos {
    let mut sums = [vdupq_n_s32(0); 8];
    let [s0, s1, s2, s3, s4, s5, s6, s7] = &mut sums;
    macro_rules! two_groups {
        ($b0:literal, $b1:literal, $b2:literal, $b3:literal) => {
            concat!(
                "ldp q8, q9, [{b}, ",
                $b0,
                "]\n",
                "ldp q10, q11, [{b}, ",
                $b2,
                "]\n",
                half_of_two_groups!("v4", "v5", "v16", "v17", "v18", "v19"),
                "ldp q8, q9, [{b}, ",
                $b1,
                "]\n",
                "ldp q10, q11, [{b}, ",
                $b3,
                "]\n",
                half_of_two_groups!("v4", "v5", "v20", "v21", "v22", "v23"),
            )
        };
    }
    // SAFETY: reads `b.len()` groups of 64 bytes of the panel and of 4 bytes of the row, all there by the caller's
    // promise.
    unsafe {
        asm!(
            "cbz {fours}, 3f",
            "2:",
            "ldr q0, [{row}], #16",
            "dup v4.4s, v0.s[0]",
            "dup v5.4s, v0.s[1]",
            two_groups!("#0", "#32", "#64", "#96"),
            "dup v4.4s, v0.s[2]",
            "dup v5.4s, v0.s[3]",
            two_groups!("#128", "#160", "#192", "#224"),
            "add {b}, {b}, #256",
            "subs {fours}, {fours}, #1",
            "b.ne 2b",
            "3:",
            "cbz {rest}, 5f",
            "4:",
            "ld1r {{v4.4s}}, [{row}], #4",
            "ldp q8, q9, [{b}], #32",
            half_of_a_group!("v4", "v16", "v17", "v18", "v19"),
            "ldp q8, q9, [{b}], #32",
            half_of_a_group!("v4", "v20", "v21", "v22", "v23"),
            "subs {rest}, {rest}, #1",
            "b.ne 4b",
            "5:",
            row = inout(reg) row => _,
            b = inout(reg) b.as_ptr() => _,
            fours = inout(reg) b.len() / 4 => _,
            rest = inout(reg) b.len() % 4 => _,
            inout("v16") *s0, inout("v17") *s1, inout("v18") *s2, inout("v19") *s3,
            inout("v20") *s4, inout("v21") *s5, inout("v22") *s6, inout("v23") *s7,
            out("v0") _, out("v4") _, out("v5") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            options(readonly, nostack),
        );
    }
    sums
}

/// Rows of a product in 16 bits: as many vectors of sums as leave registers for what is multiplied.
const PAIRS_ROWS: usize = 4;

/// Sets `sums` to rows of `a`, each a stride after the one before, times an expanded panel, whose rows are two steps one
/// after the other.
///
/// # Safety
/// This CPU has the features. Each row of `a`, one for each of `sums`, has two readable elements for each of `b`, whose
/// length is a multiple of four.
#[inline]
#[target_feature(enable = "neon")]
pub unsafe fn multiply_pairs(
    (a, stride): (*const i16, usize),
    b: &[Pairs],
    sums: &mut [[i32; PANEL]],
) {
    let (whole, rest) = sums.as_chunks_mut();
    // SAFETY: the caller's promise.
    unsafe {
        for (i, sums) in whole.iter_mut().enumerate() {
            multiply_rows::<PAIRS_ROWS>(a.add(PAIRS_ROWS * i * stride), stride, b, sums);
        }
        for (i, sums) in rest.iter_mut().enumerate() {
            let row = PAIRS_ROWS * whole.len() + i;
            multiply_rows::<1>(a.add(row * stride), stride, b, std::array::from_mut(sums));
        }
    }
}

/// [`multiply_pairs`] of so many rows.
///
/// # Safety
/// As there.
#[inline]
#[allow(clippy::needless_range_loop)] // Loops over constants are unrolled; over iterators, not always.
#[target_feature(enable = "neon")]
unsafe fn multiply_rows<const ROWS: usize>(
    a: *const i16,
    stride: usize,
    b: &[Pairs],
    sums: &mut Rows<ROWS>,
) {
    let mut local = [[vdupq_n_s32(0); 4]; ROWS];
    for (eight, pairs) in b.as_chunks::<4>().0.iter().enumerate() {
        let mut codes = [vdupq_n_s16(0); ROWS];
        for row in 0..ROWS {
            // SAFETY: eight elements, there by the caller's promise.
            codes[row] = unsafe { vld1q_s16(a.add(row * stride + 8 * eight)) };
        }
        macro_rules! step {
            ($step:literal) => {
                // SAFETY: a step's sixteen columns.
                let columns = unsafe {
                    let from = pairs[$step / 2].as_ptr().add($step % 2 * PANEL);
                    [vld1q_s16(from), vld1q_s16(from.add(8))]
                };
                for row in 0..ROWS {
                    let [s0, s1, s2, s3] = &mut local[row];
                    *s0 = vmlal_laneq_s16::<$step>(*s0, vget_low_s16(columns[0]), codes[row]);
                    *s1 = vmlal_high_laneq_s16::<$step>(*s1, columns[0], codes[row]);
                    *s2 = vmlal_laneq_s16::<$step>(*s2, vget_low_s16(columns[1]), codes[row]);
                    *s3 = vmlal_high_laneq_s16::<$step>(*s3, columns[1], codes[row]);
                }
            };
        }
        step!(0);
        step!(1);
        step!(2);
        step!(3);
        step!(4);
        step!(5);
        step!(6);
        step!(7);
    }
    for row in 0..ROWS {
        for four in 0..4 {
            // SAFETY: four of sixteen sums.
            unsafe { vst1q_s32(sums[row].as_mut_ptr().add(4 * four), local[row][four]) }
        }
    }
}

/// Eight of them: of an expanded panel, a step of eight columns.
#[derive(Clone, Copy)]
pub struct Shorts(int16x8_t);

winograd::arithmetic!(Shorts, vaddq_s16, vsubq_s16);

impl winograd::Shorts for Shorts {
    const LEN: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: every AArch64 CPU has the features, here and below.
        Self(unsafe { vdupq_n_s16(0) })
    }

    #[inline(always)]
    unsafe fn of_codes(from: *const u8) -> Self {
        // SAFETY: eight codes by the caller's promise.
        Self(unsafe { vreinterpretq_s16_u16(vmovl_u8(vld1_u8(from))) })
    }

    #[inline(always)]
    unsafe fn of_steps(steps: &Steps, part: usize) -> Self {
        let (step, half) = (part / 2, part % 2);
        // SAFETY: half a row of 64 bytes.
        Self(unsafe {
            let from: *const i16 = steps.as_ptr().add(32 * half).cast();
            let (left, right) = (vld1q_s16(from), vld1q_s16(from.add(8)));
            // Two of four steps in the bytes of each 16 bits.
            let two = match step / 2 {
                0 => vuzp1q_s16(left, right),
                _ => vuzp2q_s16(left, right),
            };
            match step % 2 {
                0 => vshrq_n_s16::<8>(vshlq_n_s16::<8>(two)),
                _ => vshrq_n_s16::<8>(two),
            }
        })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i16) {
        // SAFETY: eight elements by the caller's promise.
        unsafe { vst1q_s16(to, self.0) }
    }

    #[inline(always)]
    fn minus(self, x: i16) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { vsubq_s16(self.0, vdupq_n_s16(x)) })
    }

    #[inline(always)]
    fn times_4(self) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { vshlq_n_s16::<2>(self.0) })
    }
}

/// Four sums.
#[derive(Clone, Copy)]
pub struct Ints(int32x4_t);

winograd::arithmetic!(Ints, vaddq_s32, vsubq_s32);

impl winograd::Ints for Ints {
    const LEN: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: every AArch64 CPU has the features, here and below.
        Self(unsafe { vdupq_n_s32(0) })
    }

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: four elements by the caller's promise.
        Self(unsafe { vld1q_s32(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: four elements by the caller's promise.
        unsafe { vst1q_s32(to, self.0) }
    }

    #[inline(always)]
    fn times_4(self) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { vshlq_n_s32::<2>(self.0) })
    }

    #[inline(always)]
    fn times_8(self) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { vshlq_n_s32::<3>(self.0) })
    }

    #[inline(always)]
    fn over_576(self) -> Self {
        // SAFETY: there is a vector, so there are the features.
        Self(unsafe { vshrq_n_s32::<6>(vmulq_n_s32(self.0, NINTH)) })
    }
}
