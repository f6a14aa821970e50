//! The time that the processors have worked.

use std::time::Duration;

/// How long this process has been on a processor since it began, all threads together; `None` where the system does not
/// tell. Other processes do not count, so that a busy machine does not make an operator look slow.
pub fn processor_time() -> Option<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one `timespec`.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
    (status == 0).then(|| Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_processor_time() {
        let before = processor_time().expect("a clock");
        let mut x = 1u64;
        while processor_time().expect("a clock") == before {
            x = std::hint::black_box(x).wrapping_mul(3);
        }
        assert!(processor_time().expect("a clock") > before);
    }
}
