use super::{AttentionInt8, HeadMut, OFFSET, Symmetric};
use crate::{Element, Kernels, math, scratch::Scratch};

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
            let mut largest = 0.0;
            for (x, mean) in line.iter_mut().zip(&*column) {
                *x -= mean;
                largest = math::max(x.abs(), largest);
            }
            let map = Symmetric::of(largest);
            let mut sum = 0;
            for (i, x) in line.iter().enumerate() {
                let (row, at) = layout.key(key, i);
                let code = map.code(*x);
                sum += i32::from(code);
                k[row][at] = code;
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
        for key in 0..p.kv_rows {
            T::load_slice(kernels, value_row(key), line);
            for (i, (x, inverse)) in line.iter().zip(&*column).enumerate() {
                let (row, at) = layout.value(key, i);
                v[row][at] = Symmetric {
                    scale: 0.0,
                    inverse: *inverse,
                }
                .code(*x);
            }
        }
    }
}
