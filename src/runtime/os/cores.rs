//! The processor's cores. Two threads of one core share its arithmetic units, so a second thread there gains little and takes
//! scratch memory; work is split for cores.

use std::collections::HashSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

/// As many cores as this process may keep busy: the physical ones that its affinity mask has any thread of, within its
/// quota.
pub(crate) fn usable() -> NonZeroUsize {
    let most = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let physical = allowed().and_then(|cpus| physical(Path::new("/sys"), &cpus));
    physical.map_or(most, |cores| cores.min(most))
}

/// The numbers of the threads of processors that this process may run on.
#[cfg(target_os = "linux")]
fn allowed() -> Option<Vec<usize>> {
    // SAFETY: a set of bits, for which all zeros is a valid value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the system writes no more than the size that it is told.
    let answer = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if answer != 0 {
        return None;
    }
    let count = libc::CPU_SETSIZE as usize;
    // SAFETY: reads a bit below the set's size.
    Some(
        (0..count)
            .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
            .collect(),
    )
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Option<Vec<usize>> {
    None
}

/// The number of physical cores that `cpus` are threads of; `None` where `sys`, the root of sysfs, does not tell of one.
fn physical(sys: &Path, cpus: &[usize]) -> Option<NonZeroUsize> {
    let mut cores = HashSet::new();
    for cpu in cpus {
        let topology = sys.join(format!("devices/system/cpu/cpu{cpu}/topology"));
        // The newer name, then the older.
        let siblings = ["core_cpus_list", "thread_siblings_list"]
            .iter()
            .find_map(|name| fs::read_to_string(topology.join(name)).ok())?;
        // All threads of a core tell the same list.
        cores.insert(siblings.trim().to_owned());
    }
    NonZeroUsize::new(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs whose processors say these siblings.
    fn sysfs(name: &str, siblings: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (cpu, list) in siblings.iter().enumerate() {
            let topology = folder
                .path()
                .join(format!("devices/system/cpu/cpu{cpu}/topology"));
            fs::create_dir_all(&topology).expect("made");
            fs::write(topology.join(name), format!("{list}\n")).expect("written");
        }
        folder
    }

    #[test]
    fn threads_of_a_core_count_once() {
        let cores = |folder: &tempfile::TempDir, cpus: &[usize]| {
            physical(folder.path(), cpus).map(NonZeroUsize::get)
        };
        // Neighbours, as AMD numbers them; and halves, as Intel does.
        let near = sysfs("thread_siblings_list", &["0-1", "0-1", "2-3", "2-3"]);
        assert_eq!(cores(&near, &[0, 1, 2, 3]), Some(2));
        assert_eq!(cores(&near, &[1, 3]), Some(2));
        assert_eq!(cores(&near, &[2, 3]), Some(1));
        let far = sysfs(
            "core_cpus_list",
            &["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"],
        );
        assert_eq!(cores(&far, &[0, 1, 2, 3, 4, 5, 6, 7]), Some(4));
        assert_eq!(cores(&far, &[0, 4, 5]), Some(2));
        // A Pi: a thread a core.
        let pi = sysfs("core_cpus_list", &["0", "1", "2", "3"]);
        assert_eq!(cores(&pi, &[0, 1, 2, 3]), Some(4));
        // Big and little cores, of which only the big ones have two threads.
        let mixed = sysfs("core_cpus_list", &["0-1", "0-1", "2", "3"]);
        assert_eq!(cores(&mixed, &[0, 1, 2, 3]), Some(3));
    }

    #[test]
    fn a_system_that_does_not_tell_leaves_it_open() {
        let pi = sysfs("core_cpus_list", &["0", "1"]);
        assert_eq!(physical(pi.path(), &[0, 1, 2]), None);
        assert_eq!(physical(pi.path(), &[]), None);
        assert_eq!(physical(Path::new("/no/such/folder"), &[0]), None);
    }

    #[test]
    fn there_is_a_core_and_no_more_than_threads() {
        let threads = thread::available_parallelism().expect("known");
        assert!(usable() <= threads);
    }
}
