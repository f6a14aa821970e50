//! Pages of a mapping: brought in ahead of their use, and let go after it.

use std::io;

/// The size of the system's pages: 4096 bytes, or 16384 or 65536 on some ARM boards.
pub(in crate::runtime) fn page_bytes() -> usize {
    #[cfg(unix)]
    {
        // SAFETY: asks for a number.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes)
            .ok()
            .filter(|bytes| bytes.is_power_of_two())
            .unwrap_or(4096)
    }
    #[cfg(not(unix))]
    4096
}

/// The whole pages that hold any of `bytes`, as address and length, as far as their end. `inner` leaves out the last one
/// if `bytes` ends within it: who goes on there still needs it.
#[cfg(target_os = "linux")]
fn pages(bytes: &[u8], inner: bool) -> (usize, usize) {
    let page = page_bytes();
    let start = bytes.as_ptr().addr();
    let end = start + bytes.len();
    let first = start & !(page - 1);
    let last = if inner {
        end & !(page - 1)
    } else {
        end.next_multiple_of(page)
    };
    (first, last.saturating_sub(first))
}

/// Reads the pages of `bytes` from their file and maps them, and returns when all are there. `bytes` lie in a file's
/// mapping or in the program. The error is the file's: it cannot be read, or has become shorter.
pub(in crate::runtime) fn bring(bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    {
        let (start, len) = pages(bytes, false);
        // Starts the reading of all of it before the first page is waited for. Advice: that it fails changes nothing.
        // SAFETY: advice about mapped pages that leaves their contents alone.
        unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_WILLNEED) };
        loop {
            // SAFETY: as above; the pages are readable.
            let done =
                unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_POPULATE_READ) };
            if done == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => {}
                // Before Linux 5.14: each page is brought by reading it.
                Some(libc::EINVAL) => break,
                _ => return Err(error),
            }
        }
    }
    let page = page_bytes();
    let sum = bytes
        .iter()
        .step_by(page)
        .chain(bytes.last())
        .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    std::hint::black_box(sum);
    Ok(())
}

/// Lets go of the pages that begin no later than `bytes` end: they are read from their file again when they are needed.
/// `bytes` lie in a private mapping of a file that nobody has written to.
pub(in crate::runtime) fn let_go(bytes: &[u8]) {
    #[cfg(target_os = "linux")]
    {
        let (start, len) = pages(bytes, true);
        if len > 0 {
            // SAFETY: the pages are those of a private mapping of a file, never written to, so they hold the file's bytes
            // again at the next access.
            unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn pages_come_and_go_and_hold_the_same() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        let contents: Vec<u8> = (0..1 << 20).map(|i| (i * 7 % 251) as u8).collect();
        file.write_all(&contents).expect("written");
        // SAFETY: nobody changes the file.
        let mapping = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file) };
        let mapping = mapping.expect("mapped");
        for range in [0..contents.len(), 5000..5001, 4096..8192, 100..900_000] {
            bring(&mapping[range.clone()]).expect("readable");
            assert_eq!(mapping[range.clone()], contents[range.clone()]);
            let_go(&mapping[range.clone()]);
            assert_eq!(mapping[range.clone()], contents[range]);
        }
        bring(&[]).expect("nothing to read");
        let_go(&[]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_that_has_become_shorter_is_an_error() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&vec![1; 1 << 20]).expect("written");
        // SAFETY: the file is cut below, and the mapping only read by `bring`, which reports that.
        let mapping = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file) };
        let mapping = mapping.expect("mapped");
        file.set_len(4096).expect("cut");
        bring(&mapping[..4096]).expect("still there");
        assert!(bring(&mapping[..1 << 20]).is_err());
    }
}
