//! burn's own convolution modules, computed by our kernels.

use burn::nn::conv::{Conv1d, Conv2d, Conv3d};
use burn::tensor::Tensor;
use burn::tensor::ops::ConvOptions;

use crate::error::Error;
use crate::functions::{try_conv1d, try_conv2d, try_conv3d};
use crate::padding::{Padding, Window};

/// A convolution module of burn's, computed by our kernels: `conv.convolve(x)` for `conv.forward(x)`. The module, its
/// parameters and its checkpoints stay what they are.
pub trait Convolve<const D: usize> {
    /// What the module's `forward` computes.
    ///
    /// # Panics
    ///
    /// With the text of the [`Error`] that [`try_convolve`](Self::try_convolve) returns.
    #[track_caller]
    fn convolve(&self, input: Tensor<D>) -> Tensor<D> {
        self.try_convolve(input).unwrap_or_else(|error| panic!("convolve: {error}"))
    }

    /// [`convolve`](Self::convolve) that returns what is wrong.
    ///
    /// # Errors
    ///
    /// Those of [`try_conv2d`].
    fn try_convolve(&self, input: Tensor<D>) -> Result<Tensor<D>, Error>;
}

macro_rules! convolve {
    ($Conv:ident, $D:literal, $R:literal, $try_conv:ident, $extents:expr) => {
        impl Convolve<$D> for $Conv {
            fn try_convolve(&self, input: Tensor<$D>) -> Result<Tensor<$D>, Error> {
                let (size, weight): ([usize; $D], [usize; $D]) = (input.dims(), self.weight.dims());
                let [stride, dilation] = [self.stride, self.dilation].map($extents);
                let window = Window { kernel: std::array::from_fn(|axis| weight[2 + axis]), stride };
                let padding = self.padding.pairs(std::array::from_fn(|axis| size[2 + axis]), window);
                let options: ConvOptions<$R> = ConvOptions { stride, padding, dilation, groups: self.groups };
                $try_conv(input, self.weight.val(), self.bias.as_ref().map(|bias| bias.val()), options)
            }
        }
    };
}

convolve!(Conv1d, 3, 1, try_conv1d, |extent| [extent]);
convolve!(Conv2d, 4, 2, try_conv2d, |extents| extents);
convolve!(Conv3d, 5, 3, try_conv3d, |extents| extents);
