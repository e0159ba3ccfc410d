//! A step of training of whole networks, which differ in nothing but who computes their convolutions.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Distribution, Int, Tensor, activation};
use convrelu_burn::Convolve;

use crate::clock::in_turns;
use crate::report::Row;

pub(crate) const NAMES: [&str; 2] = ["resnet-18", "mobilenet"];
/// Images of a step, of 3 × 32 × 32 pixels as CIFAR has them.
const BATCH: usize = 8;

/// Who computes convolutions.
#[derive(Clone, Copy)]
enum Side {
    Ours,
    Burns,
}

/// Convolution without bias, normalisation, and perhaps ReLU.
#[derive(Module, Debug)]
struct Unit {
    conv: Conv2d,
    norm: BatchNorm,
    relu: bool,
}

impl Unit {
    fn new(channels: [usize; 2], kernel: usize, stride: usize, groups: usize, relu: bool, device: &Device) -> Self {
        let padding = kernel / 2;
        let conv = Conv2dConfig::new(channels, [kernel; 2])
            .with_stride([stride; 2])
            .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
            .with_groups(groups)
            .with_bias(false);
        Self { conv: conv.init(device), norm: BatchNormConfig::new(channels[1]).init(device), relu }
    }

    fn forward(&self, x: Tensor<4>, side: Side) -> Tensor<4> {
        let x = match side {
            Side::Ours => self.conv.convolve(x),
            Side::Burns => self.conv.forward(x),
        };
        let x = self.norm.forward(x);
        if self.relu { activation::relu(x) } else { x }
    }
}

/// Units in a row; in a residual block beside a shortcut, and ReLU behind both.
#[derive(Module, Debug)]
struct Block {
    units: Vec<Unit>,
    shortcut: Option<Unit>,
    residual: bool,
}

impl Block {
    fn forward(&self, x: Tensor<4>, side: Side) -> Tensor<4> {
        let y = self.units.iter().fold(x.clone(), |x, unit| unit.forward(x, side));
        if !self.residual {
            return y;
        }
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x, side),
            None => x,
        };
        activation::relu(x + y)
    }
}

#[derive(Module, Debug)]
struct Network {
    blocks: Vec<Block>,
    linear: Linear,
}

impl Network {
    /// He et al. 2016 for CIFAR: four stages of two basic blocks, 64 to 512 channels.
    fn resnet18(device: &Device) -> Self {
        let unit = |channels, kernel, stride, relu| Unit::new(channels, kernel, stride, 1, relu, device);
        let mut blocks = vec![Block { units: vec![unit([3, 64], 3, 1, true)], shortcut: None, residual: false }];
        let mut inputs = 64;
        for (stage, outputs) in [64, 128, 256, 512].into_iter().enumerate() {
            for block in 0..2 {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let units = vec![unit([inputs, outputs], 3, stride, true), unit([outputs, outputs], 3, 1, false)];
                let shortcut = (stride != 1 || inputs != outputs).then(|| unit([inputs, outputs], 1, stride, false));
                blocks.push(Block { units, shortcut, residual: true });
                inputs = outputs;
            }
        }
        Self { blocks, linear: LinearConfig::new(inputs, 10).init(device) }
    }

    /// Howard et al. 2017 for CIFAR: depthwise 3×3 and pointwise layers, 32 to 1024 channels, three halvings.
    fn mobilenet(device: &Device) -> Self {
        let unit = |channels, kernel, stride, groups| Unit::new(channels, kernel, stride, groups, true, device);
        let mut units = vec![unit([3, 32], 3, 1, 1)];
        let mut inputs = 32;
        let stages =
            [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (1024, 2), (1024, 1)];
        for (outputs, stride) in stages {
            units.push(unit([inputs, inputs], 3, stride, inputs));
            units.push(unit([inputs, outputs], 1, 1, 1));
            inputs = outputs;
        }
        let blocks = vec![Block { units, shortcut: None, residual: false }];
        Self { blocks, linear: LinearConfig::new(inputs, 10).init(device) }
    }

    fn forward(&self, images: Tensor<4>, side: Side) -> Tensor<2> {
        let x = self.blocks.iter().fold(images, |x, block| block.forward(x, side));
        let pooled = x.flatten::<3>(2, 3).mean_dim(2).flatten::<2>(1, 2);
        self.linear.forward(pooled)
    }
}

pub(crate) fn measure(name: &str, threads: usize, seconds: f64) -> Row {
    let device = Device::flex().autodiff();
    let network = if name == NAMES[0] { Network::resnet18(&device) } else { Network::mobilenet(&device) };
    let images: Tensor<4> = Tensor::random([BATCH, 3, 32, 32], Distribution::Normal(0.0, 1.0), &device);
    let labels: Tensor<1, Int> = Tensor::arange(0..BATCH as i64, &device);
    let run = |side| {
        let (mut network, images, labels) = (Some(network.clone()), images.clone(), labels.clone());
        let momentum = MomentumConfig { momentum: 0.9, dampening: 0.0, nesterov: false };
        let mut optimizer = SgdConfig::new().with_momentum(Some(momentum)).init();
        move || {
            let Some(before) = network.take() else { return };
            let logits = before.forward(images.clone(), side);
            let loss = CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, labels.clone());
            let gradients = GradientsParams::from_grads(loss.backward(), &before);
            network = Some(optimizer.step(1e-4, before, gradients));
        }
    };
    let training = in_turns(seconds, run(Side::Ours), run(Side::Burns));
    Row { name: name.to_owned(), threads, forward: None, training }
}
