//! Every algorithm is within the reach of the random layers, by the plan's own choice.

use std::collections::BTreeSet;

use convrelu::{BackwardInputAlgorithm, ConvRelu, ForwardAlgorithm};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::common::isas;
use crate::strategy;

#[test]
fn random_layers_take_every_path() {
    let mut runner = TestRunner::new(strategy::config(1));
    let descs: Vec<_> =
        (0..2000).map(|_| strategy::shape(20_000).new_tree(&mut runner).expect("a shape").current().desc()).collect();
    for isa in isas() {
        let plans = || descs.iter().map(|desc| ConvRelu::with_isa(*desc, isa).expect("an available instruction set"));
        let forward: BTreeSet<_> = plans().map(|plan| format!("{:?}", plan.forward_algorithm())).collect();
        let backward: BTreeSet<_> = plans().map(|plan| format!("{:?}", plan.backward_input_algorithm())).collect();
        for algorithm in [
            ForwardAlgorithm::Direct,
            ForwardAlgorithm::Columns,
            ForwardAlgorithm::BatchReduce,
            ForwardAlgorithm::Depthwise,
        ] {
            assert!(forward.contains(&format!("{algorithm:?}")), "{algorithm:?} on {isa}: only {forward:?}");
        }
        for algorithm in
            [BackwardInputAlgorithm::Gather, BackwardInputAlgorithm::Planar, BackwardInputAlgorithm::Depthwise]
        {
            // A single lane is never half empty.
            if isa.name() == "scalar" && algorithm == BackwardInputAlgorithm::Planar {
                continue;
            }
            assert!(backward.contains(&format!("{algorithm:?}")), "{algorithm:?} on {isa}: only {backward:?}");
        }
        let weight: BTreeSet<_> = plans().map(|plan| plan.backward_weight_algorithm()).collect();
        for algorithm in ["panels", "stripes", "taps in lanes", "depthwise"] {
            if isa.name() == "scalar" && algorithm == "taps in lanes" {
                continue;
            }
            assert!(weight.contains(algorithm), "{algorithm} on {isa}: only {weight:?}");
        }
    }
}
