//! Convolution and ConvReLU.

use rand::rngs::ChaCha8Rng;

use super::{Context, Layer, Mode, Peaks, Units, grown};
use crate::desc::ConvDesc;
use crate::error::Error;
use crate::plan::{Accumulation, BackwardInput, BackwardWeight, ConvRelu, Forward, Pass, Thresholds, Weight};
use crate::train::data::Shape;
use crate::train::init::{ThresholdInit, he};
use crate::train::parameter::{Kind, Parameter};

/// A convolution with bias, `weight` `[out, in, d, h, w]` and `bias` `[out]`; with trained `thresholds` `[in, d, h, w]`
/// a ConvReLU (eq. 8), which takes the place of an activation and the convolution after it.
#[derive(Debug)]
pub struct Conv {
    name: String,
    plan: ConvRelu,
    /// Weight, bias and, for ConvReLU, thresholds.
    parameters: Vec<Parameter>,
    workspace: Vec<f32>,
    peaks: Peaks,
}

impl Conv {
    /// A layer with He's initialisation and a bias of zero. The batch of `desc` does not matter: every pass plans for
    /// its own.
    pub fn new(name: &str, desc: ConvDesc, thresholds: Option<ThresholdInit>, rng: &mut ChaCha8Rng) -> Self {
        let ([d, h, w], taps) = (desc.kernel(), desc.taps());
        let in_channels = desc.weight_len() / (desc.out_channels() * taps);
        let weight = he(rng, desc.weight_len(), in_channels * taps);
        let shape = vec![desc.out_channels(), in_channels, d, h, w];
        let bias = vec![0.0; desc.bias_len()];
        let mut parameters = vec![
            Parameter::new(format!("{name}.weight"), shape, Kind::Weight, weight),
            Parameter::new(format!("{name}.bias"), vec![desc.bias_len()], Kind::Bias, bias),
        ];
        if let Some(init) = thresholds {
            let value = init.sample(rng, desc.threshold_len(), in_channels * taps, desc.out_channels() * taps);
            let shape = vec![desc.in_channels(), d, h, w];
            parameters.push(Parameter::new(format!("{name}.thresholds"), shape, Kind::Threshold, value));
        }
        let peaks = Peaks::new(desc.in_channels());
        Self { name: name.to_owned(), plan: ConvRelu::new(desc), parameters, workspace: Vec::new(), peaks }
    }

    /// A plan for the batch and threads of a pass; made anew only when one of them changes.
    fn plan(&mut self, context: Context) -> Result<ConvRelu, Error> {
        if self.plan.desc().batch() != context.batch || self.plan.threads() != context.threads {
            let desc = self.plan.desc().with_batch(context.batch)?;
            self.plan = ConvRelu::with_isa(desc, self.plan.isa())?.with_threads(context.threads);
        }
        Ok(self.plan)
    }
}

/// Thresholds of a layer's parameters; without trained ones a plain convolution.
fn thresholds(parameters: &[Parameter]) -> Thresholds<'_> {
    parameters.get(2).map_or(Thresholds::LINEAR, |thresholds| Thresholds::PerTap(&thresholds.value))
}

impl Layer for Conv {
    fn name(&self) -> &str {
        &self.name
    }

    fn output(&self) -> Shape {
        Shape { channels: self.plan.desc().out_channels(), size: self.plan.desc().output_size() }
    }

    fn forward(&mut self, context: Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let plan = self.plan(context)?;
        if context.mode == Mode::Evaluate && self.parameters.len() > 2 {
            let [d, h, w] = plan.desc().input_size();
            self.peaks.record(input, d * h * w);
        }
        let operands = Forward {
            input,
            weight: Weight::Plain(&self.parameters[0].value),
            thresholds: thresholds(&self.parameters),
            bias: Some(&self.parameters[1].value),
        };
        plan.forward(operands, output, grown(&mut self.workspace, plan.workspace_len(Pass::Forward)))
    }

    fn backward(
        &mut self,
        context: Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let plan = self.plan(context)?;
        let mut parameters = self.parameters.iter_mut();
        let (Some(weight), Some(bias)) = (parameters.next(), parameters.next()) else {
            unreachable!("a convolution has a weight and a bias");
        };
        let trained = parameters.next();
        let (theta, grad_theta) = match trained {
            Some(trained) => (Thresholds::PerTap(&trained.value), Some(&mut trained.grad[..])),
            None => (Thresholds::LINEAR, None),
        };
        let workspace = grown(&mut self.workspace, plan.workspace_len(Pass::BackwardWeight));
        let operands = BackwardWeight { input, thresholds: theta, grad_output, accumulation: Accumulation::Add };
        plan.backward_weight(operands, &mut weight.grad, Some(&mut bias.grad), workspace)?;
        let Some(grad_input) = grad_input else { return Ok(()) };
        let workspace = grown(&mut self.workspace, plan.workspace_len(Pass::BackwardInput));
        // Both results of the pass share one mode: thresholds accumulate, so the input's gradient starts from zero.
        grad_input.fill(0.0);
        let operands = BackwardInput {
            input,
            weight: Weight::Plain(&weight.value),
            thresholds: theta,
            grad_output,
            accumulation: Accumulation::Add,
        };
        plan.backward_input(operands, grad_input, grad_theta, workspace)
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut [Parameter] {
        &mut self.parameters
    }

    fn units(&self) -> Units {
        let Some(thresholds) = self.parameters.get(2) else { return Units::default() };
        let channels = thresholds.value.chunks_exact(self.plan.desc().taps());
        let dead =
            channels.zip(&self.peaks.0).map(|(thetas, peak)| thetas.iter().filter(|theta| peak <= theta).count());
        Units { dead: dead.sum(), total: thresholds.value.len() }
    }

    fn reset_units(&mut self) {
        self.peaks.reset();
    }
}
