use std::hint::black_box;

use super::{AttentionInt8, HeadMut, OFFSET, Symmetric, largest};
use crate::{Element, Kernels, PANEL, math, scratch::Scratch};

impl<T: Element> AttentionInt8<'_, T> {
    /// The first phase, the same for all instruction sets: a head's keys and values become codes; all in `f32`.
    ///
    /// A column's mean is its sum over the keys in order, over their number. It is taken off the keys, which changes no
    /// softmax. A key then is coded by its own largest magnitude, a column of the values by its largest over all keys,
    /// NaNs passed over.
    ///
    /// # Safety
    /// As [`Job::run`](crate::Job::run).
    #[inline(always)]
    pub(super) unsafe fn prepare(&self, kernels: Kernels, head: usize, scratch: &mut [u8]) {
        let (p, layout) = (self.params(), self.layout());
        let dim = p.head_dim;
        let mut scratch = Scratch::new(scratch);
        let (line, column) = (scratch.take(dim), scratch.take(dim));
        // What is past the head's columns stays zero.
        let codes: &mut [i8] = scratch.take_of(4 * layout.dim16);
        codes.fill(0);
        // SAFETY: this task alone has its head's part.
        let part = unsafe { self.codes.slice_mut(self.part(head)) };
        part.fill(0.0);
        let HeadMut {
            k,
            k_scale,
            k_offset,
            v,
            v_scale,
        } = layout.parts_mut(part);
        let key_row = |key: usize| &self.float.k[key * p.k_stride + head * dim..][..dim];
        let value_row = |key: usize| &self.float.v[key * p.v_stride + head * dim..][..dim];

        column.fill(0.0);
        for key in 0..p.kv_rows {
            T::load_slice(kernels, key_row(key), line);
            for (sum, x) in column.iter_mut().zip(&*line) {
                *sum += x;
            }
        }
        for sum in column.iter_mut() {
            *sum /= p.kv_rows as f32;
        }
        for key in 0..p.kv_rows {
            T::load_slice(kernels, key_row(key), line);
            for (x, mean) in line.iter_mut().zip(&*column) {
                *x -= mean;
            }
            let map = Symmetric::of(largest(line));
            let codes = &mut codes[..layout.dim4];
            for (code, x) in codes.iter_mut().zip(&*line) {
                *code = map.code(*x);
            }
            let mut sum = 0;
            for code in &*codes {
                sum += i32::from(*code);
            }
            let (mut row, at) = layout.key(key, 0);
            for codes in codes.as_chunks::<4>().0 {
                k[row][at..][..4].copy_from_slice(codes);
                // Of a loop that it can see through the compiler makes slow scatters.
                row = black_box(row + 1);
            }
            k_scale[key] = map.scale;
            k_offset[key] = OFFSET * sum;
        }

        column.fill(0.0);
        for key in 0..p.kv_rows {
            T::load_slice(kernels, value_row(key), line);
            for (largest, x) in column.iter_mut().zip(&*line) {
                *largest = math::max(x.abs(), *largest);
            }
        }
        for (scale, largest) in v_scale.iter_mut().zip(&mut *column) {
            let map = Symmetric::of(*largest);
            (*scale, *largest) = (map.scale, map.inverse);
        }
        codes.fill(0);
        for start in (0..p.kv_rows).step_by(4) {
            for (key, codes) in (start..start + 4).zip(codes.chunks_exact_mut(layout.dim16)) {
                if key >= p.kv_rows {
                    codes.fill(0);
                    continue;
                }
                T::load_slice(kernels, value_row(key), line);
                for ((code, x), inverse) in codes.iter_mut().zip(&*line).zip(&*column) {
                    let map = Symmetric {
                        scale: 0.0,
                        inverse: *inverse,
                    };
                    *code = map.code(*x);
                }
            }
            for panel in 0..layout.dim16 / PANEL {
                let (row, _) = layout.value(start, panel * PANEL);
                let row_of = |key: usize| -> &[i8; PANEL] {
                    let at = key * layout.dim16 + panel * PANEL;
                    codes[at..].first_chunk().expect("a panel is whole")
                };
                let rows = [row_of(0), row_of(1), row_of(2), row_of(3)];
                for (lane, to) in v[row].as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    *to = [rows[0][lane], rows[1][lane], rows[2][lane], rows[3][lane]];
                }
            }
        }
    }
}
