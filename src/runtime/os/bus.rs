//! SIGBUS: what a mapped file answers with when it can no longer be read.

use std::io;

use crate::Model;

/// From now on the process ends with one line on standard error and exit code 1 when the model's file cannot be read any
/// more: the disk fails, or the file has become shorter. Without it the system ends the process by a signal.
///
/// The first call in a process decides which model is meant; later calls, and calls for a model that is a part of the
/// program, change nothing and return false.
pub fn exit_on_bus_error(model: &Model) -> io::Result<bool> {
    #[cfg(unix)]
    return unix::install(model);
    #[cfg(not(unix))]
    {
        let _ = model;
        Ok(false)
    }
}

#[cfg(unix)]
mod unix {
    use std::io;
    use std::ops::Range;
    use std::sync::OnceLock;

    use crate::Model;

    /// What the handler needs, made beforehand: it may not allocate.
    struct Watched {
        addresses: Range<usize>,
        line: Box<[u8]>,
    }

    static WATCHED: OnceLock<Watched> = OnceLock::new();

    pub(super) fn install(model: &Model) -> io::Result<bool> {
        let Some(addresses) = model.mapped_addresses() else {
            return Ok(false);
        };
        let line = format!(
            "kiln: {}: cannot be read any more: the disk fails, or the file has become shorter\n",
            model.origin()
        );
        let watched = Watched {
            addresses,
            line: line.into_bytes().into(),
        };
        if WATCHED.set(watched).is_err() {
            return Ok(false);
        }
        // SAFETY: `sigaction` is a plain structure for which all zeros is a valid value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_bus_error
            as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void)
            as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: `action` is initialized, and its handler does only what POSIX allows in a handler.
        match unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) } {
            0 => Ok(true),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Runs inside a signal: `write`, `_exit` and `sigaction`, nothing else.
    extern "C" fn on_bus_error(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        _: *mut libc::c_void,
    ) {
        // SAFETY: the system gives a valid `siginfo_t` to a handler of SA_SIGINFO, and SIGBUS has an address.
        let address = unsafe { (*info).si_addr() }.addr();
        let watched = WATCHED
            .get()
            .filter(|watched| watched.addresses.contains(&address));
        match watched {
            // SAFETY: the line is initialized and never freed; `_exit` does not return.
            Some(watched) => unsafe {
                libc::write(2, watched.line.as_ptr().cast(), watched.line.len());
                libc::_exit(1);
            },
            // Somebody else's: the access is repeated after the return, and ends the process as it would have.
            None => unsafe {
                // SAFETY: as in `install`; all zeros with SIG_DFL.
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &action, std::ptr::null_mut());
            },
        }
    }
}
