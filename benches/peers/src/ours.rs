//! Our side of the comparison: everything allocated and packed beforehand.

use std::rc::Rc;

use clap::ValueEnum;
use convrelu::{
    BackwardInput, BackwardWeight, ConvDesc, ConvRelu, Error, Forward, Gradient, InputGradients, Isa, PackedWeight,
    Pass as OurPass, Rayon, Thresholds, Weight, WeightGradients,
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
        match pass {
            Pass::Forward => plan.forward(Forward::new(input, weight, thresholds), result, workspace, &Rayon),
            Pass::BackwardInput => {
                let mut gradients = InputGradients::new().input(Gradient::overwrite(result));
                let operands = match theta {
                    Theta::PerTap => {
                        gradients = gradients.thresholds(Gradient::overwrite(second));
                        BackwardInput::new(input, weight, thresholds, grad_output)
                    }
                    // Of ReLU and of a plain convolution, nobody trains the threshold.
                    Theta::Relu => BackwardInput::new(input, weight, thresholds, grad_output),
                    Theta::Linear => BackwardInput::linear(weight, grad_output),
                };
                plan.backward_input(operands, gradients, workspace, &Rayon)
            }
            Pass::BackwardWeight => {
                let gradients =
                    WeightGradients::new().weight(Gradient::overwrite(result)).bias(Gradient::overwrite(second));
                plan.backward_weight(BackwardWeight::new(input, thresholds, grad_output), gradients, workspace, &Rayon)
            }
        }
    }

    pub(crate) fn result(&self) -> &[f32] {
        &self.result
    }
}
