//! Watching an evaluation step by step.

use std::time::Duration;

use kiln_package::Stage;

/// A step that has just run.
#[derive(Clone, Copy, Debug)]
pub struct StepInfo<'a> {
    /// The stage of its program.
    pub stage: Stage,
    /// Its index in the program.
    pub index: usize,
    /// The number of the program's steps.
    pub count: usize,
    /// The operator's name, such as `Conv2d`.
    pub op: &'static str,
    /// The layer's name.
    pub name: &'a str,
    /// Whether it multiplies codes.
    pub integers: bool,
    /// The lane, where lanes take turns; `None` if all have run it.
    pub lane: Option<usize>,
    /// Multiplications with addition, over the lanes that have run it.
    pub macs: u64,
    /// How long it took; zero unless the observer is [`Observer::TIMED`].
    pub elapsed: Duration,
}

/// Something that is told of each step after it has run.
pub trait Observer {
    /// Whether [`StepInfo::elapsed`] is wanted. Without it no clock is read.
    const TIMED: bool = true;

    /// Called after each step, for each lane where lanes take turns, on the thread that runs the evaluation.
    fn step(&mut self, step: StepInfo<'_>);
}

/// The observer that looks at nothing and costs nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    const TIMED: bool = false;

    #[inline(always)]
    fn step(&mut self, _: StepInfo<'_>) {}
}
