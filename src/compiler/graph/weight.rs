//! Constants: shared, and read only when needed.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The contents of a constant. A source may keep it mapped, in another type, or derive it when read.
pub trait WeightData: Send + Sync {
    /// Sizes, outermost first.
    fn shape(&self) -> &[usize];

    /// The elements, row-major. Sixteen-bit elements and integers are converted.
    fn read(&self) -> Cow<'_, [f32]>;

    /// Whether the elements belong to the text form (the small constants of tests).
    fn is_literal(&self) -> bool {
        false
    }
}

/// A shared constant.
#[derive(Clone)]
pub struct Weight(Arc<dyn WeightData>);

impl Weight {
    /// Shares `data`.
    pub fn new(data: impl WeightData + 'static) -> Self {
        Weight(Arc::new(data))
    }

    /// Sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    /// The elements, row-major.
    pub fn read(&self) -> Cow<'_, [f32]> {
        self.0.read()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element of a constant of one element.
    pub fn scalar(&self) -> Option<f32> {
        (self.len() == 1).then(|| self.read()[0])
    }

    /// Whether the elements belong to the text form.
    pub fn is_literal(&self) -> bool {
        self.0.is_literal()
    }

    /// What clones have in common, and no other constant that lives at the same time.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>().addr()
    }

    /// Whether both are the same constant in memory.
    pub fn same(&self, other: &Weight) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weight{:?}", self.shape())
    }
}

/// A constant held as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// As many elements as the sizes say.
    pub values: Vec<f32>,
}

impl WeightData for Literal {
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn read(&self) -> Cow<'_, [f32]> {
        Cow::Borrowed(&self.values)
    }
    fn is_literal(&self) -> bool {
        true
    }
}
