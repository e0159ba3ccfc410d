//! Networks that convrelu's trainer has trained: candle loads their files, and computes the same.

use std::ops::ControlFlow;

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::{Linear, VarBuilder};
use convrelu::train::data::digits;
use convrelu::train::models::Activation;
use convrelu::train::{Config, Mode, Source, ThresholdInit, Trainer};
use convrelu_candle::Options;
use convrelu_candle::nn::{Clamp, ConvRelu2d, ConvRelu2dConfig, conv_relu2d};

/// The trainer's `small-cnn` with ConvReLU in its first block.
struct SmallCnn {
    conv: [ConvRelu2d; 4],
    linear: Linear,
}

impl SmallCnn {
    fn load(vb: &VarBuilder<'_>) -> Result<Self> {
        let conv = |number: usize, [inputs, outputs]: [usize; 2], clamp| {
            let config = ConvRelu2dConfig { options: Options::new().padding(1), clamp, bias: true };
            conv_relu2d(inputs, outputs, 3, config, vb.pp(format!("conv{number}")))
        };
        Ok(Self {
            conv: [
                conv(1, [1, 16], Clamp::Linear)?,
                conv(2, [16, 16], Clamp::default())?,
                conv(3, [16, 32], Clamp::default())?,
                conv(4, [32, 32], Clamp::Relu)?,
            ],
            linear: candle_nn::linear(32 * 2 * 2, 10, vb.pp("linear"))?,
        })
    }
}

impl Module for SmallCnn {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let [conv1, conv2, conv3, conv4] = &self.conv;
        let x = conv2.forward(&conv1.forward(images)?)?.max_pool2d(2)?;
        let x = conv4.forward(&conv3.forward(&x)?)?.max_pool2d(2)?;
        self.linear.forward(&x.relu()?.flatten_from(1)?)
    }
}

#[test]
fn a_trained_network_computes_the_same() {
    let (train, test) = digits::load().unwrap();
    let mut config = Config::default();
    (config.data.source, config.model.activation) = (Source::Digits, Activation::Convrelu);
    config.model.threshold_init = ThresholdInit::Gaussian(0.2);
    (config.train.epochs, config.train.batch, config.train.learning_rate) = (1, 32, 0.02);
    let mut trainer = Trainer::new(&config, &train).unwrap();
    let epoch = trainer.epoch(&train, &test, &mut |_| ControlFlow::Continue(())).unwrap().expect("a whole epoch");
    assert!(epoch.test_accuracy > 0.5, "{epoch:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    trainer.save(&file).unwrap();

    let data = std::fs::read(&file).unwrap();
    let vb = VarBuilder::from_buffered_safetensors(data, DType::F32, &Device::Cpu).unwrap();
    let network = SmallCnn::load(&vb).unwrap();
    let images: Vec<f32> = (0..test.len())
        .flat_map(|index| {
            let mut image = [0.0; 64];
            test.read(index, None, convrelu::Layout::Nchw, &mut image);
            image
        })
        .collect();
    let expected = trainer.network_mut().forward(Mode::Evaluate, &images).unwrap().to_vec();
    let images = Tensor::from_vec(images, (test.len(), 1, 8, 8), &Device::Cpu).unwrap();
    let found = network.forward(&images).unwrap();
    assert_eq!(found.dims(), [test.len(), 10]);
    let largest = expected.iter().fold(0f32, |largest, score| largest.max(score.abs()));
    for (found, expected) in crate::layers::elements(&found).iter().zip(&expected) {
        assert!((found - expected).abs() <= 1e-5 * largest, "{found}, not {expected}");
    }
}
