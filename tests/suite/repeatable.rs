//! The same call gives the same bits: again, with any number of threads, in any thread pool, at any alignment.

use convrelu::{ConvRelu, Tuning};
use proptest::prelude::*;

use crate::common::{Case, How, PASSES, Placement, Results, isas, plan, run};
use crate::strategy;

fn all_passes(plan: &ConvRelu, case: &Case, at: Placement) -> [Results; PASSES.len()] {
    PASSES.map(|pass| run(plan, pass, case, How { at, ..How::default() }, None))
}

/// Runs `body` in a pool of another size than the machine's, where there are pools.
fn in_another_pool<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    #[cfg(feature = "rayon")]
    {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool of three threads");
        pool.install(body)
    }
    #[cfg(not(feature = "rayon"))]
    body()
}

/// Every thread count against one thread, for the plans of all instruction sets.
fn check(case: &Case, at: Placement, tuning: Option<Tuning>) {
    for isa in isas() {
        let plan = plan(case.desc, isa, tuning);
        let once = all_passes(&plan, case, Placement::default());
        for threads in [1, 2, 3, 5] {
            let again = all_passes(&plan.with_threads(threads), case, at);
            for (once, again) in once.iter().zip(&again) {
                let context = || format!("{:?} with {threads} threads on {isa}: {:?}", again.names, case.desc);
                assert!(once.bits() == again.bits(), "{}", context());
            }
        }
    }
}

proptest! {
    #![proptest_config(strategy::config(8))]

    #[test]
    fn results_do_not_depend_on_threads(case in strategy::larger_case(), at in strategy::placement()) {
        check(&case, at, None);
    }

    // Small blocks and slabs, as large layers have many of.
    #[test]
    fn nor_do_those_of_small_blocks(
        case in strategy::larger_case(),
        at in strategy::placement(),
        tuning in strategy::tuning(),
    ) {
        check(&case, at, Some(tuning));
    }

    #[test]
    fn results_do_not_depend_on_the_pool(case in strategy::larger_case(), at in strategy::placement()) {
        in_another_pool(|| check(&case, at, None));
    }
}
