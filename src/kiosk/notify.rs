//! What systemd is told (`sd_notify(3)`): that the kiosk is ready, what it does, and that it lives.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs, io, process};

/// The socket that systemd listens to, if there is one.
#[derive(Debug, Default)]
pub struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// The one that `NOTIFY_SOCKET` names.
    pub fn from_env() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else {
            return Self::default();
        };
        match connect(name.as_encoded_bytes(), Path::new(&name)) {
            Ok(socket) => Self(Some(socket)),
            Err(error) => {
                tracing::warn!("NOTIFY_SOCKET={}: {error}", name.display());
                Self::default()
            }
        }
    }

    /// Sends lines such as `READY=1`. Nobody waits for an answer.
    pub fn tell(&self, lines: &str) {
        if let Some(socket) = &self.0 {
            // Where systemd is not there any more, nobody needs it.
            let _ = socket.send(lines.as_bytes());
        }
    }
}

/// A path, or a name in the abstract namespace behind an `@`.
fn connect(name: &[u8], path: &Path) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A full queue is no reason to stand still for long, and none to lose what is said.
    socket.set_write_timeout(Some(Duration::from_secs(2)))?;
    Ok(socket)
}

/// Tells systemd that the kiosk lives, while it does: while its loop goes round or its process computes. A step may take longer
/// than the watchdog's time, so the loop alone cannot tell.
#[derive(Debug)]
pub struct Watchdog {
    beats: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// The one that `WATCHDOG_USEC` asks for, if it is this process that is meant.
    pub fn from_env() -> Self {
        let own = process::id().to_string();
        let is_meant = env::var("WATCHDOG_PID").map_or(true, |pid| pid == own);
        let time = env::var("WATCHDOG_USEC").ok().filter(|_| is_meant);
        let time = time
            .and_then(|text| text.parse().ok())
            .filter(|micros| *micros > 0);
        Self::new(time.map(Duration::from_micros), Notifier::from_env())
    }

    fn new(time: Option<Duration>, notifier: Notifier) -> Self {
        let (beats, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = time.map(|time| {
            let (beats, stop) = (beats.clone(), stop.clone());
            thread::spawn(move || ping(time / 3, &notifier, &beats, &stop, &mut cpu_ticks))
        });
        Self {
            beats,
            stop,
            thread,
        }
    }

    /// The loop has gone round.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It ends by itself.
            let _ = thread.join();
        }
    }
}

/// Sends a sign of life each `every`, if there was one.
fn ping(
    every: Duration,
    notifier: &Notifier,
    beats: &AtomicU64,
    stop: &AtomicBool,
    ticks: &mut dyn FnMut() -> u64,
) {
    // A hundredth of one core, in ticks of 10 ms; this thread takes far less.
    let least = (every.as_millis() as u64 / 1000).max(2);
    let mut last = (beats.load(Ordering::Relaxed), ticks());
    notifier.tell("WATCHDOG=1");
    loop {
        let start = Instant::now();
        while let Some(left) = every.checked_sub(start.elapsed()) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            thread::park_timeout(left);
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let now = (beats.load(Ordering::Relaxed), ticks());
        if now.0 != last.0 || now.1 >= last.1 + least {
            notifier.tell("WATCHDOG=1");
            last = now;
        }
    }
}

/// Processor time of this process, user's and system's, in ticks: fields 14 and 15 of `proc_pid_stat(5)`.
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let fields = behind_name.split(' ').skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_end_with_life() {
        let name = format!("kiln-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let listener = UnixDatagram::bind_addr(&address).expect("a socket");
        listener
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a timeout");
        let connected = || {
            let name = format!("@{name}");
            Notifier(Some(
                connect(name.as_bytes(), Path::new(&name)).expect("connected"),
            ))
        };
        let hears = |listener: &UnixDatagram| {
            let mut bytes = [0; 64];
            listener.recv(&mut bytes).map(|len| bytes[..len].to_vec())
        };
        connected().tell("READY=1");
        assert_eq!(hears(&listener).expect("told"), b"READY=1");

        let (beats, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let notifier = connected();
            let (beats, stop) = (&beats, &stop);
            // No processor time passes here.
            scope.spawn(move || ping(Duration::from_millis(20), &notifier, beats, stop, &mut || 7));
            assert_eq!(hears(&listener).expect("a first sign"), b"WATCHDOG=1");
            for _ in 0..3 {
                beats.fetch_add(1, Ordering::Relaxed);
                assert_eq!(hears(&listener).expect("a sign"), b"WATCHDOG=1");
            }
            listener
                .set_read_timeout(Some(Duration::from_millis(200)))
                .expect("a timeout");
            assert!(hears(&listener).is_err());
            stop.store(true, Ordering::Relaxed);
        });
        // Somebody who computes lives.
        listener
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a timeout");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let (notifier, beats, stop, mut ticks) = (connected(), &beats, &stop, 0);
            let mut computes = move || {
                ticks += 2;
                ticks
            };
            scope.spawn(move || {
                ping(
                    Duration::from_millis(20),
                    &notifier,
                    beats,
                    stop,
                    &mut computes,
                )
            });
            for _ in 0..3 {
                assert_eq!(hears(&listener).expect("a sign"), b"WATCHDOG=1");
            }
            stop.store(true, Ordering::Relaxed);
        });
        let before = cpu_ticks();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(200) {
            std::hint::spin_loop();
        }
        assert!(cpu_ticks() > before);
    }
}
