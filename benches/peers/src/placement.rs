//! Which core each thread runs on. Woken threads left to the scheduler sometimes share a core for a whole sample.

use core_affinity::CoreId;

/// The cores to use, the measuring thread's first; empty where threads must be left to the scheduler.
pub(crate) fn cores(threads: usize) -> Vec<CoreId> {
    let mut cores = core_affinity::get_core_ids().unwrap_or_default();
    if cores.len() < threads {
        eprintln!("note: fewer cores than threads: no thread is pinned");
        return Vec::new();
    }
    // From the last: the first one serves most interrupts.
    cores.reverse();
    cores.truncate(threads);
    cores
}

/// Pins the threads of the current Rayon pool, beginning with the calling one.
pub(crate) fn pin(cores: &[CoreId]) {
    let Some(me) = rayon::current_thread_index().filter(|_| !cores.is_empty()) else { return };
    let pinned = rayon::broadcast(|thread| {
        let place = (thread.index() + cores.len() - me) % cores.len();
        core_affinity::set_for_current(cores[place])
    });
    if pinned.contains(&false) {
        eprintln!("note: the threads could not be pinned to cores");
    }
}

/// The same for OpenMP, as its variable `OMP_PLACES`.
pub(crate) fn openmp(cores: &[CoreId]) -> String {
    let places: Vec<String> = cores.iter().map(|core| format!("{{{}}}", core.id)).collect();
    places.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_has_its_core() {
        let places = cores(1);
        assert_eq!(places.len(), 1);
        assert_eq!(openmp(&[CoreId { id: 3 }, CoreId { id: 1 }]), "{3},{1}");
        assert!(cores(usize::MAX).is_empty());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let pinned = pool.install(|| {
            pin(&places);
            core_affinity::get_core_ids()
        });
        assert_eq!(pinned, Some(places));
    }
}
