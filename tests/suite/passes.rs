//! Every pass against the oracle in f64, on random layers.

use convrelu::{Isa, Pass, Tuning};
use proptest::prelude::*;

use crate::common::{Case, Expected, How, Placement, Results, Workers, isas, plan, run};
use crate::strategy;

/// What varies beside the case itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variation {
    pub(crate) tuning: Tuning,
    threads: usize,
    at: Placement,
    workers: Workers,
    /// Which gradients are asked for, and which of them are added to.
    wanted: [bool; 2],
    adds: [bool; 2],
    /// The seed of the numbers to accumulate on.
    seed: u64,
}

pub(crate) fn variation() -> impl Strategy<Value = Variation> {
    let both = || prop_oneof![3 => Just([true; 2]), 1 => any::<[bool; 2]>()];
    let adds = prop_oneof![2 => Just([false; 2]), 3 => any::<[bool; 2]>()];
    let who = (strategy::threads(), strategy::workers());
    (strategy::tuning(), who, strategy::placement(), both(), adds, any::<u64>()).prop_map(
        |(tuning, (threads, workers), at, wanted, adds, seed)| Variation {
            tuning,
            threads,
            at,
            workers,
            wanted,
            adds,
            seed,
        },
    )
}

/// Compares `pass` with the oracle on every instruction set, with its own tuning and with injected ones.
pub(crate) fn check(case: &Case, pass: Pass, variation: Variation) {
    let expected = Expected::new(case, pass);
    let Variation { at, workers, wanted, .. } = variation;
    let how = How { at, wanted, workers, ..How::default() };
    let prior = match pass {
        Pass::Forward | Pass::ForwardPacked => None,
        Pass::BackwardInput | Pass::BackwardInputPacked | Pass::BackwardWeight => {
            let adds = [0, 1].map(|which| variation.adds[which] && wanted[which]);
            Some(Results::prior(case, pass, adds, strategy::prior(variation.seed)))
        }
    };
    for isa in isas() {
        for tuning in [strategy::usual(), variation.tuning] {
            let plan = plan(case.desc, isa, Some(tuning)).with_threads(variation.threads);
            let results = run(&plan, pass, case, how, prior.as_ref());
            expected.check(&results, prior.as_ref(), || format!("{pass:?} on {isa}, {tuning:?}: {:?}", case.desc));
            let with_packed = match pass {
                Pass::Forward => Pass::ForwardPacked,
                Pass::BackwardInput => Pass::BackwardInputPacked,
                _ => continue,
            };
            let packed = run(&plan, with_packed, case, how, prior.as_ref());
            assert_eq!(results.bits(), packed.bits(), "packed and plain weights on {isa}: {:?}", case.desc);
        }
    }
}

proptest! {
    #![proptest_config(strategy::config(1))]

    #[test]
    fn forward(case in strategy::case(), variation in variation()) {
        check(&case, Pass::Forward, variation);
    }

    #[test]
    fn backward_input(case in strategy::case(), variation in variation()) {
        check(&case, Pass::BackwardInput, variation);
    }

    #[test]
    fn backward_weight(case in strategy::case(), variation in variation()) {
        check(&case, Pass::BackwardWeight, variation);
    }
}

proptest! {
    #![proptest_config(strategy::config(8))]

    #[test]
    fn forward_of_long_rows(case in strategy::long_case(), variation in variation()) {
        check(&case, Pass::Forward, variation);
    }

    #[test]
    fn backward_input_of_long_rows(case in strategy::long_case(), variation in variation()) {
        check(&case, Pass::BackwardInput, variation);
    }

    #[test]
    fn backward_weight_of_long_rows(case in strategy::long_case(), variation in variation()) {
        check(&case, Pass::BackwardWeight, variation);
    }
}

proptest! {
    #![proptest_config(strategy::config(2))]

    #[test]
    fn forward_of_depthwise_layers(case in strategy::depthwise_case(), variation in variation()) {
        check(&case, Pass::Forward, variation);
    }

    #[test]
    fn backward_input_of_depthwise_layers(case in strategy::depthwise_case(), variation in variation()) {
        check(&case, Pass::BackwardInput, variation);
    }

    #[test]
    fn backward_weight_of_depthwise_layers(case in strategy::depthwise_case(), variation in variation()) {
        check(&case, Pass::BackwardWeight, variation);
    }
}

proptest! {
    #![proptest_config(strategy::config(4))]

    #[test]
    fn forward_of_pixels_far_apart(case in strategy::far_case(), variation in variation()) {
        check(&case, Pass::Forward, variation);
    }
}

#[test]
fn the_runner_names_an_instruction_set_once() {
    let all: Vec<Isa> = isas().collect();
    assert!(all.contains(&Isa::Scalar) && all.contains(&Isa::Emulated512));
    assert!(all.iter().enumerate().all(|(i, isa)| !all[..i].contains(isa)), "{all:?}");
}
