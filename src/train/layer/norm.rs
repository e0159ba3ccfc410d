//! Batch normalisation (Ioffe and Szegedy 2015).

use super::{Layer, LayerKind};
use crate::error::Error;
use crate::layout::Layout;
use crate::train::context::{Context, Mode};
use crate::train::parameter::{Kind, Parameter};
use crate::train::shape::{Runs, Shape};
use crate::train::threads::{Threads, for_each, share};
use crate::train::vectorized::{LANES, fold, vectorized};

/// Added to the variance, as in PyTorch.
const EPSILON: f32 = 1e-5;
/// Weight of the newest batch in the running statistics, as in PyTorch.
const MOMENTUM: f32 = 0.1;
/// Rows of a channels-last tensor that are summed by themselves: part of the result's bits.
const ROWS: usize = 1024;

/// `y = weight · (x − mean) / √(variance + 10⁻⁵) + bias` per channel, with the moments of the batch in training and running
/// ones in evaluation; parameters and buffers are named as in PyTorch.
#[derive(Debug)]
pub struct BatchNorm {
    name: String,
    shape: Shape,
    /// weight, bias, running mean, running variance.
    state: [Parameter; 4],
    /// Of the last training batch.
    moments: Moments,
}

/// Mean and (biased) variance of each channel over a batch.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    mean: Vec<f32>,
    variance: Vec<f32>,
}

/// Channels `first..first + channels` of a tensor, or all of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channels {
    runs: Runs,
    layout: Layout,
    /// Elements from one outer step to the next.
    pitch: usize,
    /// Elements before the first channel.
    offset: usize,
}

impl Channels {
    /// The last channels of a tensor of `total` that a batch of images of a shape takes.
    pub(super) fn last_of(total: usize, shape: Shape, batch: usize) -> Self {
        let runs = shape.runs(batch);
        let pitch = total * runs.inner;
        Self { runs, layout: shape.layout, pitch, offset: pitch - runs.step() }
    }

    fn all(shape: Shape, batch: usize) -> Self {
        Self::last_of(shape.channels, shape, batch)
    }

    /// Jobs for disjoint outer steps of a tensor: so many steps each.
    fn steps(&self, threads: Threads) -> usize {
        share(self.runs.outer, self.runs.step(), threads)
    }
}

impl Moments {
    /// Room for so many channels.
    pub(super) fn new(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], variance: vec![0.0; channels] }
    }

    /// Computes those of `at`, for the channels from `first` on. Every channel is summed in one order, whatever the number
    /// of threads.
    pub(super) fn compute(&mut self, context: &mut Context, x: &[f32], at: Channels, first: usize) {
        let range = first..first + at.runs.channels;
        let sums = [&mut self.mean[range.clone()], &mut self.variance[range]];
        reduce(context, at, [x, x], Sums::Moments, sums);
    }
}

/// What [`reduce`] sums per channel.
#[derive(Clone, Copy)]
enum Sums<'a> {
    /// Mean and variance.
    Moments,
    /// Σ g and Σ g · (x − mean).
    Gradients(&'a [f32]),
}

/// Two sums per channel over a tensor `x` and, for gradients, `g`, which is dense.
fn reduce(context: &mut Context, at: Channels, [x, g]: [&[f32]; 2], sums: Sums<'_>, [one, two]: [&mut [f32]; 2]) {
    let Channels { runs: Runs { outer, channels, inner }, pitch, offset, layout } = at;
    let threads = context.threads;
    let count = outer * inner;
    // A value of the channel: differences from it keep small variances beside large means.
    let mut first = context.take(channels);
    let centre = match sums {
        Sums::Moments => {
            first.iter_mut().enumerate().for_each(|(c, first)| *first = x[offset + c * inner]);
            &first
        }
        Sums::Gradients(mean) => mean,
    };
    let mut totals = std::mem::take(&mut context.totals);
    totals.clear();
    totals.resize(channels, [0.0; 2]);
    match layout {
        Layout::Nchw => {
            let chunk = share(channels, count, threads);
            for_each(threads, totals.chunks_mut(chunk).enumerate(), |(job, totals)| {
                let base = job * chunk;
                for n in 0..outer {
                    for (c, total) in (base..).zip(totals.iter_mut()) {
                        let x = &x[n * pitch + offset + c * inner..][..inner];
                        let part = match sums {
                            Sums::Moments => plane_moments(x, centre[c]),
                            Sums::Gradients(_) => {
                                plane_products(x, &g[(n * channels + c) * inner..][..inner], centre[c])
                            }
                        };
                        total[0] += f64::from(part[0]);
                        total[1] += f64::from(part[1]);
                    }
                }
            });
        }
        Layout::Nhwc => {
            // [block][sum][channel]
            let mut parts = context.take(outer.div_ceil(ROWS) * 2 * channels);
            for_each(threads, parts.chunks_mut(2 * channels).enumerate(), |(block, part)| {
                let rows = block * ROWS..((block + 1) * ROWS).min(outer);
                let x = &x[rows.start * pitch..];
                part.fill(0.0);
                match sums {
                    Sums::Moments => rows_moments(x, pitch, offset, rows.len(), centre, part),
                    Sums::Gradients(_) => {
                        rows_products(x, pitch, offset, &g[rows.start * channels..rows.end * channels], centre, part);
                    }
                }
            });
            for part in parts.chunks_exact(2 * channels) {
                for (c, total) in totals.iter_mut().enumerate() {
                    total[0] += f64::from(part[c]);
                    total[1] += f64::from(part[channels + c]);
                }
            }
            context.give(parts);
        }
    }
    for (c, &[sum, second]) in totals.iter().enumerate() {
        let mean = sum / count as f64;
        [one[c], two[c]] = match sums {
            Sums::Moments => {
                [(f64::from(centre[c]) + mean) as f32, (second / count as f64 - mean * mean).max(0.0) as f32]
            }
            Sums::Gradients(_) => [sum as f32, second as f32],
        };
    }
    context.totals = totals;
    context.give(first);
}

vectorized! {
    /// Σ (x − centre), Σ (x − centre)².
    fn plane_moments<'a>(x: &'a [f32], centre: f32) -> [f32; 2] {
        let [mut sums, mut squares] = [[0.0f32; LANES]; 2];
        let (whole, rest) = x.as_chunks::<LANES>();
        for x in whole {
            for i in 0..LANES {
                let d = x[i] - centre;
                sums[i] += d;
                squares[i] += d * d;
            }
        }
        for (i, x) in rest.iter().enumerate() {
            let d = x - centre;
            sums[i] += d;
            squares[i] += d * d;
        }
        [fold(sums), fold(squares)]
    }

    /// Σ g, Σ g · (x − centre).
    fn plane_products<'a>(x: &'a [f32], g: &'a [f32], centre: f32) -> [f32; 2] {
        let [mut sums, mut products] = [[0.0f32; LANES]; 2];
        let ((whole_x, rest_x), (whole_g, rest_g)) = (x.as_chunks::<LANES>(), g.as_chunks::<LANES>());
        for (x, g) in whole_x.iter().zip(whole_g) {
            for i in 0..LANES {
                sums[i] += g[i];
                products[i] += g[i] * (x[i] - centre);
            }
        }
        for (i, (x, g)) in rest_x.iter().zip(rest_g).enumerate() {
            sums[i] += g;
            products[i] += g * (x - centre);
        }
        [fold(sums), fold(products)]
    }

    /// The sums of [`plane_moments`] for every channel of rows that hold all channels.
    fn rows_moments<'a>(x: &'a [f32], pitch: usize, offset: usize, rows: usize, centre: &'a [f32], sums: &'a mut [f32]) {
        let (sums, squares) = sums.split_at_mut(centre.len());
        for row in x.chunks(pitch).take(rows) {
            let row = &row[offset..][..centre.len()];
            for (((x, centre), sum), square) in row.iter().zip(centre).zip(&mut *sums).zip(&mut *squares) {
                let d = x - centre;
                *sum += d;
                *square += d * d;
            }
        }
    }

    /// The sums of [`plane_products`] for every channel of rows that hold all channels.
    fn rows_products<'a>(x: &'a [f32], pitch: usize, offset: usize, g: &'a [f32], centre: &'a [f32], sums: &'a mut [f32]) {
        let (sums, products) = sums.split_at_mut(centre.len());
        for (row, g) in x.chunks(pitch).zip(g.chunks_exact(centre.len())) {
            let row = &row[offset..][..centre.len()];
            for ((((x, g), centre), sum), product) in row.iter().zip(g).zip(centre).zip(&mut *sums).zip(&mut *products) {
                *sum += g;
                *product += g * (x - centre);
            }
        }
    }

    /// `y = a · x + b` per channel, over outer steps; `y` is dense.
    fn scale<'a>(x: &'a [f32], at: Channels, a: &'a [f32], b: &'a [f32], y: &'a mut [f32]) {
        let step = at.runs.step();
        for (x, y) in x.chunks(at.pitch).zip(y.chunks_exact_mut(step)) {
            let x = &x[at.offset..][..step];
            if at.runs.inner == 1 {
                for (((x, y), a), b) in x.iter().zip(y).zip(a).zip(b) {
                    *y = x * a + b;
                }
            } else {
                let planes = x.chunks_exact(at.runs.inner).zip(y.chunks_exact_mut(at.runs.inner));
                for ((x, y), (a, b)) in planes.zip(a.iter().zip(b)) {
                    for (x, y) in x.iter().zip(y) {
                        *y = x * a + b;
                    }
                }
            }
        }
    }

    /// `dx = a · g + b · x + c` per channel, over outer steps, or added to `dx`; `g` is dense, `dx` lies as `x`.
    fn combine<'a>(x: &'a [f32], g: &'a [f32], at: Channels, factors: [&'a [f32]; 3], add: bool, dx: &'a mut [f32]) {
        let [a, b, c] = factors;
        let (step, inner) = (at.runs.step(), at.runs.inner);
        for ((x, g), dx) in x.chunks(at.pitch).zip(g.chunks_exact(step)).zip(dx.chunks_mut(at.pitch)) {
            let (x, dx) = (&x[at.offset..][..step], &mut dx[at.offset..][..step]);
            if inner == 1 {
                for (((((x, g), dx), a), b), c) in x.iter().zip(g).zip(dx).zip(a).zip(b).zip(c) {
                    *dx = if add { *dx } else { 0.0 } + (a * g + b * x + c);
                }
            } else {
                let planes = x.chunks_exact(inner).zip(g.chunks_exact(inner)).zip(dx.chunks_exact_mut(inner));
                for ((((x, g), dx), a), (b, c)) in planes.zip(a).zip(b.iter().zip(c)) {
                    for ((x, g), dx) in x.iter().zip(g).zip(dx) {
                        *dx = if add { *dx } else { 0.0 } + (a * g + b * x + c);
                    }
                }
            }
        }
    }
}

impl BatchNorm {
    /// A layer with weights of one and biases of zero.
    pub fn new(name: &str, shape: Shape) -> Self {
        let tensor = |tensor: &str, kind, value: f32| {
            Parameter::new(format!("{name}.{tensor}"), vec![shape.channels], kind, vec![value; shape.channels])
        };
        let state = [
            tensor("weight", Kind::Norm, 1.0),
            tensor("bias", Kind::Bias, 0.0),
            tensor("running_mean", Kind::Buffer, 0.0),
            tensor("running_var", Kind::Buffer, 1.0),
        ];
        Self { name: name.to_owned(), shape, state, moments: Moments::new(shape.channels) }
    }

    /// Shape of its input and output.
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Forward over the channels of `x` that `at` names, into a dense `y`; in training with the moments of the batch, whose
    /// last channels are these.
    pub(super) fn normalize(
        &mut self,
        context: &mut Context,
        x: &[f32],
        at: Channels,
        moments: Option<&Moments>,
        y: &mut [f32],
    ) {
        let count = at.runs.outer * at.runs.inner;
        let channels = self.shape.channels;
        let [weight, bias, running_mean, running_variance] = &mut self.state;
        if let Some(Moments { mean, variance }) = moments {
            let first = mean.len() - channels;
            self.moments.mean.copy_from_slice(&mean[first..]);
            self.moments.variance.copy_from_slice(&variance[first..]);
        }
        if context.mode == Mode::Train {
            // The running variance is that of the population, estimated from the sample.
            let unbiased = count as f32 / (count.max(2) - 1) as f32;
            let running = running_mean.value.iter_mut().zip(&mut running_variance.value);
            for ((mean, variance), (&m, &v)) in running.zip(self.moments.mean.iter().zip(&self.moments.variance)) {
                *mean += MOMENTUM * (m - *mean);
                *variance += MOMENTUM * (v * unbiased - *variance);
            }
        }
        let (mean, variance) = match context.mode {
            Mode::Train => (&self.moments.mean, &self.moments.variance),
            Mode::Evaluate => (&running_mean.value, &running_variance.value),
        };
        let [mut a, mut b] = [(); 2].map(|()| context.take(channels));
        for c in 0..channels {
            a[c] = weight.value[c] * inverse_deviation(variance[c]);
            b[c] = bias.value[c] - mean[c] * a[c];
        }
        let steps = at.steps(context.threads);
        let jobs = y.chunks_mut(steps * at.runs.step()).zip(x.chunks(steps * at.pitch));
        for_each(context.threads, jobs, |(y, x)| scale(x, at, &a, &b, y));
        [a, b].into_iter().for_each(|buffer| context.give(buffer));
    }

    /// Backward over the channels of `x` that `at` names: writes or adds to the same channels of `dx`.
    pub(super) fn differentiate(
        &mut self,
        context: &mut Context,
        x: &[f32],
        at: Channels,
        g: &[f32],
        dx: Option<&mut [f32]>,
        add: bool,
    ) {
        let count = (at.runs.outer * at.runs.inner) as f32;
        let channels = self.shape.channels;
        let Moments { mean, variance } = &self.moments;
        let [mut sums, mut products, mut a, mut b, mut c] = [(); 5].map(|()| context.take(channels));
        reduce(context, at, [x, g], Sums::Gradients(mean), [&mut sums, &mut products]);
        let [weight, bias, ..] = &mut self.state;
        for i in 0..channels {
            let inverse = inverse_deviation(variance[i]);
            bias.grad[i] += sums[i];
            weight.grad[i] += products[i] * inverse;
            a[i] = weight.value[i] * inverse;
            b[i] = -a[i] * inverse * inverse * products[i] / count;
            c[i] = -a[i] * sums[i] / count - b[i] * mean[i];
        }
        if let Some(dx) = dx {
            let steps = at.steps(context.threads);
            let jobs = dx.chunks_mut(steps * at.pitch).zip(x.chunks(steps * at.pitch));
            for_each(context.threads, jobs.zip(g.chunks(steps * at.runs.step())), |((dx, x), g)| {
                combine(x, g, at, [&a, &b, &c], add, dx);
            });
        }
        [sums, products, a, b, c].into_iter().for_each(|buffer| context.give(buffer));
    }
}

fn inverse_deviation(variance: f32) -> f32 {
    1.0 / libm::sqrtf(variance + EPSILON)
}

impl Layer for BatchNorm {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> LayerKind {
        LayerKind::Normalization
    }

    fn output(&self) -> Shape {
        self.shape
    }

    fn forward(&mut self, context: &mut Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let at = Channels::all(self.shape, context.batch);
        if context.mode == Mode::Train {
            self.moments.compute(context, input, at, 0);
        }
        self.normalize(context, input, at, None, output);
        Ok(())
    }

    fn backward(
        &mut self,
        context: &mut Context,
        input: &[f32],
        grad_output: &[f32],
        grad_input: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        let at = Channels::all(self.shape, context.batch);
        self.differentiate(context, input, at, grad_output, grad_input, false);
        Ok(())
    }

    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        self.state.iter().for_each(visit);
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        self.state.iter_mut().for_each(visit);
    }
}
