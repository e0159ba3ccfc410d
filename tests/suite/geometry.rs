//! Geometry at its limits: constants, empty batches, distances far beyond the tensors.

use convrelu::{ConvDesc, ConvRelu, Layout, Pass};

use crate::common::{Axis, Case, Expected, How, PASSES, Results, Shape, Values, isas, plan, run};

const CONSTANT: ConvDesc =
    match ConvDesc::conv3d(2, 6, 4, [5, 6, 7], [1, 2, 3]).stride([1, 2, 3]).padding([0, 1, 2]).groups(2).build() {
        Ok(desc) => desc,
        Err(_) => panic!("a good descriptor"),
    };

#[test]
fn a_descriptor_is_a_constant() {
    const OUTPUT: [usize; 3] = CONSTANT.output_size();
    assert_eq!(OUTPUT, [5, 4, 3]);
    assert_eq!(CONSTANT.rank(), 3);
    assert_eq!((CONSTANT.input_len(), CONSTANT.output_len()), (2 * 6 * 210, 2 * 4 * 60));
    assert_eq!((CONSTANT.weight_len(), CONSTANT.threshold_len(), CONSTANT.bias_len()), (4 * 3 * 6, 6 * 6, 4));
    assert_eq!(CONSTANT.flops(), 2.0 * 480.0 * 18.0);
}

#[test]
fn lower_ranks_have_leading_axes_of_one() {
    let desc = ConvDesc::conv1d(1, 1, 1, [9], [3]).stride([2]).dilation([2]).padding([1]).build().unwrap();
    assert_eq!((desc.rank(), desc.layout()), (1, Layout::Nchw));
    assert_eq!((desc.input_size(), desc.kernel(), desc.output_size()), ([1, 1, 9], [1, 1, 3], [1, 1, 4]));
    assert_eq!((desc.stride(), desc.dilation()), ([1, 1, 2], [1, 1, 2]));
    assert_eq!((desc.padding_before(), desc.padding_after()), ([0, 0, 1], [0, 0, 1]));
}

/// Distances that dwarf the tensors, in both layouts: the results are right, the workspace stays small.
#[test]
fn distances_beyond_the_tensors() {
    const FAR: usize = if usize::BITS == 64 { 1_000_000_000 } else { 100_000_000 };
    let axes = [
        Axis::new(1, 2).dilation(FAR).padding(FAR, 0),
        Axis::new(1, 2).dilation(FAR).padding(0, FAR),
        Axis::new(3, 2).dilation(FAR).padding(FAR / 2, FAR / 2),
        Axis::new(1, 1).stride(FAR).padding(FAR, 0),
        Axis::new(1, 1).stride(FAR).padding(0, FAR),
        Axis::new(2, 1).stride(FAR).padding(FAR - 1, FAR - 1),
        Axis::new(5, 3).stride(usize::MAX).dilation(FAR).padding(FAR, 3 * FAR),
        Axis::new(1, 2).stride(FAR).dilation(FAR).padding(2 * FAR, 2 * FAR),
        Axis::new(2, 3).stride(FAR / 2).dilation(FAR).padding(FAR, FAR + 7),
        Axis::new(2, 1).stride(3).dilation(usize::MAX).padding(4, 4),
        Axis::new(1, 1).stride(FAR + 7).dilation(usize::MAX - 1).padding(FAR, FAR),
        // Found by fuzzing: all padding, and a stride that is no isize.
        Axis::new(1, 1).stride(usize::MAX / 2 + 2).padding(FAR, FAR),
    ];
    // Found by fuzzing: rows that read only padding, and whose distance in memory is no number.
    let depthwise = Axis::new(3, 2).stride(usize::MAX >> 8).dilation(4).padding(6, 6 * (usize::MAX >> 8));
    let depthwise = Shape::new(1, 1, 1, &[depthwise, Axis::new(4, 1)]).groups(6);
    let shapes = axes.into_iter().flat_map(|axis| {
        [
            Shape::new(2, 3, 5, &[axis]),
            Shape::new(1, 2, 17, &[axis, Axis::new(3, 3).padding(1, 1)]),
            Shape::new(1, 9, 2, &[Axis::new(4, 2), axis]),
            Shape::new(1, 1, 1, &[axis, axis]).groups(5),
            Shape::new(1, 2, 2, &[axis, axis, axis]),
        ]
    });
    for shape in shapes.chain([depthwise]) {
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let desc = shape.clone().layout(layout).desc();
            let case = Case::new(desc, Values::Quantised, 11);
            for pass in PASSES {
                let expected = Expected::new(&case, pass);
                for isa in isas() {
                    let plan = plan(desc, isa, None);
                    let workspace = plan.workspace_len(pass);
                    assert!(workspace < 1 << 20, "{pass:?} on {isa} asks for {workspace} floats: {desc:?}");
                    let results = run(&plan, pass, &case, How::default(), None);
                    expected.check(&results, None, || format!("{pass:?} on {isa}: {desc:?}"));
                }
            }
        }
    }
}

/// An empty batch computes nothing, and that is what its gradients are.
#[test]
fn an_empty_batch() {
    for layout in [Layout::Nchw, Layout::Nhwc] {
        for groups in [1, 3] {
            let desc = Shape::new(0, 2, 3, &[Axis::new(4, 3); 2]).groups(groups).layout(layout).desc();
            assert_eq!((desc.input_len(), desc.output_len()), (0, 0));
            let case = Case::new(desc, Values::Continuous, 12);
            for isa in isas() {
                let plan = plan(desc, isa, None);
                for pass in PASSES {
                    let results = run(&plan, pass, &case, How::default(), None);
                    let written = || results.values.iter().flatten().flatten();
                    assert!(written().all(|value| value.to_bits() == 0), "{pass:?} on {isa}");
                    let backward =
                        matches!(pass, Pass::BackwardInput | Pass::BackwardInputPacked | Pass::BackwardWeight);
                    assert_eq!(written().count() > 0, backward, "{pass:?}");
                    if backward {
                        let prior = Results::prior(&case, pass, [true; 2], |len| vec![1.5; len]);
                        let sums = run(&plan, pass, &case, How::default(), Some(&prior));
                        assert_eq!(sums.values, prior.values, "{pass:?} on {isa}");
                    }
                }
            }
        }
    }
}

/// The scratch of a pass does not grow with the batch, nor beyond a few hundred KiB with the image.
#[test]
fn the_workspace_does_not_grow_with_the_work() {
    for layout in [Layout::Nchw, Layout::Nhwc] {
        for isa in isas() {
            for pass in [Pass::ForwardPacked, Pass::BackwardInput, Pass::BackwardWeight] {
                let workspace = |batch: usize, size: usize| {
                    let axes = [Axis::new(size, 3).padding(1, 1); 2];
                    let desc = Shape::new(batch, 16, 24, &axes).layout(layout).desc();
                    ConvRelu::with_isa(desc, isa).map(|plan| plan.workspace_len(pass)).unwrap()
                };
                // Very many positions take sums of their own for segments of them; such tensors do not fit 32 bits of bytes.
                let batches = [[80, 160], [5000, 8000]];
                for [few, many] in batches.into_iter().take(if cfg!(target_pointer_width = "64") { 2 } else { 1 }) {
                    assert_eq!(workspace(few, 64), workspace(many, 64), "{pass:?} on {isa}, {layout:?}");
                }
                let (small, large) = (workspace(1, 256), workspace(1, 1024));
                assert!(large < 1 << 20, "{pass:?} on {isa}, {layout:?}: {small} floats at 256, {large} at 1024");
            }
        }
    }
}

/// At most 512 KiB per thread on layers of real networks and on awkward ones. Packed weights come on top, and so do the thresholds in
/// their order with the sums of their gradients, and the sums of one segment of positions, which are as long as the gradients of weight
/// and bias.
#[test]
fn the_workspace_fits_the_cache() {
    let square = |batch, inputs, outputs, size, kernel| {
        let axes = [Axis::new(size, kernel).padding(kernel / 2, kernel / 2); 2];
        Shape::new(batch, inputs, outputs, &axes)
    };
    let shapes = [
        square(8, 48, 12, 32, 3),
        square(8, 96, 48, 32, 1),
        square(8, 3, 64, 224, 7),
        square(8, 64, 64, 32, 3),
        square(8, 512, 512, 4, 3),
        square(1, 2048, 512, 7, 1),
        square(1, 128, 128, 56, 3),
        square(2, 1000, 1000, 5, 5),
        square(1, 1, 1, 2000, 11),
        Shape::new(8, 256, 256, &[Axis::new(336, 7)]),
        Shape::new(1, 128, 128, &[Axis::new(14, 3).padding(1, 1); 3]),
        Shape::new(8, 1, 1, &[Axis::new(56, 3).padding(1, 1); 2]).groups(256),
    ];
    for shape in shapes {
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let desc = shape.clone().layout(layout).desc();
            for isa in isas() {
                let plan = ConvRelu::with_isa(desc, isa).unwrap().with_threads(1);
                for pass in [Pass::ForwardPacked, Pass::BackwardInputPacked, Pass::BackwardWeight] {
                    let gradient = desc.weight_len() + desc.bias_len();
                    let apart = match pass {
                        Pass::BackwardInputPacked => 2 * desc.threshold_len(),
                        // Longer ones have no segments.
                        Pass::BackwardWeight if gradient <= 256 * 1024 => gradient,
                        _ => 0,
                    };
                    let bytes = (plan.workspace_len(pass) - apart) * size_of::<f32>();
                    assert!(bytes <= 512 * 1024, "{pass:?} on {isa}: {bytes} bytes for {desc:?}");
                }
            }
        }
    }
}

#[test]
fn plans_are_values() {
    fn is_plan<T: Copy + Send + Sync + 'static>(_: &T) {}
    let plan = ConvRelu::new(CONSTANT).with_threads(0);
    is_plan(&plan);
    assert_eq!((plan.threads(), plan.with_threads(3).threads()), (1, 3));
    assert_eq!(*plan.desc(), CONSTANT);
}
