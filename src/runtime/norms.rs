//! The moments of a program's norms, for programs that are run on a picture part by part.

use kiln_kernels::{Moment, Moments};
use kiln_package::{Op, Program};

/// What an evaluation normalizes by. The statistics of a GroupNorm are those of a whole picture; where a program sees but a
/// part of one, those of the part are others.
#[derive(Clone, Copy, Debug, Default)]
pub enum Norms<'n> {
    /// Each norm's own input.
    #[default]
    Own,
    /// The same, and its mean and variance are told.
    Measured(&'n NormMoments),
    /// Means and variances that were measured before.
    Given(&'n NormMoments),
}

/// Mean and variance of each group of each GroupNorm of a program: those of an evaluation, and the sums of several.
#[derive(Debug)]
pub struct NormMoments {
    last: Vec<Moment>,
    /// Means, and means of squares.
    sums: Vec<[f64; 2]>,
    count: f64,
}

/// The groups whose moments a step takes.
fn groups_of(op: &Op) -> usize {
    match op {
        Op::GroupNorm(op) => op.groups as usize,
        Op::GroupNormMerge(op) => op.groups as usize,
        _ => 0,
    }
}

/// Groups of a program's norms.
fn groups(program: &Program<'_>) -> usize {
    program.steps().map(|step| groups_of(&step.op())).sum()
}

impl NormMoments {
    /// For a program; `None` if it has no norms.
    pub(super) fn of(program: &Program<'_>) -> Option<Self> {
        let count = groups(program);
        (count > 0).then(|| NormMoments {
            last: std::iter::repeat_with(Moment::default)
                .take(count)
                .collect(),
            sums: vec![[0.0; 2]; count],
            count: 0.0,
        })
    }

    /// Adds what the last evaluation has told.
    pub fn add(&mut self) {
        for (sums, moment) in self.sums.iter_mut().zip(&self.last) {
            let [mean, variance] = moment.get();
            sums[0] += mean;
            sums[1] += variance + mean * mean;
        }
        self.count += 1.0;
    }

    /// Makes the moments those of all that was added, taken as one picture of parts of one size.
    pub fn settle(&mut self) {
        for (sums, moment) in self.sums.iter().zip(&self.last) {
            let [mean, square] = sums.map(|sum| sum / self.count);
            moment.set([mean, (square - mean * mean).max(0.0)]);
        }
    }
}

impl<'n> Norms<'n> {
    /// Whether these are the moments of such a program.
    pub(super) fn fit(&self, program: &Program<'_>) -> bool {
        match self {
            Norms::Own => true,
            Norms::Measured(moments) | Norms::Given(moments) => {
                moments.last.len() == groups(program)
            }
        }
    }

    /// Those of an operator, if it is a norm: `next` is the first group that no operator before has had.
    pub(super) fn take(&self, op: &Op, next: &mut usize) -> Moments<'n> {
        let groups = groups_of(op);
        if groups == 0 {
            return Moments::default();
        }
        let first = *next;
        *next += groups;
        let part = |moments: &'n NormMoments| moments.last.get(first..*next).unwrap_or_default();
        match *self {
            Norms::Own => Moments::default(),
            Norms::Measured(moments) => Moments {
                measured: part(moments),
                ..Moments::default()
            },
            Norms::Given(moments) => Moments {
                given: part(moments),
                ..Moments::default()
            },
        }
    }
}
