use std::{iter, ops::Range};

use super::{
    CodeRows, GemmInt8, Weights,
    winograd::{self, Split},
};
use crate::{
    ArgumentError, Conv2dParams, Element, Kernels, Residual, codes::Codes, error::Check,
    gemm::epilogue, job::Body,
};

/// Operands of [`Conv2dInt8`].
#[derive(Debug)]
pub struct Conv2dInt8Operands<'a, T> {
    /// Codes per tensor, [`codes_bytes`](crate::codes_bytes)`(in_h * in_w, in_c, false)` bytes.
    pub x: &'a [u8],
    /// `i8` panels of `out_c` columns and `kernel_h * kernel_w * in_c` steps.
    pub weight: &'a [i8],
    /// `[out_c]`
    pub scale: &'a [f32],
    /// `[out_c]`: the sum of each column's weights.
    pub sums: &'a [i32],
    /// `[out_c]`
    pub bias: Option<&'a [f32]>,
    /// `[out_c]`
    pub shift: Option<&'a [T]>,
    /// `[out_h, out_w, out_c]`
    pub residual: Residual<'a, T>,
    /// `[out_h, out_w, out_c]`
    pub out: &'a mut [T],
}

/// [`Conv2d`](crate::Conv2d) of codes and `i8` weights; a padding pixel has the zero point's code.
pub struct Conv2dInt8<'a, T> {
    gemm: GemmInt8<'a, T, Conv2dRows<'a>>,
    /// How it is computed by [`winograd`], if it is.
    winograd: Option<Split>,
}

pub(super) struct Conv2dRows<'a> {
    pub x: Codes<'a>,
    pub params: Conv2dParams,
    /// The code of padding.
    pub zero: u8,
}

/// Bytes of scratch that each thread needs for these attributes, whatever the instruction set.
pub const fn scratch_bytes(params: &Conv2dParams) -> usize {
    let p = params;
    let (rows, k) = (p.out_h * p.out_w, p.kernel_h * p.kernel_w * p.in_c);
    let (direct, tiled) = (
        super::scratch_bytes(rows, k, p.out_c),
        winograd::scratch_bytes(p),
    );
    if direct > tiled { direct } else { tiled }
}

impl<'a, T: Element> Conv2dInt8<'a, T> {
    /// Checks the operands' lengths.
    pub fn new(
        kernels: Kernels,
        params: Conv2dParams,
        operands: Conv2dInt8Operands<'a, T>,
    ) -> Result<Self, ArgumentError> {
        let check = Check("Conv2dInt8");
        let Conv2dInt8Operands {
            x,
            weight,
            scale,
            sums,
            bias,
            shift,
            residual,
            out,
        } = operands;
        let p = params;
        let (rows, k) = p.size(&check)?;
        let x = Codes::new(&check, "x", x, p.in_h * p.in_w, p.in_c, false)?;
        let left = Conv2dRows {
            x,
            params,
            zero: x.pair(0).1 as u8,
        };
        let operands = epilogue::Operands {
            bias,
            shift,
            activation: p.activation,
            residual,
            out,
        };
        let gemm = GemmInt8::new(
            kernels,
            check,
            left,
            (rows, k, p.out_c),
            Weights {
                weight,
                scale,
                sums,
            },
            operands,
        )?;
        let winograd = Split::of(kernels, &params);
        Ok(Self { gemm, winograd })
    }
}

impl CodeRows for Conv2dRows<'_> {
    fn code(&self, row: usize, k: usize) -> u8 {
        let in_c = self.params.in_c;
        self.params
            .source(row, k / in_c)
            .map_or(self.zero, |start| self.x.codes[start + k % in_c])
    }

    #[inline(always)]
    fn gather(&self, row: usize, k: usize, mut to: &mut [u8]) {
        let in_c = self.params.in_c;
        let (mut tap, mut channel) = (k / in_c, k % in_c);
        while !to.is_empty() {
            let (run, rest) = to.split_at_mut(to.len().min(in_c - channel));
            match self.params.source(row, tap) {
                Some(start) => run.copy_from_slice(&self.x.codes[start + channel..][..run.len()]),
                None => run.fill(self.zero),
            }
            (to, tap, channel) = (rest, tap + 1, 0);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn together(&self, row: usize, k: usize, len: usize) -> Option<&[u8]> {
        let in_c = self.params.in_c;
        let (tap, channel) = (k / in_c, k % in_c);
        if channel + len > in_c {
            return None;
        }
        let start = self.params.source(row, tap)?;
        Some(&self.x.codes[start + channel..][..len])
    }

    #[inline(always)]
    fn pair(&self, _: usize) -> (f32, i32) {
        self.x.pair(0)
    }

    #[inline(always)]
    fn pairs(&self, rows: Range<usize>) -> impl Iterator<Item = (f32, i32)> {
        iter::repeat_n(self.x.pair(0), rows.len())
    }
}

impl<T: Element> Body for Conv2dInt8<'_, T> {
    fn kernels(&self) -> Kernels {
        self.gemm.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.winograd
            .as_ref()
            .map_or_else(|| self.gemm.tasks(), Split::tasks)
    }
    fn scratch_bytes(&self) -> usize {
        scratch_bytes(&self.gemm.left.params)
    }
    unsafe fn scalar(&self, _: usize, task: usize, _: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.gemm.scalar(task) }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, _: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            if let Some(split) = &self.winograd {
                return self.gemm.winograd(kernels, split, task, scratch);
            }
            self.gemm.portable(kernels, task, scratch)
        }
    }
}
