//! Modules: names, shapes, first values.

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{Conv2dConfig, VarBuilder, VarMap};
use convrelu_candle::nn::{self, Clamp, ConvRelu, ConvRelu2dConfig, ThresholdInit};
use convrelu_candle::{Options, Thresholds, functional};

use crate::layers::{elements, source, tensor};

/// Names and shapes of all variables, sorted.
fn shapes(variables: &VarMap) -> Vec<(String, Vec<usize>)> {
    let data = variables.data().lock().unwrap();
    let mut shapes: Vec<_> = data.iter().map(|(name, variable)| (name.clone(), variable.dims().to_vec())).collect();
    shapes.sort();
    shapes
}

#[test]
fn tensors_have_the_trainers_names_and_shapes() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    nn::conv_relu1d(4, 6, 5, Options::new().groups(2), vb.pp("a")).unwrap();
    let relu = ConvRelu2dConfig { clamp: Clamp::Relu, bias: false, ..Default::default() };
    nn::conv_relu2d(4, 6, [1, 3], relu, vb.pp("b")).unwrap();
    nn::conv_relu3d(4, 6, [1, 2, 3], Options::new(), vb.pp("c")).unwrap();
    let named = |(name, shape): (&str, &[usize])| (name.to_owned(), shape.to_vec());
    let expected: [(&str, &[usize]); 7] = [
        ("a.bias", &[6]),
        ("a.thresholds", &[4, 5]),
        ("a.weight", &[6, 2, 5]),
        ("b.weight", &[6, 4, 1, 3]),
        ("c.bias", &[6]),
        ("c.thresholds", &[4, 1, 2, 3]),
        ("c.weight", &[6, 4, 1, 2, 3]),
    ];
    assert_eq!(shapes(&variables), expected.map(named));
}

#[test]
fn modules_are_functions_of_their_tensors() {
    let mut rng = source(41);
    let (x, w) = (tensor(&mut rng, &[2, 4, 6, 6]), tensor(&mut rng, &[3, 4, 3, 3]));
    let (t, b) = (tensor(&mut rng, &[4, 3, 3]), tensor(&mut rng, &[3]));
    let config = Conv2dConfig { padding: 1, stride: 2, ..Default::default() };
    let layer = ConvRelu::<2>::new(w.clone(), Some(b.clone()), &t, config);
    let expected = functional::conv_relu2d(&x, &w, &t, Some(&b), Options::new().padding(1).stride(2)).unwrap();
    assert_eq!(elements(&layer.forward(&x).unwrap()), elements(&expected));
    assert_eq!(layer.weight().dims(), w.dims());
    assert!(layer.bias().is_some() && matches!(layer.thresholds(), Thresholds::Tensor(_)));
    assert_eq!(layer.options(), &Options::new().padding(1).stride(2));

    let linear = ConvRelu::<2>::new(w.clone(), None, Thresholds::LINEAR, Options::new());
    let expected = x.conv2d(&w, 0, 1, 1, 1).unwrap();
    let difference = (linear.forward(&x).unwrap() - expected).unwrap().abs().unwrap();
    assert!(elements(&difference).iter().all(|&difference| difference < 1e-5));
}

#[test]
fn thresholds_begin_as_they_are_told() {
    let first = |init| {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let config = ConvRelu2dConfig { clamp: Clamp::Trained(init), ..Default::default() };
        let layer = nn::conv_relu2d(64, 16, 9, config, vb).unwrap();
        match layer.thresholds() {
            Thresholds::Tensor(tensor) => elements(tensor),
            Thresholds::Uniform(_) => panic!("a variable"),
        }
    };
    let variance = |values: &[f32]| values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
    // 5184 of them: the variance of so many is known to about 2 %.
    let near = |values: &[f32], expected: f32| (variance(values) / expected - 1.0).abs() < 0.1;
    assert!(first(ThresholdInit::Zero).iter().all(|&theta| theta == 0.0));
    assert!(near(&first(ThresholdInit::Gaussian(0.1)), 0.01));
    let uniform = first(ThresholdInit::Uniform(0.6));
    assert!(near(&uniform, 0.12) && uniform.iter().all(|theta| theta.abs() <= 0.6));
    assert!(near(&first(ThresholdInit::Glorot), 2.0 / ((64.0 + 16.0) * 81.0)));
}

/// Weights and biases begin as those of candle's own layer.
#[test]
fn weights_begin_as_candles() {
    let values = |ours: bool| {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let config = ConvRelu2dConfig { clamp: Clamp::Linear, ..Default::default() };
        if ours {
            nn::conv_relu2d(16, 512, 3, config, vb).map(drop).unwrap();
        } else {
            candle_nn::conv2d(16, 512, 3, Conv2dConfig::default(), vb).map(drop).unwrap();
        }
        let data = variables.data().lock().unwrap();
        ["weight", "bias"].map(|name| elements(data[name].as_tensor()))
    };
    let variance = |values: &[f32]| values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
    for (ours, candles) in values(true).iter().zip(values(false)) {
        assert_eq!(ours.len(), candles.len());
        assert!((variance(ours) / variance(&candles) - 1.0).abs() < 0.25);
    }
}

/// Candle's own checks of shapes hold for what a file has.
#[test]
fn a_file_with_other_shapes_is_refused() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let tensors = [("weight", zeros(&[6, 4, 3, 3])), ("bias", zeros(&[6])), ("thresholds", zeros(&[4, 3]))];
    let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into();
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let error = nn::conv_relu2d(4, 6, 3, Options::new(), vb).unwrap_err().to_string();
    assert!(error.contains("thresholds") && error.contains("[4, 3]"), "{error}");
}
