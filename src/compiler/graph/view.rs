//! Data movement as arithmetic: a strided read of a dense tensor, through which reshapes, transpositions and slices are
//! pushed until nothing of them is left but strides.

/// A tensor of `shape` whose element `[i..]` is the element `offset + sum of i * stride` of another one. The stride of an
/// axis of size 1 is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
    pub offset: usize,
}

impl View {
    /// The tensor itself.
    pub fn dense(shape: &[usize]) -> Self {
        let mut strides = vec![0; shape.len()];
        let mut step = 1;
        for (stride, size) in strides.iter_mut().zip(shape).rev() {
            *stride = if *size == 1 { 0 } else { step };
            step *= size;
        }
        View {
            shape: shape.to_vec(),
            strides,
            offset: 0,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the elements stand one after another from the first of the other tensor.
    pub fn is_dense(&self) -> bool {
        *self == View::dense(&self.shape)
    }

    /// Output axis `i` is axis `perm[i]`.
    pub fn transpose(&self, perm: &[usize]) -> View {
        View {
            shape: perm.iter().map(|p| self.shape[*p]).collect(),
            strides: perm.iter().map(|p| self.strides[*p]).collect(),
            offset: self.offset,
        }
    }

    /// `start..end` of an axis.
    pub fn slice(&self, axis: usize, start: usize, end: usize) -> View {
        let mut view = self.clone();
        view.offset += start * view.strides[axis];
        view.shape[axis] = end - start;
        if end - start == 1 {
            view.strides[axis] = 0;
        }
        view
    }

    /// NumPy's broadcasting; `shape` is one that the view broadcasts to.
    pub fn expand(&self, shape: &[usize]) -> View {
        let missing = shape.len() - self.shape.len();
        let strides = (0..shape.len())
            .map(|i| {
                if i < missing || self.shape[i - missing] == 1 {
                    0
                } else {
                    self.strides[i - missing]
                }
            })
            .collect();
        View {
            shape: shape.to_vec(),
            strides,
            offset: self.offset,
        }
    }

    /// The same elements in the same order under another shape; `None` when no strides say so.
    pub fn reshape(&self, shape: &[usize]) -> Option<View> {
        // Runs of axes that are dense among themselves, as (size, stride of the innermost).
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (size, stride) in self
            .shape
            .iter()
            .zip(&self.strides)
            .filter(|(size, _)| **size != 1)
        {
            match runs.last_mut() {
                Some((run, step)) if *step == size * stride => {
                    (*run, *step) = (*run * size, *stride)
                }
                _ => runs.push((*size, *stride)),
            }
        }
        let mut strides = vec![0; shape.len()];
        let mut rest = runs.pop();
        for (stride, size) in strides
            .iter_mut()
            .zip(shape)
            .rev()
            .filter(|(_, size)| **size != 1)
        {
            let (run, step) = rest?;
            if run % size != 0 {
                return None;
            }
            *stride = step;
            rest = if run == *size {
                runs.pop()
            } else {
                Some((run / size, step * size))
            };
        }
        rest.is_none().then(|| View {
            shape: shape.to_vec(),
            strides,
            offset: self.offset,
        })
    }

    /// Calls `f` with the position in the other tensor of every element, in order.
    pub fn for_each(&self, mut f: impl FnMut(usize)) {
        let Some((last, outer)) = self.shape.split_last() else {
            return f(self.offset);
        };
        let step = self.strides[outer.len()];
        let mut index = vec![0usize; outer.len()];
        loop {
            let start = self.offset
                + index
                    .iter()
                    .zip(&self.strides)
                    .map(|(i, s)| i * s)
                    .sum::<usize>();
            (0..*last).for_each(|i| f(start + i * step));
            let Some(axis) = (0..outer.len())
                .rev()
                .find(|axis| index[*axis] + 1 < outer[*axis])
            else {
                return;
            };
            index[axis] += 1;
            index[axis + 1..].fill(0);
        }
    }

    /// The elements in order.
    pub fn gather(&self, data: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.len());
        self.for_each(|i| out.push(data[i]));
        out
    }
}
