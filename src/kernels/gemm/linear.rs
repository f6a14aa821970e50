use super::{Gemm, Rows, epilogue};
use crate::{Activation, ArgumentError, Element, Kernels, Residual, error::Check, job::Body};

/// Attributes of [`Linear`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearParams {
    /// Rows.
    pub rows: usize,
    /// Columns of `x`.
    pub k: usize,
    /// Columns of `x2`; 0 when there is none.
    pub k2: usize,
    /// Output columns.
    pub n: usize,
    /// Applied before the residual is added.
    pub activation: Activation,
}

/// Operands of [`Linear`].
#[derive(Debug)]
pub struct LinearOperands<'a, T, W> {
    /// `[rows, k]`
    pub x: &'a [T],
    /// `[rows, k2]`
    pub x2: Option<&'a [T]>,
    /// Panels of `n` columns and `k + k2` steps; of `2 n` under GEGLU.
    pub weight: &'a [W],
    /// `[n]`; `[2 n]` under GEGLU, all values before all gates.
    pub bias: Option<&'a [f32]>,
    /// `[n]`; none under GEGLU.
    pub shift: Option<&'a [T]>,
    /// `[rows, n]`
    pub residual: Residual<'a, T>,
    /// `[rows, n]`
    pub out: &'a mut [T],
}

/// `residual + activation(bias + shift + [x, x2] weight)`, row by row.
pub struct Linear<'a, T, W>(Gemm<'a, T, W, LinearRows<'a, T>>);

struct LinearRows<'a, T> {
    x: &'a [T],
    x2: &'a [T],
    k: usize,
    k2: usize,
}

impl<'a, T: Element, W: Element> Linear<'a, T, W> {
    /// Checks the operands' lengths.
    pub fn new(
        kernels: Kernels,
        params: LinearParams,
        operands: LinearOperands<'a, T, W>,
    ) -> Result<Self, ArgumentError> {
        let check = Check("Linear");
        let LinearParams {
            rows,
            k,
            k2,
            n,
            activation,
        } = params;
        let LinearOperands {
            x,
            x2,
            weight,
            bias,
            shift,
            residual,
            out,
        } = operands;
        check.len("x", x.len(), check.size("k", &[rows, k])?)?;
        let x2 = x2.unwrap_or(&[]);
        check.len("x2", x2.len(), check.size("k2", &[rows, k2])?)?;
        let left = LinearRows { x, x2, k, k2 };
        let operands = epilogue::Operands {
            bias,
            shift,
            activation,
            residual,
            out,
        };
        check.that("k2", k.checked_add(k2).is_some())?;
        Gemm::new(kernels, check, left, (rows, k + k2, n), weight, operands).map(Self)
    }
}

impl<T: Element> Rows for LinearRows<'_, T> {
    fn load(&self, row: usize, k: usize) -> f32 {
        if k < self.k {
            self.x[row * self.k + k].load()
        } else {
            self.x2[row * self.k2 + k - self.k].load()
        }
    }

    #[inline(always)]
    fn gather(&self, kernels: Kernels, row: usize, k: usize, to: &mut [f32]) {
        let first = self.k.saturating_sub(k).min(to.len());
        let (to, to2) = to.split_at_mut(first);
        if !to.is_empty() {
            T::load_slice(kernels, &self.x[row * self.k + k..][..to.len()], to);
        }
        if !to2.is_empty() {
            let k = (k + first) - self.k;
            T::load_slice(kernels, &self.x2[row * self.k2 + k..][..to2.len()], to2);
        }
    }
}

impl<T: Element, W: Element> Body for Linear<'_, T, W> {
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
