//! Our side of the comparison: everything allocated and packed beforehand.

use std::rc::Rc;

use clap::ValueEnum;
use convrelu::{
    Accumulation, BackwardInput, BackwardWeight, ConvDesc, ConvRelu, Error, Forward, Isa, PackedWeight,
    Pass as OurPass, Thresholds, Weight,
};
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::operands::Operands;
use crate::pass::Pass;

pub(crate) struct Ours {
    plan: ConvRelu,
    pass: Pass,
    operands: Rc<Operands>,
    /// Lives as long as the process: packed weights borrow their buffer.
    packed: Option<PackedWeight<'static>>,
    workspace: Buffer,
    /// Output, gradient of the input, or gradient of the weight.
    result: Buffer,
    /// Gradient of the thresholds or of the bias.
    second: Buffer,
}

/// Which thresholds a call uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Theta {
    /// One for each weight position: ConvReLU
    PerTap,
    /// −∞: a plain convolution, with which results are compared
    Linear,
    /// 0: ReLU before a convolution
    Relu,
}

impl Theta {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PerTap => "per-tap",
            Self::Linear => "linear",
            Self::Relu => "relu",
        }
    }
}

impl Ours {
    pub(crate) fn new(
        desc: ConvDesc,
        isa: Isa,
        threads: usize,
        pass: Pass,
        operands: Rc<Operands>,
    ) -> Result<Self, Error> {
        let plan = ConvRelu::with_isa(desc, isa)?.with_threads(threads);
        let buffer = |len| &mut **Box::leak(Box::new(Buffer::zeros(len)));
        let weight = &operands.weight;
        let (our_pass, packed, result, second) = match pass {
            Pass::Forward => {
                let packed = plan.pack_weight(weight, buffer(plan.packed_weight_len()))?;
                (OurPass::ForwardPacked, Some(packed), desc.output_len(), 0)
            }
            Pass::BackwardInput => {
                let packed = plan.pack_weight_transposed(weight, buffer(plan.packed_weight_transposed_len()))?;
                (OurPass::BackwardInputPacked, Some(packed), desc.input_len(), desc.threshold_len())
            }
            Pass::BackwardWeight => (OurPass::BackwardWeight, None, desc.weight_len(), desc.bias_len()),
        };
        let workspace = Buffer::zeros(plan.workspace_len(our_pass));
        Ok(Self {
            plan,
            pass,
            operands,
            packed,
            workspace,
            result: Buffer::zeros(result),
            second: Buffer::zeros(second),
        })
    }

    /// Runs the pass once.
    pub(crate) fn run(&mut self, theta: Theta) -> Result<(), Error> {
        let Self { plan, pass, operands, packed, workspace, result, second } = self;
        let Operands { input, weight, thresholds, grad_output, .. } = &**operands;
        let (input, grad_output) = (&input[..], &grad_output[..]);
        let weight = packed.as_ref().map_or(Weight::Plain(weight), Weight::Packed);
        let thresholds = match theta {
            Theta::PerTap => Thresholds::PerTap(thresholds),
            Theta::Linear => Thresholds::LINEAR,
            Theta::Relu => Thresholds::RELU,
        };
        let accumulation = Accumulation::Overwrite;
        match pass {
            Pass::Forward => plan.forward(Forward { input, weight, thresholds, bias: None }, result, workspace),
            Pass::BackwardInput => plan.backward_input(
                BackwardInput { input, weight, thresholds, grad_output, accumulation },
                result,
                Some(second),
                workspace,
            ),
            Pass::BackwardWeight => plan.backward_weight(
                BackwardWeight { input, thresholds, grad_output, accumulation },
                result,
                Some(second),
                workspace,
            ),
        }
    }

    pub(crate) fn result(&self) -> &[f32] {
        &self.result
    }
}
