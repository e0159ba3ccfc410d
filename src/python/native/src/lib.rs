//! The shared library of the Python package: the C interface of `convrelu`, and one function that runs the tasks of its calls on
//! threads. Python could not do that itself without taking the interpreter's lock for each task.

use std::ffi::c_void;
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use convrelu::capi::convrelu_task;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Threads beside the calling one, of one process.
struct Pool {
    process: u32,
    workers: usize,
    threads: ThreadPool,
}

/// The pool in use. Pools are leaked, never freed: there are as many as the number of threads has grown, and one more in each
/// child that `fork` makes, where the threads of its parent do not exist. No lock is held while it changes, so that a child
/// never inherits one.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());

/// A pool of this process with at least so many workers; none where the system gives no threads.
fn pool(workers: usize) -> Option<&'static ThreadPool> {
    let process = process::id();
    loop {
        let found = POOL.load(Ordering::Acquire);
        // SAFETY: null, or a pool that was leaked below, and that nobody writes.
        if let Some(pool) = unsafe { found.as_ref() }
            && pool.process == process
            && pool.workers >= workers
        {
            return Some(&pool.threads);
        }
        let name = |index| format!("convrelu-{index}");
        let threads = ThreadPoolBuilder::new().num_threads(workers).thread_name(name).build().ok()?;
        let new = Box::into_raw(Box::new(Pool { process, workers, threads }));
        if POOL.compare_exchange(found, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Another thread was faster.
            // SAFETY: it came from `Box::into_raw` above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
        }
    }
}

/// A `convrelu_parallel_for`: runs the last task on the calling thread, the others on a pool of this process. Where the
/// system gives no threads, all run on the calling thread. The context is not used.
///
/// # Safety
///
/// `task` may be called with `task_context` and each number below `tasks`, on any thread, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_python_parallel_for(
    _context: *mut c_void,
    tasks: usize,
    task: convrelu_task,
    task_context: *mut c_void,
) {
    let address = task_context as usize;
    let run = move |index| {
        // SAFETY: the caller's promise.
        unsafe { task(address as *mut c_void, index) };
    };
    match tasks {
        0 => (),
        1 => run(0),
        _ => match pool(tasks - 1) {
            Some(threads) => threads.in_place_scope(|scope| {
                for index in 0..tasks - 1 {
                    scope.spawn(move |_| run(index));
                }
                run(tasks - 1);
            }),
            None => (0..tasks).for_each(run),
        },
    }
}
