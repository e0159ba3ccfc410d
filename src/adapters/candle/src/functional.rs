//! Layers as functions of tensors.
//!
//! Tensors are laid out as candle has them: inputs `(batch, in_channels, …size)`, weights
//! `(out_channels, in_channels / groups, …kernel)`, outputs `(batch, out_channels, …size)`. With stride `s`, dilation `d` and
//! `p` zeros of padding on both sides together, an axis of `i` elements and a kernel of `k` taps give
//! `(i + p − d · (k − 1) − 1) / s + 1` outputs.
//!
//! # What computes them
//!
//! | element type | CPU | other devices |
//! |---|---|---|
//! | `F32` | the kernels | candle's operations |
//! | `F16`, `BF16` | the kernels, in 32 bits: converted there and back | candle's operations |
//! | `F64` | candle's operations | candle's operations |
//!
//! candle's operations are one product of matrices per tap, and need that many times the memory of the input for gradients.
//! They have been tested on the CPU only.
//!
//! # Gradients
//!
//! Of input, weight, thresholds and bias, whichever is a variable or comes from one; the others cost nothing. The kernels
//! compute those of input and thresholds in one pass, those of weight and bias in another. They are first derivatives:
//! gradients of gradients are those of constants.
//!
//! # Errors
//!
//! All functions return an error that names the argument, its value and the rule it breaks: shapes that do not fit, element
//! types or devices that differ, types of integers, a kernel longer than the padded input, strides, dilations, groups or
//! extents of 0, NaN thresholds (on the CPU).

use candle_core::{DType, Result, Tensor};

use crate::arguments::Arguments;
use crate::options::Options;
use crate::thresholds::Thresholds;
use crate::{composition, kernels};

/// A layer of `R` = 1, 2 or 3 spatial axes: `y = b + Σ w · max(x, θ)`, summed over the taps of the kernel and the input
/// channels of a group (eq. 8). Padding counts as `x = 0`.
///
/// `thresholds` is a tensor `(in_channels, …kernel)` or `()`, or a number. `bias` is `(out_channels)`.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use convrelu_candle::{Options, Thresholds, functional};
///
/// # fn main() -> candle_core::Result<()> {
/// // The paper's example.
/// let x = Tensor::new(&[[[2f32, 3.0, 4.0]]], &Device::Cpu)?;
/// let weight = Tensor::new(&[[[1f32, -1.0]]], &Device::Cpu)?;
/// let theta = Var::new(&[[0f32, 3.5]], &Device::Cpu)?;
/// let y = functional::conv_relu(&x, &weight, theta.as_tensor(), None, &Options::<1>::new())?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[-1.5, -1.0]]]);
/// // The second tap has met 3 and 4: its threshold was in force once.
/// let gradients = y.backward()?;
/// assert_eq!(gradients.get(&theta).unwrap().to_vec2::<f32>()?, [[0.0, -1.0]]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// See [the module](self).
pub fn conv_relu<'a, const R: usize>(
    input: &'a Tensor,
    weight: &'a Tensor,
    thresholds: impl Into<Thresholds<'a>>,
    bias: Option<&'a Tensor>,
    options: &Options<R>,
) -> Result<Tensor> {
    let arguments = Arguments { input, weight, thresholds: thresholds.into(), bias };
    let desc = arguments.layer(options)?;
    let shape = [&[desc.batch(), desc.out_channels()], &desc.output_size()[3 - R..]].concat();
    match input.dtype() {
        DType::F32 if input.device().is_cpu() => kernels::forward(&arguments, desc, shape),
        narrow @ (DType::F16 | DType::BF16) if input.device().is_cpu() => {
            let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32);
            let (input, weight) = (wide(input)?, wide(weight)?);
            let theta = arguments.thresholds.tensor().map(wide).transpose()?;
            let bias = bias.map(wide).transpose()?;
            let thresholds = theta.as_ref().map_or(arguments.thresholds, Thresholds::Tensor);
            let arguments = Arguments { input: &input, weight: &weight, thresholds, bias: bias.as_ref() };
            kernels::forward(&arguments, desc, shape)?.to_dtype(narrow)
        }
        _ => composition::forward(&arguments, options, &desc, &shape),
    }
}

/// [`conv_relu`] of one spatial axis: input `(batch, in_channels, width)`, weight `(out_channels, in_channels / groups, width)`.
///
/// # Errors
///
/// See [the module](self).
pub fn conv_relu1d<'a>(
    input: &'a Tensor,
    weight: &'a Tensor,
    thresholds: impl Into<Thresholds<'a>>,
    bias: Option<&'a Tensor>,
    options: impl Into<Options<1>>,
) -> Result<Tensor> {
    conv_relu(input, weight, thresholds, bias, &options.into())
}

/// [`conv_relu`] of two spatial axes: input `(batch, in_channels, height, width)`, weight
/// `(out_channels, in_channels / groups, height, width)`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::Conv2dConfig;
/// use convrelu_candle::{Options, functional::conv_relu2d};
///
/// # fn main() -> candle_core::Result<()> {
/// let x = Tensor::randn(0f32, 1.0, (2, 8, 16, 16), &Device::Cpu)?;
/// let weight = Tensor::randn(0f32, 1.0, (4, 8, 3, 3), &Device::Cpu)?;
/// let theta = Tensor::zeros((8, 3, 3), DType::F32, &Device::Cpu)?;
/// let y = conv_relu2d(&x, &weight, &theta, None, Options::new().padding(1).stride([2, 1]))?;
/// assert_eq!(y.dims(), [2, 4, 8, 16]);
/// // θ = 0 is ReLU, then convolution.
/// let config = Conv2dConfig { padding: 1, ..Default::default() };
/// let (fused, apart) = (conv_relu2d(&x, &weight, 0.0, None, config)?, x.relu()?.conv2d(&weight, 1, 1, 1, 1)?);
/// assert!((fused - apart)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-4);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// See [the module](self).
pub fn conv_relu2d<'a>(
    input: &'a Tensor,
    weight: &'a Tensor,
    thresholds: impl Into<Thresholds<'a>>,
    bias: Option<&'a Tensor>,
    options: impl Into<Options<2>>,
) -> Result<Tensor> {
    conv_relu(input, weight, thresholds, bias, &options.into())
}

/// [`conv_relu`] of three spatial axes: input `(batch, in_channels, depth, height, width)`, weight
/// `(out_channels, in_channels / groups, depth, height, width)`.
///
/// # Errors
///
/// See [the module](self).
pub fn conv_relu3d<'a>(
    input: &'a Tensor,
    weight: &'a Tensor,
    thresholds: impl Into<Thresholds<'a>>,
    bias: Option<&'a Tensor>,
    options: impl Into<Options<3>>,
) -> Result<Tensor> {
    conv_relu(input, weight, thresholds, bias, &options.into())
}

/// A plain convolution with the same numbers on every axis.
fn plain<const R: usize>(input: &Tensor, weight: &Tensor, options: Options<R>) -> Result<Tensor> {
    conv_relu(input, weight, Thresholds::LINEAR, None, &options)
}

/// A plain convolution (θ = −∞) of one spatial axis, in the place of [`Tensor::conv1d`], whose arguments it has.
///
/// # Errors
///
/// See [the module](self).
pub fn conv1d(
    input: &Tensor,
    weight: &Tensor,
    padding: usize,
    stride: usize,
    dilation: usize,
    groups: usize,
) -> Result<Tensor> {
    plain(input, weight, Options::<1>::new().padding(padding).stride(stride).dilation(dilation).groups(groups))
}

/// A plain convolution (θ = −∞) of two spatial axes, in the place of [`Tensor::conv2d`], whose arguments it has.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use convrelu_candle::functional::conv2d;
///
/// # fn main() -> candle_core::Result<()> {
/// let x = Tensor::randn(0f32, 1.0, (2, 8, 16, 16), &Device::Cpu)?;
/// let weight = Tensor::randn(0f32, 1.0, (4, 8, 3, 3), &Device::Cpu)?;
/// let (ours, candles) = (conv2d(&x, &weight, 1, 2, 1, 1)?, x.conv2d(&weight, 1, 2, 1, 1)?);
/// assert!((ours - candles)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-4);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// See [the module](self).
pub fn conv2d(
    input: &Tensor,
    weight: &Tensor,
    padding: usize,
    stride: usize,
    dilation: usize,
    groups: usize,
) -> Result<Tensor> {
    plain(input, weight, Options::<2>::new().padding(padding).stride(stride).dilation(dilation).groups(groups))
}

/// A plain convolution (θ = −∞) of three spatial axes, which candle itself does not have; the arguments are as of [`conv2d`].
///
/// # Errors
///
/// See [the module](self).
pub fn conv3d(
    input: &Tensor,
    weight: &Tensor,
    padding: usize,
    stride: usize,
    dilation: usize,
    groups: usize,
) -> Result<Tensor> {
    plain(input, weight, Options::<3>::new().padding(padding).stride(stride).dilation(dilation).groups(groups))
}
