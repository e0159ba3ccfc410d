//! The threads of layers: those of the current rayon pool with the feature `rayon`, otherwise the calling thread.

use std::sync::Mutex;

use crate::threads::Executor;
// No other file of the trainer depends on the feature.
#[cfg(feature = "rayon")]
use crate::threads::Rayon as Pool;
#[cfg(not(feature = "rayon"))]
use crate::threads::Serial as Pool;

/// Threads of the pool.
pub(super) fn of_pool() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    return 1;
}

/// The threads that layers and the optimiser may use. They do not change results.
#[derive(Clone, Copy, Debug)]
pub(super) struct Threads {
    count: usize,
    pool: Pool,
}

impl Threads {
    /// At most `count` threads. 0 counts as 1.
    pub(super) fn new(count: usize) -> Self {
        Self { count: count.max(1), pool: Pool }
    }

    pub(super) fn count(self) -> usize {
        self.count
    }

    /// The executor of the tasks of a kernel.
    pub(super) fn executor(&self) -> &dyn Executor {
        &self.pool
    }

    /// Runs `work` on a thread of the pool, if there are several. From any other thread, each call of a kernel and each loop of a
    /// layer would wake a thread of the pool, and sleep until that is done.
    pub(super) fn inside<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        #[cfg(feature = "rayon")]
        if self.count > 1 {
            return rayon::scope(|_| work());
        }
        work()
    }
}

/// The least elements that are worth a thread.
const GRAIN: usize = 1 << 14;

/// The number of items in one thread's share of `count` items of `len` elements.
pub(super) fn share(count: usize, len: usize, threads: Threads) -> usize {
    let worth = GRAIN.div_ceil(len.max(1));
    count.div_ceil(threads.count).max(worth).max(1)
}

/// Runs independent jobs on as many threads as `threads` allows. A thread that is free fetches the next job. So there may be any
/// number of jobs, of any lengths, and they do not wait on a stack.
pub(super) fn for_each<J: Send>(
    threads: Threads,
    jobs: impl ExactSizeIterator<Item = J> + Send,
    work: impl Fn(J) + Sync,
) {
    let tasks = threads.count.min(jobs.len());
    if tasks <= 1 {
        return jobs.for_each(work);
    }
    let jobs = Mutex::new(jobs);
    // Only `next` runs while the lock is held, and a slice's iterator does not panic. So the lock is never poisoned.
    let next = || jobs.lock().ok().and_then(|mut jobs| jobs.next());
    threads.executor().run(tasks, &|_| {
        while let Some(job) = next() {
            work(job);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as fill the stack of a thread if each waits there for the next.
    #[test]
    fn many_jobs_all_run() {
        let mut counts = vec![0u8; 100_000];
        for_each(Threads::new(3), counts.chunks_mut(1), |count| count[0] += 1);
        assert!(counts.iter().all(|&count| count == 1));
    }

    #[cfg(feature = "rayon")]
    #[test]
    fn several_threads_work_inside_of_the_pool() {
        for (count, inside) in [(1, false), (2, true)] {
            assert_eq!(Threads::new(count).inside(|| rayon::current_thread_index().is_some()), inside, "{count}");
        }
    }
}
