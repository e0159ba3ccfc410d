//! Every pass against the oracle in f64, on random layers.

use convrelu::{Isa, Pass, Tuning};
use proptest::prelude::*;

use crate::common::{Case, Expected, How, Placement, Results, isas, plan, run};
use crate::strategy;

/// What varies beside the case itself.
#[derive(Clone, Copy, Debug)]
struct Variation {
    tuning: Tuning,
    threads: usize,
    at: Placement,
    second: bool,
    /// The seed of the numbers to accumulate on; `None` overwrites.
    accumulate: Option<u64>,
}

fn variation() -> impl Strategy<Value = Variation> {
    (strategy::tuning(), strategy::threads(), strategy::placement(), any::<bool>(), any::<Option<u64>>())
        .prop_map(|(tuning, threads, at, second, accumulate)| Variation { tuning, threads, at, second, accumulate })
}

/// Compares `pass` with the oracle on every instruction set, with its own tuning and with injected ones.
fn check(case: &Case, pass: Pass, variation: Variation) {
    let expected = Expected::new(case, pass);
    let how = How { at: variation.at, second: variation.second, ..How::default() };
    let prior = match pass {
        Pass::Forward | Pass::ForwardPacked => None,
        Pass::BackwardInput | Pass::BackwardInputPacked | Pass::BackwardWeight => {
            variation.accumulate.map(|seed| Results::prior(&case.desc, pass, variation.second, strategy::prior(seed)))
        }
    };
    for isa in isas() {
        for tuning in [None, Some(variation.tuning)] {
            let plan = plan(case.desc, isa, tuning).with_threads(variation.threads);
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

#[test]
fn the_runner_names_an_instruction_set_once() {
    let all: Vec<Isa> = isas().collect();
    assert!(all.contains(&Isa::Scalar) && all.contains(&Isa::Emulated512));
    assert!(all.iter().enumerate().all(|(i, isa)| !all[..i].contains(isa)), "{all:?}");
}
