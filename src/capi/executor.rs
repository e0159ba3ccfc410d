//! The caller's threads.

use core::ffi::c_void;
use core::ptr;

use super::types::convrelu_parallel_for;
use crate::threads::{Executor, Serial};

/// A task as the library sees it. `dyn Fn + Sync` may be shared, so it is safe to run it on any thread.
type Task<'a> = &'a (dyn Fn(usize) + Sync);

/// Runs the tasks of a call through the caller's function, or one after another if there is none.
///
/// An [`Executor`] is asked only on the thread of the call, so the context stays on that thread. It need be neither `Send` nor
/// `Sync`. Nor is this type, because it holds raw pointers.
pub(super) struct Callback {
    parallel_for: convrelu_parallel_for,
    context: *mut c_void,
}

impl Callback {
    /// # Safety
    ///
    /// **Callback**, for as long as this is used.
    pub(super) unsafe fn new(parallel_for: convrelu_parallel_for, context: *mut c_void) -> Self {
        Self { parallel_for, context }
    }
}

impl Executor for Callback {
    fn run(&self, tasks: usize, task: Task<'_>) {
        let Some(parallel_for) = self.parallel_for else {
            return Serial.run(tasks, task);
        };
        let task_context = ptr::from_ref(&task).cast_mut().cast();
        // SAFETY: **Callback**, which `new` was promised: all tasks have returned when this returns, so that `task` outlives
        // them.
        unsafe { parallel_for(self.context, tasks, run_task, task_context) };
    }
}

/// Runs a task on a thread of the caller's function. It takes any number, because the library counts what ran. A panic would be a
/// bug in this library. It does not leave this function: `extern "C"` functions abort.
///
/// # Safety
///
/// **Callback**: `task_context` is null or that of [`Callback::run`], which has not returned.
unsafe extern "C" fn run_task(task_context: *mut c_void, index: usize) {
    // SAFETY: **Callback**: it points to a task, which is shared between threads and never written.
    if let Some(task) = unsafe { task_context.cast::<Task<'_>>().as_ref() } {
        task(index);
    }
}
