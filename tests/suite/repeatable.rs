//! The same call gives the same bits: again, with any number of threads, in any thread pool, whatever the workspace holds,
//! wherever the buffers lie.

use convrelu::{ConvRelu, Tuning};
use proptest::prelude::*;

use crate::common::{Case, How, PASSES, Placement, Results, isas, plan, run};
use crate::strategy;

fn all_passes(plan: &ConvRelu, case: &Case, how: How) -> [Results; PASSES.len()] {
    PASSES.map(|pass| run(plan, pass, case, how, None))
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

/// One thread on buffers as they come, against itself again, and against other thread counts, other contents of the
/// workspace and other places, for the plans of all instruction sets.
fn check(case: &Case, at: Placement, tuning: Option<Tuning>) {
    let usual = How::default();
    let elsewhere = |scatter, workspace| How { at, scatter, workspace, ..usual };
    for isa in isas() {
        let plan = plan(case.desc, isa, tuning).with_threads(1);
        let once = all_passes(&plan, case, usual);
        for (threads, how) in [
            (1, usual),
            (1, elsewhere(5, Some(1))),
            (2, elsewhere(0, None)),
            (3, elsewhere(3, Some(3))),
            (7, elsewhere(7, Some(7))),
            (7, usual),
        ] {
            let again = all_passes(&plan.with_threads(threads), case, how);
            for (once, again) in once.iter().zip(&again) {
                let context =
                    || format!("{:?} with {threads} threads, {how:?}, on {isa}: {:?}", again.names, case.desc);
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
