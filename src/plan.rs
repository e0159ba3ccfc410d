//! The plan of a layer: which instruction set, which blocks, how much workspace; and the public calls.

use crate::arith::max;
use crate::backward_input::BackwardInputPlan;
use crate::backward_weight::BackwardWeightPlan;
use crate::calls::{BackwardInputCall, BackwardWeightCall, ForwardCall};
use crate::desc::ConvDesc;
use crate::error::Error;
use crate::forward::ForwardPlan;
use crate::geometry::parts;
use crate::isa::Isa;
use crate::kernel::{self, Kernels};
use crate::operands::{
    BackwardInput, BackwardWeight, Forward, Gradient, InputGradients, Pass, Weight, WeightGradients, checked,
    checked_mut,
};
use crate::threads::Executor;
use crate::thresholds::ThresholdGradient;
use crate::tiny::Tiny;
use crate::tuning::Tuning;
use crate::weight::{PackedWeight, Packing, plain_strides};
use crate::workspace::{Buffers, aligned, slack};

/// A planned ConvReLU layer: descriptor, instruction set, blocking.
///
/// Making one costs arithmetic on the descriptor only; it owns no memory, so it is free to copy and to share.
/// Every call takes a workspace of at least [`workspace_len`](Self::workspace_len) elements with any contents; every
/// buffer may be longer than needed, and what lies beyond is neither read nor written. No call allocates.
///
/// Calls run on the threads of the [`Executor`] that they are given. Equal plans compute equal bits, whatever the number of
/// threads.
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
    /// A plan for the best instruction set of this machine ([`Isa::detect`]), for one thread.
    pub fn new(desc: ConvDesc) -> Self {
        Self::of(desc, Isa::best_kernels(), Tuning::DEFAULT, 1)
    }

    /// A plan for the instruction set that the build's target guarantees ([`Isa::BASELINE`]), for one thread: a constant,
    /// so that buffers of the lengths it asks for can be statics.
    ///
    /// ```
    /// use convrelu::{ConvDesc, ConvRelu, Error, Forward, Pass, Serial, Thresholds, Weight};
    ///
    /// const PLAN: ConvRelu = match ConvDesc::conv1d(1, 2, 4, [16], [3]).build() {
    ///     Ok(desc) => ConvRelu::baseline(desc),
    ///     Err(_) => panic!("a constant descriptor"),
    /// };
    /// static WEIGHT: [f32; PLAN.desc().weight_len()] = [0.5; PLAN.desc().weight_len()];
    ///
    /// let mut workspace = [0.0; PLAN.workspace_len(Pass::Forward)];
    /// let (input, mut output) = ([1.0; PLAN.desc().input_len()], [0.0; PLAN.desc().output_len()]);
    /// let operands = Forward::new(&input, Weight::Plain(&WEIGHT), Thresholds::RELU);
    /// PLAN.forward(operands, &mut output, &mut workspace, &Serial)?;
    /// assert_eq!(output, [3.0; 4 * 14]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// Where the CPU is known at run time only, [`new`](Self::new) may find a better one.
    pub const fn baseline(desc: ConvDesc) -> Self {
        Self::of(desc, Isa::BASELINE_KERNELS, Tuning::DEFAULT, 1)
    }

    /// A plan for a given instruction set, for one thread.
    ///
    /// # Errors
    ///
    /// [`Error::IsaUnavailable`] where this CPU, operating system or build does not offer it.
    pub fn with_isa(desc: ConvDesc, isa: Isa) -> Result<Self, Error> {
        Self::with_isa_and_threads(desc, isa, 1)
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
            part: tuning.part.max(1),
            tiny: tuning.tiny,
            forward: tuning.forward,
            backward_input: tuning.backward_input,
            packs: tuning.packs,
            strips: tuning.strips,
            depthwise: tuning.depthwise,
        };
        Ok(Self::of(desc, kernels, at_least_one, 1))
    }

    const fn of(desc: ConvDesc, kernels: &'static Kernels, tuning: Tuning, threads: usize) -> Self {
        let parts = parts(threads, desc.multiply_adds(), tuning.part);
        let tiny = Tiny::of(&desc, &tuning);
        Self {
            desc,
            kernels,
            tuning,
            threads,
            forward: ForwardPlan::new(&desc, kernels, &tuning, parts, tiny),
            backward_input: BackwardInputPlan::new(&desc, kernels, &tuning, parts, tiny),
            backward_weight: BackwardWeightPlan::new(&desc, kernels, &tuning, parts, tiny),
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

    /// The same plan for at most `threads` tasks per call (0 counts as 1), which the caller's [`Executor`] spreads over its
    /// threads. A plan takes fewer where more would not pay: at most 128, and none of less than 2¹⁶ multiply-adds. Results do
    /// not depend on it, but [`workspace_len`](Self::workspace_len) does.
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

    /// How the threads share out a pass: the work of each part, in a unit of the pass's own.
    #[cfg(feature = "internal-testing")]
    #[doc(hidden)]
    pub fn for_each_share(&self, pass: Pass, visit: impl FnMut(usize)) {
        match pass {
            Pass::Forward | Pass::ForwardPacked => self.forward.shares(&self.desc).for_each(visit),
            Pass::BackwardInput | Pass::BackwardInputPacked => {
                self.backward_input.shares(&self.desc).for_each(visit);
            }
            Pass::BackwardWeight => self.backward_weight.shares(&self.desc).for_each(visit),
        }
    }

    /// Elements of workspace that a pass needs, exactly.
    pub const fn workspace_len(&self, pass: Pass) -> usize {
        let lanes = self.kernels.lanes;
        let len = match pass {
            Pass::Forward | Pass::ForwardPacked => self.forward.workspace_len(),
            Pass::BackwardInput | Pass::BackwardInputPacked => self.backward_input.workspace_len(lanes),
            Pass::BackwardWeight => self.backward_weight.workspace_len(&self.desc),
        };
        let packed = match pass {
            Pass::Forward if self.forward.tiny().is_none() => self.packed_apart(self.forward.packing).len(),
            Pass::BackwardInput if self.backward_input.tiny().is_none() => {
                self.packed_apart(self.backward_input.packing).len()
            }
            _ => 0,
        };
        len.saturating_add(packed).saturating_add(slack(lanes))
    }

    /// Weights that a call packs, before the rest of its workspace.
    const fn packed_apart(&self, packing: Packing) -> Buffers<1> {
        Buffers::new([packing.len(&self.desc)], self.kernels.lanes)
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

    /// The weight and the workspace of a call, both long enough. A call with plain weights is one pass, and with packed weights
    /// another.
    fn checked<'a>(
        &self,
        packing: Packing,
        weight: Weight<'a>,
        workspace: &'a mut [f32],
        [plain, packed]: [Pass; 2],
    ) -> Result<(Weight<'a>, &'a mut [f32]), Error> {
        let (weight, pass) = match weight {
            Weight::Plain(weight) => (Weight::Plain(checked("weight", weight, self.desc.weight_len())?), plain),
            Weight::Packed(own) => {
                if !own.belongs_to(&self.desc, self.isa(), packing) {
                    return Err(Error::PackedElsewhere { packed: own.isa, plan: self.isa() });
                }
                (weight, packed)
            }
        };
        Ok((weight, checked_mut("workspace", workspace, self.workspace_len(pass))?))
    }

    /// The weight as a pass reads it, packed into the workspace if need be, and the rest of the workspace.
    fn packed<'a>(&self, packing: Packing, weight: Weight<'a>, workspace: &'a mut [f32]) -> (&'a [f32], &'a mut [f32]) {
        let workspace = aligned(workspace, self.kernels.lanes);
        match weight {
            Weight::Plain(weight) => {
                let ([packed], rest) = self.packed_apart(packing).carve(workspace);
                packing.pack(&self.desc, self.kernels, weight, packed);
                (packed, rest)
            }
            Weight::Packed(weight) => (weight.data, workspace),
        }
    }

    /// Forward pass (eq. 8 with bias): `y[n,d,o] = b[d] + Σ_{c,k} w[d,c,k] · f(x̂[n,c,o·stride + k·dilation − padding]; θ[c,k])`.
    ///
    /// `output` holds [`ConvDesc::output_len`] elements and is overwritten, gaps between its pixels or images apart. A NaN in
    /// the input reaches exactly the outputs whose window holds it. An [`Epilogue`](crate::Epilogue) says what becomes of `y`
    /// before it is stored.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`], [`Error::NanThreshold`], [`Error::PackedElsewhere`], and of an epilogue [`Error::NanBound`],
    /// [`Error::BoundsCrossed`]; nothing is written then.
    /// [`Error::Executor`].
    pub fn forward(
        &self,
        operands: Forward<'_>,
        output: &mut [f32],
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = &self.desc;
        let Forward { input, weight, thresholds, bias, epilogue } = operands;
        let input = checked("input", input, desc.input_len())?;
        let thresholds = thresholds.checked(desc)?;
        let bias = bias.map(|bias| checked("bias", bias, desc.bias_len())).transpose()?;
        let epilogue = match &epilogue {
            Some(epilogue) if kernel::epilogues_made() => epilogue.checked(desc)?,
            _ => None,
        };
        let output = checked_mut("output", output, desc.output_len())?;
        let passes = [Pass::Forward, Pass::ForwardPacked];
        let packing = self.forward.packing;
        let (weight, workspace) = self.checked(packing, weight, workspace, passes)?;
        if let Some(tiny) = self.forward.tiny() {
            tiny.forward(input, &tiny.weight(desc, weight), &thresholds, bias, epilogue.as_ref(), output);
            return Ok(());
        }
        let (weight, workspace) = self.packed(packing, weight, workspace);
        let call =
            ForwardCall { desc, kernels: self.kernels, input, weight, thresholds, bias, epilogue: epilogue.as_ref() };
        self.forward.run(&call, output, workspace, executor)
    }

    /// Gradients of the input and of the thresholds in one pass (eq. 5 and 6), whichever of them are asked for.
    ///
    /// With `G[n,o,c,k] = Σ_d g[n,d,o] · w[d,c,k]`: `∂E/∂x` sums `G` where `x > θ`, `∂E/∂θ` where `x̂ ≤ θ`; a tie goes
    /// to the threshold, padding counts as `x̂ = 0`, and a NaN input passes its gradient to neither. With
    /// [`Thresholds::LINEAR`](crate::Thresholds::LINEAR) all of `G` goes to `∂E/∂x`, the input is not read, and `∂E/∂θ` is 0.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`], [`Error::NanThreshold`], [`Error::MissingInput`], [`Error::PackedElsewhere`]; nothing is
    /// written then. [`Error::Executor`].
    pub fn backward_input(
        &self,
        operands: BackwardInput<'_>,
        gradients: InputGradients<'_>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = &self.desc;
        let BackwardInput { input, weight, thresholds, grad_output } = operands;
        let input = match input {
            // Not even looked at.
            _ if thresholds.is_linear() => None,
            Some(input) => Some(checked("input", input, desc.input_len())?),
            None => return Err(Error::MissingInput),
        };
        let grad_len = thresholds.grad_len(desc);
        let thresholds = thresholds.checked(desc)?;
        let grad_output = checked("grad_output", grad_output, desc.output_len())?;
        let InputGradients { grad_input, grad_thresholds } = gradients;
        let grad_input = grad_input.map(|gradient| gradient.checked("grad_input", desc.input_len())).transpose()?;
        let grad_thresholds =
            grad_thresholds.map(|gradient| gradient.checked("grad_thresholds", grad_len)).transpose()?;
        let passes = [Pass::BackwardInput, Pass::BackwardInputPacked];
        let packing = self.backward_input.packing;
        let (weight, workspace) = self.checked(packing, weight, workspace, passes)?;
        let strides = thresholds.strides();
        let grad_thresholds = grad_thresholds.map(|gradient| ThresholdGradient { values: gradient.zeroed(), strides });
        if let Some(tiny) = self.backward_input.tiny() {
            // Without gaps, so all of it may be zeroed.
            let grad_input = grad_input.map(Gradient::zeroed);
            let weight = tiny.weight(desc, weight);
            tiny.backward_input(input, &weight, &thresholds, grad_output, grad_input, grad_thresholds);
            return Ok(());
        }
        let (weight, workspace) = self.packed(packing, weight, workspace);
        let call = BackwardInputCall { desc, kernels: self.kernels, input, weight, thresholds, grad_output };
        self.backward_input.run(&call, grad_input, grad_thresholds, workspace, executor)
    }

    /// Gradients of the weight, `∂E/∂w[d,c,k] = Σ_{n,o} g[n,d,o] · f(x̂; θ[c,k])`, and of the bias,
    /// `∂E/∂b[d] = Σ_{n,o} g[n,d,o]`, whichever of them are asked for.
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`], [`Error::NanThreshold`]; nothing is written then. [`Error::Executor`].
    pub fn backward_weight(
        &self,
        operands: BackwardWeight<'_>,
        gradients: WeightGradients<'_>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let desc = &self.desc;
        let BackwardWeight { input, thresholds, grad_output } = operands;
        let input = checked("input", input, desc.input_len())?;
        let thresholds = thresholds.checked(desc)?;
        let grad_output = checked("grad_output", grad_output, desc.output_len())?;
        let WeightGradients { grad_weight, grad_bias } = gradients;
        let grad_weight = grad_weight.map(|gradient| gradient.checked("grad_weight", desc.weight_len())).transpose()?;
        let grad_bias = grad_bias.map(|gradient| gradient.checked("grad_bias", desc.bias_len())).transpose()?;
        let workspace = checked_mut("workspace", workspace, self.workspace_len(Pass::BackwardWeight))?;
        let grad_bias = grad_bias.map(Gradient::zeroed);
        if let Some(tiny) = self.backward_weight.tiny() {
            let grad_weight = grad_weight.map(|gradient| (gradient.zeroed(), plain_strides(desc)));
            tiny.backward_weight(input, &thresholds, grad_output, grad_weight, grad_bias);
            return Ok(());
        }
        let call = BackwardWeightCall { desc, kernels: self.kernels, input, thresholds, grad_output };
        let workspace = aligned(workspace, self.kernels.lanes);
        self.backward_weight.run(&call, grad_weight, grad_bias, workspace, executor)
    }
}
