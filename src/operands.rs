//! What calls take: tensors and parameters, and how each is checked.

use crate::desc::ConvDesc;
use crate::error::Error;
use crate::thresholds::{ThresholdStrides, ThresholdTable};
use crate::weight::PackedWeight;

/// The calls of a plan, each with its own workspace ([`ConvRelu::workspace_len`](crate::ConvRelu::workspace_len)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// [`ConvRelu::forward`](crate::ConvRelu::forward) with [`Weight::Plain`].
    Forward,
    /// [`ConvRelu::forward`](crate::ConvRelu::forward) with [`Weight::Packed`].
    ForwardPacked,
    /// [`ConvRelu::backward_input`](crate::ConvRelu::backward_input) with [`Weight::Plain`].
    BackwardInput,
    /// [`ConvRelu::backward_input`](crate::ConvRelu::backward_input) with [`Weight::Packed`].
    BackwardInputPacked,
    /// [`ConvRelu::backward_weight`](crate::ConvRelu::backward_weight).
    BackwardWeight,
}

/// Activation thresholds θ.
#[derive(Clone, Copy, Debug)]
pub enum Thresholds<'a> {
    /// One per input channel and tap (eq. 8): `I D H W` or `D H W I`, see [`Layout`](crate::Layout).
    PerTap(&'a [f32]),
    /// The same threshold everywhere. Its gradient is one element.
    Uniform(f32),
}

impl<'a> Thresholds<'a> {
    /// θ = −∞: a plain convolution. The gradient always goes to the input, NaN and −∞ included; that of the threshold is 0.
    pub const LINEAR: Self = Self::Uniform(f32::NEG_INFINITY);
    /// θ = 0: ReLU, then convolution.
    pub const RELU: Self = Self::Uniform(0.0);

    /// Elements of the gradient: [`ConvDesc::threshold_len`], or 1 for a uniform threshold.
    pub const fn grad_len(&self, desc: &ConvDesc) -> usize {
        match self {
            Self::PerTap(_) => desc.threshold_len(),
            Self::Uniform(_) => 1,
        }
    }

    /// Whether the layer is a plain convolution, whatever its input.
    pub(crate) const fn is_linear(&self) -> bool {
        matches!(self, Self::Uniform(f32::NEG_INFINITY))
    }

    const fn strides(&self, desc: &ConvDesc) -> ThresholdStrides {
        match self {
            Self::Uniform(_) => [0, 0],
            Self::PerTap(_) => {
                // Taps are dense in both layouts, so one stride walks all three kernel axes.
                let strides = desc.threshold_strides();
                [strides.channel, strides.spatial[2]]
            }
        }
    }

    /// The thresholds that a layer uses, or why it cannot.
    pub(crate) fn checked(&'a self, desc: &ConvDesc) -> Result<ThresholdTable<'a>, Error> {
        let used = match self {
            Self::Uniform(theta) => core::slice::from_ref(theta),
            Self::PerTap(thetas) => checked("thresholds", thetas, desc.threshold_len())?,
        };
        // All of them, not up to the first one: such a loop takes vectors.
        if used.iter().fold(false, |any, theta| any | theta.is_nan())
            && let Some(index) = used.iter().position(|theta| theta.is_nan())
        {
            return Err(Error::NanThreshold { index });
        }
        Ok(ThresholdTable::new(used, self.strides(desc), self.is_linear()))
    }
}

/// Weights in the order of the layout, or packed once for many calls.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// `O I D H W` or `O D H W I`, see [`Layout`](crate::Layout); packed into the workspace at every call.
    Plain(&'a [f32]),
    /// Packed for the same layer and pass.
    Packed(&'a PackedWeight<'a>),
}

/// What a backward pass does with the gradient already in a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accumulation {
    /// Replaces it.
    #[default]
    Overwrite,
    /// Adds to it.
    Add,
}

/// A buffer for a gradient, and what becomes of the values that it holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Gradient<'a> {
    /// The buffer.
    pub values: &'a mut [f32],
    /// Whether its values are replaced or added to.
    pub accumulation: Accumulation,
}

impl<'a> Gradient<'a> {
    /// Replaces or adds to the values of a buffer.
    pub const fn new(values: &'a mut [f32], accumulation: Accumulation) -> Self {
        Self { values, accumulation }
    }

    /// Replaces the values of a buffer.
    pub const fn overwrite(values: &'a mut [f32]) -> Self {
        Self::new(values, Accumulation::Overwrite)
    }

    /// Adds to the values of a buffer.
    pub const fn add(values: &'a mut [f32]) -> Self {
        Self::new(values, Accumulation::Add)
    }

    /// The first `required` elements.
    pub(crate) fn checked(self, argument: &'static str, required: usize) -> Result<Self, Error> {
        Ok(Self::new(checked_mut(argument, self.values, required)?, self.accumulation))
    }

    /// Zeroes a buffer that is to be replaced; what is added to it then is the gradient.
    pub(crate) fn zeroed(self) -> &'a mut [f32] {
        if self.accumulation == Accumulation::Overwrite {
            self.values.fill(0.0);
        }
        self.values
    }
}

/// Operands of [`ConvRelu::forward`](crate::ConvRelu::forward).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Forward<'a> {
    /// `x`, [`ConvDesc::input_len`] elements.
    pub input: &'a [f32],
    /// `w`, [`ConvDesc::weight_len`] elements, or packed by [`ConvRelu::pack_weight`](crate::ConvRelu::pack_weight).
    pub weight: Weight<'a>,
    /// `θ`, [`ConvDesc::threshold_len`] elements or one.
    pub thresholds: Thresholds<'a>,
    /// `b`, [`ConvDesc::bias_len`] elements.
    pub bias: Option<&'a [f32]>,
}

impl<'a> Forward<'a> {
    /// Without bias.
    pub const fn new(input: &'a [f32], weight: Weight<'a>, thresholds: Thresholds<'a>) -> Self {
        Self { input, weight, thresholds, bias: None }
    }

    /// With a bias, one value per output channel.
    #[must_use]
    pub const fn bias(self, bias: &'a [f32]) -> Self {
        Self { bias: Some(bias), ..self }
    }
}

/// Operands of [`ConvRelu::backward_input`](crate::ConvRelu::backward_input).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackwardInput<'a> {
    /// `x`, [`ConvDesc::input_len`] elements: it decides which side of the threshold gets the gradient. With
    /// [`Thresholds::LINEAR`] it is not read and may be left out.
    pub input: Option<&'a [f32]>,
    /// `w`, [`ConvDesc::weight_len`] elements, or packed by
    /// [`ConvRelu::pack_weight_transposed`](crate::ConvRelu::pack_weight_transposed).
    pub weight: Weight<'a>,
    /// `θ`, [`ConvDesc::threshold_len`] elements or one.
    pub thresholds: Thresholds<'a>,
    /// `∂E/∂y`, [`ConvDesc::output_len`] elements.
    pub grad_output: &'a [f32],
}

impl<'a> BackwardInput<'a> {
    /// Of a layer with thresholds.
    pub const fn new(input: &'a [f32], weight: Weight<'a>, thresholds: Thresholds<'a>, grad_output: &'a [f32]) -> Self {
        Self { input: Some(input), weight, thresholds, grad_output }
    }

    /// Of a plain convolution, whose gradient does not depend on the input.
    pub const fn linear(weight: Weight<'a>, grad_output: &'a [f32]) -> Self {
        Self { input: None, weight, thresholds: Thresholds::LINEAR, grad_output }
    }
}

/// The gradients that [`ConvRelu::backward_input`](crate::ConvRelu::backward_input) is asked for: any of them.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct InputGradients<'a> {
    /// `∂E/∂x`, [`ConvDesc::input_len`] elements.
    pub grad_input: Option<Gradient<'a>>,
    /// `∂E/∂θ`, [`Thresholds::grad_len`] elements.
    pub grad_thresholds: Option<Gradient<'a>>,
}

impl<'a> InputGradients<'a> {
    /// None so far.
    pub const fn new() -> Self {
        Self { grad_input: None, grad_thresholds: None }
    }

    /// With that of the input.
    #[must_use]
    pub fn input(self, gradient: Gradient<'a>) -> Self {
        Self { grad_input: Some(gradient), ..self }
    }

    /// With that of the thresholds.
    #[must_use]
    pub fn thresholds(self, gradient: Gradient<'a>) -> Self {
        Self { grad_thresholds: Some(gradient), ..self }
    }
}

/// Operands of [`ConvRelu::backward_weight`](crate::ConvRelu::backward_weight).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackwardWeight<'a> {
    /// `x`, [`ConvDesc::input_len`] elements.
    pub input: &'a [f32],
    /// `θ`, [`ConvDesc::threshold_len`] elements or one.
    pub thresholds: Thresholds<'a>,
    /// `∂E/∂y`, [`ConvDesc::output_len`] elements.
    pub grad_output: &'a [f32],
}

impl<'a> BackwardWeight<'a> {
    /// All there are.
    pub const fn new(input: &'a [f32], thresholds: Thresholds<'a>, grad_output: &'a [f32]) -> Self {
        Self { input, thresholds, grad_output }
    }
}

/// The gradients that [`ConvRelu::backward_weight`](crate::ConvRelu::backward_weight) is asked for: any of them.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct WeightGradients<'a> {
    /// `∂E/∂w`, [`ConvDesc::weight_len`] elements in the order of the layout.
    pub grad_weight: Option<Gradient<'a>>,
    /// `∂E/∂b`, [`ConvDesc::bias_len`] elements.
    pub grad_bias: Option<Gradient<'a>>,
}

impl<'a> WeightGradients<'a> {
    /// None so far.
    pub const fn new() -> Self {
        Self { grad_weight: None, grad_bias: None }
    }

    /// With that of the weight.
    #[must_use]
    pub fn weight(self, gradient: Gradient<'a>) -> Self {
        Self { grad_weight: Some(gradient), ..self }
    }

    /// With that of the bias.
    #[must_use]
    pub fn bias(self, gradient: Gradient<'a>) -> Self {
        Self { grad_bias: Some(gradient), ..self }
    }
}

/// The first `required` elements of an argument.
pub(crate) fn checked<'a>(argument: &'static str, buffer: &'a [f32], required: usize) -> Result<&'a [f32], Error> {
    buffer.get(..required).ok_or(Error::BufferTooShort { argument, len: buffer.len(), required })
}

/// The first `required` elements of an argument that is written.
pub(crate) fn checked_mut<'a>(
    argument: &'static str,
    buffer: &'a mut [f32],
    required: usize,
) -> Result<&'a mut [f32], Error> {
    let len = buffer.len();
    buffer.get_mut(..required).ok_or(Error::BufferTooShort { argument, len, required })
}
