//! Jobs that are handed out by number. Each is handed out once, no matter who asks and how often.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

/// At most `N` jobs. [`take`](Self::take) hands each of them to the first caller who asks for its number.
///
/// Jobs that nobody takes are not dropped. They only borrow and own nothing.
pub(crate) struct Deal<J, const N: usize> {
    jobs: [Job<J>; N],
    count: usize,
}

struct Job<J> {
    taken: AtomicBool,
    job: UnsafeCell<MaybeUninit<J>>,
}

// SAFETY: `take` is the only function that reads a job through a shared reference. It reads a job for the one caller that finds
// it not taken. So the job moves from the thread that made it to the thread of that caller, which `Send` allows.
unsafe impl<J: Send, const N: usize> Sync for Deal<J, N> {}

impl<J, const N: usize> Deal<J, N> {
    /// No jobs.
    pub(crate) const fn empty() -> Self {
        Self {
            jobs: [const { Job { taken: AtomicBool::new(false), job: UnsafeCell::new(MaybeUninit::uninit()) } }; N],
            count: 0,
        }
    }

    /// Replaces the jobs by the first `N` of others. They are written in place: a function that returned a new deal would have it
    /// on the stack twice, with tens of kilobytes each time.
    pub(crate) fn fill(&mut self, jobs: impl Iterator<Item = J>) {
        self.count = 0;
        for (slot, job) in self.jobs.iter_mut().zip(jobs) {
            *slot.taken.get_mut() = false;
            slot.job.get_mut().write(job);
            self.count += 1;
        }
    }

    /// Job `index`. None if it was taken, or if there is no such job.
    pub(crate) fn take(&self, index: usize) -> Option<J> {
        let Job { taken, job } = self.jobs[..self.count].get(index)?;
        if taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        // SAFETY: `fill` has written the first `count` jobs. The exchange of `taken` lets a single caller reach this line for a
        // job, and only once.
        Some(unsafe { (*job.get()).assume_init_read() })
    }

    /// The first job that was not taken.
    pub(crate) fn left(&self) -> Option<usize> {
        self.jobs[..self.count].iter().position(|job| !job.taken.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_dealt_once() {
        let mut deal = Deal::<_, 4>::empty();
        deal.fill([10, 11, 12].into_iter());
        assert_eq!((deal.take(1), deal.take(1), deal.take(3)), (Some(11), None, None));
        assert_eq!(deal.left(), Some(0));
        assert_eq!((deal.take(0), deal.take(2), deal.left()), (Some(10), Some(12), None));
    }
}
