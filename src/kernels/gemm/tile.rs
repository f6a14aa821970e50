use crate::{Isa, Kernels, PANEL};

/// Sums of `ROWS` rows and `PANELS` panels.
pub type Sums<const ROWS: usize, const PANELS: usize> = [[[f32; PANEL]; PANELS]; ROWS];

/// Adds `a` times `b` to `sums` for `b[_].len()` steps of k in ascending order, by fused multiply-adds. `a` has a row per
/// row of the tile, as long as the steps or longer; each of `b` is a panel, all equally long.
#[inline(always)]
pub fn multiply<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    kernels: Kernels,
    a: &[[f32; STRIDE]; ROWS],
    b: [&[[f32; PANEL]]; PANELS],
    sums: &mut Sums<ROWS, PANELS>,
) {
    let steps = b[0].len();
    assert!(steps <= STRIDE && b.iter().all(|panel| panel.len() == steps));
    match kernels.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Kernels` of this set exists only on a CPU that has it; the lengths were checked above.
        Isa::Avx2 => unsafe { super::avx2::multiply(a, b, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the same.
        Isa::Avx512Vnni => unsafe { super::avx512vnni::multiply(a, b, sums) },
        _ => portable(a, b, sums),
    }
}

#[inline(always)]
fn portable<const ROWS: usize, const PANELS: usize, const STRIDE: usize>(
    a: &[[f32; STRIDE]; ROWS],
    b: [&[[f32; PANEL]]; PANELS],
    sums: &mut Sums<ROWS, PANELS>,
) {
    let mut local = *sums;
    for k in 0..b[0].len() {
        for (row, sums) in local.iter_mut().enumerate() {
            let x = a[row][k];
            for (panel, sums) in sums.iter_mut().enumerate() {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    *sum = x.mul_add(b[panel][k][lane], *sum);
                }
            }
        }
    }
    *sums = local;
}
