//! The layer as an operation of burn's backends.
//!
//! `backend_extension` makes the route from a tensor's device to the implementation for its backend: `Flex`, or what
//! `Autodiff` records around it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, backend_extension};
use convrelu::{ConvDesc, Error};

/// The output of a layer, or why there is none.
///
/// Descriptors are checked when they are made. What is left are thresholds that are NaN, which only the kernels see.
#[derive(Debug, ExtensionType)]
pub enum Outcome<B: Backend> {
    /// `[batch, out_channels, *size]`.
    Output(FloatTensor<B>),
    /// The layer was refused.
    Refused(Error),
}

/// A tensor that a layer may have. (Operations of extensions take no `Option`.)
#[derive(Clone, Debug, ExtensionType)]
pub enum Optional<B: Backend> {
    /// It has one.
    Given(FloatTensor<B>),
    /// It has none.
    Absent,
}

impl<B: Backend> Optional<B> {
    /// The tensor.
    pub fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Self::Given(tensor) => Some(tensor),
            Self::Absent => None,
        }
    }

    /// With or without a tensor.
    pub fn new(tensor: Option<FloatTensor<B>>) -> Self {
        tensor.map_or(Self::Absent, Self::Given)
    }
}

/// A backend that computes the layer.
#[backend_extension(Flex, Autodiff)]
pub trait ConvReluBackend: Backend {
    /// `y = Σ w · max(x, θ) + b`. All tensors hold `f32` and have the shapes of the descriptor, channels first: input
    /// `[batch, in_channels, *size]`, weight `[out_channels, in_channels / groups, *kernel]`, thresholds
    /// `[in_channels, *kernel]`, bias `[out_channels]`. Without thresholds θ is −∞.
    fn conv_relu(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] thresholds: Optional<Self>,
        #[extension_type] bias: Optional<Self>,
        desc: ConvDesc,
    ) -> Outcome<Self>;
}

/// A backend that computes the gradients of the layer too.
pub trait ConvReluGradients: ConvReluBackend {
    /// Gradients of the input and of the thresholds in one pass, whichever of them are wanted. The input is not read, and may
    /// be left out, where there are no thresholds.
    fn input_gradients(
        input: Option<FloatTensor<Self>>,
        weight: FloatTensor<Self>,
        thresholds: Option<FloatTensor<Self>>,
        grad_output: FloatTensor<Self>,
        desc: ConvDesc,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<Self>>; 2];

    /// Gradients of the weight and of the bias in one pass, whichever of them are wanted.
    fn weight_gradients(
        input: FloatTensor<Self>,
        thresholds: Option<FloatTensor<Self>>,
        grad_output: FloatTensor<Self>,
        desc: ConvDesc,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<Self>>; 2];
}
