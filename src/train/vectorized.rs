//! Loops compiled for the widest vectors of the machine, and spread over threads.

use std::sync::Mutex;

use crate::parallel;

/// Defines functions whose loops the compiler turns into vectors of the best instruction set, chosen at run time. They
/// hold plain arithmetic in a fixed order, never a fused multiply-add, so every instruction set computes the same bits.
///
/// What the body calls must be `#[inline(always)]`, or it is compiled for the baseline.
macro_rules! vectorized {
    ($($(#[$meta:meta])* $visibility:vis fn $name:ident<$life:lifetime>($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $visibility fn $name<$life>($($arg: $type),*) $(-> $result)? {
            struct Operation<$life> { $($arg: $type),* }
            impl<$life> pulp::WithSimd for Operation<$life> {
                type Output = vectorized!(@output $($result)?);
                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
                    let Self { $($arg),* } = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Operation { $($arg),* })
        }
    )*};
    (@output) => { () };
    (@output $result:ty) => { $result };
}
pub(super) use vectorized;

/// Partial sums of a reduction: their number is part of the result's bits, so it is the same on every machine.
pub(super) const LANES: usize = 16;

/// Sum of partial sums, by halves.
#[inline(always)]
pub(super) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Elements that make a thread worth its while.
const GRAIN: usize = 1 << 14;

/// Items of `len` elements in one thread's share of `count` of them.
pub(super) fn share(count: usize, len: usize, threads: usize) -> usize {
    let worth = GRAIN.div_ceil(len.max(1));
    count.div_ceil(threads.max(1)).max(worth).max(1)
}

/// Runs independent jobs, on as many threads as `threads` allows. Threads fetch the next job as they become free, so that
/// there may be any number of jobs without their waiting on a stack, and none need be as long as another.
pub(super) fn for_each<J: Send>(
    threads: usize,
    jobs: impl ExactSizeIterator<Item = J> + Send,
    work: impl Fn(J) + Sync,
) {
    let threads = threads.min(jobs.len());
    if threads <= 1 {
        return jobs.for_each(work);
    }
    let jobs = Mutex::new(jobs);
    // Only `next` runs under the lock, and a slice's iterator does not panic: the lock is never poisoned.
    let next = || jobs.lock().ok().and_then(|mut jobs| jobs.next());
    parallel::for_each(threads, 0..threads, &|_| {
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
        for_each(3, counts.chunks_mut(1), |count| count[0] += 1);
        assert!(counts.iter().all(|&count| count == 1));
    }
}
