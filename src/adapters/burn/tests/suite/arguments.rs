//! Wrong arguments: the text names the argument, its value and the rule.

use burn::module::Initializer;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Tensor, TensorData};
use convrelu_burn::{
    ConvRelu2dConfig, Error, conv_relu2d, conv2d, try_conv_relu1d, try_conv_relu2d, try_conv_relu3d, try_conv1d,
    try_conv2d,
};

use crate::layer::{doubles, values};

fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::zeros(shape, &Device::flex())
}

fn unit() -> ConvOptions<2> {
    ConvOptions::new([1, 1], [0, 0], [1, 1], 1)
}

#[track_caller]
fn assert_refused<T>(result: Result<T, Error>, text: &str) {
    assert_eq!(result.err().expect("an error").to_string(), text);
}

#[test]
fn shapes() {
    let refused = |weight, thresholds, bias: Option<usize>, options, text: &str| {
        let bias = bias.map(|len| zeros([len]));
        assert_refused(try_conv_relu2d(zeros([2, 4, 8, 8]), zeros(weight), zeros(thresholds), bias, options), text);
    };
    refused(
        [6, 3, 3, 3],
        [4, 3, 3],
        None,
        unit(),
        "weight has the shape [6, 3, 3, 3]: it must be [out_channels, in_channels / groups, *kernel], here [6, 4, 3, 3]",
    );
    refused(
        [6, 4, 3, 3],
        [4, 3, 2],
        None,
        unit(),
        "thresholds has the shape [4, 3, 2]: it must be [in_channels, *kernel], here [4, 3, 3]",
    );
    // One threshold per channel of a group is not enough: groups have thresholds of their own.
    let grouped = ConvOptions { groups: 2, ..unit() };
    refused(
        [6, 2, 3, 3],
        [2, 3, 3],
        None,
        grouped.clone(),
        "thresholds has the shape [2, 3, 3]: it must be [in_channels, *kernel], here [4, 3, 3]",
    );
    refused([6, 4, 3, 3], [4, 3, 3], Some(4), unit(), "bias has the shape [4]: it must be [out_channels], here [6]");
    refused([5, 2, 3, 3], [4, 3, 3], None, grouped, "out_channels is 5: it must be a multiple of groups, 2");
    let three = ConvOptions { groups: 3, ..unit() };
    refused([6, 1, 3, 3], [4, 3, 3], None, three, "in_channels is 4: it must be a multiple of groups, 3");
    refused(
        [6, 4, 9, 3],
        [4, 9, 3],
        None,
        unit(),
        "dilated kernel height is 9: it must not exceed the padded input height, 8",
    );
    refused([6, 4, 0, 3], [4, 0, 3], None, unit(), "kernel height is 0: it must be at least 1");
    let still = ConvOptions { stride: [1, 0], ..unit() };
    refused([6, 4, 3, 3], [4, 3, 3], None, still, "stride of width is 0: it must be at least 1");
    let dense = ConvOptions { dilation: [0, 1], ..unit() };
    refused([6, 4, 3, 3], [4, 3, 3], None, dense, "dilation of height is 0: it must be at least 1 (1 is dense)");
    let none = ConvOptions { groups: 0, ..unit() };
    refused([6, 4, 3, 3], [4, 3, 3], None, none, "groups is 0: it must be at least 1");
}

#[test]
fn other_ranks_and_plain_convolutions() {
    let options = ConvOptions::new([1], [0], [1], 1);
    let text = "thresholds has the shape [4, 2]: it must be [in_channels, *kernel], here [4, 3]";
    assert_refused(try_conv_relu1d(zeros([2, 4, 8]), zeros([6, 4, 3]), zeros([4, 2]), None, options.clone()), text);
    assert_refused(
        try_conv1d(zeros([2, 4, 2]), zeros([6, 4, 3]), None, options),
        "dilated kernel width is 3: it must not exceed the padded input width, 2",
    );
    assert_refused(
        try_conv_relu3d(
            zeros([1, 2, 3, 3, 3]),
            zeros([1, 2, 4, 1, 1]),
            zeros([2, 4, 1, 1]),
            None,
            ConvOptions::new([1; 3], [0; 3], [1; 3], 1),
        ),
        "dilated kernel depth is 4: it must not exceed the padded input depth, 3",
    );
    let text = "weight has the shape [6, 2, 3, 3]: it must be [out_channels, in_channels / groups, *kernel], here [6, 4, 3, 3]";
    assert_refused(try_conv2d(zeros([2, 4, 8, 8]), zeros([6, 2, 3, 3]), None, unit()), text);
}

#[test]
fn element_types() {
    let wide = zeros([6, 4, 3, 3]).cast(DType::F64);
    let text = "weight holds F64: it must hold what the input holds, F32";
    assert_refused(try_conv2d(zeros([2, 4, 8, 8]), wide.clone(), None, unit()), text);
    let text = "bias holds F32: it must hold what the input holds, F64";
    assert_refused(try_conv2d(zeros([2, 4, 8, 8]).cast(DType::F64), wide, Some(zeros([6])), unit()), text);
}

#[test]
fn thresholds_that_are_nan() {
    let mut theta = vec![0.0; 36];
    theta[20] = f32::NAN;
    let theta: Tensor<3> = Tensor::from_data(TensorData::new(theta, [4, 3, 3]), &Device::flex());
    let text = "thresholds[20] is NaN: a threshold must be ordered";
    for tracked in [false, true] {
        let device = if tracked { Device::flex().autodiff() } else { Device::flex() };
        let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device).set_require_grad(tracked);
        let theta: Tensor<3> = Tensor::from_data(theta.to_data(), &device);
        let result = try_conv_relu2d(zeros([2, 4, 8, 8]), zeros([6, 4, 3, 3]), theta, None, unit());
        assert_refused(result, text);
    }
    let wide = |shape| zeros(shape).cast(DType::F64);
    let result = try_conv_relu2d(wide([2, 4, 8, 8]), wide([6, 4, 3, 3]), theta.cast(DType::F64), None, unit());
    assert_refused(result, text);
}

#[test]
#[should_panic(
    expected = "conv_relu2d: thresholds has the shape [3, 3, 3]: it must be [in_channels, *kernel], here [4, 3, 3]"
)]
fn layers_panic_with_the_text() {
    conv_relu2d(zeros([2, 4, 8, 8]), zeros([6, 4, 3, 3]), zeros([3, 3, 3]), None, unit());
}

#[test]
#[should_panic(expected = "conv2d: in_channels is 4: it must be a multiple of groups, 3")]
fn convolutions_panic_with_the_text() {
    conv2d(zeros([2, 4, 8, 8]), zeros([6, 4, 3, 3]), None, ConvOptions { groups: 3, ..unit() });
}

#[test]
#[should_panic(
    expected = "the number of output channels is 5: it must be a multiple of groups, 2, which must be at least 1"
)]
fn configurations_panic_with_the_text() {
    ConvRelu2dConfig::new([4, 5], [3, 3]).with_groups(2).init(&Device::flex());
}

#[test]
#[should_panic(expected = "ConvRelu2d: weight has the shape [6, 4, 3, 3]")]
fn modules_panic_with_the_text() {
    ConvRelu2dConfig::new([4, 6], [3, 3]).init(&Device::flex()).forward(zeros([2, 3, 8, 8]));
}

#[test]
fn thresholds_begin_as_they_are_asked_to() {
    let device = Device::flex();
    device.seed(1);
    let config = ConvRelu2dConfig::new([64, 32], [3, 3]).with_groups(2);
    let begin = |initializer: Initializer| {
        let layer = config.clone().with_threshold_initializer(initializer).init(&device);
        assert_eq!((layer.weight.dims(), layer.thresholds.dims()), ([32, 32, 3, 3], [64, 3, 3]));
        values(&layer.thresholds.val())
    };
    let deviation = |values: &[f32]| (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
    let zero = values(&config.init(&device).thresholds.val());
    assert_eq!(zero, [0.0; 576]);
    let gaussian = deviation(&begin(Initializer::Normal { mean: 0.0, std: 0.1 }));
    assert!((gaussian / 0.1 - 1.0).abs() < 0.1, "{gaussian}");
    let uniform = begin(Initializer::Uniform { min: -0.5, max: 0.5 });
    assert!(uniform.iter().all(|theta| theta.abs() <= 0.5) && uniform.iter().any(|theta| theta.abs() > 0.45));
    // As the trainer counts: fan in 32 · 9, of a group, fan out 32 · 9, of all.
    let glorot = deviation(&begin(Initializer::XavierNormal { gain: 1.0 }));
    assert!((glorot / (2.0 / 576.0_f32).sqrt() - 1.0).abs() < 0.1, "{glorot}");
}

/// f16 and the like have no kernels of ours; burn's own operations take them.
#[test]
fn half_precision() {
    let half = |shape: [usize; 4], value: f32| Tensor::<4>::full(shape, value, &Device::flex()).cast(DType::F16);
    let theta = Tensor::<3>::full([2, 2, 2], 0.5, &Device::flex()).cast(DType::F16);
    let y = conv_relu2d(half([1, 2, 3, 3], 0.25), half([1, 2, 2, 2], 2.0), theta, None, unit());
    assert_eq!((y.dtype(), doubles(&y)), (DType::F16, vec![8.0; 4]));
}
