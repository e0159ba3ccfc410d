//! One pass of a planned layer: its workspace, its packed weight, and its call, which begins with the check of the operands.
//!
//! [`ConvRelu`](crate::ConvRelu) holds the plans of all passes. The C interface plans only the pass that is called.

use crate::backward_input::BackwardInputPlan;
use crate::backward_weight::BackwardWeightPlan;
use crate::calls::{BackwardInputCall, BackwardWeightCall, ForwardCall};
use crate::desc::ConvDesc;
use crate::error::Error;
use crate::forward::ForwardPlan;
use crate::geometry::{THREADS, parts};
use crate::kernel::{self, Kernels};
use crate::operands::{
    BackwardInput, BackwardWeight, Forward, Gradient, InputGradients, Weight, WeightGradients, checked, checked_mut,
};
use crate::threads::Executor;
use crate::thresholds::ThresholdGradient;
use crate::tiny::Tiny;
use crate::tuning::Tuning;
use crate::weight::{PackedWeight, Packing, plain_strides};
use crate::workspace::{Buffers, aligned, slack};

/// What a plan of a pass is made from.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub(crate) desc: &'a ConvDesc,
    pub(crate) kernels: &'static Kernels,
    pub(crate) tuning: &'a Tuning,
    /// The most tasks per call, at least 1.
    pub(crate) threads: usize,
}

impl<'a> Layer<'a> {
    /// The most parts of a pass.
    const fn parts(&self) -> usize {
        self.parts_of(self.desc.multiply_adds())
    }

    /// How many tasks are worth their cost for `work` multiply-adds.
    pub(crate) const fn parts_of(&self, work: usize) -> usize {
        parts(self.threads, work, self.tuning.part)
    }

    const fn tiny(&self) -> Option<Tiny> {
        Tiny::of(self.desc, self.tuning)
    }

    pub(crate) const fn plan_forward(&self) -> ForwardPlan {
        ForwardPlan::new(self.desc, self.kernels, self.tuning, self.parts(), self.tiny())
    }

    pub(crate) const fn plan_backward_input(&self) -> BackwardInputPlan {
        BackwardInputPlan::new(self.desc, self.kernels, self.tuning, self.parts(), self.tiny())
    }

    pub(crate) const fn plan_backward_weight(&self) -> BackwardWeightPlan {
        BackwardWeightPlan::new(self.desc, self.kernels, self.tuning, self.parts(), self.tiny())
    }

    /// A pass with its plan, which was made for this layer.
    pub(crate) const fn pass<P>(self, plan: &'a P) -> Planned<'a, P> {
        Planned { layer: self, plan }
    }

    /// The weight of a pass that reads it in this packing.
    pub(crate) const fn packer(self, packing: Packing) -> Packer<'a> {
        Packer { layer: self, packing }
    }
}

/// A pass of a layer and its plan.
#[derive(Clone, Copy)]
pub(crate) struct Planned<'a, P> {
    layer: Layer<'a>,
    plan: &'a P,
}

/// The weight of a pass, plain and packed.
#[derive(Clone, Copy)]
pub(crate) struct Packer<'a> {
    layer: Layer<'a>,
    packing: Packing,
}

impl<'l> Packer<'l> {
    /// Elements of the buffer that [`pack`](Self::pack) fills.
    pub(crate) const fn len(&self) -> usize {
        self.packing.len(self.layer.desc).saturating_add(slack(self.layer.kernels.lanes))
    }

    pub(crate) fn pack<'a>(&self, weight: &[f32], buffer: &'a mut [f32]) -> Result<PackedWeight<'a>, Error> {
        let Layer { desc, kernels, .. } = self.layer;
        let weight = checked("weight", weight, desc.weight_len())?;
        let lanes = kernels.lanes;
        let len = self.packing.len(desc);
        let buffer = &mut aligned(checked_mut("buffer", buffer, len.saturating_add(slack(lanes)))?, lanes)[..len];
        self.packing.pack(desc, kernels, weight, buffer);
        Ok(PackedWeight { data: buffer, layer: desc.layer(), isa: kernels.isa, packing: self.packing })
    }

    #[cfg(feature = "capi-plain")]
    pub(crate) const fn isa(&self) -> crate::isa::Isa {
        self.layer.kernels.isa
    }

    /// A value that is equal for two passes exactly if they may share packed weights.
    #[cfg(feature = "capi-plain")]
    pub(crate) fn identity(&self) -> impl core::hash::Hash + use<> {
        (self.layer.desc.layer(), self.layer.kernels.isa, self.packing)
    }

    /// A buffer whose contents the caller knows to be packed for this pass. None if it is too short.
    #[cfg(feature = "capi-plain")]
    pub(crate) fn packed_before<'a>(&self, elements: &'a [f32]) -> Option<PackedWeight<'a>> {
        let Layer { desc, .. } = self.layer;
        let data = elements.get(..self.packing.len(desc))?;
        Some(PackedWeight { data, layer: desc.layer(), isa: self.layer.kernels.isa, packing: self.packing })
    }

    /// The buffer for a weight that the call packs, at the start of its workspace.
    const fn apart(&self) -> Buffers<1> {
        Buffers::new([self.packing.len(self.layer.desc)], self.layer.kernels.lanes)
    }

    /// Elements of a workspace: `len`, room for a weight if the call packs it, and room for alignment.
    const fn workspace_len(&self, len: usize, packs: bool) -> usize {
        let packed = if packs { self.apart().len() } else { 0 };
        len.saturating_add(packed).saturating_add(slack(self.layer.kernels.lanes))
    }

    /// The weight of a call, checked: a plain one is long enough, a packed one was packed for this pass.
    pub(crate) fn checked<'a>(&self, weight: Weight<'a>) -> Result<Weight<'a>, Error> {
        let (desc, isa) = (self.layer.desc, self.layer.kernels.isa);
        match weight {
            Weight::Plain(weight) => Ok(Weight::Plain(checked("weight", weight, desc.weight_len())?)),
            Weight::Packed(own) if !own.belongs_to(desc, isa, self.packing) => {
                Err(Error::PackedElsewhere { packed: own.isa, plan: isa })
            }
            Weight::Packed(_) => Ok(weight),
        }
    }

    /// The weight as the pass reads it, and the rest of the workspace. A plain weight is packed into the workspace.
    fn packed<'a>(
        &self,
        weight: Weight<'a>,
        workspace: &'a mut [f32],
        executor: &dyn Executor,
    ) -> Result<(&'a [f32], &'a mut [f32]), Error> {
        /// The multiply-adds that take as long as to pack one weight, from which follows how many threads share the packing. On Zen 4
        /// a weight takes 0.1 ns while all are in a near cache, and 0.3 to 1 ns in large or transposed tensors; a multiply-add of a
        /// dense layer takes 0.03 ns.
        const PRODUCTS_PER_WEIGHT: usize = 8;
        let Layer { desc, kernels, .. } = self.layer;
        let workspace = aligned(workspace, kernels.lanes);
        match weight {
            Weight::Plain(weight) => {
                let ([packed], rest) = self.apart().carve(workspace);
                let threads = self.layer.parts_of(packed.len().saturating_mul(PRODUCTS_PER_WEIGHT));
                if THREADS && threads > 1 {
                    self.packing.pack_in_parts((desc, kernels), weight, packed, threads, executor)?;
                } else {
                    self.packing.pack(desc, kernels, weight, packed);
                }
                Ok((packed, rest))
            }
            Weight::Packed(weight) => Ok((weight.data, workspace)),
        }
    }
}

impl<'l, P> Planned<'l, P> {
    pub(crate) const fn layer(&self) -> Layer<'l> {
        self.layer
    }
}

impl<'l> Planned<'l, ForwardPlan> {
    pub(crate) const fn packer(&self) -> Packer<'l> {
        self.layer.packer(self.plan.packing)
    }

    /// Elements of workspace, exactly.
    pub(crate) const fn workspace_len(&self, packed: bool) -> usize {
        self.packer().workspace_len(self.plan.workspace_len(), !packed && self.plan.tiny().is_none())
    }

    /// [`ConvRelu::forward`](crate::ConvRelu::forward)
    pub(crate) fn forward(
        &self,
        operands: Forward<'_>,
        output: &mut [f32],
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let Layer { desc, kernels, .. } = self.layer;
        let Forward { input, weight, thresholds, bias, epilogue } = operands;
        let input = checked("input", input, desc.input_len())?;
        let thresholds = thresholds.checked(desc)?;
        let bias = bias.map(|bias| checked("bias", bias, desc.bias_len())).transpose()?;
        let epilogue = match &epilogue {
            Some(epilogue) if kernel::epilogues_made() => epilogue.checked(desc)?,
            _ => None,
        };
        let output = checked_mut("output", output, desc.output_len())?;
        let weight = self.packer().checked(weight)?;
        let workspace = checked_mut("workspace", workspace, self.workspace_len(weight.is_packed()))?;
        if let Some(tiny) = self.plan.tiny() {
            tiny.forward(input, &tiny.weight(desc, weight), &thresholds, bias, epilogue.as_ref(), output);
            return Ok(());
        }
        let (weight, workspace) = self.packer().packed(weight, workspace, executor)?;
        let call = ForwardCall { desc, kernels, input, weight, thresholds, bias, epilogue: epilogue.as_ref() };
        self.plan.run(&call, output, workspace, executor)
    }
}

impl<'l> Planned<'l, BackwardInputPlan> {
    pub(crate) const fn packer(&self) -> Packer<'l> {
        self.layer.packer(self.plan.packing)
    }

    /// Elements of workspace, exactly.
    pub(crate) const fn workspace_len(&self, packed: bool) -> usize {
        let len = self.plan.workspace_len(self.layer.kernels.lanes);
        self.packer().workspace_len(len, !packed && self.plan.tiny().is_none())
    }

    /// Whether gradients of the input can begin with given values.
    pub(crate) const fn begins(&self) -> bool {
        self.plan.begins()
    }

    /// The weight and the workspace of a call, checked.
    pub(crate) fn checked<'a>(
        &self,
        weight: Weight<'a>,
        workspace: &'a mut [f32],
    ) -> Result<(Weight<'a>, &'a mut [f32]), Error> {
        let weight = self.packer().checked(weight)?;
        Ok((weight, checked_mut("workspace", workspace, self.workspace_len(weight.is_packed()))?))
    }

    /// [`ConvRelu::backward_input`](crate::ConvRelu::backward_input). With `start`, the gradients of each input channel start
    /// from its value, and replace what the buffer holds. That needs a plan that [can do it](Self::begins).
    pub(crate) fn backward_input(
        &self,
        start: Option<&[f32]>,
        operands: BackwardInput<'_>,
        gradients: InputGradients<'_>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let Layer { desc, kernels, .. } = self.layer;
        let BackwardInput { input, weight, thresholds, grad_output } = operands;
        let input = match input {
            // A linear layer does not read its input, so the length of the input does not matter.
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
        let (weight, workspace) = self.checked(weight, workspace)?;
        let strides = thresholds.strides();
        let grad_thresholds = grad_thresholds.map(|gradient| ThresholdGradient { values: gradient.zeroed(), strides });
        if let Some(tiny) = self.plan.tiny() {
            // Layers that plain loops compute have tensors without gaps, so all of the buffer may be zeroed.
            let grad_input = grad_input.map(Gradient::zeroed);
            let weight = tiny.weight(desc, weight);
            tiny.backward_input(input, &weight, &thresholds, grad_output, grad_input, grad_thresholds);
            return Ok(());
        }
        let (weight, workspace) = self.packer().packed(weight, workspace, executor)?;
        let call = BackwardInputCall { desc, kernels, input, weight, thresholds, grad_output, start };
        self.plan.run(&call, grad_input, grad_thresholds, workspace, executor)
    }
}

impl Planned<'_, BackwardWeightPlan> {
    /// Elements of workspace, exactly.
    pub(crate) const fn workspace_len(&self) -> usize {
        self.plan.workspace_len(self.layer.desc).saturating_add(slack(self.layer.kernels.lanes))
    }

    /// [`ConvRelu::backward_weight`](crate::ConvRelu::backward_weight)
    pub(crate) fn backward_weight(
        &self,
        operands: BackwardWeight<'_>,
        gradients: WeightGradients<'_>,
        workspace: &mut [f32],
        executor: &dyn Executor,
    ) -> Result<(), Error> {
        let Layer { desc, kernels, .. } = self.layer;
        let BackwardWeight { input, thresholds, grad_output } = operands;
        let input = checked("input", input, desc.input_len())?;
        let thresholds = thresholds.checked(desc)?;
        let grad_output = checked("grad_output", grad_output, desc.output_len())?;
        let WeightGradients { grad_weight, grad_bias } = gradients;
        let grad_weight = grad_weight.map(|gradient| gradient.checked("grad_weight", desc.weight_len())).transpose()?;
        let grad_bias = grad_bias.map(|gradient| gradient.checked("grad_bias", desc.bias_len())).transpose()?;
        let workspace = checked_mut("workspace", workspace, self.workspace_len())?;
        let grad_bias = grad_bias.map(Gradient::zeroed);
        if let Some(tiny) = self.plan.tiny() {
            let grad_weight = grad_weight.map(|gradient| (gradient.zeroed(), plain_strides(desc)));
            tiny.backward_weight(input, &thresholds, grad_output, grad_weight, grad_bias);
            return Ok(());
        }
        let call = BackwardWeightCall { desc, kernels, input, thresholds, grad_output };
        let workspace = aligned(workspace, kernels.lanes);
        self.plan.run(&call, grad_weight, grad_bias, workspace, executor)
    }
}
