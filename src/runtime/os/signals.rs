//! SIGINT and SIGTERM as a request to stop; SIGHUP and SIGUSR1 as requests of other kinds.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Cancellation;

static CANCELLATION: OnceLock<Cancellation> = OnceLock::new();

/// From now on the first SIGINT or SIGTERM sets `cancellation`, and the second ends the process at once.
///
/// The first call in a process decides which [`Cancellation`] is meant; later calls change nothing and return false.
pub fn cancel_on_signal(cancellation: &Cancellation) -> io::Result<bool> {
    if CANCELLATION.set(cancellation.clone()).is_err() {
        return Ok(false);
    }
    #[cfg(unix)]
    for signal in SIGNALS {
        set(
            signal,
            on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t,
        )?;
    }
    Ok(true)
}

#[cfg(unix)]
const SIGNALS: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

#[cfg(unix)]
fn set(signal: libc::c_int, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: `sigaction` is a plain structure for which all zeros is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is initialized, and its handler, where there is one, does only what POSIX allows in a handler.
    match unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs inside a signal: loads and stores atomics and calls `sigaction`, nothing else.
#[cfg(unix)]
extern "C" fn on_signal(_: libc::c_int) {
    if let Some(cancellation) = CANCELLATION.get() {
        cancellation.cancel();
    }
    for signal in SIGNALS {
        // A failure leaves the handler in place: the next signal then asks once more.
        let _ = set(signal, libc::SIG_DFL);
    }
}

static RELOAD: AtomicBool = AtomicBool::new(false);
static DRAW_NOW: AtomicBool = AtomicBool::new(false);

/// From now on SIGHUP and SIGUSR1 are noted, for [`take_reload`] and [`take_draw_now`], instead of ending the process.
pub fn note_requests() -> io::Result<()> {
    #[cfg(unix)]
    for signal in [libc::SIGHUP, libc::SIGUSR1] {
        set(
            signal,
            on_request as extern "C" fn(libc::c_int) as libc::sighandler_t,
        )?;
    }
    Ok(())
}

/// Whether there was a SIGHUP since the last time.
pub fn take_reload() -> bool {
    RELOAD.swap(false, Ordering::AcqRel)
}

/// Whether there was a SIGUSR1 since the last time.
pub fn take_draw_now() -> bool {
    DRAW_NOW.swap(false, Ordering::AcqRel)
}

/// Runs inside a signal: stores an atomic, nothing else.
#[cfg(unix)]
extern "C" fn on_request(signal: libc::c_int) {
    let noted = if signal == libc::SIGHUP {
        &RELOAD
    } else {
        &DRAW_NOW
    };
    noted.store(true, Ordering::Release);
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn handler(signal: libc::c_int) -> libc::sighandler_t {
        // SAFETY: as in `set`; no new action is given, and the old one is written to `action`.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            assert_eq!(libc::sigaction(signal, std::ptr::null(), &mut action), 0);
            action.sa_sigaction
        }
    }

    #[test]
    fn the_first_signal_cancels_and_the_second_is_left_to_the_system() {
        let cancellation = Cancellation::new();
        assert!(cancel_on_signal(&cancellation).expect("signals"));
        assert!(!cancel_on_signal(&Cancellation::new()).expect("signals"));
        assert!(!cancellation.is_cancelled());
        assert!(
            SIGNALS
                .iter()
                .all(|signal| handler(*signal) != libc::SIG_DFL)
        );
        // SAFETY: SIGTERM has a handler.
        assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
        assert!(cancellation.is_cancelled());
        assert!(
            SIGNALS
                .iter()
                .all(|signal| handler(*signal) == libc::SIG_DFL)
        );
    }
    #[test]
    fn requests_are_noted_once() {
        note_requests().expect("signals");
        assert!(!take_reload() && !take_draw_now());
        for (signal, take) in [
            (libc::SIGHUP, take_reload as fn() -> bool),
            (libc::SIGUSR1, take_draw_now),
        ] {
            // SAFETY: both have handlers.
            assert_eq!(unsafe { libc::raise(signal) }, 0);
            assert!(take());
            assert!(!take_reload() && !take_draw_now());
        }
    }
}
