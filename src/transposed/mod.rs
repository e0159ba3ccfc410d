//! Transposed convolutions ("deconvolutions"): each input position adds its multiple of the kernel to the output.
//!
//! ```text
//! y[n,d,i·stride + k·dilation − padding] += w[c,d,k] · x[n,c,i]        for all c, i, k; y begins with the bias b[d]
//! output size = (input size − 1) · stride − padding before − padding after + dilation · (kernel − 1) + output_padding + 1
//! ```
//!
//! Products that fall outside of the output are dropped. This is `ConvTranspose` of PyTorch and of ONNX (with explicit padding).
//! [`output_padding`](ConvTransposeDescBuilder::output_padding) makes the output larger at its end. A transposed convolution is
//! linear, so it has no thresholds.
//!
//! | layout | input, output | weight |
//! |---|---|---|
//! | [`Nchw`](crate::Layout::Nchw) | `N C D H W` | `I O D H W`, PyTorch's order: `[in_channels][out_channels / groups][kernel]` |
//! | [`Nhwc`](crate::Layout::Nhwc) | `N D H W C` | `I D H W O`: `[in_channels][kernel][out_channels / groups]` |
//!
//! `I` counts all input channels, `O` the output channels of one group.
//!
//! A transposed convolution is the gradient of another convolution, the *mirrored* one, with respect to its input. So it needs no
//! kernels of its own:
//!
//! | pass of the transposed convolution | runs as this pass of the mirrored one |
//! |---|---|
//! | forward | gradient of the input, without thresholds |
//! | gradient of the input | forward pass |
//! | gradient of the weight | gradient of the weight, input and output swapped |
//!
//! ```
//! use convrelu::transposed::{ConvTranspose, ConvTransposeDesc, Forward};
//! use convrelu::{Pass, Serial, Weight};
//!
//! // Two pixels become four: each pixel is multiplied by the kernel, and the results lie two positions apart.
//! let desc = ConvTransposeDesc::conv1d(1, 1, 1, [2], [2]).stride([2]).build()?;
//! let plan = ConvTranspose::new(desc);
//! let mut workspace = vec![0.0; plan.workspace_len(Pass::Forward)];
//! let mut output = [0.0; 4];
//! let operands = Forward::new(&[1.0, 2.0], Weight::Plain(&[10.0, 20.0])).bias(&[0.5]);
//! plan.forward(operands, &mut output, &mut workspace, &Serial)?;
//! assert_eq!(output, [10.5, 20.5, 20.5, 40.5]);
//! # Ok::<(), convrelu::Error>(())
//! ```
//!
//! Buffers, packed weights, threads and determinism are as with [`ConvRelu`].

mod desc;
mod pass;

use crate::error::Error;
use crate::isa::Isa;
use crate::operands::{Gradient, Pass, Weight, WeightGradients};
use crate::plan::ConvRelu;
use crate::threads::Executor;
#[cfg(feature = "internal-testing")]
use crate::tuning::Tuning;
use crate::weight::PackedWeight;

pub use desc::{ConvTransposeDesc, ConvTransposeDescBuilder};

/// A planned transposed convolution, the counterpart of [`ConvRelu`]. It owns no memory, so you may copy and share it freely.
#[derive(Clone, Copy, Debug)]
pub struct ConvTranspose {
    mirrored: ConvRelu,
}

/// Operands of [`ConvTranspose::forward`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Forward<'a> {
    /// `x`, [`ConvTransposeDesc::input_len`] elements.
    pub input: &'a [f32],
    /// `w`, [`ConvTransposeDesc::weight_len`] elements, or packed by [`ConvTranspose::pack_weight`].
    pub weight: Weight<'a>,
    /// `b`, [`ConvTransposeDesc::bias_len`] elements.
    pub bias: Option<&'a [f32]>,
}

impl<'a> Forward<'a> {
    /// Operands without bias.
    pub const fn new(input: &'a [f32], weight: Weight<'a>) -> Self {
        Self { input, weight, bias: None }
    }

    /// Adds a bias, one value per output channel.
    #[must_use]
    pub const fn bias(self, bias: &'a [f32]) -> Self {
        Self { bias: Some(bias), ..self }
    }
}

/// Operands of [`ConvTranspose::backward_input`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackwardInput<'a> {
    /// `w`, [`ConvTransposeDesc::weight_len`] elements, or packed by [`ConvTranspose::pack_weight_transposed`].
    pub weight: Weight<'a>,
    /// `∂E/∂y`, [`ConvTransposeDesc::output_len`] elements.
    pub grad_output: &'a [f32],
}

impl<'a> BackwardInput<'a> {
    /// All operands of the call.
    pub const fn new(weight: Weight<'a>, grad_output: &'a [f32]) -> Self {
        Self { weight, grad_output }
    }
}

/// Operands of [`ConvTranspose::backward_weight`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackwardWeight<'a> {
    /// `x`, [`ConvTransposeDesc::input_len`] elements.
    pub input: &'a [f32],
    /// `∂E/∂y`, [`ConvTransposeDesc::output_len`] elements.
    pub grad_output: &'a [f32],
}

impl<'a> BackwardWeight<'a> {
    /// All operands of the call.
    pub const fn new(input: &'a [f32], grad_output: &'a [f32]) -> Self {
        Self { input, grad_output }
    }
}

impl ConvTranspose {
    /// A plan for the best instruction set of this machine ([`Isa::detect`]), for one thread.
    pub fn new(desc: ConvTransposeDesc) -> Self {
        Self { mirrored: ConvRelu::new(desc.mirrored()) }
    }

    /// A plan for the instruction set that every machine of the build's target has ([`Isa::BASELINE`]), for one thread. It can be
    /// a constant, see [`ConvRelu::baseline`].
    pub const fn baseline(desc: ConvTransposeDesc) -> Self {
        Self { mirrored: ConvRelu::baseline(desc.mirrored()) }
    }

    /// A plan for a given instruction set, for one thread.
    ///
    /// # Errors
    ///
    /// [`Error::IsaUnavailable`] if this CPU, operating system or build does not offer it.
    pub fn with_isa(desc: ConvTransposeDesc, isa: Isa) -> Result<Self, Error> {
        Ok(Self { mirrored: ConvRelu::with_isa(desc.mirrored(), isa)? })
    }

    /// A plan with given limits of blocks and tiles instead of the instruction set's own. For tests.
    ///
    /// # Errors
    ///
    /// [`Error::IsaUnavailable`].
    #[cfg(feature = "internal-testing")]
    #[doc(hidden)]
    pub fn with_tuning(desc: ConvTransposeDesc, isa: Isa, tuning: Tuning) -> Result<Self, Error> {
        Ok(Self { mirrored: ConvRelu::with_tuning(desc.mirrored(), isa, tuning)? })
    }

    /// The same plan for at most `threads` tasks per call; see [`ConvRelu::with_threads`].
    #[must_use]
    pub const fn with_threads(self, threads: usize) -> Self {
        Self { mirrored: self.mirrored.with_threads(threads) }
    }

    /// The descriptor.
    pub const fn desc(&self) -> ConvTransposeDesc {
        ConvTransposeDesc::mirroring(self.mirrored.desc())
    }

    /// The instruction set.
    pub const fn isa(&self) -> Isa {
        self.mirrored.isa()
    }

    /// The most threads that a call uses.
    pub const fn threads(&self) -> usize {
        self.mirrored.threads()
    }

    /// The elements of workspace that a pass needs. [`Pass::BackwardInput`] includes room for a gradient that is added to its
    /// buffer, at most 256 KiB or one image. A call that replaces the buffer needs less.
    pub const fn workspace_len(&self, pass: Pass) -> usize {
        match pass {
            Pass::Forward => self.mirrored.workspace_len(Pass::BackwardInput),
            Pass::ForwardPacked => self.mirrored.workspace_len(Pass::BackwardInputPacked),
            Pass::BackwardInput => self.mirrored.forward_pass().transposed_workspace_len(false),
            Pass::BackwardInputPacked => self.mirrored.forward_pass().transposed_workspace_len(true),
            Pass::BackwardWeight => self.mirrored.workspace_len(Pass::BackwardWeight),
        }
    }

    /// Elements of the buffer that [`pack_weight`](Self::pack_weight) fills.
    pub const fn packed_weight_len(&self) -> usize {
        self.mirrored.packed_weight_transposed_len()
    }

    /// Packs the weight once for many calls of [`forward`](Self::forward).
    ///
    /// `weight` holds at least [`ConvTransposeDesc::weight_len`] elements in the order of the layout, `buffer` at least
    /// [`packed_weight_len`](Self::packed_weight_len).
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`].
    pub fn pack_weight<'a>(&self, weight: &[f32], buffer: &'a mut [f32]) -> Result<PackedWeight<'a>, Error> {
        self.mirrored.pack_weight_transposed(weight, buffer)
    }

    /// Elements of the buffer that [`pack_weight_transposed`](Self::pack_weight_transposed) fills.
    pub const fn packed_weight_transposed_len(&self) -> usize {
        self.mirrored.packed_weight_len()
    }

    /// Packs the weight once for many calls of [`backward_input`](Self::backward_input).
    ///
    /// `weight` holds at least [`ConvTransposeDesc::weight_len`] elements in the order of the layout, `buffer` at least
    /// [`packed_weight_transposed_len`](Self::packed_weight_transposed_len).
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`].
    pub fn pack_weight_transposed<'a>(&self, weight: &[f32], buffer: &'a mut [f32]) -> Result<PackedWeight<'a>, Error> {
        self.mirrored.pack_weight(weight, buffer)
    }

    /// Forward pass: `y[n,d,o] = b[d] + Σ_{c,k} w[c,d,k] · x[n,c,i]`, over all `i` and `k` with
    /// `o = i·stride + k·dilation − padding`.
    ///
    /// The call overwrites [`ConvTransposeDesc::output_len`] elements of `output`, but not the gaps between pixels or images.
    ///
    /// # Errors
    ///
    /// - [`Error::BufferTooShort`], [`Error::PackedElsewhere`]. The call has written nothing then.
    /// - [`Error::Executor`]. The contents of `output` are undefined then.
    pub fn forward(
        &self,
        operands: Forward<'_>,
        output: &mut [f32],
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        self.mirrored.backward_input_pass().transposed_forward(operands, output, workspace, executor)
    }

    /// Gradient of the input, `∂E/∂x[n,c,i] = Σ_{d,k} w[c,d,k] · g[n,d,i·stride + k·dilation − padding]`. It does not depend
    /// on the input.
    ///
    /// # Errors
    ///
    /// - [`Error::BufferTooShort`], [`Error::PackedElsewhere`]. The call has written nothing then.
    /// - [`Error::Executor`]. The contents of the gradient are undefined then.
    pub fn backward_input(
        &self,
        operands: BackwardInput<'_>,
        grad_input: Gradient<'_>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        self.mirrored.forward_pass().transposed_backward_input(operands, Some(grad_input), workspace, executor)
    }

    /// Gradients of the weight, `∂E/∂w[c,d,k] = Σ_{n,i} x[n,c,i] · g[n,d,i·stride + k·dilation − padding]`, and of the bias,
    /// `∂E/∂b[d] = Σ_{n,o} g[n,d,o]`. `gradients` says which of them to compute.
    ///
    /// # Errors
    ///
    /// - [`Error::BufferTooShort`]. The call has written nothing then.
    /// - [`Error::Executor`]. The contents of the gradients are undefined then.
    pub fn backward_weight(
        &self,
        operands: BackwardWeight<'_>,
        gradients: WeightGradients<'_>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        self.mirrored.backward_weight_pass().transposed_backward_weight(operands, gradients, workspace, executor)
    }
}
