//! Pages of a mapping: brought in ahead of their use, and let go after it.

use std::io;
use std::ops::Range;

/// The size of the system's pages: 4096 bytes, or 16384 or 65536 on some ARM boards.
pub(crate) fn page_bytes() -> usize {
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

/// The pages of a package's weights, which lie in a file's mapping or in the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages {
    /// Their size: what comes and goes together.
    size: usize,
    /// Addresses of the weights.
    start: usize,
    end: usize,
}

impl Pages {
    /// The system's pages of these weights.
    pub(crate) fn of(weights: &[u8]) -> Self {
        Self::with_size(weights, page_bytes())
    }

    /// Pages as a system with larger ones has them: `size` is a multiple of [`page_bytes`].
    pub(crate) fn with_size(weights: &[u8], size: usize) -> Self {
        let start = weights.as_ptr().addr();
        Self {
            size,
            start,
            end: start + weights.len(),
        }
    }

    /// Their size.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The addresses of the whole pages that hold any of `from..to`. Larger pages than the system's end where the weights do.
    fn around(&self, from: usize, to: usize) -> Range<usize> {
        let real = page_bytes();
        let first = (from & !(self.size - 1)).max(self.start & !(real - 1));
        let last = to.next_multiple_of(self.size);
        first..last.min(self.end.next_multiple_of(real))
    }

    /// The addresses of the pages that begin in `from..to` or hold its beginning, but for the last if the weights go on in
    /// it: who goes on there still needs it. What lies in a page with the end of something else than weights stays.
    fn behind(&self, from: usize, to: usize) -> Range<usize> {
        let first = (from & !(self.size - 1)).max(self.start.next_multiple_of(self.size));
        let last = to & !(self.size - 1);
        first..last.max(first)
    }

    /// Bytes of the pages that hold any of a part of the weights.
    pub(crate) fn bytes(&self, (begin, end): (u64, u64)) -> u64 {
        let range = self.around(self.start + begin as usize, self.start + end as usize);
        range.len() as u64
    }

    /// Reads the pages of `bytes`, a part of the weights, and maps them, and returns when all are there. The error is the
    /// file's: it cannot be read, or has become shorter.
    pub(crate) fn bring(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let start = bytes.as_ptr().addr();
        let range = self.around(start, start + bytes.len());
        #[cfg(target_os = "linux")]
        {
            let (start, len) = (range.start as *mut libc::c_void, range.len());
            // Starts the reading of all of it before the first page is waited for. Advice: that it fails changes nothing.
            // SAFETY: advice about mapped pages that leaves their contents alone.
            unsafe { libc::madvise(start, len, libc::MADV_WILLNEED) };
            loop {
                // SAFETY: as above; the pages are readable.
                let done = unsafe { libc::madvise(start, len, libc::MADV_POPULATE_READ) };
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
        let _ = range;
        let sum = bytes
            .iter()
            .step_by(page_bytes())
            .chain(bytes.last())
            .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        std::hint::black_box(sum);
        Ok(())
    }

    /// Lets go of the pages that begin no later than `bytes` end: they are read from their file again when they are needed.
    /// `bytes` lie in a private mapping of a file that nobody has written to.
    pub(crate) fn let_go(&self, bytes: &[u8]) {
        let start = bytes.as_ptr().addr();
        let range = self.behind(start, start + bytes.len());
        #[cfg(target_os = "linux")]
        if !range.is_empty() {
            let (start, len) = (range.start as *mut libc::c_void, range.len());
            // SAFETY: the pages are those of a private mapping of a file, never written to, so they hold the file's bytes
            // again at the next access.
            unsafe { libc::madvise(start, len, libc::MADV_DONTNEED) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }
}

/// Tells the system that it need not keep what it has of a part of a file that nobody has mapped. Advice: that it is not taken
/// changes nothing.
pub(crate) fn forget(file: &std::fs::File, offset: u64, bytes: u64) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        if let (Ok(offset), Ok(bytes)) = (offset.try_into(), bytes.try_into()) {
            // SAFETY: advice about an open file.
            unsafe {
                libc::posix_fadvise(file.as_raw_fd(), offset, bytes, libc::POSIX_FADV_DONTNEED)
            };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, bytes);
}

/// Gives the whole pages of `len` bytes from `start` on back to the system. Where the system takes them, they are zero at the next
/// access; the bytes around them, or all where it does not, stay as they are.
///
/// # Safety
/// The memory is a private, anonymous allocation of the caller's, to which there is no reference.
pub(crate) unsafe fn zero(start: *mut u8, len: usize) {
    #[cfg(target_os = "linux")]
    {
        let page = page_bytes();
        let first = start.addr().next_multiple_of(page);
        let last = (start.addr() + len) & !(page - 1);
        if first < last {
            // SAFETY: whole pages of the caller's memory, which nobody refers to.
            unsafe {
                let first_page = start.add(first - start.addr());
                libc::madvise(first_page.cast(), last - first, libc::MADV_DONTNEED);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, len);
}

/// The huge page of most systems.
pub(crate) const HUGE: usize = 2 << 20;

/// Asks for huge pages where `len` bytes from `start` on are large enough for them: fewer entries for the processor to look
/// up. The memory is the caller's. Advice: a system without them changes nothing.
pub(crate) fn advise_huge(start: *mut u8, len: usize) {
    #[cfg(target_os = "linux")]
    {
        let page = page_bytes();
        let first = start.addr().next_multiple_of(page);
        let last = (start.addr() + len) & !(page - 1);
        if last >= first + 2 * HUGE {
            let skip = first - start.addr();
            // SAFETY: advice about whole pages within memory that the caller owns; their contents stay.
            unsafe {
                libc::madvise(start.add(skip).cast(), last - first, libc::MADV_HUGEPAGE);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, len);
}

/// Bytes of a file that the system has in memory, whole pages counted.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn in_memory(file: &std::fs::File) -> usize {
    // SAFETY: nobody changes the file.
    let mapping = unsafe { memmap2::MmapOptions::new().map_copy_read_only(file) }.expect("mapped");
    let mut pages = vec![0u8; mapping.len().div_ceil(page_bytes())];
    let start = mapping.as_ptr().cast_mut().cast();
    // SAFETY: the vector has a byte for each page of the mapping.
    let done = unsafe { libc::mincore(start, mapping.len(), pages.as_mut_ptr()) };
    assert_eq!(done, 0);
    pages.iter().filter(|page| **page & 1 == 1).count() * page_bytes()
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
        for size in [page_bytes(), 16 << 10, 64 << 10] {
            // The weights of a file begin somewhere in it.
            let weights = &mapping[4096..1_000_000];
            let pages = Pages::with_size(weights, size.max(page_bytes()));
            for range in [0..weights.len(), 5000..5001, 4096..8192, 100..900_000] {
                let expected = &contents[4096..][range.clone()];
                pages.bring(&weights[range.clone()]).expect("readable");
                assert_eq!(&weights[range.clone()], expected);
                pages.let_go(&weights[range.clone()]);
                assert_eq!(&weights[range.clone()], expected);
            }
            pages.bring(&[]).expect("nothing to read");
            pages.let_go(&[]);
        }
    }

    /// 16 KB are the pages of the Raspberry Pi 5's kernel, 64 KB those of some servers'.
    #[test]
    fn whole_pages_of_every_size() {
        for size in [16 << 10, 64 << 10] {
            let at = |start: usize, end: usize| Pages { size, start, end };
            let pages = at(10 * size + 4096, 30 * size + 100);
            assert_eq!(
                pages.around(12 * size + 1, 12 * size + 2),
                12 * size..13 * size
            );
            assert_eq!(pages.around(12 * size, 13 * size), 12 * size..13 * size);
            assert_eq!(
                pages.around(12 * size + 5, 14 * size + 5),
                12 * size..15 * size
            );
            // Not before the system's page that the weights begin in, nor behind them.
            let first = pages.start & !(page_bytes() - 1);
            assert_eq!(pages.around(pages.start, pages.start + 1).start, first);
            assert!(pages.around(30 * size, pages.end).end <= 30 * size + page_bytes());
            // The last page of a part is let go with what follows in it, the first of the weights never.
            assert_eq!(
                pages.behind(12 * size + 5, 14 * size + 5),
                12 * size..14 * size
            );
            assert!(pages.behind(12 * size + 5, 12 * size + 9).is_empty());
            assert!(pages.behind(pages.start, 11 * size).is_empty());
            assert_eq!(pages.bytes((size as u64, size as u64 + 1)), size as u64);
            // Every page of parts that follow each other is let go once, but for the last.
            let parts = [
                (11 * size, 13 * size + 77),
                (13 * size + 77, 13 * size + 99),
                (13 * size + 99, 20 * size + 1),
            ];
            let gone: usize = parts
                .iter()
                .map(|(from, to)| pages.behind(*from, *to).len())
                .sum();
            assert_eq!(gone, 9 * size);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_that_has_become_shorter_is_an_error() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&vec![1; 1 << 20]).expect("written");
        // SAFETY: the file is cut below, and the mapping only read by `bring`, which reports that.
        let mapping = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file) };
        let mapping = mapping.expect("mapped");
        let page = page_bytes();
        file.set_len(page as u64).expect("cut");
        let pages = Pages::of(&mapping);
        pages.bring(&mapping[..page]).expect("still there");
        assert!(pages.bring(&mapping[..1 << 20]).is_err());
    }

    #[test]
    fn huge_pages_change_nothing() {
        let mut memory = vec![7_u8; 9 << 20];
        advise_huge(memory.as_mut_ptr(), memory.len());
        assert!(memory.iter().all(|&byte| byte == 7));
    }
}
