use std::sync::atomic::{AtomicUsize, Ordering::*};

use crate::{Kernels, arch};

#[cfg(test)]
mod tests;

/// An operator with its operands, ready to run: phases one after another, each of independent tasks.
///
/// The split depends on shapes alone, and the result on neither the order of tasks nor the threads that run them.
pub trait Job: Sync {
    /// Phases; at most [`Launch::MAX_PHASES`].
    fn phases(&self) -> usize;

    /// Tasks of a phase.
    fn tasks(&self, phase: usize) -> usize;

    /// Bytes of scratch that each thread brings to [`Job::run`], of any alignment.
    fn scratch_bytes(&self) -> usize;

    /// Runs one task. Panics if `scratch` is smaller than [`Job::scratch_bytes`]; what it holds does not matter.
    ///
    /// # Safety
    /// No task may run twice at the same time, and no task while one of another phase runs. (For a result that means
    /// something, each runs once and the phases in order.) [`Launch`] and [`run_alone`] see to all of this.
    unsafe fn run(&self, phase: usize, task: usize, scratch: &mut [u8]);
}

/// What an operator implements: its split, its reference and its fast body.
pub trait Body: Sync {
    fn kernels(&self) -> Kernels;
    fn phases(&self) -> usize {
        1
    }
    fn tasks(&self, phase: usize) -> usize;
    fn scratch_bytes(&self) -> usize {
        0
    }
    /// # Safety
    /// As [`Job::run`].
    unsafe fn scalar(&self, phase: usize, task: usize, scratch: &mut [u8]);
    /// Must be `#[inline(always)]`, with everything hot that it calls: `arch` compiles it once for each instruction
    /// set, `kernels` being a constant.
    ///
    /// # Safety
    /// As [`Job::run`].
    unsafe fn portable(&self, kernels: Kernels, phase: usize, task: usize, scratch: &mut [u8]);
}

impl<B: Body> Job for B {
    fn phases(&self) -> usize {
        Body::phases(self)
    }
    fn tasks(&self, phase: usize) -> usize {
        Body::tasks(self, phase)
    }
    fn scratch_bytes(&self) -> usize {
        Body::scratch_bytes(self)
    }
    unsafe fn run(&self, phase: usize, task: usize, scratch: &mut [u8]) {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { arch::run(self, phase, task, scratch) }
    }
}

/// Runs a whole job on this thread. `scratch` as in [`Job::run`].
pub fn run_alone(job: &mut dyn Job, scratch: &mut [u8]) {
    for phase in 0..job.phases() {
        for task in 0..job.tasks(phase) {
            // SAFETY: the job is borrowed exclusively, and its tasks run one after another here.
            unsafe { job.run(phase, task, scratch) }
        }
    }
}

const MAX_PHASES: usize = 3;

/// A job that any number of threads run together: each calls [`Launch::help`] and takes tasks until none is left.
pub struct Launch<'j> {
    job: &'j dyn Job,
    phases: [Phase; MAX_PHASES],
}

#[derive(Default)]
struct Phase {
    /// The next task to hand out.
    next: AtomicUsize,
    /// Tasks that have ended, also by a panic.
    ended: AtomicUsize,
}

impl<'j> Launch<'j> {
    /// The most phases a job has.
    pub const MAX_PHASES: usize = MAX_PHASES;

    /// A launch of the whole job, which is borrowed exclusively: there is no second launch of it at the same time.
    pub fn new(job: &'j mut dyn Job) -> Self {
        assert!(
            job.phases() <= Self::MAX_PHASES,
            "a job has at most {} phases",
            Self::MAX_PHASES
        );
        Self {
            job,
            phases: Default::default(),
        }
    }

    /// Takes and runs tasks. When it returns, each task has been run or is being run by another thread that is in this
    /// function; when all have returned, the job is done. Waits between phases by spinning, then yielding.
    pub fn help(&self, scratch: &mut [u8]) {
        for (index, phase) in self.phases[..self.job.phases()].iter().enumerate() {
            let tasks = self.job.tasks(index);
            loop {
                let task = phase.next.fetch_add(1, Relaxed);
                if task >= tasks {
                    break;
                }
                let _ended = Ended(&phase.ended);
                // SAFETY: the counter gives each task to one thread once, and the wait below keeps phases apart.
                unsafe { self.job.run(index, task, scratch) }
            }
            if index + 1 < self.job.phases() {
                let mut spins = 0u32;
                while phase.ended.load(Acquire) < tasks {
                    spins += 1;
                    if spins < 1 << 10 {
                        std::hint::spin_loop()
                    } else {
                        std::thread::yield_now()
                    }
                }
            }
        }
    }
}

struct Ended<'a>(&'a AtomicUsize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Release);
    }
}
