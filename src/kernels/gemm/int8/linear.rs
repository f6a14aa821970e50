use std::ops::Range;

use super::{CodeRows, GemmInt8, Weights};
use crate::{
    ArgumentError, Element, Kernels, LinearParams, Residual, codes::Codes, error::Check,
    gemm::epilogue, job::Body,
};

/// Operands of [`LinearInt8`].
#[derive(Debug)]
pub struct LinearInt8Operands<'a, T> {
    /// Codes per row, [`codes_bytes`](crate::codes_bytes)`(rows, k, true)` bytes.
    pub x: &'a [u8],
    /// `i8` panels of `n` columns and `k` steps; of `2 n` under GEGLU.
    pub weight: &'a [i8],
    /// `[n]`; `[2 n]` under GEGLU, all values before all gates.
    pub scale: &'a [f32],
    /// The sum of each column's weights; as `scale`.
    pub sums: &'a [i32],
    /// As `scale`.
    pub bias: Option<&'a [f32]>,
    /// `[n]`; none under GEGLU.
    pub shift: Option<&'a [T]>,
    /// `[rows, n]`
    pub residual: Residual<'a, T>,
    /// `[rows, n]`
    pub out: &'a mut [T],
}

/// [`Linear`](crate::Linear) of codes and `i8` weights.
pub struct LinearInt8<'a, T>(GemmInt8<'a, T, LinearRows<'a>>);

struct LinearRows<'a> {
    x: Codes<'a>,
    k: usize,
}

impl<'a, T: Element> LinearInt8<'a, T> {
    /// Checks the operands' lengths. There is one source: `k2` is 0.
    pub fn new(
        kernels: Kernels,
        params: LinearParams,
        operands: LinearInt8Operands<'a, T>,
    ) -> Result<Self, ArgumentError> {
        let check = Check("LinearInt8");
        let LinearParams {
            rows,
            k,
            k2,
            n,
            activation,
        } = params;
        let LinearInt8Operands {
            x,
            weight,
            scale,
            sums,
            bias,
            shift,
            residual,
            out,
        } = operands;
        check.that("k2", k2 == 0)?;
        let left = LinearRows {
            x: Codes::new(&check, "x", x, rows, k, true)?,
            k,
        };
        let operands = epilogue::Operands {
            bias,
            shift,
            activation,
            residual,
            out,
        };
        GemmInt8::new(
            kernels,
            check,
            left,
            (rows, k, n),
            Weights {
                weight,
                scale,
                sums,
            },
            operands,
        )
        .map(Self)
    }
}

impl CodeRows for LinearRows<'_> {
    fn code(&self, row: usize, k: usize) -> u8 {
        self.x.codes[row * self.k + k]
    }

    #[inline(always)]
    fn gather(&self, row: usize, k: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.x.codes[row * self.k + k..][..to.len()]);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn together(&self, row: usize, k: usize, len: usize) -> Option<&[u8]> {
        Some(&self.x.codes[row * self.k + k..][..len])
    }

    #[inline(always)]
    fn pair(&self, row: usize) -> (f32, i32) {
        self.x.pair(row)
    }

    #[inline(always)]
    fn pairs(&self, rows: Range<usize>) -> impl Iterator<Item = (f32, i32)> {
        self.x.pairs(rows)
    }
}

impl<T: Element> Body for LinearInt8<'_, T> {
    fn kernels(&self) -> Kernels {
        self.0.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.0.tasks()
    }
    fn scratch_bytes(&self) -> usize {
        self.0.scratch_bytes()
    }
    unsafe fn scalar(&self, _: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.0.scalar(task) }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, _: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.0.portable(kernels, task, scratch) }
    }
}
