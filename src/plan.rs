//! The plan of a layer: which instruction set, which blocks, how much workspace; and the public calls.

use core::ops::Range;

use crate::arith::max;
use crate::backward_input::{BackwardInputCall, BackwardInputPlan};
use crate::backward_weight::{BackwardWeightCall, BackwardWeightPlan};
use crate::blocking::Tuning;
use crate::desc::ConvDesc;
use crate::error::Error;
use crate::forward::{ForwardCall, ForwardPlan};
use crate::kernel::{Isa, Kernels};
use crate::parallel;
use crate::strided;
use crate::weight::{PackedWeight, Packing};
use crate::workspace::{Arena, aligned, slack, total};

/// The calls of a plan, each with its own workspace ([`ConvRelu::workspace_len`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// [`ConvRelu::forward`] with [`Weight::Plain`].
    Forward,
    /// [`ConvRelu::forward`] with [`Weight::Packed`].
    ForwardPacked,
    /// [`ConvRelu::backward_input`] with [`Weight::Plain`].
    BackwardInput,
    /// [`ConvRelu::backward_input`] with [`Weight::Packed`].
    BackwardInputPacked,
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

    /// θ of an input channel (of all groups) at a kernel position.
    #[inline]
    pub(crate) fn at(&self, desc: &ConvDesc, channel: usize, [d, h, w]: [usize; 3]) -> f32 {
        match self {
            Self::Uniform(theta) => *theta,
            Self::PerTap(thetas) => {
                let strides = desc.threshold_strides();
                let [ds, hs, ws] = strides.spatial;
                thetas[channel * strides.channel + d * ds + h * hs + w * ws]
            }
        }
    }

    /// θ of some input channels, `[channel][tap]`.
    pub(crate) fn copy_channels(&self, desc: &ConvDesc, channels: Range<usize>, thetas: &mut [f32]) {
        let (taps, strides) = (desc.taps(), desc.threshold_strides());
        let thetas = &mut thetas[..channels.len() * taps];
        match self {
            Self::Uniform(theta) => thetas.fill(*theta),
            Self::PerTap(all) if strides.channel == taps => {
                thetas.copy_from_slice(&all[channels.start * taps..channels.end * taps]);
            }
            Self::PerTap(all) => {
                for (tap, all) in all.chunks_exact(strides.spatial[2]).enumerate() {
                    strided::copy(&all[channels.start..], 1, &mut thetas[tap..], taps, channels.len());
                }
            }
        }
    }

    /// θ of all input channels at a tap, in memory order.
    pub(crate) fn copy_tap(&self, desc: &ConvDesc, tap: usize, thetas: &mut [f32]) {
        match self {
            Self::Uniform(theta) => thetas.fill(*theta),
            Self::PerTap(all) => {
                let strides = desc.threshold_strides();
                strided::copy(&all[tap * strides.spatial[2]..], strides.channel, thetas, 1, desc.in_channels());
            }
        }
    }

    /// The thresholds that a layer uses, or why it cannot.
    fn checked(self, desc: &ConvDesc) -> Result<Self, Error> {
        let (used, checked) = match &self {
            Self::Uniform(theta) => (core::slice::from_ref(theta), self),
            Self::PerTap(thetas) => {
                let used = checked("thresholds", thetas, desc.threshold_len())?;
                (used, Self::PerTap(used))
            }
        };
        match used.iter().position(|theta| theta.is_nan()) {
            Some(index) => Err(Error::NanThreshold { index }),
            None => Ok(checked),
        }
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
    /// `w`, [`ConvDesc::weight_len`] elements, or packed by [`ConvRelu::pack_weight`].
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
    /// `w`, [`ConvDesc::weight_len`] elements, or packed by [`ConvRelu::pack_weight_transposed`].
    pub weight: Weight<'a>,
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
///
/// Making one costs arithmetic on the descriptor only; it owns no memory, so it is free to copy and to share.
/// Every call takes a workspace of at least [`workspace_len`](Self::workspace_len) elements with any contents; every
/// buffer may be longer than needed, and what lies beyond is neither read nor written. No call allocates.
///
/// Equal plans compute equal bits, whatever the number of threads.
#[derive(Clone, Copy, Debug)]
pub struct ConvRelu {
    desc: ConvDesc,
    kernels: &'static Kernels,
    tuning: Tuning,
    threads: usize,
    forward: ForwardPlan,
    backward_input: BackwardInputPlan,
    backward_weight: BackwardWeightPlan,
}

impl ConvRelu {
    /// A plan for the best instruction set of this machine ([`Isa::detect`]).
    pub fn new(desc: ConvDesc) -> Self {
        Self::of(desc, Isa::best_kernels(), Tuning::DEFAULT, parallel::default_threads())
    }

    /// A plan for the instruction set that the build's target guarantees ([`Isa::BASELINE`]), for one thread: a constant,
    /// so that buffers of the lengths it asks for can be statics.
    ///
    /// ```
    /// use convrelu::{ConvDesc, ConvRelu, Error, Forward, Pass, Thresholds, Weight};
    ///
    /// const PLAN: ConvRelu = match ConvDesc::conv1d(1, 2, 4, [16], [3]).build() {
    ///     Ok(desc) => ConvRelu::baseline(desc),
    ///     Err(_) => panic!("a constant descriptor"),
    /// };
    /// static WEIGHT: [f32; PLAN.desc().weight_len()] = [0.5; PLAN.desc().weight_len()];
    ///
    /// let mut workspace = [0.0; PLAN.workspace_len(Pass::Forward)];
    /// let (input, mut output) = ([1.0; PLAN.desc().input_len()], [0.0; PLAN.desc().output_len()]);
    /// PLAN.forward(
    ///     Forward { input: &input, weight: Weight::Plain(&WEIGHT), thresholds: Thresholds::RELU, bias: None },
    ///     &mut output,
    ///     &mut workspace,
    /// )?;
    /// assert_eq!(output, [3.0; 4 * 14]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// Where the CPU is known at run time only, [`new`](Self::new) may find a better one.
    pub const fn baseline(desc: ConvDesc) -> Self {
        Self::of(desc, Isa::BASELINE_KERNELS, Tuning::DEFAULT, 1)
    }

    /// A plan for a given instruction set.
    ///
    /// # Errors
    ///
    /// [`Error::IsaUnavailable`] where this CPU, operating system or build does not offer it.
    pub fn with_isa(desc: ConvDesc, isa: Isa) -> Result<Self, Error> {
        Self::with_isa_and_threads(desc, isa, parallel::default_threads())
    }

    /// [`with_isa`](Self::with_isa) and [`with_threads`](Self::with_threads) at once.
    pub(crate) fn with_isa_and_threads(desc: ConvDesc, isa: Isa, threads: usize) -> Result<Self, Error> {
        let kernels = isa.kernels().ok_or(Error::IsaUnavailable { isa })?;
        Ok(Self::of(desc, kernels, Tuning::DEFAULT, max(threads, 1)))
    }

    /// A plan with other block and tile limits than the instruction set's own. For tests.
    ///
    /// # Errors
    ///
    /// [`Error::IsaUnavailable`].
    #[cfg(feature = "internal-testing")]
    #[doc(hidden)]
    pub fn with_tuning(desc: ConvDesc, isa: Isa, tuning: Tuning) -> Result<Self, Error> {
        let kernels = isa.kernels().ok_or(Error::IsaUnavailable { isa })?;
        let at_least_one = Tuning {
            staging_len: tuning.staging_len.max(1),
            panel: tuning.panel.max(1),
            tile: tuning.tile.max(1),
            positions: tuning.positions.max(1),
            depth: tuning.depth.max(1),
            forward: tuning.forward,
            backward_input: tuning.backward_input,
            depthwise: tuning.depthwise,
        };
        Ok(Self::of(desc, kernels, at_least_one, parallel::default_threads()))
    }

    const fn of(desc: ConvDesc, kernels: &'static Kernels, tuning: Tuning, threads: usize) -> Self {
        Self {
            desc,
            kernels,
            tuning,
            threads,
            forward: ForwardPlan::new(&desc, kernels, &tuning, threads),
            backward_input: BackwardInputPlan::new(&desc, kernels, &tuning, threads),
            backward_weight: BackwardWeightPlan::new(&desc, kernels, &tuning, threads),
        }
    }

    /// The algorithm of the forward pass.
    #[cfg(feature = "internal-testing")]
    #[doc(hidden)]
    pub fn forward_algorithm(&self) -> crate::ForwardAlgorithm {
        self.forward.algorithm()
    }

    /// The algorithm of the backward pass of the input.
    #[cfg(feature = "internal-testing")]
    #[doc(hidden)]
    pub fn backward_input_algorithm(&self) -> crate::BackwardInputAlgorithm {
        self.backward_input.algorithm()
    }

    /// How the backward pass of the weight fills its lanes.
    #[cfg(feature = "internal-testing")]
    #[doc(hidden)]
    pub fn backward_weight_algorithm(&self) -> &'static str {
        self.backward_weight.algorithm()
    }

    /// The same plan for at most `threads` threads per call (0 counts as 1). Results do not depend on it, but
    /// [`workspace_len`](Self::workspace_len) does.
    ///
    /// The default is the size of the current rayon pool with the feature `rayon`, and 1 without; without the feature
    /// the shares of the threads run one after the other.
    #[must_use]
    pub const fn with_threads(self, threads: usize) -> Self {
        Self::of(self.desc, self.kernels, self.tuning, max(threads, 1))
    }

    /// The descriptor.
    pub const fn desc(&self) -> &ConvDesc {
        &self.desc
    }

    /// The instruction set.
    pub const fn isa(&self) -> Isa {
        self.kernels.isa
    }

    /// The most threads that a call uses.
    pub const fn threads(&self) -> usize {
        self.threads
    }

    /// Elements of workspace that a pass needs, exactly.
    pub const fn workspace_len(&self, pass: Pass) -> usize {
        let lanes = self.kernels.lanes;
        let forward = self.forward.packing.len(&self.desc);
        let transposed = self.backward_input.packing.len(&self.desc);
        let len = match pass {
            Pass::Forward => total([forward, self.forward.workspace_len()], lanes),
            Pass::ForwardPacked => self.forward.workspace_len(),
            Pass::BackwardInput => total([transposed, self.backward_input.workspace_len(lanes)], lanes),
            Pass::BackwardInputPacked => self.backward_input.workspace_len(lanes),
            Pass::BackwardWeight => self.backward_weight.workspace_len(),
        };
        len.saturating_add(slack(lanes))
    }

    /// Elements of the buffer that [`pack_weight`](Self::pack_weight) fills.
    pub const fn packed_weight_len(&self) -> usize {
        self.forward.packing.len(&self.desc).saturating_add(slack(self.kernels.lanes))
    }

    /// Packs the weight once for many calls of [`forward`](Self::forward).
    ///
    /// `weight` holds [`ConvDesc::weight_len`] elements in the order of the layout, `buffer` at least
    /// [`packed_weight_len`](Self::packed_weight_len).
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`].
    pub fn pack_weight<'a>(&self, weight: &[f32], buffer: &'a mut [f32]) -> Result<PackedWeight<'a>, Error> {
        self.pack(self.forward.packing, weight, buffer)
    }

    /// Elements of the buffer that [`pack_weight_transposed`](Self::pack_weight_transposed) fills.
    pub const fn packed_weight_transposed_len(&self) -> usize {
        self.backward_input.packing.len(&self.desc).saturating_add(slack(self.kernels.lanes))
    }

    /// Packs the weight once for many calls of [`backward_input`](Self::backward_input).
    ///
    /// `weight` holds [`ConvDesc::weight_len`] elements in the order of the layout, `buffer` at least
    /// [`packed_weight_transposed_len`](Self::packed_weight_transposed_len).
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`].
    pub fn pack_weight_transposed<'a>(&self, weight: &[f32], buffer: &'a mut [f32]) -> Result<PackedWeight<'a>, Error> {
        self.pack(self.backward_input.packing, weight, buffer)
    }

    fn pack<'a>(&self, packing: Packing, weight: &[f32], buffer: &'a mut [f32]) -> Result<PackedWeight<'a>, Error> {
        let desc = &self.desc;
        let weight = checked("weight", weight, desc.weight_len())?;
        let lanes = self.kernels.lanes;
        let len = packing.len(desc);
        let buffer = &mut aligned(checked_mut("buffer", buffer, len.saturating_add(slack(lanes)))?, lanes)[..len];
        packing.pack(desc, self.kernels, weight, buffer);
        Ok(PackedWeight { data: buffer, layer: desc.layer(), isa: self.isa(), packing })
    }

    /// How a pass reads packed weights.
    #[cfg(feature = "capi")]
    const fn packing(&self, pass: Pass) -> Packing {
        match pass {
            Pass::Forward | Pass::ForwardPacked | Pass::BackwardWeight => self.forward.packing,
            Pass::BackwardInput | Pass::BackwardInputPacked => self.backward_input.packing,
        }
    }

    /// What packed weights of a pass belong to: equal for plans that may share them.
    #[cfg(feature = "capi")]
    pub(crate) fn packed_identity(&self, pass: Pass) -> impl core::hash::Hash + use<> {
        (self.desc.layer(), self.isa(), self.packing(pass))
    }

    /// Elements that the caller knows to be packed for a pass of this plan, unless they are too few.
    #[cfg(feature = "capi")]
    pub(crate) fn packed_weight_of<'a>(&self, pass: Pass, elements: &'a [f32]) -> Option<PackedWeight<'a>> {
        let packing = self.packing(pass);
        let data = elements.get(..packing.len(&self.desc))?;
        Some(PackedWeight { data, layer: self.desc.layer(), isa: self.isa(), packing })
    }

    /// The weight as a pass reads it, packed into the workspace if need be, and the rest of the workspace.
    fn packed<'a>(
        &self,
        packing: Packing,
        weight: Weight<'a>,
        workspace: &'a mut [f32],
        passes: [Pass; 2],
    ) -> Result<(&'a [f32], &'a mut [f32]), Error> {
        let (desc, lanes) = (&self.desc, self.kernels.lanes);
        let [plain, with_packed] = passes.map(|pass| self.workspace_len(pass));
        match weight {
            Weight::Plain(weight) => {
                let weight = checked("weight", weight, desc.weight_len())?;
                let workspace = aligned(checked_mut("workspace", workspace, plain)?, lanes);
                let mut arena = Arena::new(workspace, lanes);
                let packed = arena.take(packing.len(desc));
                packing.pack(desc, self.kernels, weight, packed);
                Ok((packed, arena.rest()))
            }
            Weight::Packed(weight) => {
                if (weight.layer, weight.isa, weight.packing) != (desc.layer(), self.isa(), packing) {
                    return Err(Error::PackedElsewhere { packed: weight.isa, plan: self.isa() });
                }
                Ok((weight.data, aligned(checked_mut("workspace", workspace, with_packed)?, lanes)))
            }
        }
    }

    /// Forward pass (eq. 8 with bias): `y[n,d,o] = b[d] + Σ_{c,k} w[d,c,k] · f(x̂[n,c,o·stride + k·dilation − padding]; θ[c,k])`.
    ///
    /// `output` holds [`ConvDesc::output_len`] elements and is overwritten. A NaN in the input reaches exactly the
    /// outputs whose window holds it.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`], [`Error::NanThreshold`], [`Error::PackedElsewhere`]; nothing is written then.
    pub fn forward(&self, operands: Forward<'_>, output: &mut [f32], workspace: &mut [f32]) -> Result<(), Error> {
        let desc = &self.desc;
        let Forward { input, weight, thresholds, bias } = operands;
        let input = checked("input", input, desc.input_len())?;
        let thresholds = thresholds.checked(desc)?;
        let bias = bias.map(|bias| checked("bias", bias, desc.bias_len())).transpose()?;
        let output = checked_mut("output", output, desc.output_len())?;
        let passes = [Pass::Forward, Pass::ForwardPacked];
        let (weight, workspace) = self.packed(self.forward.packing, weight, workspace, passes)?;
        let call = ForwardCall { desc, kernels: self.kernels, input, weight, thresholds, bias };
        self.forward.run(&call, output, workspace);
        Ok(())
    }

    /// Gradients of the input and of the thresholds in one pass (eq. 5 and 6).
    ///
    /// With `G[n,o,c,k] = Σ_d g[n,d,o] · w[d,c,k]`: `∂E/∂x` sums `G` where `x > θ`, `∂E/∂θ` where `x̂ ≤ θ`; a tie goes
    /// to the threshold, padding counts as `x̂ = 0`, and a NaN input passes its gradient to neither.
    ///
    /// `grad_input` holds [`ConvDesc::input_len`] elements, `grad_thresholds` (left out for thresholds that are not
    /// trained) [`ConvDesc::threshold_len`].
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`], [`Error::NanThreshold`]; nothing is written then.
    pub fn backward_input(
        &self,
        operands: BackwardInput<'_>,
        grad_input: &mut [f32],
        grad_thresholds: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let desc = &self.desc;
        let BackwardInput { input, weight, thresholds, grad_output, accumulation } = operands;
        let input = checked("input", input, desc.input_len())?;
        let thresholds = thresholds.checked(desc)?;
        let grad_output = checked("grad_output", grad_output, desc.output_len())?;
        let grad_input = checked_mut("grad_input", grad_input, desc.input_len())?;
        let grad_thresholds = grad_thresholds
            .map(|thresholds| checked_mut("grad_thresholds", thresholds, desc.threshold_len()))
            .transpose()?;
        let passes = [Pass::BackwardInput, Pass::BackwardInputPacked];
        let (weight, workspace) = self.packed(self.backward_input.packing, weight, workspace, passes)?;
        let call =
            BackwardInputCall { desc, kernels: self.kernels, input, weight, thresholds, grad_output, accumulation };
        self.backward_input.run(&call, grad_input, grad_thresholds, workspace);
        Ok(())
    }

    /// Gradients of the weight, `∂E/∂w[d,c,k] = Σ_{n,o} g[n,d,o] · f(x̂; θ[c,k])`, and of the bias,
    /// `∂E/∂b[d] = Σ_{n,o} g[n,d,o]`.
    ///
    /// `grad_weight` holds [`ConvDesc::weight_len`] elements in the order of the layout, `grad_bias`
    /// [`ConvDesc::bias_len`].
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`], [`Error::NanThreshold`]; nothing is written then.
    pub fn backward_weight(
        &self,
        operands: BackwardWeight<'_>,
        grad_weight: &mut [f32],
        grad_bias: Option<&mut [f32]>,
        workspace: &mut [f32],
    ) -> Result<(), Error> {
        let desc = &self.desc;
        let call = BackwardWeightCall {
            desc,
            kernels: self.kernels,
            input: checked("input", operands.input, desc.input_len())?,
            thresholds: operands.thresholds.checked(desc)?,
            grad_output: checked("grad_output", operands.grad_output, desc.output_len())?,
            accumulation: operands.accumulation,
        };
        let grad_weight = checked_mut("grad_weight", grad_weight, desc.weight_len())?;
        let grad_bias = grad_bias.map(|bias| checked_mut("grad_bias", bias, desc.bias_len())).transpose()?;
        let workspace = checked_mut("workspace", workspace, self.workspace_len(Pass::BackwardWeight))?;
        let workspace = aligned(workspace, self.kernels.lanes);
        self.backward_weight.run(&call, grad_weight, grad_bias, workspace);
        Ok(())
    }
}

/// The first `required` elements of an argument.
fn checked<'a>(argument: &'static str, buffer: &'a [f32], required: usize) -> Result<&'a [f32], Error> {
    buffer.get(..required).ok_or(Error::BufferTooShort { argument, len: buffer.len(), required })
}

/// The first `required` elements of an argument that is written.
fn checked_mut<'a>(argument: &'static str, buffer: &'a mut [f32], required: usize) -> Result<&'a mut [f32], Error> {
    let len = buffer.len();
    buffer.get_mut(..required).ok_or(Error::BufferTooShort { argument, len, required })
}
