//! The layers as functions of burn's tensors.

use burn::backend::{Dispatch, DispatchTensorKind};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor, module};
use convrelu::ConvDesc;

use crate::backend::{ConvReluBackend, Optional, Outcome};
use crate::composed;
use crate::describe::describe;
use crate::error::Error;

/// Functions of one rank.
macro_rules! functions {
    (
        $axes:literal, $D:literal, $T:literal, $R:literal,
        $conv_relu:ident, $try_conv_relu:ident, $conv:ident, $try_conv:ident, $size:literal
    ) => {
        #[doc = concat!("A ", $axes, " ConvReLU layer: `y = Σ w · max(x, θ) + b`, with a threshold θ per input channel and tap.")]
        ///
        /// # Shapes
        ///
        #[doc = concat!("- `input`: `[batch, in_channels, ", $size, "]`")]
        #[doc = concat!("- `weight`: `[out_channels, in_channels / groups, ", $size, "]`, of the kernel")]
        #[doc = concat!("- `thresholds`: `[in_channels, ", $size, "]`, of the kernel")]
        /// - `bias`: `[out_channels]`
        #[doc = concat!("- output: `[batch, out_channels, ", $size, "]`")]
        ///
        /// # Panics
        ///
        #[doc = concat!("With the text of the [`Error`] that [`", stringify!($try_conv_relu), "`] returns.")]
        #[track_caller]
        pub fn $conv_relu(
            input: Tensor<$D>,
            weight: Tensor<$D>,
            thresholds: Tensor<$T>,
            bias: Option<Tensor<1>>,
            options: impl Into<ConvOptions<$R>>,
        ) -> Tensor<$D> {
            or_panic(stringify!($conv_relu), $try_conv_relu(input, weight, thresholds, bias, options))
        }

        #[doc = concat!("[`", stringify!($conv_relu), "`] that returns what is wrong.")]
        ///
        /// # Errors
        ///
        /// [`Error`]: shapes that do not fit each other, element types that differ, groups that do not divide the channels, a
        /// kernel that is larger than the padded input, a threshold that is NaN.
        pub fn $try_conv_relu(
            input: Tensor<$D>,
            weight: Tensor<$D>,
            thresholds: Tensor<$T>,
            bias: Option<Tensor<1>>,
            options: impl Into<ConvOptions<$R>>,
        ) -> Result<Tensor<$D>, Error> {
            let options = options.into();
            let desc = describe(&input, &weight, Some(&thresholds), bias.as_ref(), &options)?;
            if !has_kernels(&input) {
                return clamped(input, weight, thresholds, bias, desc);
            }
            run(input, weight, Some(thresholds), bias, desc)
        }

        #[doc = concat!("A ", $axes, " convolution, called as burn's [own](module::", stringify!($conv), ") is.")]
        ///
        /// # Shapes
        ///
        #[doc = concat!("- `x`: `[batch, in_channels, ", $size, "]`")]
        #[doc = concat!("- `weight`: `[out_channels, in_channels / groups, ", $size, "]`, of the kernel")]
        /// - `bias`: `[out_channels]`
        #[doc = concat!("- output: `[batch, out_channels, ", $size, "]`")]
        ///
        /// # Panics
        ///
        #[doc = concat!("With the text of the [`Error`] that [`", stringify!($try_conv), "`] returns.")]
        #[track_caller]
        pub fn $conv(
            x: Tensor<$D>,
            weight: Tensor<$D>,
            bias: Option<Tensor<1>>,
            options: impl Into<ConvOptions<$R>>,
        ) -> Tensor<$D> {
            or_panic(stringify!($conv), $try_conv(x, weight, bias, options))
        }

        #[doc = concat!("[`", stringify!($conv), "`] that returns what is wrong.")]
        ///
        /// # Errors
        ///
        /// [`Error`]: shapes that do not fit each other, element types that differ, groups that do not divide the channels, a
        /// kernel that is larger than the padded input.
        pub fn $try_conv(
            x: Tensor<$D>,
            weight: Tensor<$D>,
            bias: Option<Tensor<1>>,
            options: impl Into<ConvOptions<$R>>,
        ) -> Result<Tensor<$D>, Error> {
            let options = options.into();
            let desc = describe::<$D, $T, $R>(&x, &weight, None, bias.as_ref(), &options)?;
            if !has_kernels(&x) {
                let (x, options) = composed::padded(x, options);
                return Ok(module::$conv(x, weight, bias, options));
            }
            run::<$D, $T>(x, weight, None, bias, desc)
        }
    };
}

functions!("1D", 3, 2, 1, conv_relu1d, try_conv_relu1d, conv1d, try_conv1d, "width");
functions!("2D", 4, 3, 2, conv_relu2d, try_conv_relu2d, conv2d, try_conv2d, "height, width");
functions!("3D", 5, 4, 3, conv_relu3d, try_conv_relu3d, conv3d, try_conv3d, "depth, height, width");

#[track_caller]
fn or_panic<T>(name: &str, result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Whether the layer goes to the kernels: `f32` on burn's CPU backend.
fn has_kernels<const D: usize>(input: &Tensor<D>) -> bool {
    input.dtype() == DType::F32 && is_on_cpu(input)
}

fn is_on_cpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    match tensor.clone().into_dispatch().kind {
        DispatchTensorKind::Autodiff(inner) => matches!(*inner, DispatchTensorKind::Flex(_)),
        kind => matches!(kind, DispatchTensorKind::Flex(_)),
    }
}

fn run<const D: usize, const T: usize>(
    input: Tensor<D>,
    weight: Tensor<D>,
    thresholds: Option<Tensor<T>>,
    bias: Option<Tensor<1>>,
    desc: ConvDesc,
) -> Result<Tensor<D>, Error> {
    let outcome = <Dispatch as ConvReluBackend>::conv_relu(
        input.into_dispatch(),
        weight.into_dispatch(),
        Optional::new(thresholds.map(Tensor::into_dispatch)),
        Optional::new(bias.map(Tensor::into_dispatch)),
        desc,
    );
    match outcome {
        Outcome::Output(output) => Ok(Tensor::from_dispatch(output)),
        Outcome::Refused(error) => Err(error.into()),
    }
}

/// The layer without kernels.
fn clamped<const D: usize, const T: usize>(
    input: Tensor<D>,
    weight: Tensor<D>,
    thresholds: Tensor<T>,
    bias: Option<Tensor<1>>,
    desc: ConvDesc,
) -> Result<Tensor<D>, Error> {
    // What the kernels check. On a device of its own, the answer would have to be waited for.
    if is_on_cpu(&thresholds) {
        let nan = thresholds.clone().is_nan().flatten::<1>(0, T - 1).into_data();
        if let Some(index) = nan.iter::<bool>().position(|nan| nan) {
            return Err(convrelu::Error::NanThreshold { index }.into());
        }
    }
    let axes = |[first, second]: [usize; 2], [depth, height, width]: [usize; 3]| [first, second, depth, height, width];
    let input = input.reshape(axes([desc.batch(), desc.in_channels()], desc.input_size()));
    let weight = weight.reshape(axes([desc.out_channels(), desc.in_channels() / desc.groups()], desc.kernel()));
    let [depth, height, width] = desc.kernel();
    let thresholds = thresholds.reshape([desc.in_channels(), depth, height, width]);
    let output = composed::conv_relu(input, weight, thresholds, bias, &desc);
    let mut shape = [0; D];
    shape[..2].copy_from_slice(&[desc.batch(), desc.out_channels()]);
    shape[2..].copy_from_slice(&desc.output_size()[5 - D..]);
    Ok(output.reshape(shape))
}
