//! Two operands, element by element.

#[cfg(test)]
mod tests;

use crate::{ArgumentError, Element, Kernels, Source, error::Check, job::Body, output::Output};

/// Elements of a task, about.
const TASK_ELEMENTS: usize = 8 << 10;
/// Elements that are worked on together.
const CHUNK: usize = 256;

/// The operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryKind {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
}

/// The shape of the second operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broadcast {
    /// `[rows, cols]`
    Same,
    /// `[cols]`
    Row,
    /// `[1]`
    Scalar,
}

/// Attributes of [`Binary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryParams {
    /// Rows of `a` and `out`.
    pub rows: usize,
    /// Columns of `a` and `out`.
    pub cols: usize,
    /// The operation.
    pub kind: BinaryKind,
    /// The shape of `b`.
    pub broadcast: Broadcast,
}

/// `a` and `b`, element by element, computed in `f32` and rounded once to the storage type.
pub struct Binary<'a, T> {
    kernels: Kernels,
    params: BinaryParams,
    a: Source<'a, T>,
    b: &'a [T],
    out: Output<'a, T>,
}

impl<'a, T: Element> Binary<'a, T> {
    /// `a` and `out` are `[rows, cols]`; `b` as `broadcast` says.
    pub fn new(
        kernels: Kernels,
        params: BinaryParams,
        a: Source<'a, T>,
        b: &'a [T],
        out: &'a mut [T],
    ) -> Result<Self, ArgumentError> {
        let check = Check("Binary");
        let len = check.size("cols", &[params.rows, params.cols])?;
        check.source("a", &a, len)?;
        check.len("out", out.len(), len)?;
        let b_len = match params.broadcast {
            Broadcast::Same => len,
            Broadcast::Row => params.cols,
            Broadcast::Scalar => 1,
        };
        check.len("b", b.len(), b_len)?;
        Ok(Self {
            kernels,
            params,
            a,
            b,
            out: Output::new(out),
        })
    }

    fn rows_per_task(&self) -> usize {
        (TASK_ELEMENTS / self.params.cols.max(1)).max(1)
    }

    /// A row of the output from a row of `b`, or from its one element.
    #[inline(always)]
    fn row(&self, kernels: Kernels, out: &mut [T], b: &[T]) {
        let (mut x, mut y) = ([0.0; CHUNK], [0.0; CHUNK]);
        let scalar = self.params.broadcast == Broadcast::Scalar;
        if scalar {
            y.fill(b[0].load());
        }
        for (index, out) in out.chunks_mut(CHUNK).enumerate() {
            let (x, y) = (&mut x[..out.len()], &mut y[..out.len()]);
            T::load_slice(kernels, out, x);
            if !scalar {
                T::load_slice(kernels, &b[index * CHUNK..][..out.len()], y);
            }
            combine(self.params.kind, x, y);
            T::store_slice(kernels, x, out);
        }
    }
}

/// Each of `x` with its `y`, into `x`.
#[inline(always)]
fn combine(kind: BinaryKind, x: &mut [f32], y: &[f32]) {
    // A loop for each: with the choice inside, it is made again for each element on ARM.
    let pairs = x.iter_mut().zip(y);
    match kind {
        BinaryKind::Add => {
            for (x, y) in pairs {
                *x += *y;
            }
        }
        BinaryKind::Sub => {
            for (x, y) in pairs {
                *x -= *y;
            }
        }
        BinaryKind::Mul => {
            for (x, y) in pairs {
                *x *= *y;
            }
        }
        BinaryKind::Div => {
            for (x, y) in pairs {
                *x /= *y;
            }
        }
    }
}

impl<T: Element> Body for Binary<'_, T> {
    fn kernels(&self) -> Kernels {
        self.kernels
    }
    fn tasks(&self, _: usize) -> usize {
        self.params.rows.div_ceil(self.rows_per_task())
    }
    unsafe fn scalar(&self, phase: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.portable(self.kernels, phase, task, scratch) }
    }
    #[inline(always)]
    unsafe fn portable(&self, kernels: Kernels, _: usize, task: usize, _: &mut [u8]) {
        let cols = self.params.cols;
        for row in
            task * self.rows_per_task()..self.params.rows.min((task + 1) * self.rows_per_task())
        {
            let at = row * cols..(row + 1) * cols;
            // SAFETY: this task alone has this row.
            let out = unsafe { self.out.slice_mut(at.clone()) };
            if let Source::Other(a) = self.a {
                out.copy_from_slice(&a[at.clone()]);
            }
            self.row(
                kernels,
                out,
                if self.params.broadcast == Broadcast::Same {
                    &self.b[at]
                } else {
                    self.b
                },
            );
        }
    }
}
