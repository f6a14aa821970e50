use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU32;

use super::super::arena::Arena;
use super::*;

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).expect("some")).expect("threads")
}

/// Counts each task of three phases, and looks whether the phase before was complete.
struct Counting {
    tasks: [usize; 3],
    counts: [Vec<AtomicU32>; 3],
    early: AtomicU32,
    fails_at: Option<(usize, usize)>,
}

impl Counting {
    fn new(tasks: [usize; 3]) -> Self {
        let counts = tasks.map(|n| (0..n).map(|_| AtomicU32::new(0)).collect());
        Counting {
            tasks,
            counts,
            early: AtomicU32::new(0),
            fails_at: None,
        }
    }

    fn incomplete(&self, phase: usize) -> bool {
        self.counts[phase]
            .iter()
            .any(|count| count.load(Ordering::Relaxed) != 1)
    }
}

impl Job for Counting {
    fn phases(&self) -> usize {
        3
    }
    fn tasks(&self, phase: usize) -> usize {
        self.tasks[phase]
    }
    fn scratch_bytes(&self) -> usize {
        64
    }
    unsafe fn run(&self, phase: usize, task: usize, scratch: &mut [u8]) {
        assert!(
            self.fails_at != Some((phase, task)),
            "task {task} of phase {phase} fails"
        );
        if phase > 0 && self.incomplete(phase - 1) {
            self.early.fetch_add(1, Ordering::Relaxed);
        }
        scratch[0] = task as u8;
        self.counts[phase][task].fetch_add(1, Ordering::Relaxed);
        assert_eq!(scratch[0], task as u8);
    }
}

#[test]
fn every_task_runs_once_and_phases_are_kept_apart() {
    for threads in 1..=4 {
        let mut pool = pool(threads);
        assert_eq!(pool.threads(), threads);
        let mut arena = Arena::new(0, 64, threads).expect("small");
        let (_, scratch) = arena.parts();
        for round in 0..300 {
            if round % 100 == 99 {
                // Long enough for the helpers to fall asleep.
                thread::sleep(PATIENCE * 20);
            }
            let mut job = Counting::new([round % 7, 13, round % 2]);
            pool.run(&mut job, &scratch);
            assert!(
                !(0..3).any(|phase| job.incomplete(phase)),
                "{threads} threads, round {round}"
            );
            assert_eq!(job.early.into_inner(), 0);
        }
    }
}

#[test]
fn helpers_take_part() {
    let mut pool = pool(3);
    let seen = Mutex::new(HashSet::new());
    // Everybody waits for the others, so nobody can do it alone.
    pool.share(&|thread| {
        locked(&seen).insert(thread);
        while locked(&seen).len() < 3 {
            thread::yield_now();
        }
    });
    assert_eq!(
        seen.into_inner().expect("no panic"),
        HashSet::from([0, 1, 2])
    );
}

#[test]
fn a_panic_ends_the_run_but_not_the_pool() {
    for threads in [1, 3] {
        let mut pool = pool(threads);
        let mut arena = Arena::new(0, 64, threads).expect("small");
        let (_, scratch) = arena.parts();
        for failing in [(0, 0), (1, 5), (2, 0)] {
            let mut job = Counting::new([3, 13, 2]);
            job.fails_at = Some(failing);
            let result = panic::catch_unwind(AssertUnwindSafe(|| pool.run(&mut job, &scratch)));
            assert!(result.is_err());
            let mut job = Counting::new([3, 13, 2]);
            pool.run(&mut job, &scratch);
            assert!(!(0..3).any(|phase| job.incomplete(phase)));
        }
    }
}

#[test]
fn dropping_an_idle_pool_joins_its_threads() {
    let pool = pool(4);
    let shared = Arc::downgrade(&pool.shared);
    thread::sleep(PATIENCE * 20);
    drop(pool);
    assert_eq!(shared.strong_count(), 0);
}
