//! A pool of threads that work on one thing at a time.

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{hint, io};

use kiln_kernels::{Job, Launch};

use super::arena::Scratch;
use super::os::cores;
use super::os::loan::{Loan, Work};

/// How long a helper watches for work before it sleeps: longer than the caller takes between two steps.
const PATIENCE: Duration = Duration::from_micros(50);

/// As many threads as this process may keep busy: one for each physical core that it may use, within its quota.
pub(super) fn default_threads() -> NonZeroUsize {
    cores::usable()
}

/// The calling thread and its helpers. Dropping the pool ends and joins them.
pub(super) struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

struct Shared {
    loan: Loan,
    /// Helpers that have begun.
    started: AtomicUsize,
    /// How often there has been work; changes once that of the new round can be borrowed.
    round: AtomicUsize,
    /// Helpers that sleep, or are about to.
    sleeping: AtomicUsize,
    quit: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
    /// The first panic of a helper in this round.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Pool {
    /// A pool of `threads`, the calling one included.
    pub(super) fn new(threads: NonZeroUsize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            loan: Loan::new(),
            started: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            quit: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        });
        let mut pool = Pool {
            shared,
            helpers: Vec::new(),
        };
        for number in 1..threads.get() {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("kiln-{number}"));
            pool.helpers
                .push(builder.spawn(move || shared.help(number))?);
        }
        // A thread allocates while it starts; once it is here it does no more of that.
        while pool.shared.started.load(Ordering::Acquire) < pool.helpers.len() {
            thread::yield_now();
        }
        Ok(pool)
    }

    /// The number of threads, the calling one included.
    pub(super) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `work` with the number of each thread that comes to it in time: the caller's own, 0, always, a helper's at
    /// most once. When it returns nobody is in `work` any more. Nothing is allocated.
    ///
    /// `work` shares out its parts by itself, and is done when the caller's call has returned and all others that have
    /// begun. A panic in any of them continues here when all have ended.
    pub(super) fn share(&mut self, work: &Work<'_>) {
        let shared = &*self.shared;
        if self.helpers.is_empty() {
            return work(0);
        }
        shared.loan.lend(work, || {
            shared.round.fetch_add(1, Ordering::SeqCst);
            shared.wake_all();
            work(0);
        });
        if let Some(panic) = locked(&shared.panic).take() {
            panic::resume_unwind(panic);
        }
    }

    /// Runs a whole job. `scratch` has a part of at least `job.scratch_bytes()` for each thread.
    pub(super) fn run(&mut self, job: &mut dyn Job, scratch: &Scratch<'_>) {
        let alone = (0..job.phases()).all(|phase| job.tasks(phase) <= 1);
        let launch = Launch::new(job);
        let help = |thread| launch.help(&mut scratch.take(thread));
        if alone { help(0) } else { self.share(&help) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::SeqCst);
        self.shared.wake_all();
        for helper in self.helpers.drain(..) {
            // A helper catches its work's panics and has nothing else to panic at.
            let _ = helper.join();
        }
    }
}

impl Shared {
    /// A helper's life.
    fn help(&self, thread: usize) {
        self.started.fetch_add(1, Ordering::Release);
        let mut seen = 0;
        while let Some(round) = self.next_round(seen) {
            seen = round;
            if let Some(work) = self.loan.borrow() {
                let result = panic::catch_unwind(AssertUnwindSafe(|| work(thread)));
                if let Err(panic) = result {
                    locked(&self.panic).get_or_insert(panic);
                }
            }
        }
    }

    /// Waits for a round other than `seen`; `None` when the pool is dropped.
    fn next_round(&self, seen: usize) -> Option<usize> {
        let is_next =
            || self.round.load(Ordering::SeqCst) != seen || self.quit.load(Ordering::SeqCst);
        if !watch(is_next) {
            let mut guard = locked(&self.lock);
            self.sleeping.fetch_add(1, Ordering::SeqCst);
            while !is_next() {
                guard = self
                    .wake
                    .wait(guard)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            self.sleeping.fetch_sub(1, Ordering::SeqCst);
        }
        (!self.quit.load(Ordering::SeqCst)).then(|| self.round.load(Ordering::SeqCst))
    }

    /// Wakes the helpers after `round` or `quit` has changed.
    fn wake_all(&self) {
        // A helper that is not counted here yet has still to look, and sees the change. One that is counted holds the
        // lock until it waits.
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            drop(locked(&self.lock));
            self.wake.notify_all();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at a condition again and again for [`PATIENCE`], and says whether it came.
fn watch(condition: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        for _ in 0..32 {
            if condition() {
                return true;
            }
            hint::spin_loop();
        }
    }
    condition()
}

#[cfg(test)]
#[allow(unsafe_code)] // `Job` is implemented there.
mod tests;
