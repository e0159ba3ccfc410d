//! Convolution and ConvReLU.

use rand::rngs::ChaCha8Rng;

use super::{Clamped, Layer, LayerKind, Operation, Peaks, Units};
use crate::desc::ConvDesc;
use crate::error::Error;
use crate::isa::Isa;
use crate::operands::{
    BackwardInput, BackwardWeight, Forward, Gradient, InputGradients, Pass, Thresholds, Weight, WeightGradients,
};
use crate::plan::ConvRelu;
use crate::train::context::{Context, Mode};
use crate::train::init::{ThresholdInit, WeightInit};
use crate::train::parameter::{Kind, Parameter};
use crate::train::shape::{Channels, Shape};

/// How a convolution clamps its input before it multiplies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clamp {
    /// Not at all (θ = −∞).
    Linear,
    /// ReLU (θ = 0, not trained). A layer of its own would cost another pass over the memory.
    Relu,
    /// ConvReLU: a trained threshold per input channel and tap (eq. 8).
    Trained(ThresholdInit),
}

/// A convolution of one to three dimensions, channels first or last. Its parameters are `weight` `[out, in, …]`, `bias` `[out]`
/// if it has one, and `thresholds` `[in, …]` for ConvReLU.
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
    /// A layer for images of the size and layout of `desc`. The batch of `desc` does not matter: every pass plans for its own
    /// batch.
    ///
    /// # Errors
    ///
    /// [`Error::IsaUnavailable`].
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

    /// A plan for the batch and threads of a pass and the place of its output. It is made again only if one of them has changed.
    fn plan(&mut self, context: &Context, at: Channels) -> Result<ConvRelu, Error> {
        let desc = self.plan.desc();
        let same = desc.batch() == context.batch && desc.output_pitch() == at.pitch;
        if !same || self.plan.threads() != context.threads() {
            let desc = desc.with_batch(context.batch)?.with_output_pitch(at.pitch)?;
            self.plan = ConvRelu::with_isa(desc, self.plan.isa())?.with_threads(context.threads());
        }
        Ok(self.plan)
    }
}

impl Clamp {
    /// The thresholds for the kernels, if none are trained.
    fn uniform(self) -> Thresholds<'static> {
        match self {
            Self::Relu => Thresholds::RELU,
            Self::Linear | Self::Trained(_) => Thresholds::LINEAR,
        }
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

    fn operation(&self) -> Operation<'_> {
        let clamped = match (&self.thresholds, self.clamp) {
            (Some(thresholds), _) => Clamped::Thresholds(thresholds),
            (None, Clamp::Relu) => Clamped::Relu,
            (None, Clamp::Linear | Clamp::Trained(_)) => Clamped::No,
        };
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        Operation::Convolution { desc: self.plan.desc(), clamped, weight, bias }
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let at = Channels::all(self.output(), context.batch);
        self.forward_into(context, input, output, at)
    }

    fn forward_into(
        &mut self,
        context: &mut Context,
        input: &[f32],
        output: &mut [f32],
        at: Channels,
    ) -> Result<(), Error> {
        let plan = self.plan(context, at)?;
        let output = output.get_mut(at.offset..).unwrap_or_default();
        if context.mode == Mode::Evaluate && self.clamp != Clamp::Linear {
            self.peaks.record(context, self.input(), input);
        }
        let mut workspace = context.take(plan.workspace_len(Pass::Forward));
        let thresholds = match &self.thresholds {
            Some(thresholds) => Thresholds::PerTap(&thresholds.value),
            None => self.clamp.uniform(),
        };
        let mut operands = Forward::new(input, Weight::Plain(&self.weight.value), thresholds);
        operands.bias = self.bias.as_ref().map(|bias| &bias.value[..]);
        let result = plan.forward(operands, output, &mut workspace, context.executor());
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
        let at = Channels::all(self.output(), context.batch);
        self.backward_from(context, input, grad_output, at, grad_input)
    }

    fn backward_from(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        at: Channels,
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let plan = self.plan(context, at)?;
        // An empty batch has no elements, so there is nothing to skip before the first channel.
        let grad_output = grad_output.get(at.offset..).unwrap_or_default();
        let passes = [Pass::BackwardWeight, Pass::BackwardInput].map(|pass| plan.workspace_len(pass));
        let mut workspace = context.take(passes[0].max(passes[1]));
        let Self { clamp, weight: Parameter { value: weight, grad: grad_weight, .. }, bias, thresholds, .. } = self;
        // A threshold that is not trained needs no gradient.
        let (thresholds, grad_thresholds) = match thresholds {
            Some(Parameter { value, grad, .. }) => (Thresholds::PerTap(value), Some(Gradient::add(grad))),
            None => (clamp.uniform(), None),
        };
        let operands = BackwardWeight::new(input, thresholds, grad_output);
        let grad_bias = bias.as_mut().map(|bias| Gradient::add(&mut bias.grad));
        let gradients = WeightGradients { grad_weight: Some(Gradient::add(grad_weight)), grad_bias };
        let mut result = plan.backward_weight(operands, gradients, &mut workspace, context.executor());
        if result.is_ok() && (grad_input.is_some() || grad_thresholds.is_some()) {
            let weight = Weight::Plain(weight);
            let operands = match clamp {
                Clamp::Linear => BackwardInput::linear(weight, grad_output),
                Clamp::Relu | Clamp::Trained(_) => BackwardInput::new(input, weight, thresholds, grad_output),
            };
            let gradients = InputGradients { grad_input: grad_input.map(Gradient::overwrite), grad_thresholds };
            result = plan.backward_input(operands, gradients, &mut workspace, context.executor());
        }
        context.give(workspace);
        result
    }

    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        [Some(&self.weight), self.bias.as_ref(), self.thresholds.as_ref()].into_iter().flatten().for_each(visit);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        [Some(&mut self.weight), self.bias.as_mut(), self.thresholds.as_mut()].into_iter().flatten().for_each(visit);
    }

    fn visit_units(&self, visit: &mut dyn FnMut(&str, Units)) {
        let units = match (&self.clamp, &self.thresholds) {
            (Clamp::Relu, _) => Units { dead: self.peaks.dead(0.0), total: self.peaks.0.len() },
            (_, Some(thresholds)) => {
                let thetas = thresholds.canonical(&thresholds.value);
                let channels = thetas.chunks_exact(self.plan.desc().taps()).zip(&self.peaks.0);
                let dead = channels.map(|(thetas, peak)| thetas.iter().filter(|theta| peak <= theta).count());
                Units { dead: dead.sum(), total: thetas.len() }
            }
            _ => return,
        };
        visit(&self.name, units);
    }

    fn reset_units(&mut self) {
        self.peaks.reset();
    }
}
