//! The multiply-add loop on all threads of one side's pool: the roof of our percentages, and what shows disturbance.

use std::sync::Mutex;

use convrelu::Isa;

use crate::dnnl::Dnnl;
use crate::peak;

/// Runs of the loop per call where threads must be woken, which takes longer than one run.
const RUNS: usize = 20;

/// A call that returns how many floating-point operations it did.
pub(crate) type Loop<'a> = Box<dyn Fn() -> f64 + 'a>;

/// On the threads that our side uses. `None` where the instruction set has no loop.
pub(crate) fn ours(isa: Isa, threads: usize) -> Option<Loop<'static>> {
    let multiply_adds = peak::multiply_adds(isa)?;
    Some(if threads == 1 {
        Box::new(multiply_adds)
    } else {
        Box::new(move || rayon::broadcast(|_| runs(multiply_adds)).into_iter().sum())
    })
}

/// On the threads that oneDNN uses. `None` also where its OpenMP offers no way to run something of ours.
pub(crate) fn onednn(isa: Isa, dnnl: &Dnnl) -> Option<Loop<'_>> {
    let multiply_adds = peak::multiply_adds(isa)?;
    let parallel = dnnl.openmp()?;
    Some(Box::new(move || {
        let total = Mutex::new(0.0);
        parallel.run(&|| {
            let done = runs(multiply_adds);
            *total.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += done;
        });
        total.into_inner().unwrap_or_default()
    }))
}

fn runs(multiply_adds: fn() -> f64) -> f64 {
    (0..RUNS).map(|_| multiply_adds()).sum()
}
