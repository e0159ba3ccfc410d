//! Spreading independent jobs over threads: rayon's where the feature is on, the caller's alone where it is not.

/// Threads that plans use unless told otherwise.
pub(crate) fn default_threads() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    return 1;
}

/// Runs `work` on each of the `count` jobs, in any order and at the same time where threads are free. Allocates
/// nothing: jobs wait on the stack of the call.
pub(crate) fn for_each<J: Send>(count: usize, mut jobs: impl Iterator<Item = J> + Send, work: &(impl Fn(J) + Sync)) {
    #[cfg(feature = "rayon")]
    if count > 1 {
        if let Some(job) = jobs.next() {
            rayon::join(|| work(job), || for_each(count - 1, jobs, work));
        }
        return;
    }
    let _ = count;
    jobs.by_ref().for_each(work);
}
