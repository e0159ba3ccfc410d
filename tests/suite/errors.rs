//! Every mistake has its error, with the values that show it, in one line.

use convrelu::{
    Accumulation, BackwardInput, BackwardWeight, ConvDesc, ConvRelu, Error, Executor, Forward, Gradient,
    InputGradients, Isa, Layout, Pass, Serial, Thresholds, Weight, WeightGradients, adarelu,
};

use crate::common::{Axis, Shape, isas, plan};

/// Asserts which error it is and that its message is the one line given.
fn assert_error<T>(result: Result<T, Error>, error: Error, message: &str) {
    let found = result.err();
    assert_eq!(found, Some(error));
    assert_eq!(error.to_string(), message);
    assert!(!message.contains('\n'));
    let _: &dyn std::error::Error = &error;
}

#[test]
fn zeros_are_refused() {
    let conv = |inputs, outputs| ConvDesc::conv2d(1, inputs, outputs, [4, 5], [3, 2]);
    let argument = "in_channels";
    assert_error(conv(0, 1).build(), Error::ZeroChannels { argument }, "in_channels is 0: it must be at least 1");
    let argument = "out_channels";
    assert_error(conv(1, 0).build(), Error::ZeroChannels { argument }, "out_channels is 0: it must be at least 1");
    assert_error(conv(1, 1).groups(0).build(), Error::ZeroGroups, "groups is 0: it must be at least 1");
    let empty = ConvDesc::conv1d(1, 1, 1, [0], [1]).build();
    assert_error(empty, Error::ZeroSize { axis: "width" }, "input width is 0: it must be at least 1");
    let kernel = ConvDesc::conv3d(1, 1, 1, [3, 3, 3], [0, 1, 1]).build();
    assert_error(kernel, Error::ZeroKernel { axis: "depth" }, "kernel depth is 0: it must be at least 1");
    let stride = conv(1, 1).stride([0, 1]).build();
    assert_error(stride, Error::ZeroStride { axis: "height" }, "stride of height is 0: it must be at least 1");
    assert_error(
        conv(1, 1).dilation([1, 0]).build(),
        Error::ZeroDilation { axis: "width" },
        "dilation of width is 0: it must be at least 1 (1 is dense)",
    );
}

#[test]
fn a_kernel_must_fit() {
    let conv =
        |kernel| ConvDesc::conv2d(1, 1, 1, [9, 4], [1, kernel]).dilation([1, 3]).padding_before_after([0, 1], [0, 2]);
    assert!(conv(3).build().is_ok());
    assert_error(
        conv(4).build(),
        Error::KernelTooLarge { axis: "width", kernel: 10, padded: 7 },
        "dilated kernel width is 10: it must not exceed the padded input width, 7",
    );
}

#[test]
fn groups_must_divide_channels() {
    let conv = |inputs, outputs| ConvDesc::conv1d(1, inputs, outputs, [4], [1]).groups(3).build();
    assert_error(
        conv(7, 6),
        Error::ChannelsNotDivisible { argument: "in_channels", channels: 7, groups: 3 },
        "in_channels is 7: it must be a multiple of groups, 3",
    );
    assert_error(
        conv(6, 8),
        Error::ChannelsNotDivisible { argument: "out_channels", channels: 8, groups: 3 },
        "out_channels is 8: it must be a multiple of groups, 3",
    );
}

#[test]
fn sizes_must_be_addressable() {
    const HALF: usize = usize::MAX / 2;
    /// Its square is no `usize`.
    const ROOT: usize = 1 << (usize::BITS / 2 + 8);
    let overflow = |quantity, result: Result<ConvDesc, Error>| {
        let message = format!("{quantity} overflows: its size in bytes must fit isize");
        assert_error(result, Error::Overflow { quantity }, &message);
    };
    overflow("input", ConvDesc::conv1d(HALF, 1, 1, [2], [1]).build());
    overflow("input", ConvDesc::conv2d(0, 1, 1, [HALF / 8, 4], [1, 1]).build());
    overflow("output", ConvDesc::conv1d(1, 1, HALF, [2], [1]).build());
    overflow("thresholds", ConvDesc::conv1d(1, HALF / 8, 1, [1], [5]).padding([4]).build());
    overflow("weight", ConvDesc::conv1d(0, ROOT, ROOT, [1], [1]).build());
    overflow("padded input", ConvDesc::conv1d(1, 1, 1, [1], [1]).padding([HALF]).build());
    overflow("dilated kernel", ConvDesc::conv1d(1, 1, 1, [4], [3]).dilation([HALF]).build());
}

/// Padding makes positions without end and no work: found by fuzzing.
#[cfg(target_pointer_width = "64")]
#[test]
fn endless_padding_is_planned() {
    let desc = ConvDesc::conv1d(62, 7, 7, [31], [131_080])
        .stride([7_419])
        .dilation([1 << 32])
        .padding_before_after([1 << 50], [(1 << 61) - 1])
        .groups(7)
        .build();
    let plan = ConvRelu::new(desc.unwrap());
    assert!(plan.workspace_len(Pass::Forward) > 0);
}

fn small() -> Shape {
    Shape::new(1, 3, 4, &[Axis::new(5, 3).padding(1, 1)])
}

/// The three calls with given thresholds, on some executor.
fn call_all(plan: &ConvRelu, thresholds: Thresholds<'_>, executor: &dyn Executor) -> [Result<(), Error>; 3] {
    let desc = plan.desc();
    let (input, weight, grad_output) =
        (&vec![0.0; desc.input_len()][..], &vec![0.0; desc.weight_len()][..], &vec![0.0; desc.output_len()][..]);
    let workspace = |pass| vec![0.0; plan.workspace_len(pass)];
    let weight = Weight::Plain(weight);
    [
        plan.forward(
            Forward::new(input, weight, thresholds),
            &mut vec![0.0; desc.output_len()],
            &mut workspace(Pass::Forward),
            executor,
        ),
        plan.backward_input(
            BackwardInput::new(input, weight, thresholds, grad_output),
            InputGradients::new().input(Gradient::overwrite(&mut vec![0.0; desc.input_len()])),
            &mut workspace(Pass::BackwardInput),
            executor,
        ),
        plan.backward_weight(
            BackwardWeight::new(input, thresholds, grad_output),
            WeightGradients::new().weight(Gradient::overwrite(&mut vec![0.0; desc.weight_len()])),
            &mut workspace(Pass::BackwardWeight),
            executor,
        ),
    ]
}

#[test]
fn a_nan_threshold_is_refused() {
    for isa in isas() {
        let plan = plan(small().desc(), isa, None);
        let mut theta = [0.0; 9];
        theta[8] = f32::NAN;
        let last = call_all(&plan, Thresholds::PerTap(&theta), &Serial);
        theta[2] = f32::NAN;
        let first = call_all(&plan, Thresholds::PerTap(&theta), &Serial);
        let uniform = call_all(&plan, Thresholds::Uniform(f32::NAN), &Serial);
        for (results, index) in [(last, 8), (first, 2), (uniform, 0)] {
            for result in results {
                let message = format!("thresholds[{index}] is NaN: a threshold must be ordered");
                assert_error(result, Error::NanThreshold { index }, &message);
            }
        }
        // What lies beyond the thresholds of the layer is nobody's business.
        let longer = [&[0.0; 9][..], &[f32::NAN]].concat();
        assert_eq!(call_all(&plan, Thresholds::PerTap(&longer), &Serial), [Ok(()); 3]);
    }
}

/// Forward with a weight that `packer` has packed.
fn forward_packed_by(packer: &ConvRelu, plan: &ConvRelu) -> Result<Vec<f32>, Error> {
    let desc = plan.desc();
    let mut buffer = vec![0.0; packer.packed_weight_len()];
    let weight = packer.pack_weight(&vec![1.0; packer.desc().weight_len()], &mut buffer).unwrap();
    let mut output = vec![0.0; desc.output_len()];
    let input = vec![1.0; desc.input_len()];
    let operands = Forward::new(&input, Weight::Packed(&weight), Thresholds::LINEAR);
    plan.forward(operands, &mut output, &mut vec![0.0; plan.workspace_len(Pass::ForwardPacked)], &Serial)?;
    Ok(output)
}

#[test]
fn packed_weights_belong_to_a_layer_and_an_instruction_set() {
    let elsewhere = |packed: Isa, plan: Isa| Error::PackedElsewhere { packed, plan };
    for isa in isas() {
        let plan = plan(small().desc(), isa, None);
        for other in isas().filter(|&other| other != isa) {
            let packer = ConvRelu::with_isa(small().desc(), other).unwrap();
            assert_error(
                forward_packed_by(&packer, &plan),
                elsewhere(other, isa),
                &format!("packed weight ({other}) belongs to another plan: it must be packed by this one ({isa})"),
            );
        }
        let others = [
            Shape::new(1, 4, 3, &[Axis::new(5, 3).padding(1, 1)]),
            Shape::new(1, 3, 4, &[Axis::new(5, 2).padding(1, 1)]),
            Shape::new(1, 3, 8, &[Axis::new(5, 3).padding(1, 1)]),
            Shape::new(1, 3, 4, &[Axis::new(1, 1), Axis::new(5, 3).padding(1, 1)]).groups(2),
            small().layout(Layout::Nhwc),
        ];
        for other in others {
            let packer = ConvRelu::with_isa(other.desc(), isa).unwrap();
            assert_eq!(forward_packed_by(&packer, &plan), Err(elsewhere(isa, isa)), "{other:?}");
        }
        // The same layer on another number of images of another size.
        for (batch, size) in [(3, 5), (1, 60), (2, 1)] {
            let same = Shape::new(batch, 3, 4, &[Axis::new(size, 3).padding(1, 1)]);
            let packer = ConvRelu::with_isa(same.desc(), isa).unwrap();
            assert_eq!(forward_packed_by(&packer, &plan), forward_packed_by(&plan, &plan), "{same:?} on {isa}");
        }
        let interior_and_edge = forward_packed_by(&plan, &plan).unwrap();
        assert_eq!(interior_and_edge[..5], [6.0, 9.0, 9.0, 9.0, 6.0]);
    }
}

#[test]
fn a_pitch_steps_over_what_is_there() {
    let conv = |layout| ConvDesc::conv2d(2, 3, 4, [5, 6], [1, 1]).layout(layout);
    for (layout, input, output) in [(Layout::Nchw, 90, 120), (Layout::Nhwc, 3, 4)] {
        let packed = conv(layout).build().unwrap();
        assert_eq!((packed.input_pitch(), packed.output_pitch()), (input, output));
        assert_eq!(conv(layout).input_pitch(input).output_pitch(output).build(), Ok(packed));
        for (argument, packed, desc) in [
            ("input_pitch", input, conv(layout).input_pitch(input - 1).build()),
            ("output_pitch", output, conv(layout).output_pitch(output - 1).build()),
        ] {
            let pitch = packed - 1;
            assert_error(
                desc,
                Error::PitchTooSmall { argument, pitch, packed },
                &format!("{argument} is {pitch}: it must be at least {packed}, what lies packed"),
            );
        }
        let overflow = |quantity| Err(Error::Overflow { quantity });
        assert_eq!(conv(layout).input_pitch(usize::MAX / 8).build(), overflow("input"));
        assert_eq!(conv(layout).output_pitch(usize::MAX / 8).build(), overflow("output"));
    }
    // From the first element to the last, not beyond.
    let last = conv(Layout::Nhwc).input_pitch(10).output_pitch(7).build().unwrap();
    assert_eq!((last.input_len(), last.output_len()), (59 * 10 + 3, 59 * 7 + 4));
    let first = conv(Layout::Nchw).input_pitch(100).output_pitch(121).build().unwrap();
    assert_eq!((first.input_len(), first.output_len()), (100 + 90, 121 + 120));
    assert_eq!(first.with_batch(0).map(|empty| (empty.input_len(), empty.output_len())), Ok((0, 0)));
    assert_eq!(first.flops(), 2.0 * 2.0 * 4.0 * 30.0 * 3.0);
}

#[test]
fn only_linear_layers_do_without_input() {
    for isa in isas() {
        let plan = plan(small().desc(), isa, None);
        let desc = plan.desc();
        let (weight, grad_output) = (vec![1.0; desc.weight_len()], vec![1.0; desc.output_len()]);
        let call = |thresholds, input| {
            let mut operands = BackwardInput::linear(Weight::Plain(&weight), &grad_output);
            operands.thresholds = thresholds;
            operands.input = input;
            let mut grad_input = vec![f32::NAN; desc.input_len()];
            let gradients = InputGradients::new().input(Gradient::overwrite(&mut grad_input));
            plan.backward_input(operands, gradients, &mut vec![0.0; plan.workspace_len(Pass::BackwardInput)], &Serial)
                .map(|()| grad_input)
        };
        assert_error(
            call(Thresholds::RELU, None),
            Error::MissingInput,
            "input is missing: it must be given unless thresholds are uniformly −∞ (linear)",
        );
        let without = call(Thresholds::LINEAR, None).unwrap();
        assert!(without.iter().all(|g| g.is_finite()));
        // An input is not looked at, not even for its length.
        assert_eq!(call(Thresholds::LINEAR, Some(&[])), Ok(without.clone()));
        assert_eq!(call(Thresholds::LINEAR, Some(&vec![f32::NAN; desc.input_len()])), Ok(without));
    }
}

/// An executor that does something else than it should.
pub(crate) struct Wrong(pub(crate) fn(usize, &dyn Fn(usize)));

impl Executor for Wrong {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.0(tasks, &|index| task(index));
    }
}

#[test]
fn wrong_executors_are_reported() {
    let shape = Shape::new(6, 20, 30, &[Axis::new(9, 3).padding(1, 1); 2]);
    for layout in [Layout::Nchw, Layout::Nhwc] {
        for isa in isas() {
            let tuning = convrelu::Tuning { part: 1, ..convrelu::Tuning::default() };
            let plan = plan(shape.clone().layout(layout).desc(), isa, Some(tuning)).with_threads(3);
            let call = |wrong| call_all(&plan, Thresholds::RELU, &Wrong(wrong));
            let twice = call(|tasks, task| (0..tasks).chain([1]).for_each(task));
            let never = call(|tasks, task| (1..tasks).for_each(task));
            let beyond = call(|tasks, task| (0..=tasks).for_each(task));
            let nothing = call(|_, _| ());
            for (results, task, never) in
                [(twice, Some(1), false), (never, Some(0), true), (beyond, None, false), (nothing, Some(0), true)]
            {
                for result in results {
                    let done = if never { "never ran" } else { "ran more than once" };
                    // Threads share the panels of a weight that the call packs, of which there may be two.
                    let Err(Error::Executor { tasks: tasks @ 2..=3, .. }) = result else {
                        panic!("{result:?} on {isa}");
                    };
                    let task = task.unwrap_or(tasks);
                    assert_error(
                        result,
                        Error::Executor { tasks, task, never },
                        &format!("executor {done} task {task}: it must run each of tasks 0 to {} once", tasks - 1),
                    );
                }
            }
        }
    }
}

/// Any number of threads may be asked for. A layer is cut into 128 parts at most, and only where parts pay.
#[test]
fn threads_without_end() {
    let desc = Shape::new(2, 8, 8, &[Axis::new(1000, 3).padding(1, 1)]).desc();
    for isa in isas() {
        for threads in [1_000_000, usize::MAX] {
            let plan = plan(desc, isa, None).with_threads(threads);
            assert_eq!(plan.threads(), threads);
            assert_eq!(call_all(&plan, Thresholds::RELU, &crate::common::Workers::USUAL), [Ok(()); 3]);
        }
        // 9 multiply-adds do not pay a second thread.
        let tiny = Shape::new(1, 1, 1, &[Axis::new(3, 3).padding(1, 1)]).desc();
        let lens = |plan: ConvRelu| crate::common::PASSES.map(|pass| plan.workspace_len(pass));
        assert_eq!(lens(plan(tiny, isa, None).with_threads(8)), lens(plan(tiny, isa, None)));
    }
}

/// The one error that no machine can be made to give on purpose: [`crate::isa`] provokes it for one name.
#[test]
fn messages_of_the_rest() {
    let unavailable = Error::IsaUnavailable { isa: Isa::Avx512 };
    assert_eq!(unavailable.to_string(), "isa is avx512: this CPU, system or build does not offer it");
    let short = Error::BufferTooShort { argument: "bias", len: 3, required: 4 };
    assert_eq!(short.to_string(), "bias holds 3 elements: it must hold at least 4");
}

#[test]
fn adarelu_refuses_too() {
    let forward = |elements: usize, thresholds: &[f32], inner, outputs: usize| {
        adarelu::forward(&vec![0.0; elements], thresholds, inner, &mut vec![0.0; outputs])
    };
    for (elements, thresholds, inner) in [(6, 4, 1), (6, 2, 2), (6, 0, 1), (6, 1, 0), (1, 1, 2), (6, 2, usize::MAX)] {
        assert_error(
            forward(elements, &vec![0.0; thresholds], inner, elements),
            Error::ThresholdShape { elements, thresholds, inner },
            &format!(
                "thresholds holds {thresholds} values for {elements} elements in runs of {inner}: \
                 thresholds · inner must be at least 1 and divide the number of elements"
            ),
        );
    }
    assert_eq!(forward(6, &[0.0, f32::NAN], 3, 6), Err(Error::NanThreshold { index: 1 }));
    let short = |argument, len, required| Err(Error::BufferTooShort { argument, len, required });
    assert_eq!(forward(6, &[0.0], 1, 5), short("output", 5, 6));
    let backward = |grad_output: usize, grad_input: usize, grad_thresholds: usize| {
        adarelu::backward(
            &[0.0; 4],
            &[0.0; 2],
            2,
            &vec![0.0; grad_output],
            &mut vec![0.0; grad_input],
            &mut vec![0.0; grad_thresholds],
            Accumulation::Overwrite,
        )
    };
    assert_eq!(backward(4, 4, 2), Ok(()));
    assert_eq!(backward(3, 4, 2), short("grad_output", 3, 4));
    assert_eq!(backward(4, 3, 2), short("grad_input", 3, 4));
    assert_eq!(backward(4, 4, 1), short("grad_thresholds", 1, 2));
}
