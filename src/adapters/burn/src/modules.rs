//! The layers as modules: parameters, their first values, and the padding of burn's own convolutions.

use burn::config::Config;
use burn::module::{Initializer, Module, Param};
use burn::nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};

use crate::error::Error;
use crate::functions::{try_conv_relu1d, try_conv_relu2d, try_conv_relu3d};
use crate::padding::{Padding, Window};

/// A layer and its configuration, of one rank. `$size` is what burn's own configuration of this rank takes.
macro_rules! layer {
    (
        $axes:literal, $D:literal, $T:literal, $R:literal, $Size:ty, $one:literal,
        $Layer:ident, $Config:ident, $conv_relu:ident, $try_conv_relu:ident, $Padding:ident, $default:literal, $shape:literal,
        { $($channels:tt)* }, $channels_of:expr, $extents:expr
    ) => {
        #[doc = concat!("Configuration of a [`", stringify!($Layer), "`], with the fields and defaults of burn's convolution.")]
        #[derive(Config, Debug)]
        pub struct $Config {
            $($channels)*
            /// The size of the kernel.
            pub kernel_size: $Size,
            /// The steps between outputs.
            #[config(default = $one)]
            pub stride: $Size,
            /// The steps between taps; 1 is dense.
            #[config(default = $one)]
            pub dilation: $Size,
            /// Groups of channels; as many as there are channels make a depthwise layer.
            #[config(default = "1")]
            pub groups: usize,
            /// Zeros around the input. `Same` takes taps to be dense, as burn's own does.
            #[config(default = $default)]
            pub padding: $Padding,
            /// Whether a bias is added.
            #[config(default = true)]
            pub bias: bool,
            /// How weight and bias begin.
            #[config(default = "Initializer::KaimingUniform { gain: 1.0 / f64::sqrt(3.0), fan_out_only: false }")]
            pub initializer: Initializer,
            /// How thresholds begin. At zero, the default, the layer is ReLU and convolution. `Normal` is Gaussian, and
            /// `XavierNormal { gain: 1.0 }` is Glorot's: the fan in is that of the weight, the fan out counts all output
            /// channels.
            #[config(default = "Initializer::Zeros")]
            pub threshold_initializer: Initializer,
        }

        #[doc = concat!("A ", $axes, " ConvReLU layer: `y = Σ w · max(x, θ) + b`. Made by [`", stringify!($Config), "`].")]
        ///
        /// Its parameters have the names and the shapes that convrelu's checkpoints and PyTorch layer have.
        #[derive(Module, Debug)]
        pub struct $Layer {
            #[doc = concat!("`[out_channels, in_channels / groups, ", $shape, "]`")]
            pub weight: Param<Tensor<$D>>,
            /// `[out_channels]`
            pub bias: Option<Param<Tensor<1>>>,
            #[doc = concat!("`[in_channels, ", $shape, "]`")]
            pub thresholds: Param<Tensor<$T>>,
            /// The steps between outputs.
            pub stride: [usize; $R],
            /// The steps between taps.
            pub dilation: [usize; $R],
            /// Groups of channels.
            pub groups: usize,
            /// Zeros around the input.
            #[module(skip)]
            pub padding: $Padding,
        }

        impl $Config {
            /// A layer with first values.
            ///
            /// # Panics
            ///
            /// If the number of groups does not divide both numbers of channels.
            #[track_caller]
            pub fn init(&self, device: &Device) -> $Layer {
                let channels: fn(&Self) -> [usize; 2] = $channels_of;
                let extents: fn($Size) -> [usize; $R] = $extents;
                let ([inputs, outputs], kernel) = (channels(self), extents(self.kernel_size));
                let group_inputs = group_channels("input", inputs, self.groups);
                let group_outputs = group_channels("output", outputs, self.groups);
                let taps: usize = kernel.iter().product();
                let (fan_in, fan_out) = (group_inputs * taps, group_outputs * taps);
                let mut shape = [0; $D];
                shape[..2].copy_from_slice(&[outputs, group_inputs]);
                shape[2..].copy_from_slice(&kernel);
                let weight = self.initializer.init_with(shape, Some(fan_in), Some(fan_out), device);
                let bias =
                    self.bias.then(|| self.initializer.init_with([outputs], Some(fan_in), Some(fan_out), device));
                let mut shape = [0; $T];
                shape[0] = inputs;
                shape[1..].copy_from_slice(&kernel);
                let thresholds =
                    self.threshold_initializer.init_with(shape, Some(fan_in), Some(outputs * taps), device);
                $Layer {
                    weight,
                    bias,
                    thresholds,
                    stride: extents(self.stride),
                    dilation: extents(self.dilation),
                    groups: self.groups,
                    padding: self.padding.clone(),
                }
            }
        }

        impl $Layer {
            #[doc = concat!("`[batch, in_channels, ", $shape, "]` → `[batch, out_channels, ", $shape, "]`.")]
            ///
            /// # Panics
            ///
            #[doc = concat!("With the text of the [`Error`] that [`try_forward`](Self::try_forward) returns.")]
            #[track_caller]
            pub fn forward(&self, input: Tensor<$D>) -> Tensor<$D> {
                self.try_forward(input).unwrap_or_else(|error| panic!("{}: {error}", stringify!($Layer)))
            }

            /// [`forward`](Self::forward) that returns what is wrong.
            ///
            /// # Errors
            ///
            #[doc = concat!("Those of [`", stringify!($try_conv_relu), "`].")]
            pub fn try_forward(&self, input: Tensor<$D>) -> Result<Tensor<$D>, Error> {
                let (size, weight) = (input.dims(), self.weight.dims());
                let window = Window { kernel: std::array::from_fn(|axis| weight[2 + axis]), stride: self.stride };
                let padding = self.padding.pairs(std::array::from_fn(|axis| size[2 + axis]), window);
                let bias = self.bias.as_ref().map(|bias| bias.val());
                let options =
                    ConvOptions { stride: self.stride, padding, dilation: self.dilation, groups: self.groups };
                $try_conv_relu(input, self.weight.val(), self.thresholds.val(), bias, options)
            }
        }
    };
}

layer!(
    "1D", 3, 2, 1, usize, "1",
    ConvRelu1d, ConvRelu1dConfig, conv_relu1d, try_conv_relu1d, PaddingConfig1d, "PaddingConfig1d::Valid", "width",
    {
        /// The number of input channels.
        pub channels_in: usize,
        /// The number of output channels.
        pub channels_out: usize,
    },
    |config| [config.channels_in, config.channels_out], |extent| [extent]
);
layer!(
    "2D", 4, 3, 2, [usize; 2], "[1, 1]",
    ConvRelu2d, ConvRelu2dConfig, conv_relu2d, try_conv_relu2d, PaddingConfig2d, "PaddingConfig2d::Valid", "height, width",
    {
        /// The numbers of input and output channels.
        pub channels: [usize; 2],
    },
    |config| config.channels, |extents| extents
);
layer!(
    "3D", 5, 4, 3, [usize; 3], "[1, 1, 1]",
    ConvRelu3d, ConvRelu3dConfig, conv_relu3d, try_conv_relu3d, PaddingConfig3d, "PaddingConfig3d::Valid",
    "depth, height, width",
    {
        /// The numbers of input and output channels.
        pub channels: [usize; 2],
    },
    |config| config.channels, |extents| extents
);

#[track_caller]
fn group_channels(which: &str, channels: usize, groups: usize) -> usize {
    assert!(
        groups != 0 && channels.is_multiple_of(groups),
        "the number of {which} channels is {channels}: it must be a multiple of groups, {groups}, which must be at least 1"
    );
    channels / groups
}
