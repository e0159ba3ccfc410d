//! The small network of convrelu's main job, out of burn's layers and ours.

use burn::module::{Initializer, Module};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, activation};
use convrelu_burn::{ConvRelu2d, ConvRelu2dConfig, Convolve};

/// Four 3×3 convolutions in two blocks of 16 and 32 channels, max pooling after each block, one linear layer. The layers have
/// the names that convrelu's trainer gives them.
#[derive(Module, Debug)]
pub(crate) struct SmallCnn {
    conv1: Conv2d,
    conv2: ConvRelu2d,
    conv3: ConvRelu2d,
    conv4: Conv2d,
    linear: Linear,
    pool: MaxPool2d,
}

impl SmallCnn {
    /// A network for images of 8 × 8 pixels and ten classes. Where thresholds are not trained, they stay at zero, and the
    /// layers are ReLU and convolution.
    pub(crate) fn new(trained_thresholds: bool, device: &Device) -> Self {
        // He et al. 2015: variance 2 / fan in, and biases of zero.
        let initializer = Initializer::KaimingNormal { gain: f64::sqrt(2.0), fan_out_only: false };
        let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
        let plain = |channels: [usize; 2]| {
            let config = Conv2dConfig::new(channels, [3, 3]).with_padding(padding.clone());
            let mut layer = config.with_initializer(initializer.clone()).init(device);
            layer.bias = Some(Initializer::Zeros.init([channels[1]], device));
            layer
        };
        let clamped = |channels: [usize; 2]| {
            let config = ConvRelu2dConfig::new(channels, [3, 3]).with_padding(padding.clone());
            let mut layer = config.with_initializer(initializer.clone()).init(device);
            layer.bias = Some(Initializer::Zeros.init([channels[1]], device));
            layer.thresholds = layer.thresholds.set_require_grad(trained_thresholds);
            layer
        };
        let mut linear = LinearConfig::new(32 * 2 * 2, 10).with_initializer(initializer.clone()).init(device);
        linear.bias = Some(Initializer::Zeros.init([10], device));
        Self {
            conv1: plain([1, 16]),
            conv2: clamped([16, 16]),
            conv3: clamped([16, 32]),
            conv4: plain([32, 32]),
            linear,
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
        }
    }

    /// How many thresholds there are.
    #[allow(dead_code, reason = "only the example asks")]
    pub(crate) fn thresholds(&self) -> usize {
        [&self.conv2, &self.conv3].map(|layer| layer.thresholds.dims().iter().product::<usize>()).iter().sum()
    }

    /// `[batch, 1, 8, 8]` → `[batch, 10]`.
    pub(crate) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.conv2.forward(self.conv1.convolve(images));
        let x = self.conv3.forward(self.pool.forward(x));
        let x = self.pool.forward(self.conv4.convolve(activation::relu(x)));
        self.linear.forward(activation::relu(x).flatten(1, 3))
    }
}
