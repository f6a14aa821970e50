//! Tensors whose elements do not lie one after the other.

use std::borrow::Cow;

use super::FileTensor;
use crate::graph::WeightData;

/// A view of the elements of a dense tensor of one dimension, such as its transpose. They are gathered when read.
#[derive(Clone)]
pub(super) struct Strided {
    storage: FileTensor,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Strided {
    /// The view of `storage` from its first element on. `strides` has as many entries as `shape`; `None` if an element
    /// lies outside, or there are more than can be counted.
    pub fn new(storage: FileTensor, shape: Vec<usize>, strides: Vec<usize>) -> Option<Self> {
        let count = shape
            .iter()
            .try_fold(1usize, |n, size| n.checked_mul(*size))?;
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(0usize, |at, (size, stride)| {
                at.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
            })?;
        let [len] = storage.shape[..] else {
            return None;
        };
        (count == 0 || last < len).then_some(Strided {
            storage,
            shape,
            strides,
        })
    }
}

impl WeightData for Strided {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn read(&self) -> Cow<'_, [f32]> {
        let count: usize = self.shape.iter().product();
        let values = self.storage.read();
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        let mut gathered = Vec::with_capacity(count);
        for _ in 0..count {
            gathered.push(values[at]);
            // The next index: the last dimension first, like the digits of a counter.
            for d in (0..index.len()).rev() {
                index[d] += 1;
                at += self.strides[d];
                if index[d] < self.shape[d] {
                    break;
                }
                at -= self.strides[d] * self.shape[d];
                index[d] = 0;
            }
        }
        gathered.into()
    }
}
