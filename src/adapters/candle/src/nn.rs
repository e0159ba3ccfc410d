//! Layers as modules, made from a [`VarBuilder`] as those of `candle_nn` are.
//!
//! Their tensors are called `weight`, `bias` and `thresholds`, and shaped as the files `weights.safetensors` of convrelu's
//! trainer have them: `(out_channels, in_channels / groups, …kernel)`, `(out_channels)`, `(in_channels, …kernel)`.

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};

use crate::functional;
use crate::options::{Axes, Options};
use crate::thresholds::Thresholds;

/// How thresholds begin, where no file holds them (Table 4 of the paper).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ThresholdInit {
    /// θ = 0, where ConvReLU is ReLU: the paper's best.
    #[default]
    Zero,
    /// Gaussian with mean 0 and this standard deviation.
    Gaussian(f64),
    /// Uniform on `[-bound, bound)`.
    Uniform(f64),
    /// Gaussian with mean 0 and variance `2 / (n_in + n_out)`: input channels of a group, and all output channels, each times
    /// the taps of the kernel.
    Glorot,
}

impl ThresholdInit {
    /// As candle has it.
    fn init(self, fan_in: usize, fan_out: usize) -> Init {
        match self {
            Self::Zero => candle_nn::init::ZERO,
            Self::Gaussian(stdev) => Init::Randn { mean: 0.0, stdev },
            Self::Uniform(bound) => Init::Uniform { lo: -bound, up: bound },
            Self::Glorot => Init::Randn { mean: 0.0, stdev: (2.0 / (fan_in + fan_out) as f64).sqrt() },
        }
    }
}

/// What a layer does to its input first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clamp {
    /// Nothing (θ = −∞): a plain convolution.
    Linear,
    /// ReLU (θ = 0, not trained), without a pass over memory of its own.
    Relu,
    /// ConvReLU: a trained threshold per input channel and tap (eq. 8), which begins so.
    Trained(ThresholdInit),
}

impl Default for Clamp {
    fn default() -> Self {
        Self::Trained(ThresholdInit::Zero)
    }
}

/// A layer's options, what it does to its input first, and whether it has a bias.
///
/// [`Options`], and candle's own configurations, convert into it: with trained thresholds that begin at 0, and a bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvReluConfig<const R: usize> {
    /// Stride, padding, dilation, groups.
    pub options: Options<R>,
    /// What it does to its input first.
    pub clamp: Clamp,
    /// Whether it has a bias.
    pub bias: bool,
}

/// Of one spatial axis.
pub type ConvRelu1dConfig = ConvReluConfig<1>;
/// Of two spatial axes.
pub type ConvRelu2dConfig = ConvReluConfig<2>;
/// Of three spatial axes.
pub type ConvRelu3dConfig = ConvReluConfig<3>;

impl<const R: usize> Default for ConvReluConfig<R> {
    fn default() -> Self {
        Self { options: Options::new(), clamp: Clamp::default(), bias: true }
    }
}

impl<const R: usize, O: Into<Options<R>>> From<O> for ConvReluConfig<R> {
    fn from(options: O) -> Self {
        Self { options: options.into(), ..Self::default() }
    }
}

/// A layer `y = b + Σ w · max(x, θ)` of `R` = 1, 2 or 3 spatial axes.
#[derive(Clone, Debug)]
pub struct ConvRelu<const R: usize> {
    weight: Tensor,
    bias: Option<Tensor>,
    theta: Theta,
    options: Options<R>,
}

/// A layer of one spatial axis.
pub type ConvRelu1d = ConvRelu<1>;
/// A layer of two spatial axes.
pub type ConvRelu2d = ConvRelu<2>;
/// A layer of three spatial axes.
pub type ConvRelu3d = ConvRelu<3>;

/// What a layer keeps of [`Thresholds`].
#[derive(Clone, Debug)]
enum Theta {
    Tensor(Tensor),
    Uniform(f64),
}

impl<const R: usize> ConvRelu<R> {
    /// A layer of these tensors, see [`functional::conv_relu`]; whether they fit shows in the first call.
    pub fn new<'a>(
        weight: Tensor,
        bias: Option<Tensor>,
        thresholds: impl Into<Thresholds<'a>>,
        options: impl Into<Options<R>>,
    ) -> Self {
        let theta = match thresholds.into() {
            Thresholds::Tensor(tensor) => Theta::Tensor(tensor.clone()),
            Thresholds::Uniform(theta) => Theta::Uniform(theta),
        };
        Self { weight, bias, theta, options: options.into() }
    }

    /// `(out_channels, in_channels / groups, …kernel)`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `(out_channels)`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// `(in_channels, …kernel)`, or a number.
    pub fn thresholds(&self) -> Thresholds<'_> {
        match &self.theta {
            Theta::Tensor(tensor) => Thresholds::Tensor(tensor),
            Theta::Uniform(theta) => Thresholds::Uniform(*theta),
        }
    }

    /// Stride, padding, dilation, groups.
    pub fn options(&self) -> &Options<R> {
        &self.options
    }
}

impl<const R: usize> Module for ConvRelu<R> {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        functional::conv_relu(input, &self.weight, self.thresholds(), self.bias.as_ref(), &self.options)
    }
}

/// A layer whose tensors come from `vb`. Where that makes new ones, weight and bias begin as those of `candle_nn::conv2d`.
///
/// # Errors
///
/// Those of `vb`: a tensor is missing, or has another shape. Channels that are no multiple of the groups.
pub fn conv_relu<const R: usize>(
    in_channels: usize,
    out_channels: usize,
    kernel: impl Into<Axes<R>>,
    config: impl Into<ConvReluConfig<R>>,
    vb: VarBuilder<'_>,
) -> Result<ConvRelu<R>> {
    let ConvReluConfig { options, clamp, bias } = config.into();
    let (Axes(kernel), groups) = (kernel.into(), options.groups);
    if groups == 0 {
        bail!("groups is 0: it must be at least 1");
    }
    for (name, channels) in [("in_channels", in_channels), ("out_channels", out_channels)] {
        if channels == 0 || channels % groups != 0 {
            bail!("{name} is {channels}: it must be a multiple of groups, {groups}, and at least that");
        }
    }
    let per_group = in_channels / groups;
    let shape = [&[out_channels, per_group], &kernel[..]].concat();
    let weight = vb.get_with_hints(shape, "weight", candle_nn::init::DEFAULT_KAIMING_NORMAL)?;
    let bound = 1.0 / (in_channels as f64).sqrt();
    let bias = bias.then(|| vb.get_with_hints(out_channels, "bias", Init::Uniform { lo: -bound, up: bound }));
    let theta = match clamp {
        Clamp::Linear => Theta::Uniform(f64::NEG_INFINITY),
        Clamp::Relu => Theta::Uniform(0.0),
        Clamp::Trained(init) => {
            let taps: usize = kernel.iter().product();
            let init = init.init(per_group.saturating_mul(taps), out_channels.saturating_mul(taps));
            Theta::Tensor(vb.get_with_hints([&[in_channels], &kernel[..]].concat(), "thresholds", init)?)
        }
    };
    Ok(ConvRelu { weight, bias: bias.transpose()?, theta, options })
}

/// [`conv_relu`] of one spatial axis.
///
/// # Errors
///
/// Those of [`conv_relu`].
pub fn conv_relu1d(
    in_channels: usize,
    out_channels: usize,
    kernel: usize,
    config: impl Into<ConvRelu1dConfig>,
    vb: VarBuilder<'_>,
) -> Result<ConvRelu1d> {
    conv_relu(in_channels, out_channels, kernel, config, vb)
}

/// [`conv_relu`] of two spatial axes. `kernel` is a number, or `[height, width]`.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
/// use convrelu_candle::{Options, nn};
///
/// # fn main() -> candle_core::Result<()> {
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let layer = nn::conv_relu2d(16, 32, 3, Options::new().padding(1), vb.pp("conv2"))?;
/// let y = layer.forward(&Tensor::randn(0f32, 1.0, (4, 16, 8, 8), &Device::Cpu)?)?;
/// assert_eq!(y.dims(), [4, 32, 8, 8]);
/// // conv2.weight, conv2.bias, conv2.thresholds
/// assert_eq!(variables.all_vars().len(), 3);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Those of [`conv_relu`].
pub fn conv_relu2d(
    in_channels: usize,
    out_channels: usize,
    kernel: impl Into<Axes<2>>,
    config: impl Into<ConvRelu2dConfig>,
    vb: VarBuilder<'_>,
) -> Result<ConvRelu2d> {
    conv_relu(in_channels, out_channels, kernel, config, vb)
}

/// [`conv_relu`] of three spatial axes. `kernel` is a number, or `[depth, height, width]`.
///
/// # Errors
///
/// Those of [`conv_relu`].
pub fn conv_relu3d(
    in_channels: usize,
    out_channels: usize,
    kernel: impl Into<Axes<3>>,
    config: impl Into<ConvRelu3dConfig>,
    vb: VarBuilder<'_>,
) -> Result<ConvRelu3d> {
    conv_relu(in_channels, out_channels, kernel, config, vb)
}
