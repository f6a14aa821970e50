//! The same step of several lanes as one job.

use kiln_kernels::Job;

/// The most lanes that run together.
pub(crate) const MAX_LANES: usize = 2;

/// Jobs of equal phases and tasks, one for each lane. Each task of the first lane is followed by the same task of the
/// next, so that the weights it reads serve both while they are in the cache.
pub(crate) struct Lanes<J> {
    first: J,
    second: Option<J>,
}

impl<J: Job> Lanes<J> {
    /// The job of one or two lanes; `None` if the two are not split alike.
    pub(crate) fn new(first: J, second: Option<J>) -> Option<Self> {
        let alike = second.as_ref().is_none_or(|second| {
            let phases = first.phases();
            second.phases() == phases
                && (0..phases).all(|phase| first.tasks(phase) == second.tasks(phase))
        });
        alike.then_some(Lanes { first, second })
    }
}

impl<J: Job> Job for Lanes<J> {
    fn phases(&self) -> usize {
        self.first.phases()
    }

    fn tasks(&self, phase: usize) -> usize {
        self.first.tasks(phase) * if self.second.is_some() { 2 } else { 1 }
    }

    fn scratch_bytes(&self) -> usize {
        self.second
            .as_ref()
            .map_or(0, Job::scratch_bytes)
            .max(self.first.scratch_bytes())
    }

    unsafe fn run(&self, phase: usize, task: usize, scratch: &mut [u8]) {
        let (job, task) = match &self.second {
            None => (&self.first, task),
            Some(_) if task.is_multiple_of(2) => (&self.first, task / 2),
            Some(second) => (second, task / 2),
        };
        // SAFETY: different tasks of `self` are different tasks of the two jobs, of the same phase; that each runs once
        // at a time and phases are kept apart is the caller's promise.
        unsafe { job.run(phase, task, scratch) }
    }
}
