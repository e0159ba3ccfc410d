//! Ctrl-C: the first asks running work to stop where it can go on later, the second ends the program.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::Failure;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Listens from now on.
pub(crate) fn listen() -> Result<(), Failure> {
    let handler = || {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\ninterrupted: finishing the step, then saving (again to end at once)");
    };
    ctrlc::set_handler(handler).map_err(|error| format!("listening for Ctrl-C: {error}").into())
}

/// Whether to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
