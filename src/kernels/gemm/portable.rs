use std::{array, ops::Range};

use super::{BLOCK_K, GROUP_PANELS, Gemm, Rows, TILE_PANELS, tile};
use crate::{Activation, Element, Isa, Kernels, PANEL, Residual, math, scratch::Scratch};

/// Sums of a block of rows and a group of panels, in scratch between blocks of k: `[panel][row]`.
struct Sums<'s> {
    sums: &'s mut [[f32; PANEL]],
    rows: usize,
}

impl<T: Element, W: Element, R: Rows> Gemm<'_, T, W, R> {
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn portable(&self, kernels: Kernels, task: usize, scratch: &mut [u8]) {
        let (rows, panels) = self.split.task(self.rows, self.panels(), task);
        // SAFETY: the caller's promise.
        unsafe {
            match kernels.isa() {
                Isa::Avx512Vnni => self.task::<12, 2>(kernels, rows, panels, scratch),
                _ => self.task::<6, 1>(kernels, rows, panels, scratch),
            }
        }
    }

    #[inline(always)]
    unsafe fn task<const ROWS: usize, const PANELS: usize>(
        &self,
        kernels: Kernels,
        rows: Range<usize>,
        panels: Range<usize>,
        scratch: &mut [u8],
    ) {
        let mut scratch = Scratch::new(scratch);
        let padded = rows.len().next_multiple_of(ROWS);
        let left = scratch.take_rows::<BLOCK_K>(padded);
        let weights = scratch.take_rows::<PANEL>(TILE_PANELS * self.k.min(BLOCK_K));
        let mut sums = Sums { sums: scratch.take_rows(panels.len() * padded), rows: padded };
        sums.sums.fill([0.0; PANEL]);
        let blocks = self.k.div_ceil(BLOCK_K);
        for block in 0..blocks {
            let steps = block * self.k / blocks..(block + 1) * self.k / blocks;
            for (row, left) in rows.clone().zip(left.iter_mut()) {
                self.left.gather(kernels, row, steps.start, &mut left[..steps.len()]);
            }
            left[rows.len()..].fill([0.0; BLOCK_K]);
            let mut panel = panels.clone();
            while panel.len() >= PANELS {
                let index = panel.start - panels.start;
                self.columns::<ROWS, PANELS>(kernels, (left, rows.len()), panel.start, &steps, weights, &mut sums, index);
                panel.start += PANELS;
            }
            while !panel.is_empty() {
                let index = panel.start - panels.start;
                self.columns::<ROWS, 1>(kernels, (left, rows.len()), panel.start, &steps, weights, &mut sums, index);
                panel.start += 1;
            }
        }
        for (local, row) in rows.enumerate() {
            // SAFETY: the caller's promise.
            unsafe { self.finish(kernels, row, local, panels.clone(), &sums) }
        }
    }

    /// The block of rows times `PANELS` panels, for one block of k.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn columns<const ROWS: usize, const PANELS: usize>(
        &self,
        kernels: Kernels,
        (left, rows): (&[[f32; BLOCK_K]], usize),
        panel: usize,
        steps: &Range<usize>,
        weights: &mut [[f32; PANEL]],
        sums: &mut Sums,
        index: usize,
    ) {
        let elements = steps.start * PANEL..steps.end * PANEL;
        for (p, converted) in weights.chunks_exact_mut(weights.len() / TILE_PANELS).take(PANELS).enumerate() {
            if W::as_f32(&[]).is_none() {
                W::load_slice(
                    kernels,
                    &self.panel(panel + p)[elements.clone()],
                    converted[..steps.len()].as_flattened_mut(),
                );
            }
        }
        let half = weights.len() / TILE_PANELS;
        let b: [&[[f32; PANEL]]; PANELS] = array::from_fn(|p| match W::as_f32(self.panel(panel + p)) {
            Some(weights) => weights[elements.clone()].as_chunks().0,
            None => &weights[p * half..][..steps.len()],
        });
        let mut row = 0;
        while row + 1 < rows {
            Self::tile::<ROWS, PANELS>(kernels, left, row, b, sums, index);
            row += ROWS;
        }
        if row < rows {
            Self::tile::<1, PANELS>(kernels, left, row, b, sums, index);
        }
    }

    #[inline(always)]
    fn tile<const ROWS: usize, const PANELS: usize>(
        kernels: Kernels,
        left: &[[f32; BLOCK_K]],
        row: usize,
        b: [&[[f32; PANEL]]; PANELS],
        sums: &mut Sums,
        index: usize,
    ) {
        let left: &[[f32; BLOCK_K]; ROWS] = left[row..][..ROWS].try_into().expect("of this length");
        let mut local = [[[0.0; PANEL]; PANELS]; ROWS];
        for p in 0..PANELS {
            let sums = &sums.sums[(index + p) * sums.rows + row..][..ROWS];
            for r in 0..ROWS {
                local[r][p] = sums[r];
            }
        }
        tile::multiply(kernels, left, b, &mut local);
        for p in 0..PANELS {
            let sums = &mut sums.sums[(index + p) * sums.rows + row..][..ROWS];
            for r in 0..ROWS {
                sums[r] = local[r][p];
            }
        }
    }

    /// What follows the sums of one row.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    unsafe fn finish(&self, kernels: Kernels, row: usize, local: usize, panels: Range<usize>, sums: &Sums) {
        let halves = if self.activation == Activation::Geglu { 2 } else { 1 };
        let columns = panels.start / halves * PANEL..self.n.min(panels.end / halves * PANEL);
        let width = columns.len();
        let at = row * self.n + columns.start..row * self.n + columns.end;
        // SAFETY: this task alone has this row and these columns.
        let out = unsafe { self.out.slice_mut(at.clone()) };
        let (mut v, mut other) = ([0.0; GROUP_PANELS * PANEL], [0.0; GROUP_PANELS * PANEL]);
        self.biased(row_sums(sums, local, 0, halves), columns.start, &mut v[..width]);
        if let Some(shift) = self.shift {
            T::load_slice(kernels, &shift[columns.clone()], &mut other[..width]);
            add(&mut v[..width], &other[..width]);
        }
        if self.activation == Activation::Geglu {
            self.biased(row_sums(sums, local, 1, halves), self.n + columns.start, &mut other[..width]);
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

    /// Sums and the bias from `column` of its row on, into `to`.
    #[inline(always)]
    fn biased<'s>(&self, sums: impl Iterator<Item = &'s [f32; PANEL]>, column: usize, to: &mut [f32]) {
        for (to, sums) in to.chunks_mut(PANEL).zip(sums) {
            to.copy_from_slice(&sums[..to.len()]);
        }
        if let Some(bias) = self.bias {
            add(to, &bias[column..][..to.len()]);
        }
    }
}

/// The sums of one row: of every panel, or of every second from `half` on.
#[inline(always)]
fn row_sums<'s>(sums: &'s Sums, row: usize, half: usize, halves: usize) -> impl Iterator<Item = &'s [f32; PANEL]> {
    sums.sums[half * sums.rows + row..].iter().step_by(halves * sums.rows)
}

#[inline(always)]
fn add(to: &mut [f32], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}
