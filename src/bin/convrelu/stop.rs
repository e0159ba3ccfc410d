//! Signals that ask the program to end (Ctrl-C, termination, hanging up). The first one asks running work to stop at a point
//! from which it can continue later. The second one ends the program. While data are loaded there is nothing to save, so loading
//! that does not stop by itself is ended. A signal that was ignored when the program began, as with `nohup`, stays ignored.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::{Failure, output};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static LOADING: AtomicBool = AtomicBool::new(false);

/// The time that loading may take to stop. A file system that does not answer could delay it for ever.
const PATIENCE: Duration = Duration::from_millis(700);

/// Exit status of interrupted work.
pub(crate) const INTERRUPTED: u8 = 130;

/// Begins to listen for signals.
pub(crate) fn listen() -> Result<(), Failure> {
    let ignored = disposition::ignored();
    let handler = || {
        let again = REQUESTED.swap(true, Ordering::Relaxed);
        if LOADING.load(Ordering::Relaxed) {
            output::note("\ninterrupted while data are loaded: training has not begun, so nothing is lost");
            thread::sleep(PATIENCE);
            if LOADING.load(Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
        } else if again {
            std::process::exit(INTERRUPTED.into());
        } else {
            output::note("\ninterrupted: finishing the step, then saving (interrupt again to end at once)");
        }
    };
    ctrlc::set_handler(handler).map_err(|error| format!("listening for Ctrl-C: {error}"))?;
    disposition::ignore(&ignored);
    Ok(())
}

/// Whether to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Runs work that has nothing to save.
pub(crate) fn while_loading<T>(load: impl FnOnce() -> T) -> T {
    LOADING.store(true, Ordering::Relaxed);
    let loaded = load();
    LOADING.store(false, Ordering::Relaxed);
    loaded
}

/// The action of the system for a signal.
#[cfg(unix)]
mod disposition {
    /// The signals that [`listen`](super::listen) hears.
    const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

    /// Signals that are ignored now.
    pub(super) fn ignored() -> Vec<libc::c_int> {
        let is_ignored = |&signal: &libc::c_int| {
            // SAFETY: the structure holds integers, a set of signals and an address that may be null, so zeros are one. With
            // no new action the call only writes the present one, to a structure of its type that lives until it is read.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
            }
        };
        SIGNALS.into_iter().filter(is_ignored).collect()
    }

    /// Ignores them again.
    pub(super) fn ignore(signals: &[libc::c_int]) {
        for &signal in signals {
            // SAFETY: these are signals that can be ignored, and ignoring runs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

#[cfg(not(unix))]
mod disposition {
    pub(super) fn ignored() {}

    pub(super) fn ignore(_: &()) {}
}
