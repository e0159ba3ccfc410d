//! The plan of a layer (instruction set, blocks, workspace) and the public calls.

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
/// To make a plan takes only arithmetic on the descriptor. A plan owns no memory, so you may copy and share it freely.
///
/// Every call takes a workspace of at least [`workspace_len`](Self::workspace_len) elements with any contents. Every buffer may
/// be longer than needed; a call neither reads nor writes the rest. No call allocates.
///
/// Calls run on the threads of the [`Executor`] that they receive. Equal plans compute equal bits for any number of threads.
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

    /// A plan for the instruction set that every machine of the build's target has ([`Isa::BASELINE`]), for one thread. It can be
    /// a constant, and so can the lengths that it asks for: buffers can be statics. The guide's page
    /// [firmware](crate::guide::firmware) has an example.
    ///
    /// [`new`](Self::new) asks the CPU at run time, and may find a better instruction set.
    pub const fn baseline(desc: ConvDesc) -> Self {
        Self::of(desc, Isa::BASELINE_KERNELS, Tuning::DEFAULT, 1)
    }

    /// A plan for a given instruction set, for one thread.
    ///
    /// # Errors
    ///
    /// [`Error::IsaUnavailable`] if this CPU, operating system or build does not offer it.
    pub fn with_isa(desc: ConvDesc, isa: Isa) -> Result<Self, Error> {
        let kernels = isa.kernels().ok_or(Error::IsaUnavailable { isa })?;
        Ok(Self::of(desc, kernels, Tuning::DEFAULT, 1))
    }

    /// A plan with given limits of blocks and tiles instead of the instruction set's own. For tests.
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
            halves: tuning.halves,
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

    /// The same plan for at most `threads` tasks per call (0 counts as 1). The caller's [`Executor`] spreads the tasks over its
    /// threads.
    ///
    /// A call makes fewer tasks where more would not pay: at most 128, and each of at least 2¹⁶ multiply-adds. The number of
    /// threads does not change results, but it changes [`workspace_len`](Self::workspace_len).
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

    /// Visits the tasks of a pass: the work of each, in a unit that depends on the pass.
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

    /// The least elements of workspace that a pass needs.
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
    /// `weight` holds at least [`ConvDesc::weight_len`] elements in the order of the layout, `buffer` at least
    /// [`packed_weight_len`](Self::packed_weight_len).
    ///
    /// # Errors
    ///
    /// [`Error::BufferTooShort`].
    ///
    /// # Example: inference with folded batch normalisation
    ///
    /// Convolution, batch normalisation and ReLU in one pass over the output. The packed weight, scale and shift do not depend on
    /// the images, so the program makes them once.
    ///
    /// ```
    /// use convrelu::{ConvDesc, ConvRelu, Epilogue, Forward, Pass, Serial, Thresholds, Weight};
    ///
    /// // The results of training: a weight, and the statistics and parameters of each channel.
    /// let desc = ConvDesc::conv2d(4, 3, 8, [16, 16], [3, 3]).padding([1, 1]).build()?;
    /// let weight = vec![0.1; desc.weight_len()];
    /// let (mean, variance, gamma, beta) = ([2.0; 8], [0.25f32; 8], [1.0; 8], [-0.5; 8]);
    ///
    /// let scale: [f32; 8] = std::array::from_fn(|d| gamma[d] / (variance[d] + 1e-5).sqrt());
    /// let shift: [f32; 8] = std::array::from_fn(|d| beta[d] - mean[d] * scale[d]);
    /// let epilogue = Epilogue::new().scale(&scale).shift(&shift).clamp(0.0, f32::INFINITY);
    /// let plan = ConvRelu::new(desc);
    /// let mut packed = vec![0.0; plan.packed_weight_len()];
    /// let packed = plan.pack_weight(&weight, &mut packed)?;
    ///
    /// let images = vec![1.0; 10 * 3 * 16 * 16];
    /// let (mut outputs, mut workspace) = (Vec::new(), Vec::new());
    /// for batch in images.chunks(desc.input_len()) {
    ///     // The last batch is smaller. The packed weight serves plans for any batch.
    ///     let plan = ConvRelu::new(desc.with_batch(batch.len() / (3 * 16 * 16))?);
    ///     workspace.resize(plan.workspace_len(Pass::ForwardPacked), 0.0);
    ///     let mut output = vec![0.0; plan.desc().output_len()];
    ///     let operands = Forward::new(batch, Weight::Packed(&packed), Thresholds::LINEAR).epilogue(epilogue);
    ///     plan.forward(operands, &mut output, &mut workspace, &Serial)?;
    ///     outputs.extend(output);
    /// }
    /// assert_eq!(outputs.len(), 10 * 8 * 16 * 16);
    /// // Inside, 27 products are 2.7, which is 0.9 after normalisation. In the corner, 12 are 1.2, which is less than 0.
    /// assert!((outputs[16 + 1] - 0.9).abs() < 1e-3 && outputs[0] == 0.0);
    /// # Ok::<(), convrelu::Error>(())
    /// ```
    pub fn pack_weight<'a>(&self, weight: &[f32], buffer: &'a mut [f32]) -> Result<PackedWeight<'a>, Error> {
        self.forward_pass().packer().pack(weight, buffer)
    }

    /// Elements of the buffer that [`pack_weight_transposed`](Self::pack_weight_transposed) fills.
    pub const fn packed_weight_transposed_len(&self) -> usize {
        self.backward_input_pass().packer().len()
    }

    /// Packs the weight once for many calls of [`backward_input`](Self::backward_input).
    ///
    /// `weight` holds at least [`ConvDesc::weight_len`] elements in the order of the layout, `buffer` at least
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
    /// `x̂` is the input, and 0 where `k` reads padding. The call overwrites [`ConvDesc::output_len`] elements of `output`, but
    /// not the gaps between pixels or images. A NaN in the input reaches exactly the outputs whose window holds it. An
    /// [`Epilogue`](crate::Epilogue) changes `y` before it is stored.
    ///
    /// # Errors
    ///
    /// - [`Error::BufferTooShort`], [`Error::NanThreshold`], [`Error::PackedElsewhere`], and for an epilogue [`Error::NanBound`]
    ///   and [`Error::BoundsCrossed`]. The call has written nothing then.
    /// - [`Error::Executor`]. The contents of `output` are undefined then.
    ///
    /// # Example: a plain convolution of a framework's tensors
    ///
    /// PyTorch, ONNX and most frameworks hold tensors as [`Layout::Nchw`](crate::Layout::Nchw) does: images `N C H W`, weights
    /// `O I H W` with the input channels of one group.
    ///
    /// ```
    /// use convrelu::{ConvDesc, ConvRelu, Error, Forward, Pass, Serial, Thresholds, Weight};
    ///
    /// struct Tensor {
    ///     shape: [usize; 4],
    ///     data: Vec<f32>,
    /// }
    ///
    /// fn conv2d(x: &Tensor, weight: &Tensor, bias: &[f32], padding: usize, groups: usize) -> Result<Tensor, Error> {
    ///     let ([n, c, h, w], [o, _, kernel_h, kernel_w]) = (x.shape, weight.shape);
    ///     let desc = ConvDesc::conv2d(n, c, o, [h, w], [kernel_h, kernel_w]).padding([padding; 2]).groups(groups).build()?;
    ///     let plan = ConvRelu::new(desc);
    ///     let [_, height, width] = desc.output_size();
    ///     let mut output = Tensor { shape: [n, o, height, width], data: vec![0.0; desc.output_len()] };
    ///     let mut workspace = vec![0.0; plan.workspace_len(Pass::Forward)];
    ///     let operands = Forward::new(&x.data, Weight::Plain(&weight.data), Thresholds::LINEAR).bias(bias);
    ///     plan.forward(operands, &mut output.data, &mut workspace, &Serial)?;
    ///     Ok(output)
    /// }
    ///
    /// let x = Tensor { shape: [1, 1, 3, 3], data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0] };
    /// let weight = Tensor { shape: [1, 1, 2, 2], data: vec![1.0, 0.0, 0.0, -1.0] };
    /// let y = conv2d(&x, &weight, &[0.5], 0, 1)?;
    /// assert_eq!((y.shape, &y.data[..]), ([1, 1, 2, 2], &[-3.5; 4][..]));
    /// // What does not fit is an error, not a panic.
    /// let error = conv2d(&x, &weight, &[0.5], 0, 2).err().unwrap();
    /// assert_eq!(error.to_string(), "in_channels is 1: it must be a multiple of groups, 2");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn forward(
        &self,
        operands: Forward<'_>,
        output: &mut [f32],
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        self.forward_pass().forward(operands, output, workspace, executor)
    }

    /// Gradients of the input and of the thresholds in one pass (eq. 5 and 6). `gradients` says which of them to compute.
    ///
    /// Let `G[n,o,c,k] = Σ_d g[n,d,o] · w[d,c,k]`. Then `∂E/∂x` sums `G` where `x > θ`, and `∂E/∂θ` sums it where `x̂ ≤ θ`. A tie
    /// so goes to the threshold. Padding counts as `x̂ = 0`. A NaN in the input passes its gradient to neither.
    ///
    /// With [`Thresholds::LINEAR`](crate::Thresholds::LINEAR) all of `G` goes to `∂E/∂x`, the call does not read the input, and
    /// `∂E/∂θ` is 0.
    ///
    /// # Errors
    ///
    /// - [`Error::BufferTooShort`], [`Error::NanThreshold`], [`Error::MissingInput`], [`Error::PackedElsewhere`]. The call has
    ///   written nothing then.
    /// - [`Error::Executor`]. The contents of the gradients are undefined then.
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
    /// `∂E/∂b[d] = Σ_{n,o} g[n,d,o]`. `gradients` says which of them to compute.
    ///
    /// # Errors
    ///
    /// - [`Error::BufferTooShort`], [`Error::NanThreshold`]. The call has written nothing then.
    /// - [`Error::Executor`]. The contents of the gradients are undefined then.
    ///
    /// # Example: training
    ///
    /// Steps of gradient descent on weight, bias and thresholds of one layer, with the mean squared error as loss.
    ///
    /// ```
    /// use convrelu::{
    ///     BackwardInput, BackwardWeight, ConvDesc, ConvRelu, Forward, Gradient, InputGradients, Pass, Serial, Thresholds,
    ///     Weight, WeightGradients,
    /// };
    ///
    /// let desc = ConvDesc::conv1d(4, 2, 3, [16], [3]).padding([1]).build()?;
    /// let plan = ConvRelu::new(desc);
    /// // One workspace serves all passes.
    /// let passes = [Pass::Forward, Pass::BackwardInput, Pass::BackwardWeight];
    /// let mut workspace = vec![0.0; passes.map(|pass| plan.workspace_len(pass)).into_iter().max().unwrap()];
    ///
    /// let wave = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
    /// let (input, target) = (wave(desc.input_len(), 0.7), wave(desc.output_len(), 0.2));
    /// let (mut weight, mut bias) = (wave(desc.weight_len(), 1.3), vec![0.0; desc.bias_len()]);
    /// let mut thresholds = vec![0.0; desc.threshold_len()];
    ///
    /// let mut output = vec![0.0; desc.output_len()];
    /// let [mut of_weight, mut of_bias, mut of_thresholds] = [&weight, &bias, &thresholds].map(|p| vec![0.0; p.len()]);
    /// let mut losses = Vec::new();
    /// for _ in 0..50 {
    ///     let (w, theta) = (Weight::Plain(&weight), Thresholds::PerTap(&thresholds));
    ///     plan.forward(Forward::new(&input, w, theta).bias(&bias), &mut output, &mut workspace, &Serial)?;
    ///     let errors: Vec<f32> = output.iter().zip(&target).map(|(y, target)| y - target).collect();
    ///     let count = errors.len() as f32;
    ///     losses.push(errors.iter().map(|error| error * error).sum::<f32>() / count);
    ///     let grad_output: Vec<f32> = errors.iter().map(|error| 2.0 * error / count).collect();
    ///
    ///     // Nothing needs the gradient of the first layer's input. Its thresholds need theirs.
    ///     let gradients = InputGradients::new().thresholds(Gradient::overwrite(&mut of_thresholds));
    ///     let operands = BackwardInput::new(&input, w, theta, &grad_output);
    ///     plan.backward_input(operands, gradients, &mut workspace, &Serial)?;
    ///     let gradients = WeightGradients::new().weight(Gradient::overwrite(&mut of_weight));
    ///     let gradients = gradients.bias(Gradient::overwrite(&mut of_bias));
    ///     plan.backward_weight(BackwardWeight::new(&input, theta, &grad_output), gradients, &mut workspace, &Serial)?;
    ///
    ///     let steps = [(&mut weight, &of_weight), (&mut bias, &of_bias), (&mut thresholds, &of_thresholds)];
    ///     for (values, gradient) in steps {
    ///         values.iter_mut().zip(gradient).for_each(|(value, gradient)| *value -= 0.2 * gradient);
    ///     }
    /// }
    /// assert!(losses[49] < 0.5 * losses[0], "{losses:?}");
    /// # Ok::<(), convrelu::Error>(())
    /// ```
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
