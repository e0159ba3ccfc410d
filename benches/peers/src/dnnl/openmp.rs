//! Work of ours on the threads of the OpenMP that oneDNN uses.

use std::ffi::{c_uint, c_void};

use libloading::Symbol;

/// `GOMP_parallel(function, data, threads, flags)`
pub(super) type Parallel = unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

type Work<'a> = &'a (dyn Fn() + Sync);

/// The calling thread's pool of threads.
pub(crate) struct OpenMp<'a>(pub(super) Symbol<'a, Parallel>);

impl OpenMp<'_> {
    /// Runs the work once on every thread.
    pub(crate) fn run(&self, mut work: Work<'_>) {
        // SAFETY: `call` is given the pointer that it expects, which lives until all threads are done. 0 threads: as
        // many as OpenMP is set to.
        unsafe { (self.0)(call, (&raw mut work).cast(), 0, 0) };
    }
}

unsafe extern "C" fn call(data: *mut c_void) {
    // SAFETY: `run` passes a pointer to its work, which nobody changes meanwhile.
    let work = unsafe { *data.cast::<Work<'_>>() };
    work();
}
