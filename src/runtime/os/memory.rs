//! What the system says about memory: how much this process has, and how much it may have.

use std::fs;
use std::path::Path;

/// Bytes of this process that are resident now, mapped files included; `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * super::pages::page_bytes() as u64)
}

/// A line of `/proc/self/status` in bytes, such as `RssAnon` or `VmHWM`.
pub fn status_bytes(key: &str) -> Option<u64> {
    lines_bytes(&fs::read_to_string("/proc/self/status").ok()?, key)
}

/// Bytes that this process may take: what is available on the machine, within the limits of its memory cgroups (version
/// 1 or 2), what it has already included. `None` where the system does not tell.
pub fn available_bytes() -> Option<u64> {
    let machine = lines_bytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable");
    let own = resident_bytes().unwrap_or(0);
    let machine = machine.map(|bytes| bytes.saturating_add(own));
    [machine, cgroup_limit(Path::new("/"))]
        .into_iter()
        .flatten()
        .min()
}

/// Gives freed memory back to the system, where its allocator would keep it.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: releases free pages of the heap; nothing that is allocated is touched.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The value of `key: N kB`.
fn lines_bytes(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The smallest limit of this process's memory cgroups (version 1 or 2), in bytes; `None` if there is none. `/proc` and
/// `/sys` lie under `root`.
pub fn cgroup_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    limit_of(&groups, &root.join("sys/fs/cgroup"))
}

/// The smallest limit of the memory cgroups that `cgroup`, the contents of `/proc/self/cgroup`, names, and of those above
/// them. In a container the group may be mounted as the root: then that is where its limit is.
fn limit_of(cgroup: &str, root: &Path) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (folder, file) = match controllers {
            "" if root.join("unified").is_dir() => (root.join("unified"), "memory.max"),
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut group = folder.join(path.trim_start_matches('/'));
        while group.starts_with(&folder) {
            let limit = fs::read_to_string(group.join(file)).ok();
            // `max`, or in version 1 a number near 2^63, is no limit.
            let limit = limit
                .and_then(|text| text.trim().parse::<u64>().ok())
                .filter(|limit| *limit < 1 << 60);
            least = [least, limit].into_iter().flatten().min();
            if !group.pop() {
                break;
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_tells() {
        let resident = resident_bytes().expect("statm");
        let peak = status_bytes("VmHWM").expect("status");
        assert!(resident > 0 && peak > 0);
        assert!(available_bytes().expect("meminfo") > 1 << 20);
        assert_eq!(status_bytes("NoSuchLine"), None);
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/a/memory.limit_in_bytes", "1000\n");
        write("memory/a/b/memory.limit_in_bytes", "2000\n");
        assert_eq!(limit_of("4:memory:/a/b\n0::/\n", root), Some(1000));
        assert_eq!(limit_of("4:cpu,memory:/\n", root), None);
        assert_eq!(limit_of("4:cpu:/a\n", root), None);
        write("memory.max", "max\n");
        write("x/memory.max", "3000\n");
        assert_eq!(limit_of("0::/x\n", root), Some(3000));
        assert_eq!(limit_of("0::/\n", root), None);
        // A path that is not there: only what is above it counts.
        assert_eq!(limit_of("4:memory:/a/none\n", root), Some(1000));
        assert_eq!(limit_of("nonsense", root), None);
    }

    #[test]
    fn lines_that_are_no_sizes_are_none() {
        let text = "VmHWM:\t   12 kB\nVmRSS: many kB\nThreads:\t3\n";
        assert_eq!(lines_bytes(text, "VmHWM"), Some(12288));
        assert_eq!(lines_bytes(text, "VmRSS"), None);
        assert_eq!(lines_bytes(text, "Threads"), None);
    }
}
