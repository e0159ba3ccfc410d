//! Mistakes come back as sentences that name the argument, its value and the rule it breaks.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use convrelu_candle::functional::{conv_relu1d, conv_relu2d, conv_relu3d, conv1d, conv2d};
use convrelu_candle::{Options, nn};

fn ones(shape: &[usize]) -> Tensor {
    Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()
}

/// The sentence. candle adds a backtrace in the lines below it, where the environment asks for one.
fn message<T>(result: Result<T>) -> String {
    let message = result.err().expect("an error").to_string();
    message.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn shapes() {
    let (x, w) = (ones(&[2, 6, 8, 9]), ones(&[4, 6, 3, 3]));
    let plain = |x: &Tensor, w: &Tensor| message(conv2d(x, w, 0, 1, 1, 1));
    assert_eq!(
        plain(&ones(&[6, 8, 9]), &w),
        "input has shape [6, 8, 9]: it must have 4 axes, batch, in_channels, height, width"
    );
    assert_eq!(
        message(conv1d(&ones(&[6, 8, 9]), &w, 0, 1, 1, 1)),
        "weight has shape [4, 6, 3, 3]: it must have 3 axes, out_channels, in_channels / groups, width"
    );
    assert_eq!(
        plain(&x, &ones(&[4, 5, 3, 3])),
        "weight has shape [4, 5, 3, 3]: its axis 1 must be 6, the 6 channels of input / 1 groups"
    );
    assert_eq!(
        message(conv2d(&x, &w, 0, 1, 1, 2)),
        "weight has shape [4, 6, 3, 3]: its axis 1 must be 3, the 6 channels of input / 2 groups"
    );
    assert_eq!(message(conv2d(&x, &w, 0, 1, 1, 4)), "in_channels is 6: it must be a multiple of groups, 4");
    let thresholds = |shape: &[usize]| message(conv_relu2d(&x, &w, &ones(shape), None, Options::new()));
    assert_eq!(
        thresholds(&[6, 3, 2]),
        "thresholds has shape [6, 3, 2]: it must be [6, 3, 3], in_channels and kernel, or [] for a single one"
    );
    assert!(thresholds(&[1]).starts_with("thresholds has shape [1]: it must be [6, 3, 3]"));
    assert_eq!(
        message(conv_relu2d(&x, &w, 0.0, Some(&ones(&[6])), Options::new())),
        "bias has shape [6]: it must be [4], the output channels of weight"
    );
    assert_eq!(
        message(conv_relu3d(&x, &w, 0.0, None, Options::new())),
        "input has shape [2, 6, 8, 9]: it must have 5 axes, batch, in_channels, depth, height, width"
    );
}

#[test]
fn numbers() {
    let (x, w) = (ones(&[2, 6, 8, 9]), ones(&[4, 6, 3, 3]));
    let call = |padding, stride, dilation, groups| message(conv2d(&x, &w, padding, stride, dilation, groups));
    assert_eq!(call(0, 0, 1, 1), "stride of height is 0: it must be at least 1");
    assert_eq!(call(0, 1, 0, 1), "dilation of height is 0: it must be at least 1 (1 is dense)");
    assert_eq!(call(0, 1, 1, 0), "groups is 0: it must be at least 1");
    assert_eq!(call(0, 1, 4, 1), "dilated kernel height is 9: it must not exceed the padded input height, 8");
    assert!(call(usize::MAX, 1, 1, 1).contains("overflows: its size in bytes must fit isize"));
    let options = |options: Options<2>| message(conv_relu2d(&x, &w, 0.0, None, options));
    assert_eq!(options(Options::new().stride([1, 0])), "stride of width is 0: it must be at least 1");
    let empty = |x: &[usize], w: &[usize]| message(conv1d(&ones(x), &ones(w), 0, 1, 1, 1));
    assert_eq!(empty(&[1, 0, 4], &[1, 0, 1]), "in_channels is 0: it must be at least 1");
    assert_eq!(empty(&[1, 1, 4], &[0, 1, 1]), "out_channels is 0: it must be at least 1");
    assert_eq!(empty(&[1, 1, 0], &[1, 1, 1]), "input width is 0: it must be at least 1");
    assert_eq!(empty(&[1, 1, 4], &[1, 1, 0]), "kernel width is 0: it must be at least 1");
}

/// Both the kernels' path and the composition's.
#[test]
fn thresholds_that_are_not_numbers() {
    for dtype in [DType::F32, DType::F64, DType::F16] {
        let typed = |tensor: Tensor| tensor.to_dtype(dtype).unwrap();
        let (x, w) = (typed(ones(&[1, 2, 4])), typed(ones(&[1, 2, 2])));
        let call = |theta: &Tensor| message(conv_relu1d(&x, &w, theta, None, Options::new()));
        let theta = Tensor::new(&[[0f32, 1.0], [f32::NAN, 2.0]], &Device::Cpu).unwrap();
        assert_eq!(call(&typed(theta)), "thresholds[2] is NaN: a threshold must be ordered", "{dtype:?}");
        let single = Tensor::new(f32::NAN, &Device::Cpu).unwrap();
        assert_eq!(call(&typed(single)), "thresholds[0] is NaN: a threshold must be ordered", "{dtype:?}");
        let number = message(conv_relu1d(&x, &w, f64::NAN, None, Options::new()));
        assert_eq!(number, "thresholds[0] is NaN: a threshold must be ordered", "{dtype:?}");
    }
}

#[test]
fn types() {
    let (x, w, theta, bias) = (ones(&[1, 2, 4]), ones(&[1, 2, 2]), ones(&[2, 2]), ones(&[1]));
    let other = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap();
    let call = |x: &Tensor, w: &Tensor, theta: &Tensor, bias: &Tensor| {
        message(conv_relu1d(x, w, theta, Some(bias), Options::new()))
    };
    assert_eq!(call(&x, &other(&w), &theta, &bias), "weight has type F64: it must have that of input, F32");
    assert_eq!(call(&x, &w, &other(&theta), &bias), "thresholds has type F64: it must have that of input, F32");
    assert_eq!(call(&x, &w, &theta, &other(&bias)), "bias has type F64: it must have that of input, F32");
    let bytes = |tensor: &Tensor| tensor.to_dtype(DType::U8).unwrap();
    assert_eq!(
        call(&bytes(&x), &bytes(&w), &bytes(&theta), &bytes(&bias)),
        "input has type U8: it must be F32, F64, F16 or BF16"
    );
}

#[test]
fn modules() {
    let variables = VarMap::new();
    let vb = || VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let make = |channels: [usize; 2], groups| {
        message(nn::conv_relu2d(channels[0], channels[1], 3, Options::new().groups(groups), vb()))
    };
    assert_eq!(make([6, 4], 0), "groups is 0: it must be at least 1");
    assert_eq!(make([6, 4], 4), "in_channels is 6: it must be a multiple of groups, 4, and at least that");
    assert_eq!(make([6, 4], 3), "out_channels is 4: it must be a multiple of groups, 3, and at least that");
    assert_eq!(make([0, 4], 1), "in_channels is 0: it must be a multiple of groups, 1, and at least that");
    assert_eq!(variables.all_vars().len(), 0);
    let missing = VarBuilder::from_tensors([].into(), DType::F32, &Device::Cpu);
    let missing = message(nn::conv_relu2d(6, 4, 3, Options::new(), missing.pp("conv2")));
    assert!(missing.contains("conv2.weight"), "{missing}");
}
