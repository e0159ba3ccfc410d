//! The shared library of the Python package: the C interface of `convrelu`, and one function that runs the tasks of its calls on
//! threads. Python could not do that itself without taking the interpreter's lock for each task.
//!
//! The threads are those of a pool of this library, or those of PyTorch's OpenMP. Two pools in one process take each other's
//! cores: OpenMP's threads wait in a loop for their next work.

use std::ffi::{c_uint, c_void};
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

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

/// The threads of an OpenMP library, which a caller names as the context of a call.
#[repr(C)]
pub struct Team {
    /// The process that loaded the library. OpenMP's threads do not exist in a child that `fork` makes, but the library still
    /// counts on them: there, a region waits for them forever.
    process: u32,
    /// Its function `GOMP_parallel(region, data, threads, flags)`. It calls `region(data)` on each thread of a team, and returns
    /// when all have returned. 0 threads are as many as the library is set to.
    parallel: unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint),
}

/// Tasks that the threads of a team share.
struct Shared {
    task: convrelu_task,
    task_context: *mut c_void,
    tasks: usize,
    /// The first task that nobody has taken.
    next: AtomicUsize,
}

/// Runs tasks until none is left. So all of them run whatever the number of threads is: inside another region OpenMP gives one.
///
/// # Safety
///
/// `shared` points to a [`Shared`] that outlives the call, and whose task may be called on this thread.
unsafe extern "C" fn region(shared: *mut c_void) {
    // SAFETY: the caller's promise. Other threads read it at the same time, nobody writes it.
    let shared = unsafe { &*shared.cast::<Shared>() };
    loop {
        let index = shared.next.fetch_add(1, Ordering::Relaxed);
        if index >= shared.tasks {
            return;
        }
        // SAFETY: the caller's promise; nobody else gets this number.
        unsafe { (shared.task)(shared.task_context, index) };
    }
}

/// A `convrelu_parallel_for`. Without a context it runs the last task on the calling thread, and the others on a pool of this
/// process. With a [`Team`] it runs them on the threads of that, but on the pool in a child that `fork` made. Where the system
/// gives no threads, all run on the calling thread.
///
/// The team has as many threads as OpenMP is set to, not as many as there are tasks, because libgomp ends and starts threads when
/// the number changes from one region to the next.
///
/// # Safety
///
/// `context` is null or points to a [`Team`] whose function is that of a loaded library. `task` may be called with
/// `task_context` and each number below `tasks`, on any thread, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn convrelu_python_parallel_for(
    context: *mut c_void,
    tasks: usize,
    task: convrelu_task,
    task_context: *mut c_void,
) {
    let address = task_context as usize;
    let run = move |index| {
        // SAFETY: the caller's promise.
        unsafe { task(address as *mut c_void, index) };
    };
    // SAFETY: null, or a team, by the caller's promise.
    let team = unsafe { context.cast::<Team>().as_ref() };
    match tasks {
        0 => (),
        1 => run(0),
        _ => match team {
            Some(team) if team.process == process::id() => {
                let shared = Shared { task, task_context, tasks, next: AtomicUsize::new(0) };
                // SAFETY: the function is OpenMP's, by the caller's promise. It returns when all threads have left the region, so
                // that `shared` outlives them.
                unsafe { (team.parallel)(region, ptr::from_ref(&shared).cast_mut().cast(), 0, 0) };
            }
            _ => match pool(tasks - 1) {
                Some(threads) => threads.in_place_scope(|scope| {
                    for index in 0..tasks - 1 {
                        scope.spawn(move |_| run(index));
                    }
                    run(tasks - 1);
                }),
                None => (0..tasks).for_each(run),
            },
        },
    }
}
