use std::fmt;

/// Why an operator could not be built from its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentError {
    /// An operand has not the number of elements that the attributes ask for.
    Length {
        /// The operator.
        op: &'static str,
        /// The operand.
        operand: &'static str,
        /// Elements asked for.
        expected: usize,
        /// Elements found.
        found: usize,
    },
    /// An attribute is outside its range, or its product with others is.
    Attribute {
        /// The operator.
        op: &'static str,
        /// The attribute.
        attribute: &'static str,
    },
    /// A row of [`Embed`](crate::Embed) names no row of the table.
    Id {
        /// The row.
        row: usize,
        /// The id it holds.
        id: i32,
        /// Rows of the table.
        vocab: usize,
    },
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length {
                op,
                operand,
                expected,
                found,
            } => {
                write!(f, "{op}: `{operand}` has {found} elements, not {expected}")
            }
            Self::Attribute { op, attribute } => write!(f, "{op}: `{attribute}` is out of range"),
            Self::Id { row, id, vocab } => {
                write!(f, "row {row} holds id {id}, which is not below {vocab}")
            }
        }
    }
}

impl std::error::Error for ArgumentError {}

/// The checks of one operator's constructor.
pub(crate) struct Check(pub &'static str);

impl Check {
    /// The product of `factors`; an error naming `attribute` if it does not fit.
    pub fn size(&self, attribute: &'static str, factors: &[usize]) -> Result<usize, ArgumentError> {
        factors
            .iter()
            .try_fold(1usize, |product, factor| product.checked_mul(*factor))
            .filter(|size| *size <= isize::MAX as usize)
            .ok_or(ArgumentError::Attribute {
                op: self.0,
                attribute,
            })
    }

    pub fn that(&self, attribute: &'static str, holds: bool) -> Result<(), ArgumentError> {
        if holds {
            Ok(())
        } else {
            Err(ArgumentError::Attribute {
                op: self.0,
                attribute,
            })
        }
    }

    pub fn len(
        &self,
        operand: &'static str,
        found: usize,
        expected: usize,
    ) -> Result<(), ArgumentError> {
        if found == expected {
            Ok(())
        } else {
            Err(ArgumentError::Length {
                op: self.0,
                operand,
                expected,
                found,
            })
        }
    }

    /// An optional operand's length, where there is one.
    pub fn optional<T>(
        &self,
        operand: &'static str,
        slice: Option<&[T]>,
        expected: usize,
    ) -> Result<(), ArgumentError> {
        slice.map_or(Ok(()), |s| self.len(operand, s.len(), expected))
    }

    /// An input that may be the output's own buffer.
    pub fn source<T>(
        &self,
        operand: &'static str,
        source: &crate::Source<'_, T>,
        expected: usize,
    ) -> Result<(), ArgumentError> {
        match source {
            crate::Source::InPlace => Ok(()),
            crate::Source::Other(slice) => self.len(operand, slice.len(), expected),
        }
    }
}
