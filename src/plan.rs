//! The plan of a layer: which instruction set, which blocks, how much workspace; and the public calls.

use crate::desc::ConvDesc;
use crate::error::Error;
use crate::kernel::Isa;
use crate::weight::PackedWeight;

/// The calls of a plan, each with its own workspace ([`ConvRelu::workspace_len`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// [`ConvRelu::forward`] with [`Weight::Plain`].
    Forward,
    /// [`ConvRelu::forward`] with [`Weight::Packed`].
    ForwardPacked,
    /// [`ConvRelu::backward_input`].
    BackwardInput,
    /// [`ConvRelu::backward_weight`].
    BackwardWeight,
}

/// Activation thresholds θ.
#[derive(Clone, Copy, Debug)]
pub enum Thresholds<'a> {
    /// One per input channel and tap (eq. 8): `I D H W` or `D H W I`, see [`Layout`](crate::Layout).
    PerTap(&'a [f32]),
    /// The same threshold everywhere.
    Uniform(f32),
}

impl Thresholds<'_> {
    /// θ = −∞: a plain convolution.
    pub const LINEAR: Self = Self::Uniform(f32::NEG_INFINITY);
    /// θ = 0: ReLU, then convolution.
    pub const RELU: Self = Self::Uniform(0.0);
}

/// Weights in the order of the layout, or packed once for many calls.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// `O I D H W` or `O D H W I`, see [`Layout`](crate::Layout); packed into the workspace at every call.
    Plain(&'a [f32]),
    /// Packed by [`ConvRelu::pack_weight`] of the same layer.
    Packed(&'a PackedWeight<'a>),
}

/// What a backward pass does with the gradients already in its output buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accumulation {
    /// Replaces them.
    #[default]
    Overwrite,
    /// Adds to them.
    Add,
}

/// Operands of [`ConvRelu::forward`].
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// `x`, [`ConvDesc::input_len`] elements.
    pub input: &'a [f32],
    /// `w`, [`ConvDesc::weight_len`] elements or packed.
    pub weight: Weight<'a>,
    /// `θ`, [`ConvDesc::threshold_len`] elements or one.
    pub thresholds: Thresholds<'a>,
    /// `b`, [`ConvDesc::bias_len`] elements.
    pub bias: Option<&'a [f32]>,
}

/// Operands of [`ConvRelu::backward_input`].
#[derive(Clone, Copy, Debug)]
pub struct BackwardInput<'a> {
    /// `x`, [`ConvDesc::input_len`] elements: it decides which side of the threshold gets the gradient.
    pub input: &'a [f32],
    /// `w`, [`ConvDesc::weight_len`] elements.
    pub weight: &'a [f32],
    /// `θ`, [`ConvDesc::threshold_len`] elements or one.
    pub thresholds: Thresholds<'a>,
    /// `∂E/∂y`, [`ConvDesc::output_len`] elements.
    pub grad_output: &'a [f32],
    /// Whether `grad_input` and `grad_thresholds` are replaced or added to.
    pub accumulation: Accumulation,
}

/// Operands of [`ConvRelu::backward_weight`].
#[derive(Clone, Copy, Debug)]
pub struct BackwardWeight<'a> {
    /// `x`, [`ConvDesc::input_len`] elements.
    pub input: &'a [f32],
    /// `θ`, [`ConvDesc::threshold_len`] elements or one.
    pub thresholds: Thresholds<'a>,
    /// `∂E/∂y`, [`ConvDesc::output_len`] elements.
    pub grad_output: &'a [f32],
    /// Whether `grad_weight` and `grad_bias` are replaced or added to.
    pub accumulation: Accumulation,
}

/// A planned ConvReLU layer: descriptor, instruction set, blocking.
#[derive(Clone, Copy, Debug)]
pub struct ConvRelu {
    desc: ConvDesc,
    isa: Isa,
    threads: usize,
}

impl ConvRelu {
    /// A plan for the best instruction set of this machine ([`Isa::detect`]).
    pub fn new(desc: ConvDesc) -> Self {
        Self { desc, isa: Isa::detect(), threads: 1 }
    }
    /// A plan for a given instruction set.
    ///
    /// # Errors
    ///
    /// [`Error::IsaUnavailable`].
    pub fn with_isa(desc: ConvDesc, isa: Isa) -> Result<Self, Error> {
        if isa.is_available() { Ok(Self { desc, isa, threads: 1 }) } else { Err(Error::IsaUnavailable { isa }) }
    }
    /// How many threads a call may use (feature `rayon`); the results do not depend on it, the workspace does.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }
    /// The descriptor.
    pub fn desc(&self) -> &ConvDesc {
        &self.desc
    }
    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }
    /// The number of threads that a call may use.
    pub fn threads(&self) -> usize {
        self.threads
    }
    /// Elements of workspace that a pass needs, exactly.
    pub fn workspace_len(&self, pass: Pass) -> usize {
        let _ = pass;
        1
    }
    /// Elements of the buffer of [`pack_weight`](Self::pack_weight).
    pub fn packed_weight_len(&self) -> usize {
        self.desc.weight_len()
    }
    /// Packs the weight once.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`].
    pub fn pack_weight<'a>(&self, weight: &[f32], buffer: &'a mut [f32]) -> Result<PackedWeight<'a>, Error> {
        buffer.copy_from_slice(weight);
        Ok(PackedWeight { data: buffer })
    }
    /// Forward pass.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`].
    pub fn forward(&self, operands: Forward<'_>, output: &mut [f32], workspace: &mut [f32]) -> Result<(), Error> {
        let _ = workspace;
        let t = self.thr(operands.thresholds);
        let mut out = vec![crate::reference::Sum::ZERO; self.desc.output_len()];
        let w = match operands.weight {
            Weight::Plain(w) => w,
            Weight::Packed(p) => p.data,
        };
        crate::reference::forward(&self.desc, operands.input, w, &t, operands.bias, &mut out);
        for (o, s) in output.iter_mut().zip(out) {
            *o = s.value;
        }
        Ok(())
    }
    fn thr(&self, t: Thresholds<'_>) -> Vec<f32> {
        match t {
            Thresholds::PerTap(t) => t.to_vec(),
            Thresholds::Uniform(t) => vec![t; self.desc.threshold_len()],
        }
    }
    /// Gradients of the input and of the thresholds in one pass.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`].
    pub fn backward_input(
        &self,
        operands: BackwardInput<'_>,
        grad_input: &mut [f32],
        grad_thresholds: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let _ = workspace;
        let t = self.thr(operands.thresholds);
        let mut gi = vec![crate::reference::Sum::ZERO; self.desc.input_len()];
        let mut gt = vec![crate::reference::Sum::ZERO; self.desc.threshold_len()];
        crate::reference::backward_input(
            &self.desc,
            operands.input,
            operands.weight,
            &t,
            operands.grad_output,
            &mut gi,
            &mut gt,
        );
        for (o, s) in grad_input.iter_mut().zip(gi) {
            *o = s.value + if operands.accumulation == Accumulation::Add { *o } else { 0.0 };
        }
        for (o, s) in grad_thresholds.unwrap_or_default().iter_mut().zip(gt) {
            *o = s.value + if operands.accumulation == Accumulation::Add { *o } else { 0.0 };
        }
        Ok(())
    }
    /// Gradients of the weight and of the bias.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`].
    pub fn backward_weight(
        &self,
        operands: BackwardWeight<'_>,
        grad_weight: &mut [f32],
        grad_bias: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let _ = workspace;
        let t = self.thr(operands.thresholds);
        let mut gw = vec![crate::reference::Sum::ZERO; self.desc.weight_len()];
        let mut gb = vec![crate::reference::Sum::ZERO; self.desc.bias_len()];
        crate::reference::backward_weight(&self.desc, operands.input, &t, operands.grad_output, &mut gw, &mut gb);
        for (o, s) in grad_weight.iter_mut().zip(gw) {
            *o = s.value + if operands.accumulation == Accumulation::Add { *o } else { 0.0 };
        }
        for (o, s) in grad_bias.unwrap_or_default().iter_mut().zip(gb) {
            *o = s.value + if operands.accumulation == Accumulation::Add { *o } else { 0.0 };
        }
        Ok(())
    }
}
