//! The time that the processors have worked, and the time of day where the machine is.

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

/// Minutes since midnight by the clock on the wall and the machine's time zone (`TZ`, else `/etc/localtime`).
pub fn minute_of_day() -> u32 {
    // SAFETY: `tm` is a plain structure for which all zeros is a valid value; `time` and `localtime_r` read and write what they are given,
    // which outlives the calls. Only `localtime_r`, not `localtime`, may be called on several threads.
    let local = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut local: libc::tm = std::mem::zeroed();
        libc::localtime_r(&now, &mut local);
        local
    };
    (local.tm_hour * 60 + local.tm_min).clamp(0, 1439) as u32
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    /// Zones are whole quarters of an hour away from UTC.
    #[test]
    fn minutes_are_those_of_the_clock() {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let (found, utc) = (minute_of_day(), (seconds / 60 % 15) as u32);
        assert!(found < 1440);
        assert!(
            [utc, (utc + 1) % 15].contains(&(found % 15)),
            "{found}, {utc}"
        );
    }

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
