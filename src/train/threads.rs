//! Whose threads layers run on: the current rayon pool's with the feature `rayon`, else the calling thread alone.

use std::sync::Mutex;

use crate::threads::Executor;
// Nothing else in the trainer asks for the feature.
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

/// How many threads layers and the optimiser may use, and whose. No result depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Threads {
    count: usize,
    pool: Pool,
}

impl Threads {
    /// At most `count`; 0 counts as 1.
    pub(super) fn new(count: usize) -> Self {
        Self { count: count.max(1), pool: Pool }
    }

    pub(super) fn count(self) -> usize {
        self.count
    }

    /// What runs the tasks of a kernel.
    pub(super) fn executor(&self) -> &dyn Executor {
        &self.pool
    }
}

/// Elements that make a thread worth its while.
const GRAIN: usize = 1 << 14;

/// Items of `len` elements in one thread's share of `count` of them.
pub(super) fn share(count: usize, len: usize, threads: Threads) -> usize {
    let worth = GRAIN.div_ceil(len.max(1));
    count.div_ceil(threads.count).max(worth).max(1)
}

/// Runs independent jobs, on as many threads as `threads` allows. Threads fetch the next job as they become free, so that
/// there may be any number of jobs without their waiting on a stack, and none need be as long as another.
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
    // Only `next` runs under the lock, and a slice's iterator does not panic: the lock is never poisoned.
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
}
