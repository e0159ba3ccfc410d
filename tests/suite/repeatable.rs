//! The same call gives the same bits: again, with any number of threads, in any thread pool, whatever the workspace holds,
//! wherever the buffers lie.

use convrelu::{ConvRelu, Isa, Pass, Tuning};
use proptest::prelude::*;

use crate::common::{Axis, Case, How, PASSES, Placement, Results, Shape, Values, Workers, isas, plan, run};
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
fn check(case: &Case, at: Placement, (threads, workers): (usize, Workers), tuning: Tuning) {
    let usual = How::default();
    let elsewhere = |scatter, workspace| How { at, scatter, workspace, ..usual };
    for isa in isas() {
        let plan = plan(case.desc, isa, Some(tuning)).with_threads(1);
        let once = all_passes(&plan, case, usual);
        for (threads, how) in [
            (1, elsewhere(5, Some(1))),
            (2, elsewhere(0, None)),
            (3, elsewhere(3, Some(3))),
            (threads, elsewhere(7, Some(7))),
            (threads, How { workers, ..usual }),
        ] {
            let again = all_passes(&plan.with_threads(threads), case, how);
            for (once, again) in once.iter().zip(&again) {
                let context = || {
                    format!("{:?} with {threads} threads, {how:?}, on {isa}: {:?}, {tuning:?}", again.names, case.desc)
                };
                assert!(once.bits() == again.bits(), "{}", context());
            }
        }
        // Of CPUs with the same instruction set, some clamp inputs once for all output channels, and some halve vectors.
        for (packs, halves) in [(false, false), (false, true), (true, false), (true, true)] {
            let tuning = Tuning { packs: Some(packs), halves: Some(halves), ..tuning };
            let other = crate::common::plan(case.desc, isa, Some(tuning));
            let forward = run(&other, Pass::Forward, case, usual, None);
            let context = || format!("clamped once: {packs}, vectors halved: {halves}, on {isa}: {:?}", case.desc);
            assert!(once[0].bits() == forward.bits(), "{}", context());
            let lens = |plan: &ConvRelu| [plan.workspace_len(Pass::Forward), plan.packed_weight_len()];
            assert_eq!(lens(&other), lens(&plan), "{}", context());
        }
    }
}

/// Layers of channels first, read in place, that threads cut into parts of other than whole vectors. Each of them once
/// ended in a panic on AVX2 or AVX-512.
#[test]
fn parts_need_not_be_whole_vectors() {
    let conv = |inputs, outputs, axes: &[Axis]| Shape::new(1, inputs, outputs, axes).desc();
    let square = |size| [Axis::new(size, 1), Axis::new(size, 1)];
    for desc in [
        conv(8, 1, &[Axis::new(528, 1)]),
        conv(32, 24, &[Axis::new(528, 1)]),
        conv(16, 1, &[Axis::new(2698, 3)]),
        conv(64, 64, &square(28)),
        conv(256, 256, &square(28)),
        conv(512, 128, &square(28)),
        conv(32, 192, &square(28)),
        conv(256, 64, &square(56)),
    ] {
        let case = Case::new(desc, Values::Continuous, 13);
        for isa in isas() {
            let plan = plan(desc, isa, Some(strategy::usual()));
            let once = run(&plan.with_threads(1), Pass::Forward, &case, How::default(), None);
            // Other instruction sets run the same code, and emulated ones take minutes.
            let counts = match isa {
                Isa::Avx2 | Isa::Avx512 => &[2, 3, 4, 5, 6, 7, 8, 33][..],
                _ => &[3, 8],
            };
            for &threads in counts {
                let again = run(&plan.with_threads(threads), Pass::Forward, &case, How::default(), None);
                assert!(once.bits() == again.bits(), "{threads} threads on {isa}: {desc:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(strategy::config(8))]

    #[test]
    fn results_do_not_depend_on_threads(
        case in strategy::perhaps_ending(prop_oneof![strategy::larger_case(), strategy::long_case(), strategy::depthwise_case()]),
        at in strategy::placement(),
        threads in (strategy::threads(), strategy::workers()),
    ) {
        check(&case, at, threads, strategy::usual());
    }

    // Small blocks and slabs, as large layers have many of.
    #[test]
    fn nor_do_those_of_small_blocks(
        case in strategy::perhaps_ending(prop_oneof![strategy::larger_case(), strategy::long_case(), strategy::depthwise_case()]),
        at in strategy::placement(),
        threads in (strategy::threads(), strategy::workers()),
        tuning in strategy::tuning(),
    ) {
        check(&case, at, threads, tuning);
    }

    #[test]
    fn results_do_not_depend_on_the_pool(case in strategy::perhaps_ending(strategy::larger_case()), at in strategy::placement()) {
        in_another_pool(|| check(&case, at, (7, Workers::USUAL), strategy::usual()));
    }
}
