//! What an input is compared with.

use candle_core::Tensor;

/// Thresholds θ: the layer computes with `x` where `x > θ`, with θ elsewhere.
///
/// A tensor or a number converts into it, so functions take `&theta` or `0.0` as they are.
#[derive(Clone, Copy, Debug)]
pub enum Thresholds<'a> {
    /// One per input channel and kernel tap, shaped like a weight of one output channel: `(in_channels, …kernel)`. Or one for
    /// all, of shape `()`. Autograd sees it: a variable gets its gradient.
    Tensor(&'a Tensor),
    /// The same number everywhere, which is not trained.
    Uniform(f64),
}

impl Thresholds<'_> {
    /// θ = −∞: a plain convolution.
    pub const LINEAR: Self = Self::Uniform(f64::NEG_INFINITY);
    /// θ = 0: ReLU, then convolution.
    pub const RELU: Self = Self::Uniform(0.0);

    /// Whether the layer is a plain convolution for certain. (A tensor may hold −∞ as well; its values are not looked at.)
    pub(crate) fn is_linear(&self) -> bool {
        matches!(self, Self::Uniform(f64::NEG_INFINITY))
    }

    /// The tensor, if it is one.
    pub(crate) fn tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            Self::Uniform(_) => None,
        }
    }
}

impl<'a> From<&'a Tensor> for Thresholds<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl From<f64> for Thresholds<'_> {
    fn from(theta: f64) -> Self {
        Self::Uniform(theta)
    }
}
