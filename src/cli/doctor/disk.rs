//! Where a package lies, and how fast it can be read from there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of one read. Buffer, place and length of a direct read are multiples of the disk's blocks, which are no larger.
const BLOCK: usize = 1 << 20;
/// Enough to tell: so long, or so many bytes.
const LONG_ENOUGH: Duration = Duration::from_millis(1500);
const MUCH_ENOUGH: u64 = 512 << 20;

/// A place in the file system.
#[derive(Debug, Default, PartialEq)]
pub struct Place {
    /// What is mounted there, such as `/dev/mmcblk0p2`.
    pub device: String,
    /// The file system's kind, such as `ext4`.
    pub kind: String,
}

/// Where a file lies, by the mounts that `root` tells of.
pub fn place(root: &Path, file: &Path) -> Option<Place> {
    let file = fs::canonicalize(file).ok()?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    of_mounts(&mounts, &file)
}

/// The longest mount point that the file lies under; of several at one point the last, which hides the others.
fn of_mounts(mounts: &str, file: &Path) -> Option<Place> {
    let mut found: Option<(usize, Place)> = None;
    for line in mounts.lines() {
        let Some((mount, source)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(point), mut source) = (mount.split(' ').nth(4), source.split(' ').map(unescaped))
        else {
            continue;
        };
        let point = PathBuf::from(unescaped(point));
        let (Some(kind), Some(device)) = (source.next(), source.next()) else {
            continue;
        };
        let depth = point.components().count();
        let deeper = found.as_ref().is_none_or(|(deepest, _)| depth >= *deepest);
        if file.starts_with(&point) && deeper {
            found = Some((depth, Place { device, kind }));
        }
    }
    found.map(|(_, place)| place)
}

/// `\040` stands for a blank, and so on.
fn unescaped(text: &str) -> String {
    let mut plain = Vec::new();
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        let code = rest
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(*first));
        bytes = if code.is_some() { &rest[3..] } else { rest };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Bytes in a second that reading the file from its disk gives, past the system's cache; `None` where the file system cannot
/// do that (one that lives in memory, for example).
pub fn read_speed(file: &Path) -> io::Result<Option<f64>> {
    let Some(mut file) = direct(file)? else {
        return Ok(None);
    };
    match speed(&mut file) {
        // Some file systems accept the flag and refuse the read.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        result => result,
    }
}

#[cfg(target_os = "linux")]
fn direct(file: &Path) -> io::Result<Option<File>> {
    use std::os::unix::fs::OpenOptionsExt;

    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(file);
    match opened {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        opened => opened.map(Some),
    }
}

#[cfg(not(target_os = "linux"))]
fn direct(_: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

/// Reads from the beginning until it is enough. A file with nothing in it has no speed.
fn speed(file: &mut impl Read) -> io::Result<Option<f64>> {
    let mut buffer = vec![0; 2 * BLOCK];
    let aligned = buffer.as_ptr().align_offset(BLOCK);
    let buffer = &mut buffer[aligned..][..BLOCK];
    let start = Instant::now();
    let mut bytes = 0;
    while bytes < MUCH_ENOUGH && start.elapsed() < LONG_ENOUGH {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(read) => bytes += read as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        // A direct read after a short one would not begin at a block.
        if !bytes.is_multiple_of(4096) {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64().max(1e-6);
    Ok((bytes > 0).then(|| bytes as f64 / seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_is_where_a_file_lies() {
        let mounts = "\
22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw
23 22 0:5 / /proc rw - proc proc rw
24 22 8:1 / /media/my\\040disk rw - exfat /dev/sda1 rw
nonsense
25 22 0:31 / /media/my\\040disk/small rw - tmpfs tmpfs rw
";
        let lies = |file: &str| of_mounts(mounts, Path::new(file)).map(|place| place.device);
        assert_eq!(lies("/home/pi/a.kiln").as_deref(), Some("/dev/mmcblk0p2"));
        assert_eq!(lies("/media/my disk/a.kiln").as_deref(), Some("/dev/sda1"));
        assert_eq!(lies("/media/my disks").as_deref(), Some("/dev/mmcblk0p2"));
        assert_eq!(lies("/media/my disk/small/x").as_deref(), Some("tmpfs"));
        assert_eq!(of_mounts("", Path::new("/a")), None);
    }

    /// Has so many bytes.
    struct Source(u64);

    impl Read for Source {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let given = buffer.len().min(self.0 as usize);
            self.0 -= given as u64;
            Ok(given)
        }
    }

    #[test]
    fn reading_ends_with_the_file_or_when_it_is_enough() {
        assert_eq!(speed(&mut Source(0)).expect("read"), None);
        assert!(speed(&mut Source(5_000_000)).expect("read") > Some(0.0));
        let mut endless = Source(u64::MAX);
        assert!(speed(&mut endless).expect("read") > Some(0.0));
        assert!(u64::MAX - endless.0 <= MUCH_ENOUGH);
    }

    #[test]
    fn a_file_is_read_past_the_cache_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("some");
        fs::write(&file, vec![1; 3_000_001]).expect("written");
        if let Some(speed) = read_speed(&file).expect("readable") {
            assert!(speed > 0.0);
        }
        assert!(read_speed(&folder.path().join("none")).is_err());
    }
}
