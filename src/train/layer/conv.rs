//! Convolution and ConvReLU.

use rand::rngs::ChaCha8Rng;

use super::{Layer, LayerKind, Peaks, Units};
use crate::desc::ConvDesc;
use crate::error::Error;
use crate::isa::Isa;
use crate::plan::{Accumulation, BackwardInput, BackwardWeight, ConvRelu, Forward, Pass, Thresholds, Weight};
use crate::train::context::{Context, Mode};
use crate::train::init::{ThresholdInit, WeightInit};
use crate::train::parameter::{Kind, Parameter};
use crate::train::shape::Shape;

/// What a convolution does to its input first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clamp {
    /// Nothing (θ = −∞).
    Linear,
    /// ReLU (θ = 0, not trained): saves the pass over memory of a layer of its own.
    Relu,
    /// ConvReLU: a trained threshold per input channel and tap (eq. 8).
    Trained(ThresholdInit),
}

/// A convolution of one to three dimensions, channels first or last: `weight` `[out, in, …]`, `bias` `[out]` if it has
/// one, and for ConvReLU `thresholds` `[in, …]`.
#[derive(Debug)]
pub struct Conv {
    name: String,
    plan: ConvRelu,
    clamp: Clamp,
    weight: Parameter,
    bias: Option<Parameter>,
    thresholds: Option<Parameter>,
    peaks: Peaks,
}

impl Conv {
    /// A layer for images of the size and layout of `desc`, whose batch does not matter: every pass plans for its own.
    pub fn new(
        name: &str,
        desc: ConvDesc,
        isa: Isa,
        clamp: Clamp,
        bias: bool,
        init: WeightInit,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, Error> {
        let taps = desc.taps();
        let in_channels = desc.weight_len() / (desc.out_channels() * taps);
        let fan_in = in_channels * taps;
        let kernel = &desc.kernel()[3 - desc.rank()..];
        let weight = init.weight(rng, desc.weight_len(), fan_in);
        let shape = [&[desc.out_channels(), in_channels], kernel].concat();
        let weight = Parameter::new(format!("{name}.weight"), shape, Kind::Weight, weight);
        let bias = bias.then(|| {
            let bias = init.bias(rng, desc.bias_len(), fan_in);
            Parameter::new(format!("{name}.bias"), vec![desc.bias_len()], Kind::Bias, bias)
        });
        let thresholds = match clamp {
            Clamp::Linear | Clamp::Relu => None,
            Clamp::Trained(init) => {
                let value = init.sample(rng, desc.threshold_len(), fan_in, desc.out_channels() * taps);
                let shape = [&[desc.in_channels()], kernel].concat();
                let thresholds = Parameter::new(format!("{name}.thresholds"), shape, Kind::Threshold, value);
                Some(thresholds.in_layout(desc.layout(), 0))
            }
        };
        Ok(Self {
            name: name.to_owned(),
            plan: ConvRelu::with_isa(desc, isa)?,
            clamp,
            weight: weight.in_layout(desc.layout(), 1),
            bias,
            thresholds,
            peaks: Peaks::new(desc.in_channels()),
        })
    }

    /// Multiply-adds of the forward pass for one image, padded taps counted.
    pub fn macs(&self) -> usize {
        let desc = self.plan.desc();
        desc.output_size().iter().product::<usize>() * desc.weight_len()
    }

    fn input(&self) -> Shape {
        let desc = self.plan.desc();
        Shape { channels: desc.in_channels(), size: desc.input_size(), layout: desc.layout() }
    }

    /// A plan for the batch and threads of a pass; made anew only when one of them changes.
    fn plan(&mut self, context: &Context) -> Result<ConvRelu, Error> {
        if self.plan.desc().batch() != context.batch || self.plan.threads() != context.threads {
            let desc = self.plan.desc().with_batch(context.batch)?;
            self.plan = ConvRelu::with_isa(desc, self.plan.isa())?.with_threads(context.threads);
        }
        Ok(self.plan)
    }
}

/// What the kernels clamp with.
fn theta(clamp: Clamp, thresholds: Option<&Parameter>) -> Thresholds<'_> {
    match (clamp, thresholds) {
        (_, Some(thresholds)) => Thresholds::PerTap(&thresholds.value),
        (Clamp::Relu, None) => Thresholds::RELU,
        (_, None) => Thresholds::LINEAR,
    }
}

impl Layer for Conv {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Convolution
    }

    fn output(&self) -> Shape {
        let desc = self.plan.desc();
        Shape { channels: desc.out_channels(), size: desc.output_size(), layout: desc.layout() }
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let plan = self.plan(context)?;
        if context.mode == Mode::Evaluate && self.clamp != Clamp::Linear {
            self.peaks.record(context, self.input(), input);
        }
        let mut workspace = context.take(plan.workspace_len(Pass::Forward));
        let operands = Forward {
            input,
            weight: Weight::Plain(&self.weight.value),
            thresholds: theta(self.clamp, self.thresholds.as_ref()),
            bias: self.bias.as_ref().map(|bias| &bias.value[..]),
        };
        let result = plan.forward(operands, output, &mut workspace);
        context.give(workspace);
        result
    }

    fn backward(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let plan = self.plan(context)?;
        let passes = [Pass::BackwardWeight, Pass::BackwardInput].map(|pass| plan.workspace_len(pass));
        let mut workspace = context.take(passes[0].max(passes[1]));
        let theta = theta(self.clamp, self.thresholds.as_ref());
        let operands = BackwardWeight { input, thresholds: theta, grad_output, accumulation: Accumulation::Add };
        let grad_bias = self.bias.as_mut().map(|bias| &mut bias.grad[..]);
        let mut result = plan.backward_weight(operands, &mut self.weight.grad, grad_bias, &mut workspace);
        // One pass computes the gradients of the input and of the thresholds, which are wanted even if the input's is not.
        let unwanted = grad_input.is_none() && self.thresholds.is_some();
        let mut spare = context.take(if unwanted { input.len() } else { 0 });
        let grad_input = if unwanted { Some(&mut spare[..]) } else { grad_input };
        if let (Some(grad_input), Ok(())) = (grad_input, result) {
            // The pass has one mode for both results: the input's gradient is overwritten, so the thresholds' is too.
            let mut grad_thresholds = context.take(self.thresholds.as_ref().map_or(0, |theta| theta.grad.len()));
            let operands = BackwardInput {
                input,
                weight: Weight::Plain(&self.weight.value),
                thresholds: theta,
                grad_output,
                accumulation: Accumulation::Overwrite,
            };
            let grads = self.thresholds.is_some().then_some(&mut grad_thresholds[..]);
            result = plan.backward_input(operands, grad_input, grads, &mut workspace);
            if let Some(thresholds) = &mut self.thresholds {
                super::add(&grad_thresholds, &mut thresholds.grad);
            }
            context.give(grad_thresholds);
        }
        context.give(spare);
        context.give(workspace);
        result
    }

    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        [Some(&self.weight), self.bias.as_ref(), self.thresholds.as_ref()].into_iter().flatten().for_each(visit);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        [Some(&mut self.weight), self.bias.as_mut(), self.thresholds.as_mut()].into_iter().flatten().for_each(visit);
    }

    fn units(&self) -> Units {
        match (&self.clamp, &self.thresholds) {
            (Clamp::Relu, _) => Units { dead: self.peaks.dead(0.0), total: self.peaks.0.len() },
            (_, Some(thresholds)) => {
                let thetas = thresholds.canonical(&thresholds.value);
                let channels = thetas.chunks_exact(self.plan.desc().taps()).zip(&self.peaks.0);
                let dead = channels.map(|(thetas, peak)| thetas.iter().filter(|theta| peak <= theta).count());
                Units { dead: dead.sum(), total: thetas.len() }
            }
            _ => Units::default(),
        }
    }

    fn reset_units(&mut self) {
        self.peaks.reset();
    }
}
