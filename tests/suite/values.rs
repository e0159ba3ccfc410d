//! Values at the edges: ties, NaN, both zeros, both infinities, subnormal numbers.

use convrelu::{ConvDesc, ConvRelu, Forward, Layout, Pass, Serial, Thresholds, Weight};

use crate::common::{Axis, Case, Expected, How, PASSES, Rng, Shape, Theta, Values, isas, plan, run};

/// Layers that between them take every way through the kernels: few and many channels, short and long rows,
/// depthwise, strided, dilated, one to three axes.
pub(crate) fn layers() -> impl Iterator<Item = ConvDesc> {
    let same = |size, kernel| Axis::new(size, kernel).padding(kernel / 2, kernel / 2);
    let shapes = [
        Shape::new(1, 1, 1, &[Axis::new(3, 2)]),
        Shape::new(2, 3, 5, &[same(37, 3)]),
        Shape::new(1, 5, 3, &[same(20, 3).stride(2)]),
        Shape::new(2, 3, 17, &[same(9, 3); 2]),
        Shape::new(1, 33, 12, &[same(7, 3); 2]),
        Shape::new(1, 18, 40, &[Axis::new(6, 1); 2]),
        Shape::new(2, 40, 36, &[same(3, 3); 2]),
        Shape::new(1, 6, 7, &[same(11, 3).stride(2), Axis::new(11, 2).stride(3)]),
        Shape::new(1, 4, 6, &[Axis::new(9, 3).dilation(2).padding(3, 1); 2]),
        Shape::new(1, 1, 1, &[same(12, 3); 2]).groups(19),
        Shape::new(2, 1, 2, &[same(6, 3).stride(2); 2]).groups(5),
        Shape::new(1, 3, 4, &[same(8, 5); 2]).groups(3),
        Shape::new(1, 3, 9, &[same(4, 3); 3]),
    ];
    shapes.into_iter().flat_map(|shape| [Layout::Nchw, Layout::Nhwc].map(|layout| shape.clone().layout(layout).desc()))
}

/// Compares every pass with the oracle on every instruction set.
fn check(case: &Case, passes: &[Pass]) {
    for &pass in passes {
        let expected = Expected::new(case, pass);
        for isa in isas() {
            let results = run(&plan(case.desc, isa, None), pass, case, How::default(), None);
            expected.check(&results, None, || format!("{pass:?} on {isa}: {:?}", case.desc));
        }
    }
}

/// The example of the paper's §3.
#[test]
fn example_of_the_paper() {
    for isa in isas() {
        let desc = ConvDesc::conv1d(1, 1, 1, [3], [2]).build().unwrap();
        let plan = ConvRelu::with_isa(desc, isa).unwrap();
        let (weight, thresholds) = (Weight::Plain(&[1.0, -1.0]), Thresholds::PerTap(&[0.0, 3.5]));
        let operands = Forward::new(&[2.0, 3.0, 4.0], weight, thresholds);
        let mut output = [0.0; 2];
        let mut workspace = vec![0.0; plan.workspace_len(Pass::Forward)];
        plan.forward(operands, &mut output, &mut workspace, &Serial).unwrap();
        assert_eq!(output, [-1.5, -1.0], "{isa}");
    }
}

/// Where every input equals its threshold, the input gets nothing: eq. 6 gives ties to the threshold.
#[test]
fn ties_send_the_gradient_to_the_threshold() {
    for desc in layers() {
        for tie in [0.75, 0.0, -0.5] {
            let mut case = Case::new(desc, Values::Continuous, 1).with_theta(Theta::Uniform(tie));
            case.input.fill(tie);
            check(&case, &PASSES);
            for isa in isas() {
                let results = run(&plan(desc, isa, None), Pass::BackwardInput, &case, How::default(), None);
                assert!(results.main().iter().all(|&g| g == 0.0), "{isa}, x = θ = {tie}: {desc:?}");
                assert!(results.second().iter().any(|&g| g != 0.0), "{isa}, x = θ = {tie}: {desc:?}");
            }
        }
    }
}

/// `−0` and `+0` tie in every combination.
#[test]
fn zeros_of_either_sign_tie() {
    for desc in layers() {
        for (x, theta) in [(0.0, 0.0), (-0.0, 0.0), (0.0, -0.0), (-0.0, -0.0)] {
            let mut case = Case::new(desc, Values::Continuous, 2).with_theta(Theta::Uniform(theta));
            case.input.fill(x);
            check(&case, &PASSES);
        }
    }
}

/// A NaN reaches exactly the outputs whose window holds it and the weights that met it; it gets no gradient, gives
/// none to the thresholds, and disturbs nothing else.
#[test]
fn a_nan_reaches_exactly_its_windows() {
    for desc in layers() {
        for i in 0..3 {
            let mut case = Case::new(desc, Values::Quantised, 3);
            let at = Rng(i).below(desc.input_len());
            case.input[at] = f32::NAN;
            check(&case, &PASSES);
            for isa in isas() {
                let results = run(&plan(desc, isa, None), Pass::BackwardInput, &case, How::default(), None);
                assert!(results.main()[at] == 0.0, "a NaN at {at} gets a gradient on {isa}: {desc:?}");
                let finite = results.main().iter().chain(results.second()).all(|g| g.is_finite());
                assert!(finite, "a NaN at {at} reaches a gradient on {isa}: {desc:?}");
            }
        }
    }
}

/// The tests above would say nothing of NaN if no window held one.
#[test]
fn a_nan_reaches_some_outputs_and_not_all() {
    let desc = Shape::new(1, 3, 4, &[Axis::new(9, 3); 2]).desc();
    let mut case = Case::new(desc, Values::Quantised, 3);
    case.input[40] = f32::NAN;
    let expected = Expected::new(&case, Pass::Forward);
    assert_eq!(expected.values(0).filter(|y| y.is_nan()).count(), 4 * 9);
}

#[test]
fn nan_everywhere() {
    for desc in layers() {
        let mut case = Case::new(desc, Values::Continuous, 4);
        case.input.fill(f32::NAN);
        check(&case, &PASSES);
    }
}

/// θ = −∞ is a plain convolution: with nothing clamped, the thresholds get nothing.
#[test]
fn no_threshold_is_a_plain_convolution() {
    for desc in layers() {
        let case = Case::new(desc, Values::Continuous, 5).with_theta(Theta::Uniform(f32::NEG_INFINITY));
        check(&case, &PASSES);
        let per_tap = Theta::PerTap(vec![f32::NEG_INFINITY; desc.threshold_len()]);
        check(&case.with_theta(per_tap), &PASSES);
    }
}

/// θ = +∞ clamps everything, ∞ included: the outputs are infinite, the gradient is all the thresholds'.
/// (Weights and gradients of one sign: ∞ − ∞ would leave nothing to compare.)
#[test]
fn an_infinite_threshold_clamps_everything() {
    for desc in layers() {
        let mut case = Case::new(desc, Values::Continuous, 6).with_theta(Theta::Uniform(f32::INFINITY));
        for value in case.weight.iter_mut().chain(&mut case.grad_output) {
            *value = value.abs() + 0.5;
        }
        case.input[0] = f32::INFINITY;
        check(&case, &PASSES);
    }
}

/// Infinite inputs: +∞ passes every finite threshold, −∞ none but θ = −∞.
#[test]
fn infinite_inputs() {
    for desc in layers() {
        for x in [f32::INFINITY, f32::NEG_INFINITY] {
            let mut case = Case::new(desc, Values::Continuous, 7);
            for value in case.weight.iter_mut().chain(&mut case.grad_output) {
                *value = value.abs() + 0.5;
            }
            let at = Rng(8).below(desc.input_len());
            case.input[at] = x;
            check(&case, &PASSES);
            check(&case.with_theta(Theta::Uniform(f32::NEG_INFINITY)), &PASSES);
        }
    }
}

/// Subnormal numbers go through unharmed: nothing flushes them to zero.
#[test]
fn subnormal_numbers_survive() {
    let subnormal = |value: f32| f32::from_bits((value.abs() * 8e6) as u32 + 1).copysign(value);
    for desc in layers() {
        let mut case = Case::new(desc, Values::Continuous, 9).without_bias();
        case.input.iter_mut().for_each(|x| *x = subnormal(*x));
        case.theta = Theta::PerTap(case.theta.per_tap(&desc).into_iter().map(subnormal).collect());
        check(&case, &PASSES);
        case.grad_output.iter_mut().for_each(|g| *g = subnormal(*g));
        check(&case, &PASSES);
    }
    for isa in isas() {
        let desc = Shape::new(1, 1, 1, &[Axis::new(40, 1)]).desc();
        let mut case = Case::new(desc, Values::Continuous, 10).with_theta(Theta::Uniform(-1.0)).without_bias();
        case.input.iter_mut().for_each(|x| *x = subnormal(*x));
        case.weight.fill(1.0);
        let results = run(&plan(desc, isa, None), Pass::Forward, &case, How::default(), None);
        assert_eq!(results.main(), case.input, "{isa}");
    }
}
