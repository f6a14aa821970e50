use std::sync::Mutex;

use super::*;

/// Notes what runs; a task of phase `p` fails if one of an earlier phase is missing.
struct Noted {
    tasks: [usize; 3],
    seen: Mutex<Vec<(usize, usize)>>,
}

impl Job for Noted {
    fn phases(&self) -> usize {
        3
    }
    fn tasks(&self, phase: usize) -> usize {
        self.tasks[phase]
    }
    fn scratch_bytes(&self) -> usize {
        7
    }
    unsafe fn run(&self, phase: usize, task: usize, scratch: &mut [u8]) {
        assert_eq!(scratch.len(), 7);
        let mut seen = self.seen.lock().unwrap();
        let before: usize = self.tasks[..phase].iter().sum();
        assert!(
            seen.iter().filter(|(p, _)| *p < phase).count() == before,
            "{seen:?}"
        );
        seen.push((phase, task));
    }
}

#[test]
fn each_task_runs_once_and_phases_in_order() {
    for (threads, tasks) in [
        (1, [3, 1, 2]),
        (2, [5, 0, 7]),
        (3, [1, 100, 1]),
        (4, [0, 0, 0]),
    ] {
        let mut job = Noted {
            tasks,
            seen: Mutex::default(),
        };
        let launch = Launch::new(&mut job);
        std::thread::scope(|scope| {
            (0..threads).for_each(|_| drop(scope.spawn(|| launch.help(&mut [0; 7]))))
        });
        let mut seen = job.seen.into_inner().unwrap();
        seen.sort();
        let expected: Vec<_> = (0..3)
            .flat_map(|phase| (0..tasks[phase]).map(move |task| (phase, task)))
            .collect();
        assert_eq!(seen, expected);
    }
}
