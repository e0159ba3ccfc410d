//! The operands of calls: tensors and parameters, and how each is checked.

use crate::desc::ConvDesc;
use crate::error::Error;
use crate::kernel;
use crate::thresholds::{ThresholdStrides, ThresholdTable};
use crate::weight::PackedWeight;

/// The calls of a plan. Each needs a workspace of its own length ([`ConvRelu::workspace_len`](crate::ConvRelu::workspace_len)).
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
    /// θ = −∞: a plain convolution. The gradient always goes to the input, even if the input is NaN or −∞. The gradient of the
    /// threshold is 0.
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

    /// The thresholds that a layer uses, checked.
    pub(crate) fn checked(&'a self, desc: &ConvDesc) -> Result<ThresholdTable<'a>, Error> {
        let used = match self {
            Self::Uniform(theta) => core::slice::from_ref(theta),
            Self::PerTap(thetas) => checked("thresholds", thetas, desc.threshold_len())?,
        };
        // The loop does not stop at the first NaN, so that the compiler can vectorise it.
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
    /// `O I D H W` or `O D H W I`, see [`Layout`](crate::Layout). Every call packs it into the workspace.
    Plain(&'a [f32]),
    /// Packed for the same layer and pass.
    Packed(&'a PackedWeight<'a>),
}

impl Weight<'_> {
    /// Whether the weight is packed, so that the call needs the workspace of a `…Packed` pass.
    pub(crate) const fn is_packed(&self) -> bool {
        matches!(self, Self::Packed(_))
    }
}

/// What a backward pass does with the values that a gradient's buffer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accumulation {
    /// It replaces them.
    #[default]
    Overwrite,
    /// It adds to them.
    Add,
}

/// A buffer for a gradient, and whether the pass replaces its values or adds to them.
#[derive(Debug)]
#[non_exhaustive]
pub struct Gradient<'a> {
    /// The buffer.
    pub values: &'a mut [f32],
    /// Whether the pass replaces its values or adds to them.
    pub accumulation: Accumulation,
}

impl<'a> Gradient<'a> {
    /// A gradient that replaces the values of a buffer or is added to them.
    pub const fn new(values: &'a mut [f32], accumulation: Accumulation) -> Self {
        Self { values, accumulation }
    }

    /// A gradient that replaces the values of a buffer.
    pub const fn overwrite(values: &'a mut [f32]) -> Self {
        Self::new(values, Accumulation::Overwrite)
    }

    /// A gradient that is added to the values of a buffer.
    pub const fn add(values: &'a mut [f32]) -> Self {
        Self::new(values, Accumulation::Add)
    }

    /// The first `required` elements.
    pub(crate) fn checked(self, argument: &'static str, required: usize) -> Result<Self, Error> {
        Ok(Self::new(checked_mut(argument, self.values, required)?, self.accumulation))
    }

    /// The buffer, zeroed if its values are to be replaced. The pass can then add in both cases.
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
    /// What changes the sums before they are stored.
    pub epilogue: Option<Epilogue<'a>>,
}

impl<'a> Forward<'a> {
    /// Operands without bias and epilogue.
    pub const fn new(input: &'a [f32], weight: Weight<'a>, thresholds: Thresholds<'a>) -> Self {
        Self { input, weight, thresholds, bias: None, epilogue: None }
    }

    /// Adds a bias, one value per output channel.
    #[must_use]
    pub const fn bias(self, bias: &'a [f32]) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Adds an epilogue, which changes the sums before they are stored.
    #[must_use]
    pub const fn epilogue(self, epilogue: Epilogue<'a>) -> Self {
        Self { epilogue: Some(epilogue), ..self }
    }
}

/// What [`ConvRelu::forward`](crate::ConvRelu::forward) does with its sums before it stores them:
///
/// ```text
/// y = clamp(scale · (Σ + bias) + shift + residual, low, high)
/// ```
///
/// Each part is optional. Scale and shift are one value per output channel: batch normalisation folds into them. The sums do not
/// pass through memory before the epilogue, so it costs little more than storing them.
///
/// # Rounding
///
/// Each step is rounded to f32, except that the product and the shift may be fused. The bound of the error is
/// [`reference::error_bound`](crate::reference::error_bound) with two terms more than the sum has, and with the magnitude that
/// [`reference::epilogue`](crate::reference::epilogue) gives.
///
/// # NaN
///
/// The clamp keeps a NaN, as PyTorch's does. A NaN or an infinity in scale, shift or residual reaches only the outputs that it
/// belongs to.
///
/// # Example
///
/// Batch normalisation, a residual connection and ReLU6:
///
/// ```
/// use convrelu::{ConvDesc, ConvRelu, Epilogue, Forward, Pass, Residual, Serial, Thresholds, Weight};
///
/// // The statistics and parameters of two channels.
/// let (mean, variance, gamma, beta) = ([1.0, 2.0], [4.0, 1.0], [1.0, 3.0], [0.5, 0.0]);
/// let scale: [f32; 2] = core::array::from_fn(|d| gamma[d] / f32::sqrt(variance[d]));
/// let shift: [f32; 2] = core::array::from_fn(|d| beta[d] - mean[d] * scale[d]);
///
/// let plan = ConvRelu::new(ConvDesc::conv1d(1, 1, 2, [3], [1]).build()?);
/// let residual = [0.0, 0.0, 4.0, -1.0, 0.0, 1.0];
/// let epilogue = Epilogue::new().scale(&scale).shift(&shift).residual(Residual::Tensor(&residual)).clamp(0.0, 6.0);
/// let operands = Forward::new(&[1.0, 2.0, 3.0], Weight::Plain(&[2.0, 1.0]), Thresholds::LINEAR).epilogue(epilogue);
/// let mut output = [0.0; 6];
/// let mut workspace = vec![0.0; plan.workspace_len(Pass::Forward)];
/// plan.forward(operands, &mut output, &mut workspace, &Serial)?;
/// assert_eq!(output, [1.0, 2.0, 6.0, 0.0, 0.0, 4.0]);
/// # Ok::<(), convrelu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Epilogue<'a> {
    /// One factor per output channel: [`ConvDesc::out_channels`] elements.
    pub scale: Option<&'a [f32]>,
    /// One summand per output channel: [`ConvDesc::out_channels`] elements.
    pub shift: Option<&'a [f32]>,
    /// A summand for each output.
    pub residual: Option<Residual<'a>>,
    /// The least output, or −∞.
    pub low: f32,
    /// The greatest output, or ∞.
    pub high: f32,
}

/// What an [`Epilogue`] adds to each output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Residual<'a> {
    /// A tensor with the layout and the pitch of the output: [`ConvDesc::output_len`] elements. Gaps are not read.
    Tensor(&'a [f32]),
    /// What the output holds before the call.
    Output,
}

impl<'a> Epilogue<'a> {
    /// An epilogue that changes nothing yet.
    pub fn new() -> Self {
        kernel::make_epilogues();
        Self { scale: None, shift: None, residual: None, low: f32::NEG_INFINITY, high: f32::INFINITY }
    }

    /// Adds a factor per output channel.
    #[must_use]
    pub const fn scale(self, scale: &'a [f32]) -> Self {
        Self { scale: Some(scale), ..self }
    }

    /// Adds a summand per output channel.
    #[must_use]
    pub const fn shift(self, shift: &'a [f32]) -> Self {
        Self { shift: Some(shift), ..self }
    }

    /// Adds a summand for each output.
    #[must_use]
    pub const fn residual(self, residual: Residual<'a>) -> Self {
        Self { residual: Some(residual), ..self }
    }

    /// Clamps the result between two bounds. `clamp(0.0, f32::INFINITY)` is ReLU.
    #[must_use]
    pub const fn clamp(self, low: f32, high: f32) -> Self {
        Self { low, high, ..self }
    }

    /// The epilogue as kernels take it, checked. None if it changes nothing.
    pub(crate) fn checked(&self, desc: &ConvDesc) -> Result<Option<kernel::Epilogue<'a>>, Error> {
        let Self { scale, shift, residual, low, high } = *self;
        let per_channel = |argument, values: Option<&'a [f32]>| {
            values.map(|values| checked(argument, values, desc.out_channels())).transpose()
        };
        let (scale, shift) = (per_channel("scale", scale)?, per_channel("shift", shift)?);
        let residual = match residual {
            None => kernel::Residual::None,
            Some(Residual::Tensor(values)) => kernel::Residual::Tensor(checked("residual", values, desc.output_len())?),
            Some(Residual::Output) => kernel::Residual::Output,
        };
        for (argument, bound) in [("low", low), ("high", high)] {
            if bound.is_nan() {
                return Err(Error::NanBound { argument });
            }
        }
        if low > high {
            return Err(Error::BoundsCrossed { low, high });
        }
        let nothing = scale.is_none()
            && shift.is_none()
            && residual == kernel::Residual::None
            && (low, high) == (f32::NEG_INFINITY, f32::INFINITY);
        Ok((!nothing).then_some(kernel::Epilogue { scale, shift, residual, low, high }))
    }
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// Operands of [`ConvRelu::backward_input`](crate::ConvRelu::backward_input).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackwardInput<'a> {
    /// `x`, [`ConvDesc::input_len`] elements. It decides whether the gradient goes to the input or to the threshold. With
    /// [`Thresholds::LINEAR`] the call does not read it, and it may be left out.
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
    /// Operands of a layer with thresholds.
    pub const fn new(input: &'a [f32], weight: Weight<'a>, thresholds: Thresholds<'a>, grad_output: &'a [f32]) -> Self {
        Self { input: Some(input), weight, thresholds, grad_output }
    }

    /// Operands of a plain convolution, whose gradient does not depend on the input.
    pub const fn linear(weight: Weight<'a>, grad_output: &'a [f32]) -> Self {
        Self { input: None, weight, thresholds: Thresholds::LINEAR, grad_output }
    }
}

/// The gradients that [`ConvRelu::backward_input`](crate::ConvRelu::backward_input) is asked for: one, both or none.
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

    /// Asks for the gradient of the input.
    #[must_use]
    pub fn input(self, gradient: Gradient<'a>) -> Self {
        Self { grad_input: Some(gradient), ..self }
    }

    /// Asks for the gradient of the thresholds.
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
    /// All operands of the call.
    pub const fn new(input: &'a [f32], thresholds: Thresholds<'a>, grad_output: &'a [f32]) -> Self {
        Self { input, thresholds, grad_output }
    }
}

/// The gradients that [`ConvRelu::backward_weight`](crate::ConvRelu::backward_weight) is asked for: one, both or none.
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

    /// Asks for the gradient of the weight.
    #[must_use]
    pub fn weight(self, gradient: Gradient<'a>) -> Self {
        Self { grad_weight: Some(gradient), ..self }
    }

    /// Asks for the gradient of the bias.
    #[must_use]
    pub fn bias(self, gradient: Gradient<'a>) -> Self {
        Self { grad_bias: Some(gradient), ..self }
    }
}

/// The first `required` elements of an argument.
pub(crate) fn checked<'a>(argument: &'static str, buffer: &'a [f32], required: usize) -> Result<&'a [f32], Error> {
    buffer.get(..required).ok_or(Error::BufferTooShort { argument, len: buffer.len(), required })
}

/// The first `required` elements of an argument that the call writes.
pub(crate) fn checked_mut<'a>(
    argument: &'static str,
    buffer: &'a mut [f32],
    required: usize,
) -> Result<&'a mut [f32], Error> {
    let len = buffer.len();
    buffer.get_mut(..required).ok_or(Error::BufferTooShort { argument, len, required })
}
