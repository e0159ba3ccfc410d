//! What becomes of the sums of the forward pass before they are stored.

use convrelu::{
    ConvDesc, ConvRelu, Epilogue, Error, Forward, ForwardAlgorithm, Layout, Pass, Residual, Serial, Thresholds, Tuning,
    Weight,
};
use proptest::prelude::*;

use crate::common::{Axis, Case, Expected, How, Parts, Rng, Shape, Tensor, Theta, Values, channel_of, isas, plan, run};
use crate::passes::{Variation, check, variation};
use crate::strategy;
use crate::values::layers;

const NOTHING: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];

/// Against the oracle on every instruction set.
fn check_ending(case: Case, parts: Parts, variation: Variation) {
    check(&case.with_ending(parts), Pass::Forward, variation);
}

proptest! {
    #![proptest_config(strategy::config(1))]

    #[test]
    fn epilogue_of_any_layer(case in strategy::case(), parts in strategy::parts(), variation in variation()) {
        check_ending(case, parts, variation);
    }
}

proptest! {
    #![proptest_config(strategy::config(2))]

    #[test]
    fn epilogue_of_depthwise_layers(
        case in strategy::depthwise_case(),
        parts in strategy::parts(),
        variation in variation(),
    ) {
        check_ending(case, parts, variation);
    }

    #[test]
    fn epilogue_of_sums_in_parts(case in strategy::case(), parts in strategy::parts(), mut variation in variation()) {
        variation.tuning.staging_len = variation.tuning.staging_len.min(200);
        variation.tuning.forward = Some(ForwardAlgorithm::Direct);
        check_ending(case, parts, variation);
    }
}

proptest! {
    #![proptest_config(strategy::config(8))]

    #[test]
    fn epilogue_of_long_rows(case in strategy::long_case(), parts in strategy::parts(), variation in variation()) {
        check_ending(case, parts, variation);
    }

    #[test]
    fn epilogue_of_pixels_far_apart(case in strategy::far_case(), parts in strategy::parts(), variation in variation()) {
        check_ending(case, parts, variation);
    }
}

proptest! {
    #![proptest_config(strategy::config(4))]

    // Of integers, all steps are exact: the same as from outputs without one, bit by bit.
    #[test]
    fn epilogue_of_integers(
        (_, case) in strategy::integer_case(),
        mut parts in strategy::parts(),
        tuning in strategy::tuning(),
        threads in strategy::threads(),
    ) {
        parts.bounds = parts.bounds.map(|bound| if bound.is_finite() { 4.0 * bound } else { bound });
        let ended = case.clone().with_ending(parts);
        let ending = ended.ending.clone().unwrap();
        for isa in isas() {
            let plan = plan(case.desc, isa, Some(tuning)).with_threads(threads);
            let mut want = run(&plan, Pass::Forward, &case, How::default(), None).main().to_vec();
            for (i, y) in want.iter_mut().enumerate().filter(|(i, _)| !Tensor::Output.is_gap(&case.desc, *i)) {
                let channel = channel_of(&case.desc, i);
                *y *= ending.scale.as_ref().map_or(1.0, |scale| scale[channel]);
                *y += ending.shift.as_ref().map_or(0.0, |shift| shift[channel]);
                *y += ending.residual.as_ref().map_or(0.0, |residual| residual[i]);
                *y = y.clamp(ending.bounds[0], ending.bounds[1]);
            }
            let results = run(&plan, Pass::Forward, &ended, How::default(), None);
            prop_assert_eq!(results.main(), &want[..], "{} {:?}: {:?}", isa, tuning, &ended);
        }
    }
}

/// Chunks of input channels are the rule where there are many of them, and few output channels.
#[test]
fn sums_in_parts_end_once() {
    let shapes = [
        Shape::new(2, 900, 3, &[Axis::new(5, 3).padding(1, 1), Axis::new(17, 3).padding(1, 1)]),
        Shape::new(1, 1100, 5, &[Axis::new(300, 1)]).layout(Layout::Nhwc),
    ];
    for shape in shapes {
        for (has, in_output) in
            [([true; 3], true), ([true; 3], false), ([false, false, true], true), ([true, true, false], false)]
        {
            let case = Case::new(shape.desc(), Values::Integers, 5);
            let ended = case.clone().with_ending(Parts { has, in_output, bounds: [-3.0, 7000.0] });
            for isa in isas() {
                let tuning = Tuning { forward: Some(ForwardAlgorithm::Direct), ..strategy::usual() };
                let direct = run(
                    &plan(case.desc, isa, Some(tuning)).with_threads(3),
                    Pass::Forward,
                    &ended,
                    How::default(),
                    None,
                );
                let tuning = Tuning { forward: Some(ForwardAlgorithm::BatchReduce), ..tuning };
                let other = run(&plan(case.desc, isa, Some(tuning)), Pass::Forward, &ended, How::default(), None);
                assert_eq!(direct.main(), other.main(), "{isa}: {shape:?}");
            }
        }
    }
}

/// What is left out changes nothing, not a bit: zeros keep their sign.
#[test]
fn an_epilogue_of_nothing_is_none() {
    for desc in layers() {
        for (case, parts) in [Values::Continuous, Values::Sparse].into_iter().flat_map(|kind| {
            [NOTHING, [-1e30, 1e30]]
                .map(|bounds| (Case::new(desc, kind, 8), Parts { has: [false; 3], in_output: false, bounds }))
        }) {
            for isa in isas() {
                let plan = plan(desc, isa, None);
                let bits = |case: &Case| run(&plan, Pass::Forward, case, How::default(), None).bits();
                assert_eq!(bits(&case), bits(&case.clone().with_ending(parts)), "{isa}: {desc:?}");
            }
        }
    }
}

/// NaN and infinities of any operand reach the outputs that they belong to, through the clamp, and no others.
#[test]
fn a_nan_stays_one() {
    for desc in layers() {
        for (special, which, in_output) in
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().flat_map(|special| {
                [(0, false), (1, false), (2, false), (2, true), (3, true), (4, false)]
                    .map(|(which, o)| (special, which, o))
            })
        {
            let mut case = Case::new(desc, Values::Continuous, 9);
            case.bias = Some(vec![0.5; desc.out_channels()]);
            let mut case = case.with_ending(Parts { has: [true; 3], in_output, bounds: NOTHING });
            let mut rng = Rng(which);
            let ending = case.ending.as_mut().unwrap();
            match which {
                0 => ending.scale.as_mut().unwrap()[rng.below(desc.out_channels())] = special,
                1 => ending.shift.as_mut().unwrap()[rng.below(desc.out_channels())] = special,
                2 => ending.residual.as_mut().unwrap()[rng.below(desc.output_len())] = special,
                3 => case.input[rng.below(desc.input_len())] = f32::NAN,
                _ => {
                    case.theta = Theta::Uniform(f32::NEG_INFINITY);
                    case.bias.as_mut().unwrap()[rng.below(desc.out_channels())] = special;
                }
            }
            let expected = Expected::new(&case, Pass::Forward);
            for isa in isas() {
                let plan = plan(desc, isa, None);
                let values = |case: &Case| run(&plan, Pass::Forward, case, How::default(), None).main().to_vec();
                let open = values(&case);
                let mut clamped = case.clone();
                clamped.ending.as_mut().unwrap().bounds = [-0.25, 0.75];
                let bits = |values: Vec<f32>| {
                    Vec::from_iter(values.into_iter().map(|y| if y.is_nan() { 0 } else { y.to_bits() }))
                };
                let want = open.iter().map(|y| y.clamp(-0.25, 0.75)).collect();
                assert_eq!(bits(values(&clamped)), bits(want), "{special} in {which} on {isa}: {desc:?}");
                // A stride may leave out the input.
                if special.is_nan() && which != 3 {
                    assert!(open.iter().any(|y| y.is_nan()), "{isa}: {desc:?}");
                }
                for (i, (y, want)) in open.iter().zip(expected.values(0)).enumerate() {
                    assert_eq!(y.is_nan(), want.is_nan(), "{special} in {which} at {i} on {isa}: {desc:?}");
                    assert_eq!(y.is_infinite(), want.is_infinite(), "{special} in {which} at {i} on {isa}: {desc:?}");
                }
            }
        }
    }
}

/// Two channels of two positions, all of it.
#[test]
fn a_small_example() {
    for (layout, residual, expected) in [
        (Layout::Nchw, [1.0, -9.0, 0.5, 40.0], [4.0, 0.0, 2.5, 6.0]),
        (Layout::Nhwc, [1.0, 0.5, -9.0, 40.0], [4.0, 2.5, 0.0, 6.0]),
    ] {
        let desc = ConvDesc::conv1d(1, 1, 2, [2], [1]).layout(layout).build().unwrap();
        for isa in isas() {
            for tuning in [Tuning::default(), Tuning { tiny: 0, ..Tuning::default() }] {
                let plan = ConvRelu::with_tuning(desc, isa, tuning).unwrap();
                let mut workspace = vec![0.0; plan.workspace_len(Pass::Forward)];
                let operands =
                    Forward::new(&[2.0, -3.0], Weight::Plain(&[1.0, -2.0]), Thresholds::RELU).bias(&[-1.0, 1.0]);
                let epilogue = Epilogue::new().scale(&[2.0, -1.0]).shift(&[1.0, -1.0]).clamp(0.0, 6.0);
                let mut output = residual;
                let own = operands.epilogue(epilogue.residual(Residual::Output));
                plan.forward(own, &mut output, &mut workspace, &Serial).unwrap();
                assert_eq!(output, expected, "{isa}");
                let mut output = [f32::NAN; 4];
                let apart = operands.epilogue(epilogue.residual(Residual::Tensor(&residual)));
                plan.forward(apart, &mut output, &mut workspace, &Serial).unwrap();
                assert_eq!(output, expected, "{isa}");
            }
        }
    }
}

#[test]
fn wrong_epilogues_are_refused() {
    let desc = Shape::new(2, 3, 4, &[Axis::new(5, 3)]).desc();
    let (input, weight) = (vec![1.0; desc.input_len()], vec![1.0; desc.weight_len()]);
    let (channels, len) = (desc.out_channels(), desc.output_len());
    let (all, few) = (vec![1.0; len], vec![1.0; channels - 1]);
    let short = |argument, len, required| Error::BufferTooShort { argument, len, required };
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let new = Epilogue::new;
    for (epilogue, error, message) in [
        (new().scale(&few), short("scale", 3, 4), "scale holds 3 elements: it must hold at least 4"),
        (new().shift(&few), short("shift", 3, 4), "shift holds 3 elements: it must hold at least 4"),
        (
            new().residual(Residual::Tensor(&all[1..])),
            short("residual", len - 1, len),
            "residual holds 23 elements: it must hold at least 24",
        ),
        (new().clamp(nan, inf), Error::NanBound { argument: "low" }, "low is NaN: a bound must be ordered"),
        (new().clamp(0.0, nan), Error::NanBound { argument: "high" }, "high is NaN: a bound must be ordered"),
        (
            new().clamp(2.5, -1.0),
            Error::BoundsCrossed { low: 2.5, high: -1.0 },
            "low is 2.5: it must not exceed high, -1",
        ),
        (
            new().clamp(inf, -inf),
            Error::BoundsCrossed { low: inf, high: -inf },
            "low is inf: it must not exceed high, -inf",
        ),
    ] {
        for isa in isas() {
            let plan = plan(desc, isa, None);
            let mut output = vec![0.5; len];
            let operands = Forward::new(&input, Weight::Plain(&weight), Thresholds::RELU).epilogue(epilogue);
            let mut workspace = vec![0.0; plan.workspace_len(Pass::Forward)];
            let found = plan.forward(operands, &mut output, &mut workspace, &Serial);
            assert_eq!(found, Err(error));
            assert_eq!(error.to_string(), message);
            assert!(output.iter().all(|&y| y == 0.5), "{message}: something was written");
        }
    }
}
