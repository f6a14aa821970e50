use super::{Gemm, Rows, epilogue};
use crate::{Activation, ArgumentError, Element, Kernels, Residual, error::Check, job::Body};

/// Attributes of [`Conv2d`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dParams {
    /// Input rows.
    pub in_h: usize,
    /// Input columns.
    pub in_w: usize,
    /// Input channels.
    pub in_c: usize,
    /// Rows after enlarging.
    pub up_h: usize,
    /// Columns after enlarging.
    pub up_w: usize,
    /// Output rows.
    pub out_h: usize,
    /// Output columns.
    pub out_w: usize,
    /// Output channels.
    pub out_c: usize,
    /// Kernel rows.
    pub kernel_h: usize,
    /// Kernel columns.
    pub kernel_w: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Rows of zeros above.
    pub pad_top: usize,
    /// Columns of zeros to the left.
    pub pad_left: usize,
    /// Not [`Activation::Geglu`].
    pub activation: Activation,
}

/// Operands of [`Conv2d`].
#[derive(Debug)]
pub struct Conv2dOperands<'a, T, W> {
    /// `[in_h, in_w, in_c]`
    pub x: &'a [T],
    /// Panels of `out_c` columns and `kernel_h * kernel_w * in_c` steps.
    pub weight: &'a [W],
    /// `[out_c]`
    pub bias: Option<&'a [f32]>,
    /// `[out_c]`
    pub shift: Option<&'a [T]>,
    /// `[out_h, out_w, out_c]`
    pub residual: Residual<'a, T>,
    /// `[out_h, out_w, out_c]`
    pub out: &'a mut [T],
}

/// `residual + activation(bias + shift + conv(pad(upsample(x)), weight))`. The picture is enlarged by nearest neighbour
/// and padded with zeros by addressing alone; padding takes part in the sums.
pub struct Conv2d<'a, T, W>(Gemm<'a, T, W, Conv2dRows<'a, T>>);

struct Conv2dRows<'a, T> {
    x: &'a [T],
    params: Conv2dParams,
}

impl<'a, T: Element, W: Element> Conv2d<'a, T, W> {
    /// Checks the operands' lengths.
    pub fn new(
        kernels: Kernels,
        params: Conv2dParams,
        operands: Conv2dOperands<'a, T, W>,
    ) -> Result<Self, ArgumentError> {
        let check = Check("Conv2d");
        let Conv2dOperands {
            x,
            weight,
            bias,
            shift,
            residual,
            out,
        } = operands;
        let p = params;
        let (rows, k) = p.size(&check)?;
        check.len("x", x.len(), p.in_h * p.in_w * p.in_c)?;
        let operands = epilogue::Operands {
            bias,
            shift,
            activation: p.activation,
            residual,
            out,
        };
        Gemm::new(
            kernels,
            check,
            Conv2dRows { x, params },
            (rows, k, p.out_c),
            weight,
            operands,
        )
        .map(Self)
    }
}

impl Conv2dParams {
    /// Output pixels and steps of k, once every index that [`Conv2dParams::source`] forms is known to fit.
    pub(super) fn size(&self, check: &Check) -> Result<(usize, usize), ArgumentError> {
        let p = self;
        check.that("in_c", p.in_h > 0 && p.in_w > 0 && p.in_c > 0)?;
        check.that("up_h", p.up_h > 0 && p.up_w > 0)?;
        check.that("stride", p.stride > 0)?;
        check.that("activation", p.activation != Activation::Geglu)?;
        for (out, kernel, pad, up, source) in [
            (p.out_h, p.kernel_h, p.pad_top, p.up_h, p.in_h),
            (p.out_w, p.kernel_w, p.pad_left, p.up_w, p.in_w),
        ] {
            let reach = check.size("stride", &[out, p.stride])?;
            check.that(
                "kernel_h",
                reach
                    .checked_add(kernel)
                    .and_then(|r| r.checked_add(pad))
                    .is_some(),
            )?;
            check.size("up_h", &[up, source])?;
        }
        check.size("in_h", &[p.in_h, p.in_w, p.in_c])?;
        let rows = check.size("out_h", &[p.out_h, p.out_w])?;
        Ok((
            rows,
            check.size("kernel_h", &[p.kernel_h, p.kernel_w, p.in_c])?,
        ))
    }

    /// Where in `x` the pixel's channels start that `tap` of the kernel meets at output pixel `row`; none in padding.
    #[inline(always)]
    pub(super) fn source(&self, row: usize, tap: usize) -> Option<usize> {
        let p = self;
        self.pixel(
            row / p.out_w * p.stride + tap / p.kernel_w,
            row % p.out_w * p.stride + tap % p.kernel_w,
        )
    }

    /// Where in `x` the channels of a pixel start of the enlarged and padded picture; none in padding.
    #[inline(always)]
    pub(super) fn pixel(&self, y: usize, x: usize) -> Option<usize> {
        let p = self;
        let along = |at: usize, pad: usize, up: usize, len: usize| {
            let at = at.checked_sub(pad).filter(|at| *at < up)?;
            Some(if up == len { at } else { at * len / up })
        };
        let y = along(y, p.pad_top, p.up_h, p.in_h)?;
        let x = along(x, p.pad_left, p.up_w, p.in_w)?;
        Some((y * p.in_w + x) * p.in_c)
    }
}

impl<T: Element> Rows for Conv2dRows<'_, T> {
    fn load(&self, row: usize, k: usize) -> f32 {
        let in_c = self.params.in_c;
        self.params
            .source(row, k / in_c)
            .map_or(0.0, |start| self.x[start + k % in_c].load())
    }

    #[inline(always)]
    fn gather(&self, kernels: Kernels, row: usize, k: usize, mut to: &mut [f32]) {
        let in_c = self.params.in_c;
        let (mut tap, mut channel) = (k / in_c, k % in_c);
        while !to.is_empty() {
            let (run, rest) = to.split_at_mut(to.len().min(in_c - channel));
            match self.params.source(row, tap) {
                Some(start) => T::load_slice(kernels, &self.x[start + channel..][..run.len()], run),
                None => run.fill(0.0),
            }
            (to, tap, channel) = (rest, tap + 1, 0);
        }
    }
}

impl<T: Element, W: Element> Body for Conv2d<'_, T, W> {
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
