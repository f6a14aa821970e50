use std::ops::Range;

use super::ROW_PANELS;
use crate::{
    Activation, ArgumentError, Element, Kernels, PANEL, Residual, error::Check, math,
    output::Output,
};

/// What follows a product: per output element, each rounded to `f32` and only if present, plus bias, plus shift,
/// activation, plus residual; then rounded once to the storage type. Under GEGLU value and gate each have a product and a
/// bias, and the result is value times `gelu` of gate.
pub(crate) struct Epilogue<'a, T> {
    pub n: usize,
    bias: Option<&'a [f32]>,
    shift: Option<&'a [T]>,
    activation: Activation,
    residual: Residual<'a, T>,
    out: Output<'a, T>,
}

/// The operands of an epilogue.
pub(crate) struct Operands<'a, T> {
    pub bias: Option<&'a [f32]>,
    pub shift: Option<&'a [T]>,
    pub activation: Activation,
    pub residual: Residual<'a, T>,
    pub out: &'a mut [T],
}

impl<'a, T: Element> Epilogue<'a, T> {
    pub fn new(
        check: &Check,
        rows: usize,
        n: usize,
        operands: Operands<'a, T>,
    ) -> Result<Self, ArgumentError> {
        let Operands {
            bias,
            shift,
            activation,
            residual,
            out,
        } = operands;
        check.that("rows", rows > 0)?;
        check.that("n", n > 0 && n <= isize::MAX as usize / 64)?;
        let halves = if activation == Activation::Geglu {
            2
        } else {
            1
        };
        check.optional("bias", bias, halves * n)?;
        check.optional("shift", shift, n)?;
        check.that("shift", shift.is_none() || halves == 1)?;
        let len = check.size("rows", &[rows, n])?;
        check.len("out", out.len(), len)?;
        if let Residual::Other(residual) = residual {
            check.len("residual", residual.len(), len)?;
        }
        Ok(Self {
            n,
            bias,
            shift,
            activation,
            residual,
            out: Output::new(out),
        })
    }

    /// Panels to a column panel of the output: 2 under GEGLU.
    #[inline(always)]
    pub fn halves(&self) -> usize {
        if self.activation == Activation::Geglu {
            2
        } else {
            1
        }
    }

    /// All weight panels.
    pub fn panels(&self) -> usize {
        self.halves() * self.n.div_ceil(PANEL)
    }

    /// The output columns of some panels.
    #[inline(always)]
    pub fn columns(&self, panels: &Range<usize>) -> Range<usize> {
        panels.start / self.halves() * PANEL..self.n.min(panels.end / self.halves() * PANEL)
    }

    /// The definition for a row and the columns of `panels`: `product(panel, column)` is a column's product, a gate's
    /// columns counting from `n` on.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run): this task alone has the row and the columns.
    pub unsafe fn scalar_row(
        &self,
        row: usize,
        panels: Range<usize>,
        product: impl Fn(usize, usize) -> f32,
    ) {
        let (columns, halves) = (self.columns(&panels), self.halves());
        // SAFETY: the caller's promise.
        let out = unsafe {
            self.out
                .slice_mut(row * self.n + columns.start..row * self.n + columns.end)
        };
        let biased = |panel, column: usize| {
            let product = product(panel, column);
            self.bias.map_or(product, |bias| product + bias[column])
        };
        for (column, out) in columns.zip(out) {
            let mut v = biased(column / PANEL * halves, column);
            if let Some(shift) = self.shift {
                v += shift[column].load();
            }
            v = match self.activation {
                Activation::Geglu => {
                    v * math::gelu(biased(column / PANEL * halves + 1, column + self.n))
                }
                activation => math::activate(activation, v),
            };
            v = match self.residual {
                Residual::None => v,
                Residual::InPlace => out.load() + v,
                Residual::Other(residual) => residual[row * self.n + column].load() + v,
            };
            *out = T::store(v);
        }
    }

    /// A row of `panels`, whose products stand in `products` every `stride` rows.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run): this task alone has the row and the columns.
    #[inline(always)]
    pub unsafe fn row(
        &self,
        kernels: Kernels,
        row: usize,
        panels: Range<usize>,
        products: &[[f32; PANEL]],
        stride: usize,
    ) {
        let mut start = panels.start;
        while start < panels.end {
            let end = panels.end.min(start + ROW_PANELS);
            let products = &products[(start - panels.start) * stride..];
            // SAFETY: the caller's promise.
            unsafe { self.part(kernels, row, start..end, products, stride) }
            start = end;
        }
    }

    /// [`Epilogue::row`] of at most `ROW_PANELS` panels.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn part(
        &self,
        kernels: Kernels,
        row: usize,
        panels: Range<usize>,
        products: &[[f32; PANEL]],
        stride: usize,
    ) {
        let (columns, halves) = (self.columns(&panels), self.halves());
        let width = columns.len();
        let at = row * self.n + columns.start..row * self.n + columns.end;
        // SAFETY: the caller's promise.
        let out = unsafe { self.out.slice_mut(at.clone()) };
        let (mut v, mut other) = ([0.0; ROW_PANELS * PANEL], [0.0; ROW_PANELS * PANEL]);
        self.biased(products, halves * stride, columns.start, &mut v[..width]);
        if let Some(shift) = self.shift {
            T::load_slice(kernels, &shift[columns.clone()], &mut other[..width]);
            add(&mut v[..width], &other[..width]);
        }
        if self.activation == Activation::Geglu {
            self.biased(
                &products[stride..],
                halves * stride,
                self.n + columns.start,
                &mut other[..width],
            );
            math::activate_slice(Activation::Gelu, &mut other[..width]);
            for (v, gate) in v[..width].iter_mut().zip(&other[..width]) {
                *v *= gate;
            }
        } else {
            math::activate_slice(self.activation, &mut v[..width]);
        }
        let residual = match self.residual {
            Residual::None => None,
            Residual::InPlace => Some(&*out),
            Residual::Other(residual) => Some(&residual[at]),
        };
        if let Some(residual) = residual {
            T::load_slice(kernels, residual, &mut other[..width]);
            add(&mut v[..width], &other[..width]);
        }
        T::store_slice(kernels, &v[..width], out);
    }

    /// [`Epilogue::row`] of at most `ROW_PANELS` panels without GEGLU, whose products are used up.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub unsafe fn row_of(
        &self,
        kernels: Kernels,
        row: usize,
        panels: Range<usize>,
        products: &mut [[f32; PANEL]],
    ) {
        let columns = self.columns(&panels);
        let at = row * self.n + columns.start..row * self.n + columns.end;
        // SAFETY: the caller's promise.
        let out = unsafe { self.out.slice_mut(at.clone()) };
        let v = &mut products.as_flattened_mut()[..columns.len()];
        if let Some(bias) = self.bias {
            add(v, &bias[columns.clone()]);
        }
        if let Some(shift) = self.shift {
            add_loaded(kernels, v, &shift[columns]);
        }
        math::activate_slice(self.activation, v);
        match self.residual {
            Residual::None => {}
            Residual::InPlace => add_loaded(kernels, v, out),
            Residual::Other(residual) => add_loaded(kernels, v, &residual[at]),
        }
        T::store_slice(kernels, v, out);
    }

    /// Whether all that follows the products is added.
    #[inline(always)]
    pub fn only_adds(&self) -> bool {
        self.activation == Activation::None
    }

    /// What follows the products of an output panel that is whole.
    #[inline(always)]
    pub fn after(&self, kernels: Kernels, panel: usize) -> After<'_, 'a, T> {
        let column = panel / self.halves() * PANEL;
        let of = |bias: &[f32], column: usize| {
            let mut values = [0.0; PANEL];
            values.copy_from_slice(&bias[column..][..PANEL]);
            [values; AFTER_ROWS]
        };
        let shift = self.shift.map(|shift| {
            let mut values = [0.0; PANEL];
            T::load_slice(kernels, &shift[column..][..PANEL], &mut values);
            [values; AFTER_ROWS]
        });
        After {
            epilogue: self,
            column,
            bias: self.bias.map(|bias| of(bias, column)),
            gate_bias: match self.activation {
                Activation::Geglu => self.bias.map(|bias| of(bias, self.n + column)),
                _ => None,
            },
            shift,
        }
    }

    /// Products and the bias from `column` of its row on, into `to`.
    #[inline(always)]
    fn biased(&self, products: &[[f32; PANEL]], stride: usize, column: usize, to: &mut [f32]) {
        let mut products = products.iter().step_by(stride);
        let (panels, rest) = to.as_chunks_mut::<PANEL>();
        for (to, products) in panels.iter_mut().zip(&mut products) {
            *to = *products;
        }
        if let Some(products) = products.next() {
            rest.copy_from_slice(&products[..rest.len()]);
        }
        if let Some(bias) = self.bias {
            add(to, &bias[column..][..to.len()]);
        }
    }
}

/// Rows that [`After`] treats together: each of its steps is one loop over all of their elements.
pub(crate) const AFTER_ROWS: usize = 8;

/// What follows the products of the sixteen columns from `column` on; biases and shift once for each row.
pub(crate) struct After<'e, 'a, T> {
    epilogue: &'e Epilogue<'a, T>,
    column: usize,
    bias: Option<[[f32; PANEL]; AFTER_ROWS]>,
    gate_bias: Option<[[f32; PANEL]; AFTER_ROWS]>,
    shift: Option<[[f32; PANEL]; AFTER_ROWS]>,
}

impl<T: Element> After<'_, '_, T> {
    /// Where the results of some rows go, and the elements that are added to each where these are no results of before.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run): this task alone has the rows and the columns.
    #[inline(always)]
    pub unsafe fn rows(
        &self,
        rows: Range<usize>,
    ) -> (
        impl Iterator<Item = &mut [T; PANEL]>,
        impl Iterator<Item = &[T]>,
    ) {
        let Epilogue { n, residual, .. } = *self.epilogue;
        let at = rows.start * n + self.column;
        let residual = match residual {
            Residual::Other(residual) => &residual[at..],
            _ => &[],
        };
        // SAFETY: the caller's promise.
        let out = unsafe { self.epilogue.out.arrays_mut(at, n, rows.len()) };
        (out, residual.chunks(n))
    }

    /// Stores the results of a row's products, where all that follows is added. `out` and `residual` are [`After::rows`]'.
    #[inline(always)]
    pub fn add_and_store<'t>(
        &self,
        kernels: Kernels,
        mut v: [f32; PANEL],
        out: &mut [T; PANEL],
        mut residual: impl Iterator<Item = &'t [T]>,
    ) {
        if let Some([bias, ..]) = &self.bias {
            add(&mut v, bias);
        }
        if let Some([shift, ..]) = &self.shift {
            add(&mut v, shift);
        }
        match self.epilogue.residual {
            Residual::None => {}
            Residual::InPlace => add_panel(kernels, &mut v, out),
            Residual::Other(_) => {
                let residual = residual.next().expect("a residual for each row");
                add_panel(kernels, &mut v, &residual[..PANEL]);
            }
        }
        T::store_slice(kernels, &v, out);
    }

    /// Stores the results of at most `AFTER_ROWS` rows' products `v` and, under GEGLU, of the gate's.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run): this task alone has the rows and the columns.
    #[inline(always)]
    pub unsafe fn store<const GEGLU: bool>(
        &self,
        kernels: Kernels,
        rows: Range<usize>,
        v: &mut [[f32; PANEL]],
        gate: &mut [[f32; PANEL]],
    ) {
        let all = v.as_flattened_mut();
        if let Some(bias) = &self.bias {
            add(all, bias.as_flattened());
        }
        if let Some(shift) = &self.shift {
            add(all, shift.as_flattened());
        }
        if GEGLU {
            let gate = gate.as_flattened_mut();
            if let Some(bias) = &self.gate_bias {
                add(gate, bias.as_flattened());
            }
            for (v, gate) in all.iter_mut().zip(gate) {
                *v *= math::gelu(*gate);
            }
        } else {
            math::activate_slice(self.epilogue.activation, all);
        }
        let n = self.epilogue.n;
        let mut at = rows.start * n + self.column;
        match self.epilogue.residual {
            Residual::None => {}
            Residual::Other(residual) => {
                for (row, v) in v.iter_mut().enumerate() {
                    add_panel(kernels, v, &residual[at + row * n..][..PANEL]);
                }
            }
            Residual::InPlace => {
                for (row, v) in v.iter_mut().enumerate() {
                    // SAFETY: the caller's promise.
                    let out = unsafe { self.epilogue.out.array_mut::<PANEL>(at + row * n) };
                    add_panel(kernels, v, out);
                }
            }
        }
        for v in v {
            // SAFETY: the caller's promise.
            let out = unsafe { self.epilogue.out.array_mut::<PANEL>(at) };
            T::store_slice(kernels, v, out);
            at += n;
        }
    }
}

/// [`add`] of sixteen elements in memory.
#[inline(always)]
fn add_panel<T: Element>(kernels: Kernels, to: &mut [f32; PANEL], from: &[T]) {
    let mut loaded = [0.0; PANEL];
    T::load_slice(kernels, from, &mut loaded);
    add(to, &loaded);
}

#[inline(always)]
fn add(to: &mut [f32], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

/// [`add`] of elements in memory, at most `ROW_PANELS` panels of them.
#[inline(always)]
fn add_loaded<T: Element>(kernels: Kernels, to: &mut [f32], from: &[T]) {
    let mut loaded = [0.0; ROW_PANELS * PANEL];
    T::load_slice(kernels, from, &mut loaded[..to.len()]);
    add(to, &loaded[..to.len()]);
}
