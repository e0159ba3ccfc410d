//! Every pass against the oracle in f64, on random layers.

use convrelu::{Isa, Layout, Pass, Tuning};
use proptest::prelude::*;

use crate::common::{
    Axis, Case, Expected, How, Parts, Placement, Results, Shape, Theta, Values, Workers, isas, plan, run,
};
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

    #[test]
    fn backward_input_of_pixels_far_apart(case in strategy::far_case(), variation in variation()) {
        check(&case, Pass::BackwardInput, variation);
    }
}

/// Checks all passes of depthwise layers with thresholds per tap, and with one for all.
fn check_depthwise(shape: Shape, theta: f32) {
    let variation = Variation {
        tuning: strategy::usual(),
        threads: 1,
        at: Placement::default(),
        workers: Workers::USUAL,
        wanted: [true; 2],
        adds: [false; 2],
        seed: 0,
    };
    let case = Case::new(shape.desc(), Values::Continuous, 3);
    for case in [case.clone(), case.clone().with_theta(Theta::Uniform(theta))] {
        for pass in [Pass::Forward, Pass::BackwardInput, Pass::BackwardWeight] {
            check(&case, pass, variation);
        }
    }
    // What becomes of the sums is computed from copies of some channels and positions.
    let parts = Parts { has: [true; 3], in_output: false, bounds: [-0.75, 0.5] };
    check(&case.with_ending(parts), Pass::Forward, variation);
}

/// Rows of depthwise layers of which taps reach no column of a whole vector, at either end: dilation and padding are wider.
/// Each of them once ended in a panic on AVX-512.
#[test]
fn taps_may_pass_by_whole_vectors() {
    for row in [
        Axis::new(39, 7).dilation(3).padding(1, 1),
        Axis::new(39, 7).dilation(3).padding(18, 18),
        Axis::new(24, 3).padding(20, 0),
        Axis::new(24, 3).padding(0, 20),
        Axis::new(33, 2).dilation(31).padding(16, 16),
        Axis::new(70, 3).dilation(40).padding(35, 50),
    ] {
        for axes in [vec![row], vec![Axis::new(3, 2).padding(1, 0), row]] {
            check_depthwise(Shape::new(2, 1, 1, &axes).groups(5), f32::NEG_INFINITY);
        }
    }
}

/// Kernels of nine taps whose rows are slices, or whose rows lie further apart than rows of positions. Once they were taken for
/// kernels of three rows and columns through which neighbouring rows of positions read the same.
#[test]
fn slices_are_not_rows() {
    let row = |size: usize, kernel: usize, padding: usize| Axis::new(size, kernel).padding(padding, padding);
    for axes in [
        [row(3, 3, 0), row(7, 1, 0), row(1, 3, 1)],
        [row(7, 3, 1), row(2, 1, 1), row(8, 3, 1)],
        [row(7, 1, 0), row(7, 3, 1), row(8, 3, 1)],
        [row(2, 1, 0), row(9, 3, 2).dilation(2), row(8, 3, 1)],
        [row(2, 1, 0), row(9, 3, 1).stride(2), row(8, 3, 1)],
    ] {
        for layout in [Layout::Nhwc, Layout::Nchw] {
            check_depthwise(Shape::new(1, 1, 1, &axes).groups(31).layout(layout), 0.25);
        }
    }
}

/// Channels whose coefficients do not fit the first-level cache go through all rows of a call in chunks. The last one has a vector
/// that is not whole, or a single channel. Channels first, so many are transposed together.
#[test]
fn chunks_of_channels_add_up() {
    let axes = [Axis::new(5, 7).padding(3, 3), Axis::new(6, 7).padding(3, 3)];
    for (channels, layout) in [(97, Layout::Nhwc), (171, Layout::Nhwc), (171, Layout::Nchw)] {
        check_depthwise(Shape::new(2, 1, 1, &axes).groups(channels).layout(layout), 0.25);
    }
}

#[test]
fn the_runner_names_an_instruction_set_once() {
    let all: Vec<Isa> = isas().collect();
    assert!(all.contains(&Isa::Scalar) && all.contains(&Isa::Emulated512) == cfg!(target_arch = "x86_64"));
    assert!(all.iter().enumerate().all(|(i, isa)| !all[..i].contains(isa)), "{all:?}");
}
