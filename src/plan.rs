//! The plan of a layer: which instruction set, which blocks, how much workspace; and the public calls.

use crate::arith::max;
use crate::backward_input::BackwardInputPlan;
use crate::backward_weight::BackwardWeightPlan;
use crate::desc::ConvDesc;
use crate::error::Error;
use crate::forward::ForwardPlan;
use crate::isa::Isa;
use crate::kernel::Kernels;
use crate::operands::{BackwardInput, BackwardWeight, Forward, InputGradients, Pass, WeightGradients};
use crate::pass::{Layer, Planned};
use crate::threads::Executor;
use crate::tuning::Tuning;
use crate::weight::PackedWeight;

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
        let kernels = isa.kernels().ok_or(Error::IsaUnavailable { isa })?;
        Ok(Self::of(desc, kernels, Tuning::DEFAULT, 1))
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
        let layer = Layer { desc: &desc, kernels, tuning: &tuning, threads };
        let forward = layer.plan_forward();
        let backward_input = layer.plan_backward_input();
        let backward_weight = layer.plan_backward_weight();
        Self { desc, kernels, tuning, threads, forward, backward_input, backward_weight }
    }

    const fn layer(&self) -> Layer<'_> {
        Layer { desc: &self.desc, kernels: self.kernels, tuning: &self.tuning, threads: self.threads }
    }

    pub(crate) const fn forward_pass(&self) -> Planned<'_, ForwardPlan> {
        self.layer().pass(&self.forward)
    }

    pub(crate) const fn backward_input_pass(&self) -> Planned<'_, BackwardInputPlan> {
        self.layer().pass(&self.backward_input)
    }

    pub(crate) const fn backward_weight_pass(&self) -> Planned<'_, BackwardWeightPlan> {
        self.layer().pass(&self.backward_weight)
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
        let desc = &self.desc;
        match pass {
            Pass::Forward | Pass::ForwardPacked => self.forward.shares(desc).for_each(visit),
            Pass::BackwardInput | Pass::BackwardInputPacked => self.backward_input.shares(desc).for_each(visit),
            Pass::BackwardWeight => self.backward_weight.shares(desc).for_each(visit),
        }
    }

    /// Elements of workspace that a pass needs, exactly.
    pub const fn workspace_len(&self, pass: Pass) -> usize {
        match pass {
            Pass::Forward => self.forward_pass().workspace_len(false),
            Pass::ForwardPacked => self.forward_pass().workspace_len(true),
            Pass::BackwardInput => self.backward_input_pass().workspace_len(false),
            Pass::BackwardInputPacked => self.backward_input_pass().workspace_len(true),
            Pass::BackwardWeight => self.backward_weight_pass().workspace_len(),
        }
    }

    /// Elements of the buffer that [`pack_weight`](Self::pack_weight) fills.
    pub const fn packed_weight_len(&self) -> usize {
        self.forward_pass().packer().len()
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
        self.forward_pass().packer().pack(weight, buffer)
    }

    /// Elements of the buffer that [`pack_weight_transposed`](Self::pack_weight_transposed) fills.
    pub const fn packed_weight_transposed_len(&self) -> usize {
        self.backward_input_pass().packer().len()
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
        self.backward_input_pass().packer().pack(weight, buffer)
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
        self.forward_pass().forward(operands, output, workspace, executor)
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
        self.backward_input_pass().backward_input(None, operands, gradients, workspace, executor)
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
        self.backward_weight_pass().backward_weight(operands, gradients, workspace, executor)
    }
}
