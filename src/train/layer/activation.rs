//! Activations as layers of their own: the paper's AdaReLU (eq. 4 to 6) and the activations that it is compared with.

use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Layer, LayerKind, Operation, Peaks, Units};
use crate::adarelu;
use crate::error::Error;
use crate::layout::Layout;
use crate::train::context::{Context, Mode, grown};
use crate::train::init::ThresholdInit;
use crate::train::parameter::{Kind, Parameter};
use crate::train::shape::{Runs, Shape};
use crate::train::threads::{for_each, share};
use crate::train::vectorized::{LANES, fold, vectorized};

/// Which elements of an image share a parameter of an activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// All elements of an image, as the paper counts PReLU.
    #[default]
    Layer,
    /// The elements of a channel.
    Channel,
    /// No two elements: each has its own parameter.
    Element,
}

/// A function of one element at a time. It may have trained parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pointwise {
    /// `x` where `x > 0`, else 0.
    Relu,
    /// `x` where `x > 0`, else `x` times this slope (0.01 in the paper).
    LeakyRelu(f32),
    /// Leaky ReLU with trained slopes, which begin at 0.25 (He et al. 2015).
    PRelu {
        /// Which elements share a slope. In the literature, those of a layer or of a channel do.
        sharing: Sharing,
    },
    /// `x` where `x > 0`, else `α · (eˣ − 1)` with this α (Clevert et al. 2016; 1 in the paper).
    Elu(f32),
    /// Scaled ELU, whose constants keep mean 0 and variance 1 (Klambauer et al. 2017).
    Selu,
    /// `x` where `x > θ`, else θ, with trained thresholds (eq. 4).
    AdaRelu {
        /// Which elements share a threshold.
        sharing: Sharing,
        /// Initial thresholds. [`Glorot`](ThresholdInit::Glorot) counts the channels as inputs and as outputs.
        init: ThresholdInit,
    },
}

/// Initial slope of PReLU, as in PyTorch.
const SLOPE: f32 = 0.25;
/// SELU's scale and α.
pub(in crate::train) const SELU: [f32; 2] = [1.050_701, 1.673_263_2];
/// Elements over which one job sums a parameter's gradient. It changes the bits of the result, so it does not depend on the
/// number of threads or on the batch.
const BLOCK: usize = 1 << 16;
/// The least images of such a block if every element has its own parameter. The sums of all blocks then stay small beside the
/// tensor.
const IMAGES: usize = 8;

/// A [`Pointwise`] function as a layer. PReLU's slopes are the parameter `weight`, and AdaReLU's thresholds are `thresholds`.
/// Their shape is `[1]` for a layer, `[channels]` for channels, and `[channels, …]` for elements.
#[derive(Debug)]
pub struct Activate {
    name: String,
    shape: Shape,
    pointwise: Pointwise,
    sharing: Sharing,
    parameter: Option<Parameter>,
    /// Derivatives of the last training batch, of those functions for which they cost an exponential.
    derivatives: Vec<f32>,
    peaks: Peaks,
}

impl Activate {
    /// A layer for images of a given shape.
    pub fn new(name: &str, shape: Shape, pointwise: Pointwise, rng: &mut ChaCha8Rng) -> Self {
        let parameter = |tensor: &str, kind, sharing, value: &mut dyn FnMut(usize) -> Vec<f32>| {
            let axes = match sharing {
                Sharing::Layer => vec![1],
                Sharing::Channel => vec![shape.channels],
                Sharing::Element => {
                    [shape.channels].into_iter().chain(shape.size.into_iter().filter(|&extent| extent > 1)).collect()
                }
            };
            let value = value(axes.iter().product());
            let parameter = Parameter::new(format!("{name}.{tensor}"), axes, kind, value);
            if sharing == Sharing::Element { parameter.in_layout(shape.layout, 0) } else { parameter }
        };
        let (sharing, parameter) = match pointwise {
            Pointwise::PRelu { sharing } => {
                (sharing, Some(parameter("weight", Kind::Slope, sharing, &mut |len| vec![SLOPE; len])))
            }
            Pointwise::AdaRelu { sharing, init } => {
                let mut draw = |len| init.sample(rng, len, shape.channels, shape.channels);
                (sharing, Some(parameter("thresholds", Kind::Threshold, sharing, &mut draw)))
            }
            _ => (Sharing::Layer, None),
        };
        let mut layer = Self {
            name: name.to_owned(),
            shape,
            pointwise,
            sharing,
            parameter,
            derivatives: Vec::new(),
            peaks: Peaks::new(0),
        };
        layer.peaks = Peaks::new(layer.units_shape().channels);
        layer
    }

    /// The batch as runs that share a parameter.
    fn runs(&self, batch: usize) -> Runs {
        let len = self.shape.len();
        match self.sharing {
            Sharing::Layer => Runs { outer: batch, channels: 1, inner: len },
            Sharing::Channel => self.shape.runs(batch),
            Sharing::Element => Runs { outer: batch, channels: len, inner: 1 },
        }
    }

    /// A unit is a channel, or an element if each has its own parameter: then elements count as channels.
    fn units_shape(&self) -> Shape {
        match self.sharing {
            Sharing::Layer | Sharing::Channel => self.shape,
            Sharing::Element => Shape { channels: self.shape.len(), size: [1; 3], layout: Layout::Nhwc },
        }
    }

    /// The function with the parameters that it has now.
    fn function(&self) -> Function<'_> {
        let trained = self.parameter.as_ref().map_or(&[][..], |parameter| &parameter.value);
        match &self.pointwise {
            Pointwise::Relu => Function::Clamp(&[0.0]),
            Pointwise::LeakyRelu(slope) => Function::Leak(std::slice::from_ref(slope)),
            Pointwise::PRelu { .. } => Function::Leak(trained),
            Pointwise::Elu(alpha) => Function::Exponential([1.0, *alpha]),
            Pointwise::Selu => Function::Exponential(SELU),
            Pointwise::AdaRelu { .. } => Function::Clamp(trained),
        }
    }
}

/// The computation of a [`Pointwise`] function. Its parameters repeat over the tensor, and each covers a run.
#[derive(Clone, Copy)]
enum Function<'a> {
    /// Thresholds.
    Clamp(&'a [f32]),
    /// Slopes below 0.
    Leak(&'a [f32]),
    /// Scale and α.
    Exponential([f32; 2]),
}

/// `y = f(x, parameter)` for whole steps of runs.
#[inline(always)]
fn map(x: &[f32], parameters: &[f32], inner: usize, y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Copy) {
    if inner == 1 {
        let step = parameters.len();
        for (x, y) in x.chunks_exact(step).zip(y.chunks_exact_mut(step)) {
            for ((x, y), p) in x.iter().zip(y).zip(parameters) {
                *y = f(*x, *p);
            }
        }
    } else {
        let runs = x.chunks_exact(inner).zip(y.chunks_exact_mut(inner));
        for ((x, y), &p) in runs.zip(parameters.iter().cycle()) {
            for (x, y) in x.iter().zip(y) {
                *y = f(*x, p);
            }
        }
    }
}

/// `dx = f(x, g, parameter)` for whole steps of runs.
#[inline(always)]
fn map_back(
    [x, g]: [&[f32]; 2],
    parameters: &[f32],
    inner: usize,
    dx: &mut [f32],
    f: impl Fn(f32, f32, f32) -> f32 + Copy,
) {
    if inner == 1 {
        let step = parameters.len();
        for ((x, g), dx) in x.chunks_exact(step).zip(g.chunks_exact(step)).zip(dx.chunks_exact_mut(step)) {
            for (((x, g), dx), p) in x.iter().zip(g).zip(dx).zip(parameters) {
                *dx = f(*x, *g, *p);
            }
        }
    } else {
        let runs = x.chunks_exact(inner).zip(g.chunks_exact(inner)).zip(dx.chunks_exact_mut(inner));
        for (((x, g), dx), &p) in runs.zip(parameters.iter().cycle()) {
            for ((x, g), dx) in x.iter().zip(g).zip(dx) {
                *dx = f(*x, *g, p);
            }
        }
    }
}

/// `sum += f(x, g, parameter)` over each parameter's runs, for whole steps of runs.
#[inline(always)]
fn sum_back(
    [x, g]: [&[f32]; 2],
    parameters: &[f32],
    inner: usize,
    sums: &mut [f32],
    f: impl Fn(f32, f32, f32) -> f32 + Copy,
) {
    let step = parameters.len() * inner;
    for (x, g) in x.chunks_exact(step).zip(g.chunks_exact(step)) {
        if inner == 1 {
            for (((x, g), p), sum) in x.iter().zip(g).zip(parameters).zip(&mut *sums) {
                *sum += f(*x, *g, *p);
            }
            continue;
        }
        let runs = x.chunks_exact(inner).zip(g.chunks_exact(inner));
        for (((x, g), &p), sum) in runs.zip(parameters).zip(&mut *sums) {
            let mut lanes = [0.0f32; LANES];
            let ((whole_x, rest_x), (whole_g, rest_g)) = (x.as_chunks::<LANES>(), g.as_chunks::<LANES>());
            for (x, g) in whole_x.iter().zip(whole_g) {
                for i in 0..LANES {
                    lanes[i] += f(x[i], g[i], p);
                }
            }
            for ((lane, x), g) in lanes.iter_mut().zip(rest_x).zip(rest_g) {
                *lane += f(*x, *g, p);
            }
            *sum += fold(lanes);
        }
    }
}

vectorized! {
    /// eq. 4. A NaN stays NaN.
    fn clamp<'a>(x: &'a [f32], thresholds: &'a [f32], inner: usize, y: &'a mut [f32]) {
        map(x, thresholds, inner, y, |x, theta| if x <= theta { theta } else { x });
    }

    /// eq. 5.
    fn clamp_back<'a>(x: &'a [f32], g: &'a [f32], thresholds: &'a [f32], inner: usize, dx: &'a mut [f32]) {
        map_back([x, g], thresholds, inner, dx, |x, g, theta| if x > theta { g } else { 0.0 });
    }

    /// eq. 6.
    fn clamp_sums<'a>(x: &'a [f32], g: &'a [f32], thresholds: &'a [f32], inner: usize, sums: &'a mut [f32]) {
        sum_back([x, g], thresholds, inner, sums, |x, g, theta| if x <= theta { g } else { 0.0 });
    }

    fn leak<'a>(x: &'a [f32], slopes: &'a [f32], inner: usize, y: &'a mut [f32]) {
        map(x, slopes, inner, y, |x, slope| if x > 0.0 { x } else { slope * x });
    }

    fn leak_back<'a>(x: &'a [f32], g: &'a [f32], slopes: &'a [f32], inner: usize, dx: &'a mut [f32]) {
        map_back([x, g], slopes, inner, dx, |x, g, slope| if x > 0.0 { g } else { slope * g });
    }

    fn leak_sums<'a>(x: &'a [f32], g: &'a [f32], slopes: &'a [f32], inner: usize, sums: &'a mut [f32]) {
        sum_back([x, g], slopes, inner, sums, |x, g, _| if x > 0.0 { 0.0 } else { x * g });
    }

    fn multiply<'a>(a: &'a [f32], b: &'a [f32], y: &'a mut [f32]) {
        for ((a, b), y) in a.iter().zip(b).zip(y) {
            *y = a * b;
        }
    }

    /// `total += Σ part` over parts as long as `total`, from `first` on in each.
    fn gather<'a>(parts: &'a [f32], pitch: usize, first: usize, total: &'a mut [f32]) {
        const WIDTH: usize = 64;
        for (chunk, total) in total.chunks_mut(WIDTH).enumerate() {
            let mut sums = [0.0f64; WIDTH];
            for part in parts.chunks_exact(pitch) {
                for (sum, part) in sums.iter_mut().zip(&part[first + chunk * WIDTH..][..total.len()]) {
                    *sum += f64::from(*part);
                }
            }
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += sum as f32;
            }
        }
    }
}

/// ELU and its derivative, which is `α · eˣ` below 0. Not a vector loop, because `libm` is not made of plain arithmetic.
fn exponential(x: &[f32], [scale, alpha]: [f32; 2], y: &mut [f32], derivatives: Option<&mut [f32]>) {
    let f = |x: f32| if x > 0.0 { x } else { alpha * libm::expm1f(x) };
    match derivatives {
        None => y.iter_mut().zip(x).for_each(|(y, &x)| *y = scale * f(x)),
        Some(derivatives) => {
            for ((y, d), &x) in y.iter_mut().zip(derivatives).zip(x) {
                let value = f(x);
                *y = scale * value;
                *d = scale * if x > 0.0 { 1.0 } else { value + alpha };
            }
        }
    }
}

impl Layer for Activate {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Activation
    }

    fn output(&self) -> Shape {
        self.shape
    }

    fn operation(&self) -> Operation<'_> {
        Operation::Activation(self.pointwise, self.parameter.as_ref())
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let threads = context.threads;
        if context.mode == Mode::Evaluate {
            let shape = self.units_shape();
            self.peaks.record(context, shape, input);
        }
        let runs = self.runs(context.batch);
        let len = share(runs.outer, runs.step(), threads) * runs.step();
        let mut derivatives = std::mem::take(&mut self.derivatives);
        match self.function() {
            Function::Clamp(thresholds) => {
                adarelu::check(input.len(), thresholds, runs.inner)?;
                let jobs = input.chunks(len).zip(output.chunks_mut(len));
                for_each(threads, jobs, |(x, y)| clamp(x, thresholds, runs.inner, y));
            }
            Function::Leak(slopes) => {
                let jobs = input.chunks(len).zip(output.chunks_mut(len));
                for_each(threads, jobs, |(x, y)| leak(x, slopes, runs.inner, y));
            }
            Function::Exponential(constants) => {
                let jobs = input.chunks(len).zip(output.chunks_mut(len));
                if context.mode == Mode::Train {
                    let derivatives = grown(&mut derivatives, input.len());
                    let jobs = jobs.zip(derivatives.chunks_mut(len));
                    for_each(threads, jobs, |((x, y), d)| exponential(x, constants, y, Some(d)));
                } else {
                    for_each(threads, jobs, |(x, y)| exponential(x, constants, y, None));
                }
            }
        }
        self.derivatives = derivatives;
        Ok(())
    }

    fn backward(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let threads = context.threads;
        let runs = self.runs(context.batch);
        let step = runs.step();
        if let Some(grad_input) = grad_input {
            let len = share(runs.outer, step, threads) * step;
            let jobs = input.chunks(len).zip(grad_output.chunks(len)).zip(grad_input.chunks_mut(len));
            match self.function() {
                Function::Clamp(thresholds) => {
                    for_each(threads, jobs, |((x, g), dx)| clamp_back(x, g, thresholds, runs.inner, dx));
                }
                Function::Leak(slopes) => {
                    for_each(threads, jobs, |((x, g), dx)| leak_back(x, g, slopes, runs.inner, dx));
                }
                Function::Exponential(_) => {
                    let jobs = jobs.zip(self.derivatives.chunks(len));
                    for_each(threads, jobs, |(((_, g), dx), d)| multiply(g, d, dx));
                }
            }
        }
        if let Some(count) = self.parameter.as_ref().map(|parameter| parameter.value.len()) {
            let least = if self.sharing == Sharing::Element { IMAGES } else { 1 };
            let steps = (BLOCK / step.max(1)).max(least);
            let mut parts = context.take(runs.outer.div_ceil(steps) * count);
            parts.fill(0.0);
            let function = self.function();
            let jobs = input.chunks(steps * step).zip(grad_output.chunks(steps * step)).zip(parts.chunks_mut(count));
            for_each(threads, jobs, |((x, g), sums)| match function {
                Function::Clamp(thresholds) => clamp_sums(x, g, thresholds, runs.inner, sums),
                Function::Leak(slopes) => leak_sums(x, g, slopes, runs.inner, sums),
                Function::Exponential(_) => {}
            });
            if let Some(parameter) = &mut self.parameter {
                let len = share(count, runs.outer.div_ceil(steps), threads);
                for_each(threads, parameter.grad.chunks_mut(len).enumerate(), |(job, total)| {
                    gather(&parts, count, job * len, total);
                });
            }
            context.give(parts);
        }
        Ok(())
    }

    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        self.parameter.iter().for_each(visit);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        self.parameter.iter_mut().for_each(visit);
    }

    fn visit_units(&self, visit: &mut dyn FnMut(&str, Units)) {
        let peaks = &self.peaks.0;
        let dead = match (self.function(), self.pointwise) {
            (Function::Clamp(thresholds), Pointwise::AdaRelu { .. }) => {
                peaks.iter().zip(thresholds.iter().cycle()).filter(|(peak, theta)| peak <= theta).count()
            }
            _ => self.peaks.dead(0.0),
        };
        visit(&self.name, Units { dead, total: peaks.len() });
    }

    fn reset_units(&mut self) {
        self.peaks.reset();
    }
}
