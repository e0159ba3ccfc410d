//! What the drivers of a pass receive: the operands of a call, whose lengths have been checked.

use crate::desc::ConvDesc;
use crate::kernel::{Epilogue, Kernels};
use crate::thresholds::ThresholdTable;

/// Operands of the forward pass.
pub(crate) struct ForwardCall<'a> {
    pub(crate) desc: &'a ConvDesc,
    pub(crate) kernels: &'static Kernels,
    pub(crate) input: &'a [f32],
    /// In the plan's packing.
    pub(crate) weight: &'a [f32],
    pub(crate) thresholds: ThresholdTable<'a>,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) epilogue: Option<&'a Epilogue<'a>>,
}

/// Operands of the backward pass of the input.
pub(crate) struct BackwardInputCall<'a> {
    pub(crate) desc: &'a ConvDesc,
    pub(crate) kernels: &'static Kernels,
    /// None where thresholds are linear.
    pub(crate) input: Option<&'a [f32]>,
    /// In the plan's packing.
    pub(crate) weight: &'a [f32],
    pub(crate) thresholds: ThresholdTable<'a>,
    pub(crate) grad_output: &'a [f32],
    /// The value from which the gradients of each input channel start, instead of zero. None where they are added to what the
    /// buffer holds.
    pub(crate) start: Option<&'a [f32]>,
}

/// Operands of the backward pass of the weight.
pub(crate) struct BackwardWeightCall<'a> {
    pub(crate) desc: &'a ConvDesc,
    pub(crate) kernels: &'static Kernels,
    pub(crate) input: &'a [f32],
    pub(crate) thresholds: ThresholdTable<'a>,
    pub(crate) grad_output: &'a [f32],
}
