//! Threads belong to the caller. A call splits its work into tasks, and an [`Executor`] of the caller runs them.

use crate::error::Error;
use crate::geometry::MOST_PARTS;
#[cfg(all(target_has_atomic = "8", not(target_os = "none")))]
use crate::kernel::Deal;

/// Runs the tasks of a call on the caller's threads.
///
/// A call makes at most as many tasks as its plan has [threads](crate::ConvRelu::with_threads), and at most 128. With one task it
/// does not ask the executor.
///
/// The guide's page [threads](crate::guide::threads) has an executor on threads of the standard library.
///
/// On targets without an operating system a call never asks the executor. It runs its tasks one after another on the calling
/// thread, so that firmware links nothing for threads.
///
/// If an executor runs a task twice or never, the call returns [`Error::Executor`]. The results are undefined then, but the call
/// reads and writes nothing out of bounds.
///
/// After `fork`, a child process has only the thread that forked. [`Serial`] works there. The threads of a rayon pool that the
/// parent has used do not exist in the child, so a call would wait for them forever.
pub trait Executor {
    /// Runs `task(0)`, …, `task(tasks − 1)`, each exactly once, in any order, on any threads. Returns when all of them have
    /// returned.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// The calling thread alone, one task after another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Executor for Serial {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

/// The current [rayon](https://docs.rs/rayon) pool.
///
/// ```
/// use convrelu::{ConvDesc, ConvRelu};
///
/// let desc = ConvDesc::conv2d(8, 48, 12, [32, 32], [3, 3]).padding([1, 1]).build()?;
/// let plan = ConvRelu::new(desc).with_threads(rayon::current_num_threads());
/// // plan.forward(operands, &mut output, &mut workspace, &convrelu::Rayon)
/// # let _ = plan;
/// # Ok::<(), convrelu::Error>(())
/// ```
#[cfg(feature = "rayon")]
#[cfg_attr(docsrs, doc(cfg(feature = "rayon")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Rayon;

#[cfg(feature = "rayon")]
impl Executor for Rayon {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        /// Halves the range, so that joins nest only as deep as the logarithm of the number of tasks.
        fn run(first: usize, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
            if tasks <= 1 {
                (first..first + tasks).for_each(task);
                return;
            }
            let half = tasks / 2;
            rayon::join(|| run(first, half, task), || run(first + half, tasks - half, task));
        }
        run(0, tasks, task);
    }
}

/// Runs `work` on each of the `count` jobs, of which there are at most [`MOST_PARTS`]. The executor decides about their order and
/// runs some at the same time if it has threads. Nothing is allocated: the jobs wait on the stack of the call.
///
/// # Errors
///
/// [`Error::Executor`].
pub(crate) fn for_each<J: Send>(
    executor: &dyn Executor,
    count: usize,
    jobs: impl Iterator<Item = J>,
    work: &(impl Fn(J) + Sync),
) -> Result<(), Error> {
    match count {
        0 | 1 => {
            jobs.for_each(work);
            Ok(())
        }
        // Room for 8, 32 or 128 jobs. With a single size, calls on few threads would use kilobytes of stack for jobs that they do
        // not have. More sizes would mean more code.
        2..=8 => deal::<J, 8>(executor, count, jobs, work),
        9..=32 => deal::<J, 32>(executor, count, jobs, work),
        _ => deal::<J, MOST_PARTS>(executor, count, jobs, work),
    }
}

/// [`for_each`] with room for `N` jobs, which is not less than `count`.
#[cfg(all(target_has_atomic = "8", not(target_os = "none")))]
#[inline(never)]
fn deal<J: Send, const N: usize>(
    executor: &dyn Executor,
    count: usize,
    jobs: impl Iterator<Item = J>,
    work: &(impl Fn(J) + Sync),
) -> Result<(), Error> {
    use core::sync::atomic::{AtomicUsize, Ordering};

    const NONE: usize = usize::MAX;
    let mut deal = Deal::<J, N>::empty();
    deal.fill(jobs);
    let again = AtomicUsize::new(NONE);
    executor.run(count, &|task| match deal.take(task) {
        Some(job) => work(job),
        None => again.store(task.min(NONE - 1), Ordering::Relaxed),
    });
    let error = |task, never| Err(Error::Executor { tasks: count, task, never });
    match (again.into_inner(), deal.left()) {
        (NONE, None) => Ok(()),
        (NONE, Some(task)) => error(task, true),
        (task, _) => error(task, false),
    }
}

/// Firmware has one thread. The code that deals jobs to threads would take 1 to 4 KiB of flash.
#[cfg(not(all(target_has_atomic = "8", not(target_os = "none"))))]
fn deal<J: Send, const N: usize>(
    _executor: &dyn Executor,
    _count: usize,
    jobs: impl Iterator<Item = J>,
    work: &(impl Fn(J) + Sync),
) -> Result<(), Error> {
    jobs.for_each(work);
    Ok(())
}

/// A buffer. Each [`cut`](Self::cut) takes a part off its front.
pub(crate) struct Rest<'a>(&'a mut [f32]);

impl<'a> Rest<'a> {
    pub(crate) fn of(buffer: &'a mut [f32]) -> Self {
        Self(buffer)
    }

    /// The next `len` elements.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub(crate) fn cut(&mut self, len: usize) -> &'a mut [f32] {
        let (part, rest) = core::mem::take(&mut self.0).split_at_mut(len);
        self.0 = rest;
        part
    }
}
