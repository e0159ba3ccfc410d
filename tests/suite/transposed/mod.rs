//! Transposed convolutions: against their definition, against ONNX's examples, and their mistakes.

mod layer;

use convrelu::transposed::{BackwardInput, BackwardWeight, ConvTranspose, ConvTransposeDesc, Forward};
use convrelu::{ConvDesc, ConvRelu, Error, Gradient, Layout, Pass, Serial, Tuning, Weight, WeightGradients};
use proptest::prelude::*;

use crate::common::{Axis, How, PASSES, Placement, Shape, Values, Workers, isas};
use crate::errors::Wrong;
use crate::strategy;
use layer::{Case, Expected, Layer, Results, bits, case, lens, plan, run};

/// What varies beside the case itself.
#[derive(Clone, Copy, Debug)]
struct Variation {
    tuning: Tuning,
    threads: usize,
    at: Placement,
    workers: Workers,
    /// Which gradients are asked for, and which of them are added to.
    wanted: [bool; 2],
    adds: [bool; 2],
    seed: u64,
}

fn variation() -> impl Strategy<Value = Variation> {
    let both = || prop_oneof![3 => Just([true; 2]), 1 => any::<[bool; 2]>()];
    let who = (strategy::threads(), strategy::workers());
    (strategy::tuning(), who, strategy::placement(), both(), any::<[bool; 2]>(), any::<u64>()).prop_map(
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

/// Compares `pass` with the definition on every instruction set, with its own tuning and with injected ones; packed weights with
/// plain ones, and threads with one thread, bit by bit.
fn check(case: &Case, pass: Pass, variation: Variation) {
    let Variation { at, workers, wanted, adds, .. } = variation;
    let expected = Expected::new(case, pass);
    let how = How { at, wanted, workers, ..How::default() };
    let prior: Option<Results> = (pass != Pass::Forward).then(|| {
        let mut fill = strategy::prior(variation.seed);
        [0, 1].map(|which| adds[which].then(|| fill(lens(&case.desc, pass)[which])))
    });
    for isa in isas() {
        for tuning in [strategy::usual(), variation.tuning] {
            let plan = plan(case.desc, isa, Some(tuning)).with_threads(variation.threads);
            let results = run(&plan, pass, case, how, prior.as_ref());
            let context = || format!("{pass:?} on {isa}, {variation:?}, {tuning:?}: {case:?}");
            expected.check(&results, prior.as_ref(), context);
            let alone = run(&plan.with_threads(1), pass, case, How { workers: Workers::Serial, ..how }, prior.as_ref());
            assert_eq!(bits(&results), bits(&alone), "threads: {}", context());
            let with_packed = match pass {
                Pass::Forward => Pass::ForwardPacked,
                Pass::BackwardInput => Pass::BackwardInputPacked,
                _ => continue,
            };
            let packed = run(&plan, with_packed, case, how, prior.as_ref());
            assert_eq!(bits(&results), bits(&packed), "packed weights: {}", context());
        }
    }
}

proptest! {
    #![proptest_config(strategy::config(1))]

    #[test]
    fn transposed_forward(case in case(20_000), variation in variation()) {
        let desc = case.desc;
        assert_eq!(desc.output_size(), case.layer.output_size());
        let first = 3 - case.layer.output_padding.len();
        assert_eq!(desc.output_padding()[first..], case.layer.output_padding);
        check(&case, Pass::Forward, variation);
    }

    #[test]
    fn transposed_backward_input(case in case(20_000), variation in variation()) {
        check(&case, Pass::BackwardInput, variation);
    }

    #[test]
    fn transposed_backward_weight(case in case(20_000), variation in variation()) {
        check(&case, Pass::BackwardWeight, variation);
    }
}

proptest! {
    #![proptest_config(strategy::config(8))]

    // Sums that wait apart before they are added, several parts of them, and parts that pay for themselves.
    #[test]
    fn transposed_layers_of_many_positions(case in case(1_000_000), variation in variation()) {
        for pass in [Pass::Forward, Pass::BackwardInput, Pass::BackwardWeight] {
            check(&case, pass, variation);
        }
    }
}

/// A variation of nothing.
fn plain() -> Variation {
    Variation {
        tuning: Tuning { tiny: 0, ..strategy::usual() },
        threads: 3,
        at: Placement::default(),
        workers: Workers::USUAL,
        wanted: [true; 2],
        adds: [false; 2],
        seed: 0,
    }
}

/// Output padding of a stride and more, which a dilation allows: the last outputs are read by no position of the mirrored layer,
/// which without them would have more positions.
#[test]
fn output_padding_beyond_the_stride() {
    let axis = |size, kernel, stride, dilation| Axis::new(size, kernel).stride(stride).dilation(dilation);
    let mut layers = Vec::new();
    for (padding, output_padding) in [((0, 0), 2), ((1, 0), 2), ((2, 1), 2), ((0, 1), 1), ((0, 3), 2), ((4, 0), 1)] {
        for kernel in [1, 2, 3] {
            for (stride, dilation) in [(1, 3), (2, 3), (1, 4)] {
                let (before, after) = padding;
                let row = axis(7, kernel, stride, dilation).padding(before, after);
                layers.push((vec![row], vec![output_padding]));
                layers.push((vec![axis(3, 2, 1, 1), axis(4, 2, 2, 1), row], vec![0, 1, output_padding]));
                layers.push((vec![row, axis(20, 3, 1, 2).padding(1, 1)], vec![output_padding, 1]));
            }
        }
    }
    let channels = [[1, 3, 2], [9, 1, 1], [2, 8, 5], [1, 20, 33], [40, 1, 1]];
    for (seed, (axes, output_padding)) in (0..).zip(layers) {
        // Rows alone meet every vector and tile, in both layouts: two of the groupings each, by turns, for all ten of each row would
        // take minutes under an emulator. So would layers of more axes with that many channels.
        let turn = seed as usize / 3;
        let row = axes.len() == 1;
        let layout = [Layout::Nchw, Layout::Nhwc][turn % 2];
        for [groups, group_in, group_out] in channels.into_iter().cycle().skip(if row { 2 * turn } else { 0 }).take(2) {
            let shape = Shape::new(2, group_in, group_out, &axes).groups(groups).layout(layout);
            let case = Case::new(Layer::new(shape).output_padding(&output_padding), Values::Continuous, seed);
            for pass in [Pass::Forward, Pass::BackwardInput, Pass::BackwardWeight] {
                check(&case, pass, plain());
                if pass != Pass::Forward {
                    check(&case, pass, Variation { adds: [true; 2], ..plain() });
                }
            }
        }
    }
}

/// What the mirrored convolution computes in other passes, bit by bit; and the adjoint's identity, exact on integers.
#[test]
fn transposed_layers_mirror_convolutions() {
    let axes = [Axis::new(5, 3).stride(2).padding(1, 1), Axis::new(6, 4).stride(2).padding(1, 1)];
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let case = Case::new(Layer::new(Shape::new(2, 24, 17, &axes).layout(layout)), Values::Integers, 5);
        let desc = case.desc;
        let mirrored = ConvDesc::conv2d(2, 17, 24, [9, 12], [3, 4]).stride([2, 2]).padding([1, 1]).layout(layout);
        let mirrored = mirrored.build().unwrap();
        assert_eq!(mirrored.output_size(), desc.input_size());
        let [y, dx, dw] = [Pass::Forward, Pass::BackwardInput, Pass::BackwardWeight]
            .map(|pass| run(&plan(desc, isas().next().unwrap(), None), pass, &case, How::default(), None));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let [y, dx, [dw, db]] =
            [[y[0].clone(), None], [dx[0].clone(), None], dw].map(|all| all.map(Option::unwrap_or_default));
        let (y, dx) = (&y[0], &dx[0]);
        let bias = dot(case.bias.as_ref().unwrap(), &db);
        assert_eq!(dot(y, &case.grad_output), dot(&case.weight, &dw) + bias);
        assert_eq!(dot(y, &case.grad_output), dot(&case.input, dx) + bias);
        // Packed weights of the one are those of the other.
        for isa in isas() {
            let (ours, theirs) = (plan(desc, isa, None), ConvRelu::with_isa(mirrored, isa).unwrap());
            assert_eq!(ours.packed_weight_len(), theirs.packed_weight_transposed_len());
            assert_eq!(ours.packed_weight_transposed_len(), theirs.packed_weight_len());
        }
    }
}

/// One of ONNX's examples: a weight of ones for two equal output channels, in both layouts, on all instruction sets.
fn check_onnx(layer: Layer, input: &[f32], channel: &[f32]) {
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let layer = Layer { shape: layer.shape.clone().layout(layout), ..layer.clone() };
        let desc = layer.desc();
        let (weight, positions) = (vec![1.0; desc.weight_len()], channel.len());
        assert_eq!((desc.input_len(), desc.output_len()), (input.len(), 2 * positions), "{layer:?}");
        for isa in isas() {
            let plan = plan(desc, isa, None);
            let mut output = vec![f32::NAN; desc.output_len()];
            let mut workspace = vec![f32::NAN; plan.workspace_len(Pass::Forward)];
            let operands = Forward::new(input, Weight::Plain(&weight));
            plan.forward(operands, &mut output, &mut workspace, &Serial).unwrap();
            let at = |c: usize, p: usize| match layout {
                Layout::Nchw => c * positions + p,
                Layout::Nhwc => p * 2 + c,
            };
            for c in 0..2 {
                let found: Vec<f32> = (0..positions).map(|p| output[at(c, p)]).collect();
                assert_eq!(found, channel, "channel {c} on {isa}: {layer:?}");
            }
        }
    }
}

/// 0, 1, 2, … for a layer of one input channel, two output channels and kernels of three.
fn check_counted(sizes: &[usize], change: impl Fn(Axis, usize) -> Axis, output_padding: &[usize], channel: &[f32]) {
    let axes: Vec<Axis> = sizes.iter().enumerate().map(|(i, size)| change(Axis::new(*size, 3), i)).collect();
    let input: Vec<f32> = (0..sizes.iter().product()).map(|i: usize| i as f32).collect();
    check_onnx(Layer::new(Shape::new(1, 1, 2, &axes)).output_padding(output_padding), &input, channel);
}

/// ONNX's node tests of `ConvTranspose` with explicit padding: `convtranspose`, `_1d`, `_3d`, `_pad`, `_output_shape`,
/// `_kernel_shape` (three names of one layer), `_pads`.
#[test]
#[rustfmt::skip]
fn onnx_convtranspose() {
    let same = |axis: Axis, _: usize| axis;
    check_counted(&[3, 3], same, &[0, 0], &[
        0.0, 1.0, 3.0, 3.0, 2.0,
        3.0, 8.0, 15.0, 12.0, 7.0,
        9.0, 21.0, 36.0, 27.0, 15.0,
        9.0, 20.0, 33.0, 24.0, 13.0,
        6.0, 13.0, 21.0, 15.0, 8.0,
    ]);
    check_counted(&[3], same, &[0], &[0.0, 1.0, 3.0, 3.0, 2.0]);
    check_counted(&[3, 4, 5], same, &[0, 0, 0], &[
        0.0, 1.0, 3.0, 6.0, 9.0, 7.0, 4.0,
        5.0, 12.0, 21.0, 27.0, 33.0, 24.0, 13.0,
        15.0, 33.0, 54.0, 63.0, 72.0, 51.0, 27.0,
        30.0, 63.0, 99.0, 108.0, 117.0, 81.0, 42.0,
        25.0, 52.0, 81.0, 87.0, 93.0, 64.0, 33.0,
        15.0, 31.0, 48.0, 51.0, 54.0, 37.0, 19.0,

        20.0, 42.0, 66.0, 72.0, 78.0, 54.0, 28.0,
        50.0, 104.0, 162.0, 174.0, 186.0, 128.0, 66.0,
        90.0, 186.0, 288.0, 306.0, 324.0, 222.0, 114.0,
        120.0, 246.0, 378.0, 396.0, 414.0, 282.0, 144.0,
        90.0, 184.0, 282.0, 294.0, 306.0, 208.0, 106.0,
        50.0, 102.0, 156.0, 162.0, 168.0, 114.0, 58.0,

        60.0, 123.0, 189.0, 198.0, 207.0, 141.0, 72.0,
        135.0, 276.0, 423.0, 441.0, 459.0, 312.0, 159.0,
        225.0, 459.0, 702.0, 729.0, 756.0, 513.0, 261.0,
        270.0, 549.0, 837.0, 864.0, 891.0, 603.0, 306.0,
        195.0, 396.0, 603.0, 621.0, 639.0, 432.0, 219.0,
        105.0, 213.0, 324.0, 333.0, 342.0, 231.0, 117.0,

        60.0, 122.0, 186.0, 192.0, 198.0, 134.0, 68.0,
        130.0, 264.0, 402.0, 414.0, 426.0, 288.0, 146.0,
        210.0, 426.0, 648.0, 666.0, 684.0, 462.0, 234.0,
        240.0, 486.0, 738.0, 756.0, 774.0, 522.0, 264.0,
        170.0, 344.0, 522.0, 534.0, 546.0, 368.0, 186.0,
        90.0, 182.0, 276.0, 282.0, 288.0, 194.0, 98.0,

        40.0, 81.0, 123.0, 126.0, 129.0, 87.0, 44.0,
        85.0, 172.0, 261.0, 267.0, 273.0, 184.0, 93.0,
        135.0, 273.0, 414.0, 423.0, 432.0, 291.0, 147.0,
        150.0, 303.0, 459.0, 468.0, 477.0, 321.0, 162.0,
        105.0, 212.0, 321.0, 327.0, 333.0, 224.0, 113.0,
        55.0, 111.0, 168.0, 171.0, 174.0, 117.0, 59.0,
    ]);
    let strides = |axis: Axis, i: usize| axis.stride([3, 2][i]);
    check_counted(&[3, 3], strides, &[1, 1], &[
        0.0, 0.0, 1.0, 1.0, 3.0, 2.0, 2.0, 0.0,
        0.0, 0.0, 1.0, 1.0, 3.0, 2.0, 2.0, 0.0,
        0.0, 0.0, 1.0, 1.0, 3.0, 2.0, 2.0, 0.0,
        3.0, 3.0, 7.0, 4.0, 9.0, 5.0, 5.0, 0.0,
        3.0, 3.0, 7.0, 4.0, 9.0, 5.0, 5.0, 0.0,
        3.0, 3.0, 7.0, 4.0, 9.0, 5.0, 5.0, 0.0,
        6.0, 6.0, 13.0, 7.0, 15.0, 8.0, 8.0, 0.0,
        6.0, 6.0, 13.0, 7.0, 15.0, 8.0, 8.0, 0.0,
        6.0, 6.0, 13.0, 7.0, 15.0, 8.0, 8.0, 0.0,
        0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    ]);
    let pads = |axis: Axis, i: usize| strides(axis, i).padding([1, 2][i], [1, 2][i]);
    check_counted(&[3, 3], pads, &[0, 0], &[
        1.0, 1.0, 3.0,
        1.0, 1.0, 3.0,
        7.0, 4.0, 9.0,
        7.0, 4.0, 9.0,
        7.0, 4.0, 9.0,
        13.0, 7.0, 15.0,
        13.0, 7.0, 15.0,
    ]);
    // The same, cut at other places: pads that differ before and after.
    let uneven = |axis: Axis, i: usize| strides(axis, i).padding([0, 3][i], [2, 1][i]);
    check_counted(&[3, 3], uneven, &[0, 0], &[
        1.0, 3.0, 2.0,
        1.0, 3.0, 2.0,
        1.0, 3.0, 2.0,
        4.0, 9.0, 5.0,
        4.0, 9.0, 5.0,
        4.0, 9.0, 5.0,
        7.0, 15.0, 8.0,
    ]);
}

/// ONNX's `convtranspose_dilations` and `convtranspose_group_2`.
#[test]
#[rustfmt::skip]
fn onnx_convtranspose_dilations_and_groups() {
    let dilated = Shape::new(1, 1, 1, &[Axis::new(3, 2).dilation(2); 2]);
    let input = [3.0, 8.0, 1.0, 9.0, 5.0, 7.0, 3.0, 2.0, 6.0];
    let output = [
        21.0, 56.0, 13.0, 16.0, 2.0,
        63.0, 35.0, 67.0, 10.0, 14.0,
        24.0, 22.0, 76.0, 76.0, 21.0,
        9.0, 5.0, 88.0, 45.0, 63.0,
        3.0, 2.0, 33.0, 18.0, 54.0,
    ];
    check_exact(dilated, &input, &[7.0, 2.0, 1.0, 9.0], &output);
    let grouped = Shape::new(1, 1, 1, &[Axis::new(3, 3); 2]).groups(2);
    let input: [f32; 18] = std::array::from_fn(|i| i as f32);
    let output = [
        0.0, 1.0, 3.0, 3.0, 2.0,
        3.0, 8.0, 15.0, 12.0, 7.0,
        9.0, 21.0, 36.0, 27.0, 15.0,
        9.0, 20.0, 33.0, 24.0, 13.0,
        6.0, 13.0, 21.0, 15.0, 8.0,

        9.0, 19.0, 30.0, 21.0, 11.0,
        21.0, 44.0, 69.0, 48.0, 25.0,
        36.0, 75.0, 117.0, 81.0, 42.0,
        27.0, 56.0, 87.0, 60.0, 31.0,
        15.0, 31.0, 48.0, 33.0, 17.0,
    ];
    check_exact(grouped, &input, &[1.0; 18], &output);
}

/// A layer with channels first, on all instruction sets.
fn check_exact(shape: Shape, input: &[f32], weight: &[f32], expected: &[f32]) {
    let desc = Layer::new(shape).desc();
    assert_eq!((desc.weight_len(), desc.output_len()), (weight.len(), expected.len()));
    for isa in isas() {
        let plan = plan(desc, isa, None);
        let mut output = vec![f32::NAN; desc.output_len()];
        let mut workspace = vec![f32::NAN; plan.workspace_len(Pass::Forward)];
        plan.forward(Forward::new(input, Weight::Plain(weight)), &mut output, &mut workspace, &Serial).unwrap();
        assert_eq!(output, expected, "{isa}: {desc:?}");
    }
}

/// Asserts which error it is and that its message is the one line given.
fn assert_error<T>(result: Result<T, Error>, error: Error, message: &str) {
    assert_eq!(result.err(), Some(error));
    assert_eq!(error.to_string(), message);
}

/// Mistakes are named as the caller of the transposed layer knows them.
#[test]
fn transposed_mistakes() {
    let conv = |inputs, outputs| ConvTransposeDesc::conv2d(2, inputs, outputs, [4, 5], [3, 2]);
    let argument = "in_channels";
    assert_error(conv(0, 1).build(), Error::ZeroChannels { argument }, "in_channels is 0: it must be at least 1");
    let argument = "out_channels";
    assert_error(conv(1, 0).build(), Error::ZeroChannels { argument }, "out_channels is 0: it must be at least 1");
    assert_error(conv(1, 1).groups(0).build(), Error::ZeroGroups, "groups is 0: it must be at least 1");
    assert_error(
        conv(4, 6).groups(4).build(),
        Error::ChannelsNotDivisible { argument: "out_channels", channels: 6, groups: 4 },
        "out_channels is 6: it must be a multiple of groups, 4",
    );
    assert_error(
        conv(6, 4).groups(4).build(),
        Error::ChannelsNotDivisible { argument: "in_channels", channels: 6, groups: 4 },
        "in_channels is 6: it must be a multiple of groups, 4",
    );
    let axis = "width";
    let line = |size, kernel| ConvTransposeDesc::conv1d(1, 1, 1, [size], [kernel]);
    assert_error(line(0, 1).build(), Error::ZeroSize { axis }, "input width is 0: it must be at least 1");
    assert_error(line(1, 0).build(), Error::ZeroKernel { axis }, "kernel width is 0: it must be at least 1");
    assert_error(
        line(1, 1).stride([0]).build(),
        Error::ZeroStride { axis },
        "stride of width is 0: it must be at least 1",
    );
    assert_error(
        line(1, 1).dilation([0]).build(),
        Error::ZeroDilation { axis },
        "dilation of width is 0: it must be at least 1 (1 is dense)",
    );
    assert_error(
        line(4, 3).stride([2]).output_padding([2]).build(),
        Error::OutputPaddingTooLarge { axis, output_padding: 2, step: 2 },
        "output_padding of width is 2: it must be less than 2, the larger of stride and dilation",
    );
    assert!(line(4, 3).stride([2]).dilation([3]).output_padding([2]).build().is_ok());
    assert_error(
        line(4, 3).output_padding([1]).build(),
        Error::OutputPaddingTooLarge { axis, output_padding: 1, step: 1 },
        "output_padding of width is 1: it must be less than 1, the larger of stride and dilation",
    );
    // 3 · 2 + 2 + 1 + 1 = 10 positions, of which none is left.
    let padded = |before, after| line(4, 3).stride([2]).output_padding([1]).padding_before_after([before], [after]);
    assert_eq!(padded(7, 2).build().unwrap().output_size(), [1, 1, 1]);
    for (before, after) in [(7, 3), (0, 10)] {
        assert_error(
            padded(before, after).build(),
            Error::PaddingTooLarge { axis, padding: 10, unpadded: 10 },
            "padding of width is 10, before and after: it must be less than the unpadded output width, 10",
        );
    }
    let endless = Error::PaddingTooLarge { axis, padding: usize::MAX, unpadded: 10 };
    assert_eq!(padded(usize::MAX, usize::MAX).build().err(), Some(endless));
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let [packed_in, packed_out] = match layout {
            Layout::Nchw => [6 * 20, 4 * 36],
            Layout::Nhwc => [6, 4],
        };
        assert_error(
            conv(6, 4).layout(layout).input_pitch(packed_in - 1).build(),
            Error::PitchTooSmall { argument: "input_pitch", pitch: packed_in - 1, packed: packed_in },
            &format!("input_pitch is {}: it must be at least {packed_in}, what lies packed", packed_in - 1),
        );
        assert_error(
            conv(6, 4).layout(layout).output_pitch(packed_out - 1).build(),
            Error::PitchTooSmall { argument: "output_pitch", pitch: packed_out - 1, packed: packed_out },
            &format!("output_pitch is {}: it must be at least {packed_out}, what lies packed", packed_out - 1),
        );
    }
}

#[test]
fn transposed_sizes_must_be_addressable() {
    const HALF: usize = usize::MAX / 2;
    const ROOT: usize = 1 << (usize::BITS / 2 + 8);
    let overflow = |quantity, result: Result<ConvTransposeDesc, Error>| {
        assert_eq!(result.err(), Some(Error::Overflow { quantity }));
    };
    overflow("input", ConvTransposeDesc::conv1d(1, HALF, 1, [2], [1]).build());
    overflow("output", ConvTransposeDesc::conv1d(1, 1, HALF, [2], [1]).build());
    overflow("output", ConvTransposeDesc::conv1d(1, 1, 1, [3], [1]).stride([HALF]).build());
    overflow("output", ConvTransposeDesc::conv1d(1, 1, 1, [HALF / 2], [1]).stride([HALF]).build());
    overflow("output", ConvTransposeDesc::conv1d(1, 1, 1, [HALF], [1]).build());
    overflow("weight", ConvTransposeDesc::conv1d(0, ROOT, ROOT, [1], [1]).build());
    overflow("weight", ConvTransposeDesc::conv1d(0, 1, HALF / 8, [1], [5]).padding([2]).build());
    overflow("dilated kernel", ConvTransposeDesc::conv1d(1, 1, 1, [4], [3]).dilation([HALF]).build());
    let most = ConvTransposeDesc::conv1d(1, 1, 1, [2], [1]).build().unwrap();
    overflow("output", most.with_batch(HALF));
    let stride = ConvTransposeDesc::conv1d(1, 1, 1, [2], [1]).stride([HALF / 2]).dilation([HALF]);
    overflow("output", stride.output_padding([HALF / 2]).build());
    // No memory could hold it, but it can be planned.
    let long = ConvTransposeDesc::conv1d(0, 1, 1, [2], [1]).stride([1 << (usize::BITS - 8)]).build().unwrap();
    assert!(ConvTranspose::new(long).workspace_len(Pass::Forward) > 0);
}

/// Each buffer one element too short, and nothing is written.
#[test]
fn transposed_buffers_must_be_long_enough() {
    let desc = ConvTransposeDesc::conv2d(2, 3, 4, [4, 5], [3, 2]).stride([2, 1]).build().unwrap();
    let plan = ConvTranspose::new(desc);
    let names =
        ["input", "weight", "bias", "output", "grad_output", "grad_input", "grad_weight", "grad_bias", "workspace"];
    let lens = |pass| {
        let [x, w, b, y] = [desc.input_len(), desc.weight_len(), desc.bias_len(), desc.output_len()];
        [x, w, b, y, y, x, w, b, plan.workspace_len(pass)]
    };
    for (pass, arguments) in [
        (Pass::Forward, &["input", "weight", "bias", "output", "workspace"][..]),
        (Pass::BackwardInput, &["weight", "grad_output", "grad_input", "workspace"][..]),
        (Pass::BackwardWeight, &["input", "grad_output", "grad_weight", "grad_bias", "workspace"][..]),
    ] {
        for (short, name) in names.iter().enumerate().filter(|(_, name)| arguments.contains(name)) {
            let required = lens(pass);
            let mut buffers: Vec<Vec<f32>> = required.iter().map(|len| vec![7.0; *len]).collect();
            buffers[short].pop();
            let [x, w, b, y, dy, dx, dw, db, workspace] = &mut buffers[..] else { unreachable!("nine of them") };
            let result = match pass {
                Pass::Forward => plan.forward(Forward::new(x, Weight::Plain(w)).bias(b), y, workspace, &Serial),
                Pass::BackwardInput => {
                    let operands = BackwardInput::new(Weight::Plain(w), dy);
                    plan.backward_input(operands, Gradient::add(dx), workspace, &Serial)
                }
                _ => {
                    let gradients =
                        WeightGradients::new().weight(Gradient::overwrite(dw)).bias(Gradient::overwrite(db));
                    plan.backward_weight(BackwardWeight::new(x, dy), gradients, workspace, &Serial)
                }
            };
            let (len, required) = (required[short] - 1, required[short]);
            assert_eq!(result, Err(Error::BufferTooShort { argument: name, len, required }), "{pass:?}");
            assert!(buffers.iter().flatten().all(|value| *value == 7.0), "{pass:?} without all of {name} has written");
        }
    }
}

/// Two images at a time, and the last one alone, wait apart before they are added.
#[test]
fn transposed_gradients_are_added_in_parts() {
    for layout in [Layout::Nchw, Layout::Nhwc] {
        for gaps in [[0, 0], [7, 3]] {
            let shape = Shape::new(5, 50, 3, &[Axis::new(600, 3).stride(2).padding(1, 0)]).layout(layout).gaps(gaps);
            let case = Case::new(Layer::new(shape), Values::Continuous, 11);
            check(&case, Pass::BackwardInput, Variation { adds: [true; 2], ..plain() });
            let (plan, one) = (ConvTranspose::new(case.desc), ConvTranspose::new(case.desc.with_batch(1).unwrap()));
            let [all, few] = [&plan, &one].map(|plan| plan.workspace_len(Pass::BackwardInputPacked));
            assert!(all < few + 70_000, "{all} for five images, {few} for one");
        }
    }
}

#[test]
fn transposed_layers_notice_lazy_executors() {
    // It leaves out its last task.
    let lazy = Wrong(|tasks, run| (0..tasks - 1).for_each(run));
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let shape = Shape::new(2, 20, 30, &[Axis::new(9, 3).stride(2); 2]).layout(layout);
        let case = Case::new(Layer::new(shape), Values::Continuous, 4);
        let plan = plan(case.desc, isas().next().unwrap(), Some(strategy::usual())).with_threads(4);
        let mut workspace = vec![0.0; PASSES.map(|pass| plan.workspace_len(pass)).into_iter().max().unwrap()];
        let (weight, bias) = (Weight::Plain(&case.weight), case.bias.as_deref().unwrap());
        let (mut y, mut dx, mut db) = (case.grad_output.clone(), case.input.clone(), bias.to_vec());
        for result in [
            plan.forward(Forward::new(&case.input, weight).bias(bias), &mut y, &mut workspace, &lazy),
            plan.backward_input(
                BackwardInput::new(weight, &case.grad_output),
                Gradient::add(&mut dx),
                &mut workspace,
                &lazy,
            ),
            plan.backward_weight(
                BackwardWeight::new(&case.input, &case.grad_output),
                WeightGradients::new().bias(Gradient::overwrite(&mut db)),
                &mut workspace,
                &lazy,
            ),
        ] {
            assert!(matches!(result, Err(Error::Executor { never: true, .. })), "{layout:?}: {result:?}");
        }
    }
}

/// Packed weights of another pass, layer or instruction set are refused.
#[test]
fn transposed_weights_packed_elsewhere() {
    let desc = |outputs| ConvTransposeDesc::conv1d(1, 20, outputs, [9], [3]).build().unwrap();
    let plan = ConvTranspose::new(desc(30));
    let weight = vec![0.0; plan.desc().weight_len()];
    let (input, mut output) = (vec![0.0; plan.desc().input_len()], vec![7.0; plan.desc().output_len()]);
    let mut workspace = vec![0.0; plan.workspace_len(Pass::ForwardPacked)];
    let mut buffer = vec![0.0; plan.packed_weight_transposed_len()];
    let packed = plan.pack_weight_transposed(&weight, &mut buffer).unwrap();
    let bias = [1.0; 30];
    let operands = Forward::new(&input, Weight::Packed(&packed)).bias(&bias);
    let error = Error::PackedElsewhere { packed: plan.isa(), plan: plan.isa() };
    assert_eq!(plan.forward(operands, &mut output, &mut workspace, &Serial), Err(error));
    assert!(output.iter().all(|value| *value == 7.0));
}

/// An empty batch writes nothing but zero gradients.
#[test]
fn transposed_empty_batches() {
    let shape = Shape::new(0, 5, 7, &[Axis::new(6, 3).stride(2).padding(1, 1); 2]);
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let case = Case::new(Layer::new(shape.clone().layout(layout)), Values::Continuous, 1);
        assert_eq!((case.desc.input_len(), case.desc.output_len()), (0, 0));
        for pass in PASSES {
            check(&case, pass, plain());
        }
    }
}

/// A plan is a constant, and so are the lengths it asks for.
#[test]
fn transposed_plans_are_constants() {
    const PLAN: ConvTranspose =
        match ConvTransposeDesc::conv1d(1, 2, 3, [4], [3]).stride([2]).output_padding([1]).build() {
            Ok(desc) => ConvTranspose::baseline(desc).with_threads(1),
            Err(_) => panic!("a constant descriptor"),
        };
    let (input, weight) = ([1.0; PLAN.desc().input_len()], [1.0; PLAN.desc().weight_len()]);
    let mut output = [f32::NAN; PLAN.desc().output_len()];
    let mut workspace = [f32::NAN; PLAN.workspace_len(Pass::Forward)];
    let operands = Forward::new(&input, Weight::Plain(&weight)).bias(&[0.0, 10.0, 20.0]);
    PLAN.forward(operands, &mut output, &mut workspace, &Serial).unwrap();
    let one = [2.0, 2.0, 4.0, 2.0, 4.0, 2.0, 4.0, 2.0, 2.0, 0.0];
    let expected: Vec<f32> = [0.0, 10.0, 20.0].iter().flat_map(|bias| one.map(|value| value + bias)).collect();
    assert_eq!(output[..], expected);
}
